/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam: everything a state machine may do to the world.
 *
 * A group, an NBD connection, a replication link: each is a single-threaded state machine that
 * lives on one `struct io`, its event loop. It makes no system call, reads no clock, draws no
 * randomness and starts no thread; it calls the functions below, and completions come back as
 * callbacks on the loop's thread. Two back ends implement `struct io_ops`: io_uring
 * (core/io/uring*.c) and the simulator (tests/sim/), where one seed is one run.
 *
 * Rules that both back ends keep and that callers may rely on:
 *  - A completion is never delivered from inside the call that submitted the operation.
 *  - Each submitted operation completes exactly once, also when its stream is closed or it fails.
 *  - An operation and its buffers belong to the back end from submit until its callback is entered.
 *  - Completions of different operations arrive in any order.
 *  - File reads and writes complete with the whole length or with a negative errno: short transfers
 *    are continued inside the back end. After a failed write or flush nothing is known about what
 *    is on the disk; it must not be repeated as if the file were clean.
 *  - A write is durable when it was submitted with IO_DSYNC and completed, or when a flush of the
 *    same file that was submitted after its completion has completed. Nothing else is.
 *
 * Threads: every function is called on the loop's own thread unless it says otherwise.
 */
#ifndef HOLDFAST_CORE_IO_IO_H
#define HOLDFAST_CORE_IO_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct io;
struct io_file;
struct io_lock;
struct io_listener;
struct io_stream;
struct io_tls;
struct io_op;

/* `res` is 0 or a count on success, a negative errno on failure. */
typedef void (*io_done_fn)(struct io_op *op, int64_t res);

/*
 * One operation, embedded in its owner's structure (container_of gets back). The owner sets `done`
 * before submitting; the rest is the back end's. An op may be used again from inside its callback.
 * Zero-initialised memory is a valid idle op.
 */
struct io_op {
	io_done_fn done;
	uint32_t state; /* IO_OP_IDLE or back end's own; for assertions */
	uint32_t kind;
	struct io_op *next, *prev; /* back end's queues */
	int64_t res;
	uint64_t priv[8];
};
#define IO_OP_IDLE 0u

/* A timer, embedded in its owner. `fire` is called once per start, on the loop's thread. */
struct io_timer {
	void (*fire)(struct io_timer *timer);
	uint64_t deadline_ns; /* io_now() at which it fires; 0 = not running */
	uint64_t order;	      /* back end's: ties are broken by start order */
	uint32_t heap_index;  /* back end's: 1-based, 0 = not in the heap */
};

enum io_open_flags {
	IO_OPEN_READ_ONLY = 1u << 0,
	IO_OPEN_DIRECT = 1u << 1,    /* bypass the page cache where the file allows it */
	IO_OPEN_EXCLUSIVE = 1u << 2, /* block devices: refuse if anybody else holds it */
};

enum io_write_flags {
	IO_DSYNC = 1u << 0,   /* durable when complete */
	IO_NO_HOLE = 1u << 1, /* write-zeroes: keep the range allocated */
	IO_FAST = 1u << 2,    /* write-zeroes: -EOPNOTSUPP rather than write zero bytes */
};

struct io_file_info {
	uint64_t size_bytes;
	uint64_t mtime_ns;    /* of the last change to its content (wall clock), as it is at this
				 call; 0 for devices */
	uint32_t block_bytes; /* offsets, lengths and buffers of direct I/O align to this
				 (512..4096) */
	bool is_device;
	bool direct;   /* the page cache is really bypassed */
	bool discards; /* io_discard frees space (or is known to be a cheap no-op) */
};

/* Where a stream goes or comes from: "unix:/path" or "host:port" / "[v6]:port". */
struct io_address {
	char text[256];
};

/* Why a TLS handshake or a connection failed, for people. Owned by the stream. */
struct io_peer {
	char address[128];  /* printable remote address, "unix" for local ones */
	char identity[256]; /* the certificate's SAN (DNS or URI), "" without TLS */
	uint32_t uid;	    /* unix sockets: the peer's user, else UINT32_MAX */
};

struct io_ops {
	/* Memory: released in one go when a simulated node dies, so core code takes all memory
	 * here. alloc: zeroed, aligned to `align` (power of two >= 8), NULL when out of memory. */
	void *(*alloc)(struct io *io, size_t size, size_t align);
	void (*free)(struct io *io, void *memory);

