/* SPDX-License-Identifier: Apache-2.0 */
/* Reads, writes, flushes and creates: from submission to completion, or to the crash in between. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/hash64.h"
#include "core/base/macros.h"
#include "tests/sim/disk.h"
#include "tests/sim/ops.h"

/* What a buffer holds until a read has completed, and after it has failed. */
#define GARBAGE_BYTE 0xee

struct disk_request *request_new(struct sim_node *node, struct io_op *op, enum sim_what what)
{
	struct sim_disk *disk = node->host->disk;
	struct disk_request *request = disk->free_requests;

	if (request)
		disk->free_requests = request->next_free;
	else
		request = malloc(sizeof(*request));
	must(request);
	memset(request, 0, offsetof(struct disk_request, iov));
	request->next_free = NULL;
	request->node = node;
	request->op = op;
	request->what = what;
	list_push_back(&node->requests, &request->of_node);
	return request;
}

void request_free(struct disk_request *request)
{
	struct sim_disk *disk = request->node->host->disk;

	list_remove(&request->of_node);
	if (list_linked(&request->of_file))
		list_remove(&request->of_file);
	if (request->handle)
		request->handle->in_flight--;
	version_free(request->version);
	free(request->early);
	request->next_free = disk->free_requests;
	disk->free_requests = request;
}

static void submit(struct disk_request *request, uint64_t delay_ns,
		   void (*fire)(struct sim_event *event))
{
	struct sim_node *node = request->node;
	uint64_t content = 0;

	if (request->handle)
		request->handle->in_flight++;
	request->event = event_add(node->world, node, max_u64(delay_ns, 1), fire);
	request->event->object = request;
	/* The content is part of the run's hash: a byte that was never set shows as a difference
	 * between two runs of a seed. */
	if (request->version && request->version->bytes)
		content = hash64(0, request->version->bytes,
				 request->version->sector_count * SIM_SECTOR_BYTES);
	node->world->hash += content;
	trace_add(node->world, node, request->what, request->path, request->off, request->len, 0);
}

/* The last thing that happens to a request. */
static void complete(struct disk_request *request, enum sim_what what, int64_t res)
{
	struct sim_node *node = request->node;
	struct io_op *op = request->op;

	trace_add(node->world, node, what, request->path, request->off, request->len, res);
	request_free(request);
	op_end(node, op, res);
}

/* The rules that every operation on a range keeps. */
static void check_range(struct io_file *handle, const char *what, uint64_t off, uint64_t len)
{
	struct sim_node *node = node_of(handle->io);
	const struct sim_file *file = handle->file;

	if (len == 0)
		sim_fail(node->world, "%s: %s of no bytes of %s", node->name, what, file->path);
	if ((handle->flags & IO_OPEN_DIRECT) && (off | len) % SIM_SECTOR_BYTES)
		sim_fail(node->world, "%s: %s of %s at %llu+%llu is not aligned to %u", node->name,
			 what, file->path, (unsigned long long)off, (unsigned long long)len,
			 SIM_SECTOR_BYTES);
}

static void check_buffer(struct io_file *handle, const char *what, const void *base, size_t len)
{
	struct sim_node *node = node_of(handle->io);

	if ((handle->flags & IO_OPEN_DIRECT) && ((uintptr_t)base | len) % SIM_SECTOR_BYTES)
		sim_fail(node->world, "%s: %s of %s with a buffer %p+%zu not aligned to %u",
			 node->name, what, handle->file->path, base, len, SIM_SECTOR_BYTES);
}

static void check_changes(struct io_file *handle, const char *what, uint64_t off, uint64_t len)
{
	struct sim_node *node = node_of(handle->io);
	struct sim_file *file = handle->file;
	struct list *pos;

	check_range(handle, what, off, len);
	if (handle->flags & IO_OPEN_READ_ONLY)
		sim_fail(node->world, "%s: %s of %s through a read-only handle", node->name, what,
			 file->path);
	if (off > file->size_bytes || len > file->size_bytes - off)
		sim_fail(node->world, "%s: %s of %s at %llu+%llu goes past its end at %llu",
			 node->name, what, file->path, (unsigned long long)off,
			 (unsigned long long)len, (unsigned long long)file->size_bytes);
	list_for_each (pos, &file->in_flight) {
		const struct disk_request *other = container_of(pos, struct disk_request, of_file);

		if (off < other->off + other->len && other->off < off + len)
			sim_fail(node->world,
				 "%s: %s of %s at %llu+%llu overlaps one in flight at %llu+%llu",
				 node->name, what, file->path, (unsigned long long)off,
				 (unsigned long long)len, (unsigned long long)other->off,
				 (unsigned long long)other->len);
	}
}

