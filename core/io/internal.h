/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the io_uring back end: the loop, its requests, files, listeners and streams.
 *
 * Owner: the loop's thread, except what is named "mailbox" and "worker", which has a mutex of its
 * own. Everything that goes to the kernel is a `struct uring_req`; its address is the user_data, so
 * it stays where it is until its completion was reaped. Nothing here touches the ring but uring.c:
 * requests are queued, and the turn's end puts them into the submission queue, in order.
 *
 * How an operation ends: exactly one call of loop_complete(), from the reaping of completions, from
 * the ready queue or from a timer, never from inside the call that submitted it.
 */
#ifndef HOLDFAST_CORE_IO_INTERNAL_H
#define HOLDFAST_CORE_IO_INTERNAL_H

#include <liburing.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "core/base/list.h"
#include "core/base/macros.h"
#include "core/io/io.h"
#include "core/io/uring.h"

#define IO_OP_BUSY	     1u

#define RING_ENTRIES_DEFAULT 256u
#define WORKERS_DEFAULT	     2u
#define WORKERS_MAX	     16u
#define REGIONS_MAX	     64u
#define REGION_BYTES_MAX     (1u << 30)
#define FIXED_FILES_MAX	     256u
#define ZEROES_BYTES	     (1u << 20)
#define RANDOM_WORDS	     32u
#define NET_DEADLINE_NS	     (10 * 1000000000ull)

/* FIFO of operations, linked by op->next. */
struct op_queue {
	struct io_op *first, *last;
};

static inline void op_queue_push(struct op_queue *queue, struct io_op *op)
{
	op->next = NULL;
	if (queue->last)
		queue->last->next = op;
	else
		queue->first = op;
	queue->last = op;
}

static inline struct io_op *op_queue_pop(struct op_queue *queue)
{
	struct io_op *op = queue->first;

	if (op) {
		queue->first = op->next;
		if (!queue->first)
			queue->last = NULL;
		op->next = NULL;
	}
	return op;
}

#define REQ_MAGIC 0x71657275u /* "ureq" */

/* One request to the kernel. Zeroed memory with prep and done set is idle. */
struct uring_req {
	uint32_t magic;
	bool busy;    /* from queueing until done() is entered */
	bool is_file; /* the kernel moves data of memory that must outlive the request */
	struct uring_req *next;
	void (*prep)(struct uring_req *req, struct io_uring_sqe *sqe);
	/* `res` is the completion's result. May queue the request again. */
	void (*done)(struct uring_req *req, int res);
};

/* A piece of memory registered with the kernel. */
struct region {
	uint8_t *base;
	size_t len;
	bool registered;
};

struct file_req;
struct file_req_slab;

struct uring {
	struct io io;
	char name[16];
	unsigned entries;

	struct io_uring ring;
	bool ring_ready;
	bool quiescing; /* uring_run() is about to return: results are kept, not delivered */
	atomic_bool stopping;
	atomic_bool closing; /* uring_free() began: long worker jobs end early */

	struct uring_req *req_first, *req_last; /* not in the submission queue yet */
	unsigned files_in_flight;
	struct op_queue ready;	  /* results decided without the kernel, or kept */
	struct op_queue deferred; /* io_defer() */

	struct io_timer **timers; /* binary heap, 1-based */
	uint32_t timer_count, timer_max;
	uint64_t timer_order;

	pthread_mutex_t mailbox_lock; /* guards mailbox */
	struct op_queue mailbox;
	int wake_fd;
	uint64_t wake_value;
	struct uring_req wake_req;

	pthread_mutex_t worker_lock; /* guards worker_queue and worker_quit */
	pthread_cond_t worker_cond;
	struct op_queue worker_queue;
	bool worker_quit;
	unsigned worker_count;
	pthread_t workers[WORKERS_MAX];

	pthread_mutex_t handles_lock; /* guards streams: a stream moves between loops */
	struct list streams, listeners, files, creates, connects;

	struct file_req *file_req_free;
	struct file_req_slab *file_req_slabs;
	uint8_t *zeroes;

	struct region regions[REGIONS_MAX];
	unsigned region_count; /* behind it all are unused */
	bool regions_enabled, fixed_files_enabled;
	bool fixed_file_used[FIXED_FILES_MAX];

	uint64_t random[RANDOM_WORDS];
	unsigned random_left;

	struct uring_stats stats;
};

/* Moves the front of an iovec by `len` bytes of it. */
static inline void iov_advance(struct iovec *iov, unsigned *first, unsigned *count, uint64_t len)
{
	while (len > 0) {
		struct iovec *front = &iov[*first];
		size_t part = (size_t)min_u64(len, front->iov_len);

		front->iov_base = (uint8_t *)front->iov_base + part;
		front->iov_len -= part;
		len -= part;
		if (front->iov_len == 0) {
			++*first;
			--*count;
		}
	}
}