	uint64_t (*now)(struct io *io);	   /* ns, CLOCK_BOOTTIME: never goes back */
	uint64_t (*wall)(struct io *io);   /* ns since 1970, may jump */
	uint64_t (*random)(struct io *io); /* cryptographically strong in the real back end */
	void (*timer_start)(struct io *io, struct io_timer *timer, uint64_t delay_ns);
	void (*timer_stop)(struct io *io, struct io_timer *timer);
	void (*defer)(struct io *io, struct io_op *op, int64_t res);
	void (*post)(struct io *io, struct io_op *op);
	void (*work)(struct io *io, void (*fn)(struct io_op *op), struct io_op *op);

	int (*mkdir)(struct io *io, const char *path);
	int (*lock)(struct io *io, const char *path, struct io_lock **ret_lock);
	void (*unlock)(struct io_lock *lock);
	int (*file_open)(struct io *io, const char *path, unsigned flags,
			 struct io_file **ret_file);
	void (*file_close)(struct io_file *file);
	void (*file_info)(struct io_file *file, struct io_file_info *ret_info);
	int (*file_grow)(struct io_file *file, uint64_t size);
	void (*file_create)(struct io *io, const char *path, uint64_t size, struct io_op *op);
	void (*file_reserve)(struct io *io, const char *path, uint64_t size, struct io_op *op);
	int (*file_remove)(struct io *io, const char *path);
	void (*read)(struct io_file *file, void *buf, size_t len, uint64_t off, struct io_op *op);
	void (*writev)(struct io_file *file, const struct iovec *iov, unsigned iov_count,
		       uint64_t off, unsigned flags, struct io_op *op);
	void (*flush)(struct io_file *file, struct io_op *op);
	void (*discard)(struct io_file *file, uint64_t off, uint64_t len, struct io_op *op);
	void (*write_zeroes)(struct io_file *file, uint64_t off, uint64_t len, unsigned flags,
			     struct io_op *op);
	void (*map)(struct io_file *file, uint64_t off, uint64_t len, bool *ret_hole,
		    struct io_op *op);

	int (*listen)(struct io *io, const struct io_address *address,
		      struct io_listener **ret_listener);
	void (*accept)(struct io_listener *listener, struct io_stream **ret_stream,
		       struct io_op *op);
	void (*listener_close)(struct io_listener *listener);
	void (*connect)(struct io *io, const struct io_address *address,
			struct io_stream **ret_stream, struct io_op *op);
	void (*start_tls)(struct io_stream *stream, struct io_tls *tls, bool server,
			  const char *expect_identity, struct io_op *op);
	void (*recv)(struct io_stream *stream, void *buf, size_t min, size_t max, struct io_op *op);
	void (*sendv)(struct io_stream *stream, const struct iovec *iov, unsigned iov_count,
		      struct io_op *op);
	void (*stream_close)(struct io_stream *stream);
	void (*stream_move)(struct io_stream *stream, struct io *to);
	const struct io_peer *(*stream_peer)(struct io_stream *stream);
	const char *(*stream_error)(struct io_stream *stream);

	int (*buffers)(struct io *io, void *base, size_t len);
};

/* The first member of a back end's own loop structure; files, streams, listeners and locks start
 * with a pointer to their io so that the wrappers below find the table. */
struct io {
	const struct io_ops *ops;
};
struct io_handle {
	struct io *io;
};

#define IO_OF(handle) (((struct io_handle *)(handle))->io)

static inline void *io_alloc(struct io *io, size_t size, size_t align)
{
	return io->ops->alloc(io, size, align);
}
static inline void io_free(struct io *io, void *memory)
{
	io->ops->free(io, memory);
}
static inline uint64_t io_now(struct io *io)
{
	return io->ops->now(io);
}
static inline uint64_t io_wall(struct io *io)
{
	return io->ops->wall(io);
}
static inline uint64_t io_random(struct io *io)
{
	return io->ops->random(io);
}

/* Fires once, not before `delay_ns` from now. Starting a running timer moves it. */
static inline void io_timer_start(struct io *io, struct io_timer *timer, uint64_t delay_ns)
{
	io->ops->timer_start(io, timer, delay_ns);
}
/* After it returns the timer does not fire. Stopping an idle timer is allowed. */
static inline void io_timer_stop(struct io *io, struct io_timer *timer)
{
	io->ops->timer_stop(io, timer);
}

