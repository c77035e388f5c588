/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: TCP and unix sockets, plain or (uring_tls.c) inside TLS.
 *
 * At most one receive and one send request is in the kernel per stream. Closing shuts the socket
 * down and cancels them; the memory goes when the last of them, and every result on its way to the
 * caller, has come in. So a callback may close its own stream: nothing is freed beneath it.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/io/tls_session.h"

#define TRANSFER_BYTES_MAX (1u << 30)
#define DRAIN_BYTES_MAX	   (4u << 20)
#define DRAIN_STEP_BYTES   (16u << 10)

struct uring *stream_loop(const struct uring_stream *stream)
{
	return uring_of(stream->handle.io);
}

void stream_say(struct uring_stream *stream, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(stream->error, sizeof(stream->error), format, arguments);
	va_end(arguments);
}

/* ---- results on their way to the caller ---- */

static void end(struct uring_stream *stream, struct io_op *ready, int64_t *place, int64_t res,
		bool now)
{
	*place = res;
	op_begin(ready);
	if (now)
		loop_complete(stream_loop(stream), ready, 0);
	else
		loop_ready(stream_loop(stream), ready, 0);
}

void stream_recv_end(struct uring_stream *stream, int64_t res, bool now)
{
	end(stream, &stream->recv_ready, &stream->recv_res, res, now);
}

void stream_send_end(struct uring_stream *stream, int64_t res, bool now)
{
	end(stream, &stream->send_ready, &stream->send_res, res, now);
}

void stream_tls_end(struct uring_stream *stream, int64_t res, bool now)
{
	end(stream, &stream->tls_ready, &stream->tls_res, res, now);
}

/* The caller may close the stream in its callback, or may have closed it since the result was
 * decided. */
static void hand_over(struct uring_stream *stream, struct io_op **place, int64_t res)
{
	struct io_op *op = *place;

	*place = NULL;
	loop_complete(stream_loop(stream), op, stream->closing ? -ECANCELED : res);
}

static void recv_ready_done(struct io_op *op, int64_t res)
{
	struct uring_stream *stream = container_of(op, struct uring_stream, recv_ready);
	bool closing = stream->closing;

	(void)res;
	hand_over(stream, &stream->recv_op, stream->recv_res);
	if (closing)
		stream_reap(stream);
}

static void send_ready_done(struct io_op *op, int64_t res)
{
	struct uring_stream *stream = container_of(op, struct uring_stream, send_ready);
	bool closing = stream->closing;

	(void)res;
	hand_over(stream, &stream->send_op, stream->send_res);
	if (closing)
		stream_reap(stream);
}

static void tls_ready_done(struct io_op *op, int64_t res)
{
	struct uring_stream *stream = container_of(op, struct uring_stream, tls_ready);
	bool closing = stream->closing;

	(void)res;
	hand_over(stream, &stream->tls_op, stream->tls_res);
	if (closing)
		stream_reap(stream);
}

/* ---- receiving ---- */

static void recv_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct uring_stream *stream = container_of(req, struct uring_stream, recv_req);

	if (stream->tls) {
		tls_recv_prep(stream, sqe);
		return;
	}
	io_uring_prep_recv(sqe, stream->fd, stream->recv_buf + stream->recv_got,
			   min_size(stream->recv_max - stream->recv_got, TRANSFER_BYTES_MAX), 0);
}

static void recv_done(struct uring_req *req, int res)
{
	struct uring_stream *stream = container_of(req, struct uring_stream, recv_req);

	if (stream->closing) {
		if (stream->recv_op && stream->recv_ready.state == IO_OP_IDLE)
			stream_recv_end(stream, -ECANCELED, true);
		else
			stream_reap(stream);
		return;
	}
	if (res == -EINTR || res == -EAGAIN) {
		loop_queue(stream_loop(stream), req);
		return;
	}
	if (res < 0)
		stream_say(stream, "receiving from %s failed: %s", stream->peer.address,
			   err_text(res));
	if (stream->tls) {
		tls_recv_done(stream, res);
		return;
	}
	if (res < 0) {
		stream_recv_end(stream, res, true);
	} else if (res == 0) {
		if (stream->recv_got > 0)
			stream_say(stream, "%s ended the connection in the middle of a message",
				   stream->peer.address);
		stream_recv_end(stream, stream->recv_got > 0 ? -ECONNRESET : 0, true);
	} else {
		stream->recv_got += (size_t)res;
		if (stream->recv_got >= stream->recv_min)
			stream_recv_end(stream, (int64_t)stream->recv_got, true);
		else
			loop_queue(stream_loop(stream), req);
	}
}

void uring_recv(struct io_stream *handle, void *buf, size_t min, size_t max, struct io_op *op)
{
	struct uring_stream *stream = (struct uring_stream *)handle;

	op_begin(op);
	must(!stream->closing && !stream->recv_op && !stream->tls_op);
	must(min >= 1 && min <= max && max <= INT64_MAX);
	stream->recv_op = op;
	stream->recv_buf = buf;
	stream->recv_min = min;
	stream->recv_max = max;
	stream->recv_got = 0;
	if (stream->broken)
		stream_recv_end(stream, stream->broken, false);
	else if (stream->tls)
		tls_recv_step(stream, false);
	else
		loop_queue(stream_loop(stream), &stream->recv_req);
}