static inline struct uring *uring_of(struct io *io)
{
	return container_of(io, struct uring, io);
}

/* uring.c */
void op_begin(struct io_op *op);
void loop_complete(struct uring *loop, struct io_op *op, int64_t res);
/* Ends `op` with `res` in the coming delivery pass; for use inside a submitting call. */
void loop_ready(struct uring *loop, struct io_op *op, int64_t res);
void loop_queue(struct uring *loop, struct uring_req *req);
uint64_t uring_now(struct io *io);
int ring_create(struct io_uring *ring, unsigned entries, unsigned *ret_flags); /* uring_probe.c */

/* uring_timer.c */
void uring_timer_start(struct io *io, struct io_timer *timer, uint64_t delay_ns);
void uring_timer_stop(struct io *io, struct io_timer *timer);
/* Fires what is due. */
void timers_run(struct uring *loop);
/* Nanoseconds until the first deadline, UINT64_MAX when no timer runs. */
uint64_t timers_wait_ns(struct uring *loop);

/* uring_worker.c */
int mailbox_init(struct uring *loop);
void mailbox_start(struct uring *loop); /* listens for wake-ups; the ring exists */
void mailbox_wake(struct uring *loop);
void mailbox_free(struct uring *loop);
void uring_post(struct io *io, struct io_op *op);
void uring_work(struct io *io, void (*fn)(struct io_op *op), struct io_op *op);
int workers_start(struct uring *loop, unsigned count);
void workers_stop(struct uring *loop);

/* uring_memory.c */
void *uring_alloc(struct io *io, size_t size, size_t align);
void uring_release(struct io *io, void *memory);
int uring_buffers(struct io *io, void *base, size_t len);
/* Registers what the loop may use; the ring exists. */
void regions_start(struct uring *loop);
/* Index of the registered region that holds the range, or -1. */
int region_find(const struct uring *loop, const void *base, size_t len);
uint64_t uring_random(struct io *io);

/* uring_open.c */
struct uring_file {
	struct io_handle handle;
	struct list link;
	int fd;
	int fixed_index; /* in the ring's table of files, -1: none */
	unsigned in_flight;
	bool read_only;
	bool fast_zeroes; /* zeroing that keeps the space allocated moves no data */
	struct io_file_info info;
};

int uring_mkdir(struct io *io, const char *path);
int uring_lock(struct io *io, const char *path, struct io_lock **ret_lock);
void uring_unlock(struct io_lock *lock);
int uring_file_open(struct io *io, const char *path, unsigned flags, struct io_file **ret_file);
void uring_file_close(struct io_file *file);
void uring_file_info(struct io_file *file, struct io_file_info *ret_info);
int uring_file_grow(struct io_file *file, uint64_t size);
void uring_file_create(struct io *io, const char *path, uint64_t size, struct io_op *op);
void uring_file_reserve(struct io *io, const char *path, uint64_t size, struct io_op *op);
int uring_file_remove(struct io *io, const char *path);
void fixed_files_start(struct uring *loop);
void files_free(struct uring *loop);
void creates_free(struct uring *loop);

/* uring_file.c */
void uring_read(struct io_file *file, void *buf, size_t len, uint64_t off, struct io_op *op);
void uring_writev(struct io_file *file, const struct iovec *iov, unsigned iov_count, uint64_t off,
		  unsigned flags, struct io_op *op);
void uring_flush(struct io_file *file, struct io_op *op);
void file_reqs_free(struct uring *loop);

/* uring_space.c */
void uring_discard(struct io_file *file, uint64_t off, uint64_t len, struct io_op *op);
void uring_write_zeroes(struct io_file *file, uint64_t off, uint64_t len, unsigned flags,
			struct io_op *op);
void uring_map(struct io_file *file, uint64_t off, uint64_t len, bool *ret_hole, struct io_op *op);

/* One file operation; recycled, never freed while the loop lives. */
struct file_req {
	struct uring_req req;
	struct io_op job; /* map: the part that runs on a worker */
	struct file_req *next_free;
	struct uring_file *file;
	struct io_op *op;
	uint64_t off;	/* of the operation */
	uint64_t total; /* its length */
	uint64_t done;	/* of it, always a place from which it can be continued */
	unsigned flags;
	unsigned step; /* space: how the zeroes are made */
	unsigned attempts;
	bool *ret_hole;
	unsigned iov_first, iov_count;
	struct iovec iov[IO_IOV_MAX];
};