/*
 * Completes `op` with `res` at the end of this turn of the loop: after every completion that is
 * ready now has been delivered, before the loop submits and sleeps. This is how work is batched.
 */
static inline void io_defer(struct io *io, struct io_op *op, int64_t res)
{
	io->ops->defer(io, op, res);
}
/* From any thread: completes `op` with 0 on the loop's thread. The only cross-thread entry. */
static inline void io_post(struct io *io, struct io_op *op)
{
	io->ops->post(io, op);
}
/* Runs `fn(op)` off the loop (a pure computation on memory that nobody else touches, or a blocking
 * control call), then completes `op` with what fn left in op->res. */
static inline void io_work(struct io *io, void (*fn)(struct io_op *op), struct io_op *op)
{
	io->ops->work(io, fn, op);
}

/* Creates a directory, durably; an existing one is no error. Blocking: start-up and control only.
 */
static inline int io_mkdir(struct io *io, const char *path)
{
	return io->ops->mkdir(io, path);
}
/* Takes the exclusive lock file at `path` (created when missing). -EWOULDBLOCK: somebody has it.
 * The lock goes with the process. */
static inline int io_lock(struct io *io, const char *path, struct io_lock **ret_lock)
{
	return io->ops->lock(io, path, ret_lock);
}
static inline void io_unlock(struct io_lock *lock)
{
	IO_OF(lock)->ops->unlock(lock);
}
/* Opens an existing file or block device. Quick, synchronous; -ENOENT when it is not there. */
static inline int io_file_open(struct io *io, const char *path, unsigned flags,
			       struct io_file **ret_file)
{
	return io->ops->file_open(io, path, flags, ret_file);
}
/* No operation may be in flight on it. NULL is allowed. */
static inline void io_file_close(struct io_file *file)
{
	if (file)
		IO_OF(file)->ops->file_close(file);
}
static inline void io_file_info(struct io_file *file, struct io_file_info *ret_info)
{
	IO_OF(file)->ops->file_info(file, ret_info);
}
/*
 * Looks again how large it is: io_file_info() tells it from here on. A regular file that is shorter
 * than `size` is made that long; what is new reads as zeroes, and is durable with the next flush.
 * Quick, synchronous. 0; -ENOSPC: a device that is smaller; other errno.
 */
static inline int io_file_grow(struct io_file *file, uint64_t size)
{
	return IO_OF(file)->ops->file_grow(file, size);
}
/*
 * Creates `path` with `size` zero bytes, really written (so that later overwrites change no
 * metadata), and completes when file and directory entry are durable. An existing file of that size
 * is replaced. A crash in between may leave a file of any length: callers create again.
 */
static inline void io_file_create(struct io *io, const char *path, uint64_t size, struct io_op *op)
{
	io->ops->file_create(io, path, size, op);
}
/*
 * The same without writing, where the file system can set space aside: the file reads as zeroes,
 * and a first write to a place costs metadata. -ENOSPC (-EDQUOT) comes here rather than later.
 */
static inline void io_file_reserve(struct io *io, const char *path, uint64_t size, struct io_op *op)
{
	io->ops->file_reserve(io, path, size, op);
}
/* Removes a file durably; -ENOENT when it is not there. Blocking: control only. */
static inline int io_file_remove(struct io *io, const char *path)
{
	return io->ops->file_remove(io, path);
}
static inline void io_read(struct io_file *file, void *buf, size_t len, uint64_t off,
			   struct io_op *op)
{
	IO_OF(file)->ops->read(file, buf, len, off, op);
}
/* `iov` is read before the call returns; the bytes it points at must stay until completion. At most
 * IO_IOV_MAX entries. */
#define IO_IOV_MAX 64u
static inline void io_writev(struct io_file *file, const struct iovec *iov, unsigned iov_count,
			     uint64_t off, unsigned flags, struct io_op *op)
{
	IO_OF(file)->ops->writev(file, iov, iov_count, off, flags, op);
}
static inline void io_write(struct io_file *file, const void *buf, size_t len, uint64_t off,
			    unsigned flags, struct io_op *op)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };

	IO_OF(file)->ops->writev(file, &iov, 1, off, flags, op);
}
/* Makes every write that had completed when this was submitted durable. */
static inline void io_flush(struct io_file *file, struct io_op *op)
{
	IO_OF(file)->ops->flush(file, op);
}
/* Afterwards the range reads as zeroes and needs no space; where the device cannot promise the
 * zeroes, it writes them. Not durable before a flush, like a write. */