/* ---- sending ---- */

static void send_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct uring_stream *stream = container_of(req, struct uring_stream, send_req);

	if (stream->tls) {
		tls_send_prep(stream, sqe);
		return;
	}
	if (stream->iov_count == 1) {
		const struct iovec *iov = &stream->iov[stream->iov_first];

		io_uring_prep_send(sqe, stream->fd, iov->iov_base,
				   min_size(iov->iov_len, TRANSFER_BYTES_MAX), MSG_NOSIGNAL);
		return;
	}
	stream->msg = (struct msghdr){
		.msg_iov = &stream->iov[stream->iov_first],
		.msg_iovlen = stream->iov_count,
	};
	io_uring_prep_sendmsg(sqe, stream->fd, &stream->msg, MSG_NOSIGNAL);
}

static void send_done(struct uring_req *req, int res)
{
	struct uring_stream *stream = container_of(req, struct uring_stream, send_req);

	if (stream->closing) {
		if (stream->send_op && stream->send_ready.state == IO_OP_IDLE)
			stream_send_end(stream, -ECANCELED, true);
		else
			stream_reap(stream);
		return;
	}
	if (res == -EINTR || res == -EAGAIN) {
		loop_queue(stream_loop(stream), req);
		return;
	}
	if (res < 0)
		stream_say(stream, "sending to %s failed: %s", stream->peer.address, err_text(res));
	if (stream->tls) {
		tls_send_done(stream, res);
		return;
	}
	if (res < 0) {
		stream_send_end(stream, res, true);
		return;
	}
	iov_advance(stream->iov, &stream->iov_first, &stream->iov_count, (uint64_t)res);
	if (stream->iov_count == 0)
		stream_send_end(stream, (int64_t)stream->send_total, true);
	else
		loop_queue(stream_loop(stream), req);
}

void uring_sendv(struct io_stream *handle, const struct iovec *iov, unsigned iov_count,
		 struct io_op *op)
{
	struct uring_stream *stream = (struct uring_stream *)handle;

	op_begin(op);
	must(!stream->closing && !stream->send_op && !stream->tls_op);
	must(iov_count <= IO_IOV_MAX);
	stream->send_op = op;
	stream->send_total = 0;
	stream->iov_first = 0;
	stream->iov_count = 0;
	for (unsigned i = 0; i < iov_count; i++) {
		if (iov[i].iov_len == 0)
			continue;
		stream->iov[stream->iov_count++] = iov[i];
		stream->send_total += iov[i].iov_len;
	}
	if (stream->broken)
		stream_send_end(stream, stream->broken, false);
	else if (stream->iov_count == 0)
		stream_send_end(stream, 0, false);
	else if (stream->tls)
		tls_send_step(stream, false);
	else
		loop_queue(stream_loop(stream), &stream->send_req);
}

/* ---- life ---- */

void cancel_fd_prep(int fd, struct io_uring_sqe *sqe)
{
	io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
}

static void cancel_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	cancel_fd_prep(container_of(req, struct uring_stream, cancel_req)->fd, sqe);
}

static void cancel_done(struct uring_req *req, int res)
{
	(void)res; /* shutdown() has woken them where the kernel cannot cancel by descriptor */
	stream_reap(container_of(req, struct uring_stream, cancel_req));
}

static void reap_done(struct io_op *op, int64_t res)
{
	struct uring_stream *stream = container_of(op, struct uring_stream, reap_op);

	(void)res;
	/* Receives and sends end with their requests; a handshake has none of its own. */
	if (stream->tls_op && stream->tls_ready.state == IO_OP_IDLE)
		hand_over(stream, &stream->tls_op, -ECANCELED);
	stream_reap(stream);
}

static void stream_free(struct uring_stream *stream)
{
	struct uring *loop = stream_loop(stream);

	must(pthread_mutex_lock(&loop->handles_lock) == 0);
	list_remove(&stream->link);
	must(pthread_mutex_unlock(&loop->handles_lock) == 0);
	if (stream->tls)
		tls_session_free(stream->tls);
	(void)close(stream->fd);
	free(stream);
}

void stream_reap(struct uring_stream *stream)
{
	bool in_kernel = stream->recv_req.busy || stream->send_req.busy || stream->cancel_req.busy;
	bool outstanding = stream->recv_op || stream->send_op || stream->tls_op;
	bool on_the_way =
		stream->reap_op.state != IO_OP_IDLE || stream->recv_ready.state != IO_OP_IDLE ||
		stream->send_ready.state != IO_OP_IDLE || stream->tls_ready.state != IO_OP_IDLE;

	if (!in_kernel && !outstanding && !on_the_way)
		stream_free(stream);
}