/* NULL when memory is short; the operation is complete then. */
struct file_req *file_req_new(struct uring_file *file, struct io_op *op);
void file_req_finish(struct file_req *fr, int64_t res);
/* Whether the request was queued again after a result that asks for it. */
bool file_req_retry(struct file_req *fr, int res);
void file_req_target(const struct file_req *fr, struct io_uring_sqe *sqe);
struct uring *file_loop(const struct uring_file *file);

/* uring_net.c: addresses and listeners */
struct uring_listener {
	struct io_handle handle;
	struct list link;
	int fd;
	int port;
	bool closing;
	struct uring_req req, cancel_req;
	struct io_op *op;
	struct io_stream **ret_stream;
	struct io_op reap_op;
	char unix_path[108]; /* "" for TCP */
	uint64_t unix_device, unix_inode;
};

/* Splits "host:port" or "[v6]:port" in place. */
int address_split(char *text, char **ret_host, char **ret_port);
/* The path of "unix:/path", NULL for other addresses. */
const char *address_unix_path(const char *text);
int unix_sockaddr(const char *path, struct sockaddr_storage *ret_address, socklen_t *ret_len);
void tcp_options(int fd);
int uring_listen(struct io *io, const struct io_address *address,
		 struct io_listener **ret_listener);
void uring_accept(struct io_listener *listener, struct io_stream **ret_stream, struct io_op *op);
void uring_listener_close(struct io_listener *listener);
void listeners_free(struct uring *loop);

/* uring_connect.c */
void uring_connect(struct io *io, const struct io_address *address, struct io_stream **ret_stream,
		   struct io_op *op);
void connects_free(struct uring *loop);

/* uring_stream.c */
struct tls_session;

struct uring_stream {
	struct io_handle handle;
	struct list link;
	int fd;
	bool closing;
	int broken; /* after a failed handshake nothing may pass: the errno */
	struct uring_req recv_req, send_req, cancel_req;
	struct io_op reap_op; /* frees the stream in a later pass */

	struct io_op *recv_op;	 /* the caller's, NULL: none outstanding */
	struct io_op recv_ready; /* delivers recv_res from the ready queue */
	int64_t recv_res;
	uint8_t *recv_buf;
	size_t recv_min, recv_max, recv_got;

	struct io_op *send_op;
	struct io_op send_ready;
	int64_t send_res;
	size_t send_total;
	unsigned iov_first, iov_count;
	struct iovec iov[IO_IOV_MAX];
	struct msghdr msg;

	struct tls_session *tls;
	struct io_op *tls_op; /* the caller's handshake */
	struct io_op tls_ready;
	int64_t tls_res;
	bool tls_shaken; /* the handshake itself is over, its last bytes may still be on the way */
	struct io_timer tls_timer;

	struct io_peer peer;
	char error[256];
};

/* Takes over `fd`, also when it fails. */
int stream_new(struct uring *loop, int fd, struct uring_stream **ret_stream);
void uring_recv(struct io_stream *stream, void *buf, size_t min, size_t max, struct io_op *op);
void uring_sendv(struct io_stream *stream, const struct iovec *iov, unsigned iov_count,
		 struct io_op *op);
void uring_stream_close(struct io_stream *stream);
void uring_stream_move(struct io_stream *stream, struct io *to);
const struct io_peer *uring_stream_peer(struct io_stream *stream);
const char *uring_stream_error(struct io_stream *stream);
void streams_free(struct uring *loop);

struct uring *stream_loop(const struct uring_stream *stream);
void stream_say(struct uring_stream *stream, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Ends the outstanding operation. `now`: called from a completion, so deliver at once. */
void stream_recv_end(struct uring_stream *stream, int64_t res, bool now);
void stream_send_end(struct uring_stream *stream, int64_t res, bool now);
void stream_tls_end(struct uring_stream *stream, int64_t res, bool now);
/* The last step of closing, when nothing refers to the stream any more. */
void stream_reap(struct uring_stream *stream);
void cancel_fd_prep(int fd, struct io_uring_sqe *sqe);

/* uring_tls.c: the same two operations inside TLS */
void uring_start_tls(struct io_stream *stream, struct io_tls *tls, bool server,
		     const char *expect_identity, struct io_op *op);
void tls_recv_step(struct uring_stream *stream, bool now);
void tls_send_step(struct uring_stream *stream, bool now);
void tls_recv_prep(struct uring_stream *stream, struct io_uring_sqe *sqe);
void tls_recv_done(struct uring_stream *stream, int res);
void tls_send_prep(struct uring_stream *stream, struct io_uring_sqe *sqe);
void tls_send_done(struct uring_stream *stream, int res);
/* Says goodbye, as far as that goes without waiting. */
void tls_close(struct uring_stream *stream);

#endif