static inline void io_discard(struct io_file *file, uint64_t off, uint64_t len, struct io_op *op)
{
	IO_OF(file)->ops->discard(file, off, len, op);
}
static inline void io_write_zeroes(struct io_file *file, uint64_t off, uint64_t len, unsigned flags,
				   struct io_op *op)
{
	IO_OF(file)->ops->write_zeroes(file, off, len, flags, op);
}
/* Completes with the length (1..len) of the run at `off` that is all hole (reads as zeroes,
 * *ret_hole = true) or all possibly data. A file that cannot tell is one run of data. */
static inline void io_map(struct io_file *file, uint64_t off, uint64_t len, bool *ret_hole,
			  struct io_op *op)
{
	IO_OF(file)->ops->map(file, off, len, ret_hole, op);
}

static inline int io_listen(struct io *io, const struct io_address *address,
			    struct io_listener **ret_listener)
{
	return io->ops->listen(io, address, ret_listener);
}
/* One accept outstanding per listener. *ret_stream is set when it completes with 0. */
static inline void io_accept(struct io_listener *listener, struct io_stream **ret_stream,
			     struct io_op *op)
{
	IO_OF(listener)->ops->accept(listener, ret_stream, op);
}
/* A pending accept completes with -ECANCELED. */
static inline void io_listener_close(struct io_listener *listener)
{
	if (listener)
		IO_OF(listener)->ops->listener_close(listener);
}
/* Name look-up happens off the loop. */
static inline void io_connect(struct io *io, const struct io_address *address,
			      struct io_stream **ret_stream, struct io_op *op)
{
	io->ops->connect(io, address, ret_stream, op);
}
/*
 * TLS 1.3 on a stream with no operation pending; afterwards every byte is inside TLS. Mutual: both
 * sides present certificates of the configured CA. `expect_identity` (may be NULL) is the SAN that
 * the peer must carry. -EKEYREJECTED when the peer's certificate is refused, -EPROTO when the
 * handshake fails otherwise; io_stream_error() has the reason in words.
 */
static inline void io_start_tls(struct io_stream *stream, struct io_tls *tls, bool server,
				const char *expect_identity, struct io_op *op)
{
	IO_OF(stream)->ops->start_tls(stream, tls, server, expect_identity, op);
}
/* Completes with n, min <= n <= max, min >= 1; with 0 when the peer ended the stream before the
 * first byte, -ECONNRESET when it ended in between. One receive outstanding per stream. */
static inline void io_recv(struct io_stream *stream, void *buf, size_t min, size_t max,
			   struct io_op *op)
{
	IO_OF(stream)->ops->recv(stream, buf, min, max, op);
}
/* Completes when all bytes are with the transport (buffers free again). One send outstanding. */
static inline void io_sendv(struct io_stream *stream, const struct iovec *iov, unsigned iov_count,
			    struct io_op *op)
{
	IO_OF(stream)->ops->sendv(stream, iov, iov_count, op);
}
/* Legal at any time, also from a callback: pending operations complete with -ECANCELED in a later
 * turn, then the back end frees the stream. The caller drops its pointer at once. NULL is allowed.
 */
static inline void io_stream_close(struct io_stream *stream)
{
	if (stream)
		IO_OF(stream)->ops->stream_close(stream);
}
/* Hands a stream with no operation pending to another loop (which takes it over when a posted op
 * names it there). */
static inline void io_stream_move(struct io_stream *stream, struct io *to)
{
	IO_OF(stream)->ops->stream_move(stream, to);
}
static inline const struct io_peer *io_stream_peer(struct io_stream *stream)
{
	return IO_OF(stream)->ops->stream_peer(stream);
}
/* The last failure of the stream in words, "" when none. */
static inline const char *io_stream_error(struct io_stream *stream)
{
	return IO_OF(stream)->ops->stream_error(stream);
}
/* Tells the back end of a long-lived buffer region so that it can register it (fewer page pins).
 * Advice: always succeeds or returns an errno that may be ignored. */
static inline int io_buffers(struct io *io, void *base, size_t len)
{
	return io->ops->buffers(io, base, len);
}

#endif
