/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discard, write-zeroes and the map of holes.
 *
 * fallocate(2) serves files and block devices alike: on a device PUNCH_HOLE unmaps only where the
 * device promises zeroes afterwards, and ZERO_RANGE zeroes without unmapping. What neither can do
 * is done by writing zero bytes through the ring.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum space_step {
	SPACE_PUNCH,
	SPACE_ZERO_RANGE,
	SPACE_WRITE,
	SPACE_SYNC,
};

static void space_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct file_req *fr = container_of(req, struct file_req, req);
	struct uring *loop = file_loop(fr->file);
	uint64_t off = fr->off + fr->done;
	uint64_t len = fr->total - fr->done;

	switch ((enum space_step)fr->step) {
	case SPACE_PUNCH:
		io_uring_prep_fallocate(sqe, fr->file->fd,
					FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
					(off_t)len);
		break;
	case SPACE_ZERO_RANGE:
		io_uring_prep_fallocate(sqe, fr->file->fd,
					FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)off,
					(off_t)len);
		break;
	case SPACE_WRITE:
		io_uring_prep_write(sqe, fr->file->fd, loop->zeroes,
				    (unsigned)min_u64(len, ZEROES_BYTES), off);
		break;
	case SPACE_SYNC:
		io_uring_prep_fsync(sqe, fr->file->fd, IORING_FSYNC_DATASYNC);
		break;
	}
	file_req_target(fr, sqe);
}

static void space_next(struct file_req *fr, enum space_step step)
{
	fr->step = step;
	fr->attempts = 0;
	loop_queue(file_loop(fr->file), &fr->req);
}

static void space_zeroed(struct file_req *fr)
{
	if (fr->flags & IO_DSYNC)
		space_next(fr, SPACE_SYNC);
	else
		file_req_finish(fr, 0);
}

/* The file system or device cannot do it in this way: the next one. */
static void space_refused(struct file_req *fr)
{
	struct uring *loop = file_loop(fr->file);

	if (fr->step == SPACE_PUNCH && !((fr->flags & IO_FAST) && !fr->file->fast_zeroes)) {
		space_next(fr, SPACE_ZERO_RANGE);
		return;
	}
	if (fr->flags & IO_FAST) {
		file_req_finish(fr, -EOPNOTSUPP);
		return;
	}
	if (!loop->zeroes) {
		void *zeroes;

		if (posix_memalign(&zeroes, 4096, ZEROES_BYTES) != 0) {
			file_req_finish(fr, -ENOMEM);
			return;
		}
		memset(zeroes, 0, ZEROES_BYTES);
		loop->zeroes = zeroes;
	}
	space_next(fr, SPACE_WRITE);
}

static void space_written(struct file_req *fr, int res)
{
	uint64_t step = (uint64_t)res;

	if (step < fr->total - fr->done && fr->file->info.direct)
		step = round_down(step, fr->file->info.block_bytes);
	if (step == 0) {
		file_req_finish(fr, -EIO);
		return;
	}
	fr->done += step;
	if (fr->done == fr->total)
		space_zeroed(fr);
	else
		space_next(fr, SPACE_WRITE);
}

static void space_done(struct uring_req *req, int res)
{
	struct file_req *fr = container_of(req, struct file_req, req);

	if (fr->step == SPACE_SYNC) {
		file_req_finish(fr, res);
	} else if (res == -EOPNOTSUPP && fr->step != SPACE_WRITE) {
		space_refused(fr);
	} else if (res < 0) {
		if (!file_req_retry(fr, res))
			file_req_finish(fr, res);
	} else if (fr->step == SPACE_WRITE) {
		space_written(fr, res);
	} else {
		space_zeroed(fr);
	}
}

static void space_start(struct io_file *handle, uint64_t off, uint64_t len, unsigned flags,
			enum space_step step, struct io_op *op)
{
	struct uring_file *file = (struct uring_file *)handle;
	struct uring *loop = file_loop(file);
	struct file_req *fr;

	if (len == 0 || off > INT64_MAX || len > INT64_MAX - off) {
		op_begin(op);
		loop_ready(loop, op, len == 0 ? 0 : -EINVAL);
		return;
	}
	/* The kernel itself falls back to writing zeroes on a device. */
	if (step == SPACE_ZERO_RANGE && (flags & IO_FAST) && !file->fast_zeroes) {
		op_begin(op);
		loop_ready(loop, op, -EOPNOTSUPP);
		return;
	}
	fr = file_req_new(file, op);
	if (!fr)
		return;
	fr->off = off;
	fr->total = len;
	fr->flags = flags;
	fr->req.prep = space_prep;
	fr->req.done = space_done;
	space_next(fr, step);
}

void uring_discard(struct io_file *handle, uint64_t off, uint64_t len, struct io_op *op)
{
	space_start(handle, off, len, 0, SPACE_PUNCH, op);
}

void uring_write_zeroes(struct io_file *handle, uint64_t off, uint64_t len, unsigned flags,
			struct io_op *op)
{
	space_start(handle, off, len, flags, flags & IO_NO_HOLE ? SPACE_ZERO_RANGE : SPACE_PUNCH,
		    op);
}

/* On a worker: finding the next hole may read metadata. The file's offset is moved, but nothing
 * here uses it. */
static void map_work(struct io_op *op)
{
	struct file_req *fr = container_of(op, struct file_req, job);
	off_t off = (off_t)fr->off;
	off_t next = lseek(fr->file->fd, off, SEEK_DATA);

	fr->step = 0; /* data */
	op->res = (int64_t)fr->total;
	if (next < 0) {
		if (errno == ENXIO) /* nothing but a hole up to the end */
			fr->step = 1;
		else if (errno != EINVAL && errno != EOPNOTSUPP)
			op->res = -errno;
		return;
	}
	if (next > off) {
		fr->step = 1;
	} else {
		next = lseek(fr->file->fd, off, SEEK_HOLE);
		if (next <= off)
			return;
	}
	op->res = (int64_t)min_u64(fr->total, (uint64_t)(next - off));
}

static void map_done(struct io_op *op, int64_t res)
{
	struct file_req *fr = container_of(op, struct file_req, job);

	if (res >= 0)
		*fr->ret_hole = fr->step == 1;
	file_req_finish(fr, res);
}

void uring_map(struct io_file *handle, uint64_t off, uint64_t len, bool *ret_hole, struct io_op *op)
{
	struct uring_file *file = (struct uring_file *)handle;
	struct file_req *fr;

	if (len == 0 || off > INT64_MAX || len > INT64_MAX - off) {
		op_begin(op);
		loop_ready(file_loop(file), op, -EINVAL);
		return;
	}
	fr = file_req_new(file, op);
	if (!fr)
		return;
	fr->off = off;
	fr->total = len;
	fr->ret_hole = ret_hole;
	fr->job.done = map_done;
	uring_work(file->handle.io, map_work, &fr->job);
}