static void describe_tcp(struct uring_stream *stream, const struct sockaddr_storage *address,
			 socklen_t len)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];
	const char *name = host;
	const char *form = "%s:%s";

	if (getnameinfo((const struct sockaddr *)address, len, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	if (strncmp(host, "::ffff:", 7) == 0 && strchr(host, '.'))
		name = host + 7; /* an IPv4 peer on a socket for both */
	else if (address->ss_family == AF_INET6)
		form = "[%s]:%s";
	if (form[0] == '[')
		(void)snprintf(stream->peer.address, sizeof(stream->peer.address), "[%.64s]:%.8s",
			       name, port);
	else
		(void)snprintf(stream->peer.address, sizeof(stream->peer.address), "%.64s:%.8s",
			       name, port);
}

static void describe_peer(struct uring_stream *stream)
{
	struct sockaddr_storage address = { 0 };
	socklen_t len = sizeof(address);
	struct ucred who;

	stream->peer.uid = UINT32_MAX;
	(void)snprintf(stream->peer.address, sizeof(stream->peer.address), "unknown");
	if (getpeername(stream->fd, (struct sockaddr *)&address, &len) < 0)
		return; /* gone already: the first receive will say so */
	if (address.ss_family != AF_UNIX) {
		tcp_options(stream->fd);
		describe_tcp(stream, &address, len);
		return;
	}
	(void)snprintf(stream->peer.address, sizeof(stream->peer.address), "unix");
	len = sizeof(who);
	if (getsockopt(stream->fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0)
		stream->peer.uid = who.uid;
}

int stream_new(struct uring *loop, int fd, struct uring_stream **ret_stream)
{
	struct uring_stream *stream = calloc(1, sizeof(*stream));

	if (!stream) {
		(void)close(fd);
		return -ENOMEM;
	}
	stream->handle.io = &loop->io;
	stream->fd = fd;
	stream->recv_req.prep = recv_prep;
	stream->recv_req.done = recv_done;
	stream->send_req.prep = send_prep;
	stream->send_req.done = send_done;
	stream->cancel_req.prep = cancel_prep;
	stream->cancel_req.done = cancel_done;
	stream->recv_ready.done = recv_ready_done;
	stream->send_ready.done = send_ready_done;
	stream->tls_ready.done = tls_ready_done;
	stream->reap_op.done = reap_done;
	describe_peer(stream);
	must(pthread_mutex_lock(&loop->handles_lock) == 0);
	list_push_back(&loop->streams, &stream->link);
	must(pthread_mutex_unlock(&loop->handles_lock) == 0);
	*ret_stream = stream;
	return 0;
}

/* A close with unread data makes the kernel send a reset, which can overtake what we sent last or
 * hide that we ended in order. So what has arrived is read away. */
static void drain(int fd)
{
	uint8_t waste[DRAIN_STEP_BYTES];
	size_t total = 0;
	ssize_t res;

	do {
		res = recv(fd, waste, sizeof(waste), MSG_DONTWAIT);
		total += res > 0 ? (size_t)res : 0;
	} while (res > 0 && total < DRAIN_BYTES_MAX);
}

void uring_stream_close(struct io_stream *handle)
{
	struct uring_stream *stream = (struct uring_stream *)handle;
	struct uring *loop = stream_loop(stream);

	must(!stream->closing);
	if (stream->tls)
		tls_close(stream);
	stream->closing = true;
	io_timer_stop(&loop->io, &stream->tls_timer);
	(void)shutdown(stream->fd, SHUT_WR);
	if (stream->recv_req.busy || stream->send_req.busy) {
		(void)shutdown(stream->fd, SHUT_RD);
		loop_queue(loop, &stream->cancel_req);
	} else {
		drain(stream->fd);
	}
	op_begin(&stream->reap_op);
	loop_ready(loop, &stream->reap_op, 0);
}

void uring_stream_move(struct io_stream *handle, struct io *to)
{
	struct uring_stream *stream = (struct uring_stream *)handle;
	struct uring *from = stream_loop(stream), *target = uring_of(to);

	must(!stream->closing && !stream->recv_op && !stream->send_op && !stream->tls_op);
	must(!stream->recv_req.busy && !stream->send_req.busy && !stream->cancel_req.busy);
	must(stream->tls_timer.heap_index == 0);
	if (from == target)
		return;
	/* One after the other, so the two locks have no order. */
	must(pthread_mutex_lock(&from->handles_lock) == 0);
	list_remove(&stream->link);
	must(pthread_mutex_unlock(&from->handles_lock) == 0);
	stream->handle.io = to;
	must(pthread_mutex_lock(&target->handles_lock) == 0);
	list_push_back(&target->streams, &stream->link);
	must(pthread_mutex_unlock(&target->handles_lock) == 0);
}

const struct io_peer *uring_stream_peer(struct io_stream *stream)
{
	return &((struct uring_stream *)stream)->peer;
}

const char *uring_stream_error(struct io_stream *stream)
{
	return ((struct uring_stream *)stream)->error;
}

void streams_free(struct uring *loop)
{
	while (!list_empty(&loop->streams))
		stream_free(container_of(list_first(&loop->streams), struct uring_stream, link));
}