static struct disk_request *request_on(struct io_file *handle, struct io_op *op, enum sim_what what,
				       uint64_t off, uint64_t len)
{
	struct disk_request *request;

	op_begin(node_of(handle->io), op, what_names[what]);
	request = request_new(node_of(handle->io), op, what);
	request->handle = handle;
	request->file = handle->file;
	request->path = handle->file->path;
	request->off = off;
	request->len = len;
	return request;
}

/* ---- read -------------------------------------------------------------------------------------
 */

/* A read that meets a write in flight sees any of its sectors. */
static void mix_in_flight(const struct disk_request *request, uint8_t *buf)
{
	struct sim_world *world = request->node->world;
	const struct list *head = &request->file->in_flight;
	struct list *pos;

	list_for_each (pos, head) {
		const struct disk_request *write = container_of(pos, struct disk_request, of_file);
		const struct version *version = write->version;

		for (uint64_t i = 0; i < version->sector_count; i++) {
			uint64_t at = (version->first_sector + i) * SIM_SECTOR_BYTES;

			if (at < request->off ||
			    at + SIM_SECTOR_BYTES > request->off + request->len ||
			    (sim_random(world) & 1))
				continue;
			if (version->bytes)
				memcpy(buf + (at - request->off),
				       version->bytes + i * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
			else
				memset(buf + (at - request->off), 0, SIM_SECTOR_BYTES);
		}
	}
}

static bool past_end(const struct disk_request *request)
{
	return request->off > request->file->size_bytes ||
	       request->len > request->file->size_bytes - request->off;
}

static void look(const struct disk_request *request, uint8_t *buf)
{
	file_copy_out(request->file, false, request->off, buf, request->len);
	mix_in_flight(request, buf);
}

/* The medium is read at some moment between submission and completion: here at the one or the
 * other, sector by sector. */
static void mix_early(const struct disk_request *request)
{
	struct sim_world *world = request->node->world;
	uint64_t early_ppm = sim_random(world) & 1 ? SIM_PPM : SIM_PPM / 2;

	for (uint64_t at = 0; at < request->len; at += SIM_SECTOR_BYTES) {
		if (sim_chance(world, early_ppm))
			memcpy(request->buf + at, request->early + at,
			       min_u64(SIM_SECTOR_BYTES, request->len - at));
	}
}

static void fire_read(struct sim_event *event)
{
	struct disk_request *request = event->object;
	int64_t res = (int64_t)request->len;

	if (request->error) {
		res = request->error;
	} else if (past_end(request)) {
		res = -EIO;
	} else {
		look(request, request->buf);
		if (request->early)
			mix_early(request);
	}
	complete(request, WHAT_READ_DONE, res);
}

void disk_read(struct io_file *handle, void *buf, size_t len, uint64_t off, struct io_op *op)
{
	struct disk_request *request = request_on(handle, op, WHAT_READ, off, len);
	struct fate fate;

	check_range(handle, "read", off, len);
	check_buffer(handle, "read", buf, len);
	disk_fate(request->node, request->file, request->path, SIM_READ, &fate);
	request->error = fate.error;
	request->buf = buf;
	memset(buf, GARBAGE_BYTE, len);
	if (!request->error && !past_end(request) && (sim_random(request->node->world) & 1)) {
		request->early = malloc(len);
		must(request->early);
		look(request, request->early);
	}
	submit(request, fate.delay_ns, fire_read);
}

/* ---- write, discard, write-zeroes -------------------------------------------------------------
 */

/* The sectors at both ends that an unaligned write covers in part keep their other bytes. */
static void refresh_edges(struct disk_request *request)
{
	struct version *version = request->version;
	uint64_t begin = version->first_sector * SIM_SECTOR_BYTES;
	uint64_t head = request->off % SIM_SECTOR_BYTES;
	uint64_t end = head + request->len, padded = version->sector_count * SIM_SECTOR_BYTES;

	if (version->bytes && begin + head == request->off) {
		file_copy_out(request->file, false, begin, version->bytes, head);
		file_copy_out(request->file, false, begin + end, version->bytes + end,
			      padded - end);
	}
}

static void check_unchanged(const struct disk_request *request)
{
	const uint8_t *copy;

	if (!request->iov_count)
		return;
	copy = request->version->bytes + request->off % SIM_SECTOR_BYTES;
	for (unsigned i = 0; i < request->iov_count; i++) {
		const struct iovec *iov = &request->iov[i];

		if (memcmp(copy, iov->iov_base, iov->iov_len) != 0)
			sim_fail(request->node->world,
				 "%s: a buffer changed while its write to %s at %llu was in flight",
				 request->node->name, request->path,
				 (unsigned long long)request->off);
		copy += iov->iov_len;
	}
}

/* The write's effect, as far as it got; it stays undecided until a flush unless it was DSYNC. */
static void take_effect(struct disk_request *request, bool durable)
{
	struct sim_file *file = request->file;
	struct version *version = request->version;

	refresh_edges(request);
	version_apply(file, version);
	file_touch(file);
	if (durable) {
		version_commit(file, version);
		return;
	}
	list_push_back(&file->pending, &version->link);
	request->version = NULL;
}

static bool disk_is_full(const struct disk_request *request)
{
	const struct version *version = request->version;
	const struct sim_disk *disk = request->file->disk;
	uint64_t holes;

	if (version->kind == VERSION_HOLE)
		return false;
	/* Almost every write goes to what is allocated: look only where it can matter. */
	if (disk->limit_bytes == UINT64_MAX && !disk->world->options.no_space_ppm)
		return false;
	holes = file_holes(request->file, version->first_sector, version->sector_count);
	return holes && (disk->used_bytes + holes * SIM_SECTOR_BYTES > disk->limit_bytes ||
			 sim_chance(disk->world, disk->world->options.no_space_ppm));
}

static void fire_change(struct sim_event *event)
{
	struct disk_request *request = event->object;
	enum sim_what what = request->what == WHAT_WRITE ? WHAT_WRITE_DONE : WHAT_DISCARD_DONE;
	int64_t res = request->what == WHAT_WRITE ? (int64_t)request->len : 0;

	check_unchanged(request);
	if (!request->error && disk_is_full(request))
		request->error = -ENOSPC;
	if (request->error) {
		version_tear(request->node->world, request->version);
		take_effect(request, false);
		res = request->error;
	} else if (!request->lose) {
		take_effect(request, request->dsync);
	}
	complete(request, what, res);
}

/* A misdirected write stays inside the file. */
static uint64_t displaced(const struct disk_request *request, int64_t delta, uint64_t sector_count)
{
	uint64_t sectors = request->file->size_bytes / SIM_SECTOR_BYTES;
	uint64_t first = request->off / SIM_SECTOR_BYTES;
	int64_t target = (int64_t)first + delta / (int64_t)SIM_SECTOR_BYTES;

	if (target < 0 || (uint64_t)target + sector_count > sectors)
		return first;
	return (uint64_t)target;
}

static void submit_change(struct disk_request *request, enum version_kind kind, uint32_t op_kind,
			  unsigned flags)
{
	struct sim_world *world = request->node->world;
	const struct sim_options *options = &world->options;
	uint64_t first = request->off / SIM_SECTOR_BYTES;
	uint64_t count = div_round_up(request->off + request->len, SIM_SECTOR_BYTES) - first;
	uint8_t *copy;
	struct fate fate;

	disk_fate(request->node, request->file, request->path, op_kind, &fate);
	request->error = fate.error;
	request->lose = fate.lose;
	request->dsync = (flags & IO_DSYNC) != 0;
	if (request->dsync)
		fate.delay_ns += sim_between(world, options->flush_ns_min, options->flush_ns_max);
	request->version = version_new(kind, displaced(request, fate.offset_delta, count), count);
	if (kind == VERSION_DATA) {
		copy = request->version->bytes;
		file_copy_out(request->file, false, first * SIM_SECTOR_BYTES, copy,
			      request->off % SIM_SECTOR_BYTES);
		copy += request->off % SIM_SECTOR_BYTES;
		for (unsigned i = 0; i < request->iov_count; i++) {
			memcpy(copy, request->iov[i].iov_base, request->iov[i].iov_len);
			copy += request->iov[i].iov_len;
		}
		file_copy_out(request->file, false, request->off + request->len, copy,
			      (first + count) * SIM_SECTOR_BYTES - request->off - request->len);
	}
	list_push_back(&request->file->in_flight, &request->of_file);
	submit(request, fate.delay_ns, fire_change);
}

void disk_writev(struct io_file *handle, const struct iovec *iov, unsigned iov_count, uint64_t off,
		 unsigned flags, struct io_op *op)
{
	struct sim_node *node = node_of(handle->io);
	struct disk_request *request;
	uint64_t len = 0;

	if (iov_count == 0 || iov_count > IO_IOV_MAX)
		sim_fail(node->world, "%s: write with %u buffers", node->name, iov_count);
	for (unsigned i = 0; i < iov_count; i++) {
		check_buffer(handle, "write", iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	check_changes(handle, "write", off, len);
	request = request_on(handle, op, WHAT_WRITE, off, len);
	memcpy(request->iov, iov, iov_count * sizeof(*iov));
	request->iov_count = iov_count;
	submit_change(request, VERSION_DATA, SIM_WRITE, flags);
}

void disk_discard(struct io_file *handle, uint64_t off, uint64_t len, struct io_op *op)
{
	struct disk_request *request;

	check_changes(handle, "discard", off, len);
	if ((off | len) % SIM_SECTOR_BYTES)
		sim_fail(node_of(handle->io)->world, "%s: discard of %s is not aligned",
			 node_of(handle->io)->name, handle->file->path);
	request = request_on(handle, op, WHAT_DISCARD, off, len);
	submit_change(request, VERSION_HOLE, SIM_DISCARD, 0);
}

void disk_write_zeroes(struct io_file *handle, uint64_t off, uint64_t len, unsigned flags,
		       struct io_op *op)
{
	struct disk_request *request;

	check_changes(handle, "write-zeroes", off, len);
	if ((off | len) % SIM_SECTOR_BYTES)
		sim_fail(node_of(handle->io)->world, "%s: write-zeroes of %s is not aligned",
			 node_of(handle->io)->name, handle->file->path);
	request = request_on(handle, op, WHAT_DISCARD, off, len);
	submit_change(request, (flags & IO_NO_HOLE) ? VERSION_ZERO : VERSION_HOLE, SIM_DISCARD,
		      flags);
}

/* ---- flush and map ----------------------------------------------------------------------------
 */

static void fire_flush(struct sim_event *event)
{
	struct disk_request *request = event->object;

	if (request->error)
		file_flush_failed(request->file, request->covers);
	else if (!request->lose)
		file_flush(request->file, request->covers);
	complete(request, WHAT_FLUSH_DONE, request->error);
}

void disk_flush(struct io_file *handle, struct io_op *op)
{
	struct disk_request *request = request_on(handle, op, WHAT_FLUSH, 0, 0);
	struct fate fate;

	disk_fate(request->node, request->file, request->path, SIM_FLUSH, &fate);
	request->error = fate.error;
	request->lose = fate.lose;
	request->covers = request->file->disk->versions;
	submit(request, fate.delay_ns, fire_flush);
}

static void fire_map(struct sim_event *event)
{
	struct disk_request *request = event->object;
	uint64_t sector = request->off / SIM_SECTOR_BYTES;
	uint64_t end = (request->off + request->len) / SIM_SECTOR_BYTES;
	uint64_t first = sector;
	bool hole;

	if (request->off + request->len > request->file->size_bytes) {
		complete(request, WHAT_MAP_DONE, -EINVAL);
		return;
	}
	hole = file_sector_is_hole(request->file, sector);
	while (sector < end && file_sector_is_hole(request->file, sector) == hole)
		sector++;
	*request->ret_hole = hole;
	complete(request, WHAT_MAP_DONE, (int64_t)((sector - first) * SIM_SECTOR_BYTES));
}

void disk_map(struct io_file *handle, uint64_t off, uint64_t len, bool *ret_hole, struct io_op *op)
{
	struct disk_request *request = request_on(handle, op, WHAT_MAP_DONE, off, len);
	struct sim_world *world = request->node->world;

	check_range(handle, "map", off, len);
	if ((off | len) % SIM_SECTOR_BYTES)
		sim_fail(world, "%s: map of %s is not aligned", request->node->name, request->path);
	request->ret_hole = ret_hole;
	submit(request, sim_between(world, world->options.read_ns_min, world->options.read_ns_max),
	       fire_map);
}

/* ---- create -----------------------------------------------------------------------------------
 */

static void finish_create(struct disk_request *request)
{
	struct sim_disk *disk = request->node->host->disk;
	struct sim_file *old = disk_find(disk, request->path);

	if (old)
		file_unlink(old);
	file_new(disk, request->path, request->len, false, false);
}

/* It did not come to its end: the old file, nothing, or a beginning of the new one is there. */
static void abandon_create(struct disk_request *request)
{
	struct sim_world *world = request->node->world;
	struct sim_disk *disk = request->node->host->disk;
	struct sim_file *old = disk_find(disk, request->path);
	uint64_t end = sim_between(world, 0, 2), bytes;

	if (end == 0)
		return;
	if (old)
		file_unlink(old);
	if (end < 2)
		return;
	bytes = sim_between(world, 0, request->len - 1);
	/* No more than there is room for. */
	file_new(disk, request->path,
		 min_u64(bytes, round_down(sub_floor_u64(disk->limit_bytes, disk->used_bytes),
					   CHUNK_BYTES)),
		 false, false);
}

static void fire_create(struct sim_event *event)
{
	struct disk_request *request = event->object;
	struct sim_world *world = request->node->world;
	const struct sim_disk *disk = request->node->host->disk;
	const struct sim_file *old = disk_find(disk, request->path);
	uint64_t free_bytes = sub_floor_u64(disk->limit_bytes, disk->used_bytes);

	if (old && old->handle_count)
		sim_fail(world, "%s: create replaces %s, which is open", request->node->name,
			 request->path);
	if (old)
		free_bytes += old->used_sectors * SIM_SECTOR_BYTES;
	if (!request->error && disk->limit_bytes != UINT64_MAX && request->len > free_bytes)
		request->error = -ENOSPC;
	if (!request->error && sim_chance(world, world->options.no_space_ppm))
		request->error = -ENOSPC;
	if (request->error)
		abandon_create(request);
	else
		finish_create(request);
	complete(request, WHAT_CREATE_DONE, request->error);
}

void disk_file_create(struct io *io, const char *path, uint64_t size, struct io_op *op)
{
	struct sim_node *node = node_of(io);
	struct disk_request *request;
	struct fate fate;

	op_begin(node, op, "io_file_create");
	if (!size)
		sim_fail(node->world, "%s: create of %s with no bytes", node->name, path);
	request = request_new(node, op, WHAT_CREATE);
	request->path = disk_keep_path(node->host->disk, path);
	request->len = size;
	disk_fate(node, NULL, request->path, SIM_CREATE, &fate);
	request->error = fate.error;
	if (!disk_parent_exists(node->host->disk, path))
		request->error = -ENOENT;
	submit(request, fate.delay_ns, fire_create);
}

/* ---- crash ------------------------------------------------------------------------------------
 */

static void decide_in_flight(struct sim_world *world, struct version *version)
{
	if (!world->exact) {
		version_tear(world, version);
		return;
	}
	version->skipped = calloc(1, version->sector_count + 1);
	must(version->skipped);
	for (uint64_t i = 0; i < version->sector_count; i++) {
		version->skipped[i] = !(world->survivors & 1);
		world->survivors >>= 1;
	}
}

void disk_process_died(struct sim_node *node, enum sim_crash kind)
{
	struct list *pos;

	while ((pos = list_first(&node->requests))) {
		struct disk_request *request = container_of(pos, struct disk_request, of_node);

		if (request->version && !request->lose) {
			/* After a power loss the sectors are decided with the unflushed ones. */
			if (kind == SIM_KILL)
				decide_in_flight(node->world, request->version);
			take_effect(request, false);
		} else if (request->what == WHAT_CREATE && request->error != -ENOENT) {
			abandon_create(request);
		}
		request_free(request);
	}
	while ((pos = list_first(&node->files)))
		handle_release(container_of(pos, struct io_file, of_node));
	while ((pos = list_first(&node->locks)))
		disk_unlock(container_of(pos, struct io_lock, of_node));
}

void disk_power_lost(struct sim_host *host)
{
	struct list *pos;

	list_for_each (pos, &host->disk->files)
		file_power_lost(container_of(pos, struct sim_file, link));
}

unsigned sim_node_volatile_sectors(struct sim_node *node, enum sim_crash kind)
{
	struct sim_world *world = node->world;
	uint64_t count = 0;
	struct list *pos, *inner;

	for (unsigned i = 0; i < world->node_count; i++) {
		const struct sim_node *other = world->nodes[i];

		if (other != node && (kind == SIM_KILL || other->host != node->host))
			continue;
		list_for_each (pos, &other->requests) {
			const struct disk_request *request =
				container_of(pos, struct disk_request, of_node);

			if (request->version && !request->lose)
				count += request->version->sector_count;
		}
	}
	if (kind == SIM_POWER) {
		list_for_each (pos, &node->host->disk->files) {
			const struct sim_file *file = container_of(pos, struct sim_file, link);

			list_for_each (inner, &file->pending)
				count += version_open_sectors(
					file, container_of(inner, struct version, link));
		}
	}
	return (unsigned)min_u64(count, UINT32_MAX);
}
