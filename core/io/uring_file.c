/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading, writing and flushing files.
 *
 * Transfers that the kernel cuts short are continued here. Direct I/O continues at a block
 * boundary, so up to one block is moved twice; no progress means the end of the file or a device
 * that ends early: -EIO. An error of a write or flush is passed up once and nothing is tried again.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLAB_REQS    64u
#define ATTEMPTS_MAX 64u
/* One request moves at most this much; the kernel's own limit is a page less than 2 GiB. */
#define TRANSFER_BYTES_MAX (1u << 30)

struct file_req_slab {
	struct file_req_slab *next;
	struct file_req reqs[SLAB_REQS];
};

struct uring *file_loop(const struct uring_file *file)
{
	return uring_of(file->handle.io);
}

struct file_req *file_req_new(struct uring_file *file, struct io_op *op)
{
	struct uring *loop = file_loop(file);
	struct file_req *fr;

	op_begin(op);
	if (!loop->file_req_free) {
		/* Grows to the most operations ever in flight, then not any more. */
		struct file_req_slab *slab = calloc(1, sizeof(*slab));

		if (!slab) {
			loop_ready(loop, op, -ENOMEM);
			return NULL;
		}
		slab->next = loop->file_req_slabs;
		loop->file_req_slabs = slab;
		for (unsigned i = 0; i < SLAB_REQS; i++) {
			slab->reqs[i].next_free = loop->file_req_free;
			loop->file_req_free = &slab->reqs[i];
		}
	}
	fr = loop->file_req_free;
	loop->file_req_free = fr->next_free;
	fr->file = file;
	fr->op = op;
	fr->off = fr->total = fr->done = 0;
	fr->flags = fr->step = fr->attempts = 0;
	fr->iov_first = fr->iov_count = 0;
	fr->req.is_file = true;
	file->in_flight++;
	return fr;
}

void file_reqs_free(struct uring *loop)
{
	while (loop->file_req_slabs) {
		struct file_req_slab *slab = loop->file_req_slabs;

		loop->file_req_slabs = slab->next;
		free(slab);
	}
}

void file_req_finish(struct file_req *fr, int64_t res)
{
	struct uring *loop = file_loop(fr->file);
	struct io_op *op = fr->op;

	fr->file->in_flight--;
	fr->next_free = loop->file_req_free;
	loop->file_req_free = fr;
	loop_complete(loop, op, res);
}

bool file_req_retry(struct file_req *fr, int res)
{
	if ((res != -EINTR && res != -EAGAIN) || ++fr->attempts > ATTEMPTS_MAX)
		return false;
	loop_queue(file_loop(fr->file), &fr->req);
	return true;
}

void file_req_target(const struct file_req *fr, struct io_uring_sqe *sqe)
{
	if (fr->file->fixed_index < 0)
		return;
	sqe->fd = fr->file->fixed_index;
	sqe->flags |= IOSQE_FIXED_FILE;
}

static void read_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct file_req *fr = container_of(req, struct file_req, req);
	const struct iovec *iov = &fr->iov[fr->iov_first];
	unsigned len = (unsigned)min_size(iov->iov_len, TRANSFER_BYTES_MAX);
	uint64_t off = fr->off + fr->done;
	struct uring *loop = file_loop(fr->file);
	int region = region_find(loop, iov->iov_base, len);

	if (region >= 0) {
		io_uring_prep_read_fixed(sqe, fr->file->fd, iov->iov_base, len, off, region);
		loop->stats.fixed_buffer_ops++;
	} else {
		io_uring_prep_read(sqe, fr->file->fd, iov->iov_base, len, off);
	}
	file_req_target(fr, sqe);
}

