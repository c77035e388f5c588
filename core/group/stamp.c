/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/stamp.h"

#include <errno.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/hash64.h"
#include "core/base/macros.h"

#define BUF_BYTES (2 * STAMP_EDGE_BYTES + STAMP_PLACES * STAMP_PLACE_BYTES)

static void next_volume(struct stamp *stamp);

static void finished(struct io_op *op, int64_t res)
{
	struct stamp *stamp = container_of(op, struct stamp, done_op);
	struct io_op *user = stamp->user;

	if (stamp->buf)
		io_free(stamp->volumes->io, stamp->buf);
	stamp->buf = NULL;
	stamp->user = NULL;
	user->done(user, res);
}

static void finish(struct stamp *stamp, int res)
{
	stamp->done_op.done = finished;
	io_defer(stamp->volumes->io, &stamp->done_op, res);
}

static void read_done(struct io_op *op, int64_t res)
{
	struct stamp *stamp = container_of(op, struct stamp_read, op)->stamp;
	struct volume *volume = &stamp->volumes->list[stamp->at];
	struct io_file_info info;
	uint64_t sample;

	if (res < 0 && stamp->res == 0)
		stamp->res = (int)res;
	if (--stamp->left > 0)
		return;
	if (stamp->res < 0) {
		finish(stamp, stamp->res);
		return;
	}
	io_file_info(volume->file, &info);
	sample = hash64(0, stamp->buf, BUF_BYTES);
	stamp->out[stamp->at] = (struct superblock_stamp){
		.mtime_ns = info.mtime_ns, .sample = sample ? sample : 1, /* 0 is not known */
	};
	stamp->at++;
	next_volume(stamp);
}

static uint8_t *read_at(struct stamp *stamp, uint8_t *to, uint64_t off, uint64_t len)
{
	const struct volume *volume = &stamp->volumes->list[stamp->at];
	struct stamp_read *read = &stamp->reads[stamp->left++];

	read->stamp = stamp;
	read->op.done = read_done;
	io_read(volume->file, to, len, off, &read->op);
	return to + len;
}

/* Offsets and lengths are multiples of a block, as direct I/O wants it. */
static void next_volume(struct stamp *stamp)
{
	const struct volume *volume;
	uint64_t size, edge;
	uint8_t *to = stamp->buf;

	if (stamp->at == stamp->volumes->count) {
		finish(stamp, 0);
		return;
	}
	volume = &stamp->volumes->list[stamp->at];
	size = round_down(volume->id.size_bytes, max_u32(volume->info.block_bytes, 512));
	edge = min_u64(size, STAMP_EDGE_BYTES);
	memset(stamp->buf, 0, BUF_BYTES);
	stamp->left = 0;
	if (size == 0) {
		stamp->left = 1;
		read_done(&stamp->reads[0].op, 0);
		return;
	}
	to = read_at(stamp, to, 0, edge);
	if (size <= STAMP_EDGE_BYTES)
		return;
	to = read_at(stamp, to, round_down(size - edge, 4096), edge);
	for (unsigned i = 0; i < STAMP_PLACES; i++)
		to = read_at(stamp, to,
			     round_down((size - STAMP_PLACE_BYTES) / STAMP_PLACES * i, 4096),
			     STAMP_PLACE_BYTES);
}

void stamp_take(struct stamp *stamp, struct volumes *volumes, struct superblock_stamp *ret_stamps,
		struct io_op *op)
{
	must(!stamp->user);
	*stamp = (struct stamp){ .volumes = volumes, .out = ret_stamps, .user = op };
	stamp->reads[0].stamp = stamp;
	stamp->buf = io_alloc(volumes->io, BUF_BYTES, 4096);
	if (stamp->buf)
		next_volume(stamp);
	else
		finish(stamp, -ENOMEM);
}

bool stamp_same(const struct superblock_stamp *before, const struct superblock_stamp *now)
{
	if (!before->mtime_ns && !before->sample)
		return true;
	return before->mtime_ns == now->mtime_ns && before->sample == now->sample;
}