static void write_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct file_req *fr = container_of(req, struct file_req, req);
	const struct iovec *iov = &fr->iov[fr->iov_first];
	unsigned len = (unsigned)min_size(iov->iov_len, TRANSFER_BYTES_MAX);
	uint64_t off = fr->off + fr->done;
	struct uring *loop = file_loop(fr->file);
	int region = fr->iov_count == 1 ? region_find(loop, iov->iov_base, len) : -1;

	if (region >= 0) {
		io_uring_prep_write_fixed(sqe, fr->file->fd, iov->iov_base, len, off, region);
		loop->stats.fixed_buffer_ops++;
	} else if (fr->iov_count == 1) {
		io_uring_prep_write(sqe, fr->file->fd, iov->iov_base, len, off);
	} else {
		io_uring_prep_writev(sqe, fr->file->fd, iov, fr->iov_count, off);
	}
	/* The continuation of a short write carries it too: each part is durable by itself. */
	if (fr->flags & IO_DSYNC)
		sqe->rw_flags = RWF_DSYNC;
	file_req_target(fr, sqe);
}

static void transfer_done(struct uring_req *req, int res)
{
	struct file_req *fr = container_of(req, struct file_req, req);
	uint64_t step;

	if (res < 0) {
		if (!file_req_retry(fr, res))
			file_req_finish(fr, res);
		return;
	}
	step = (uint64_t)res;
	must(step <= fr->total - fr->done);
	if (step == fr->total - fr->done) {
		file_req_finish(fr, (int64_t)fr->total);
		return;
	}
	if (fr->file->info.direct)
		step = round_down(step, fr->file->info.block_bytes);
	if (step == 0) {
		file_req_finish(fr, -EIO);
		return;
	}
	fr->attempts = 0;
	fr->done += step;
	iov_advance(fr->iov, &fr->iov_first, &fr->iov_count, step);
	loop_queue(file_loop(fr->file), req);
}

static void transfer(struct file_req *fr)
{
	struct uring *loop = file_loop(fr->file);

	if (fr->total == 0 || fr->total > INT64_MAX - fr->off || fr->off > INT64_MAX) {
		int64_t res = fr->total == 0 ? 0 : -EINVAL;
		struct io_op *op = fr->op;

		/* Never from inside the submitting call. */
		fr->file->in_flight--;
		fr->next_free = loop->file_req_free;
		loop->file_req_free = fr;
		loop_ready(loop, op, res);
		return;
	}
	fr->req.done = transfer_done;
	loop_queue(loop, &fr->req);
}

void uring_read(struct io_file *handle, void *buf, size_t len, uint64_t off, struct io_op *op)
{
	struct file_req *fr = file_req_new((struct uring_file *)handle, op);

	if (!fr)
		return;
	fr->off = off;
	fr->total = len;
	fr->iov[0] = (struct iovec){ .iov_base = buf, .iov_len = len };
	fr->iov_count = 1;
	fr->req.prep = read_prep;
	transfer(fr);
}

void uring_writev(struct io_file *handle, const struct iovec *iov, unsigned iov_count, uint64_t off,
		  unsigned flags, struct io_op *op)
{
	struct file_req *fr;

	must(iov_count >= 1 && iov_count <= IO_IOV_MAX);
	fr = file_req_new((struct uring_file *)handle, op);
	if (!fr)
		return;
	fr->off = off;
	fr->flags = flags;
	for (unsigned i = 0; i < iov_count; i++) {
		if (iov[i].iov_len == 0)
			continue;
		fr->iov[fr->iov_count++] = iov[i];
		fr->total += iov[i].iov_len;
	}
	fr->req.prep = write_prep;
	transfer(fr);
}

static void flush_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct file_req *fr = container_of(req, struct file_req, req);

	io_uring_prep_fsync(sqe, fr->file->fd, IORING_FSYNC_DATASYNC);
	file_req_target(fr, sqe);
}

static void flush_done(struct uring_req *req, int res)
{
	/* Never repeated: the kernel reports a lost write once, the next fsync would succeed. */
	file_req_finish(container_of(req, struct file_req, req), res);
}

void uring_flush(struct io_file *handle, struct io_op *op)
{
	struct file_req *fr = file_req_new((struct uring_file *)handle, op);

	if (!fr)
		return;
	fr->req.prep = flush_prep;
	fr->req.done = flush_done;
	loop_queue(file_loop(fr->file), &fr->req);
}
