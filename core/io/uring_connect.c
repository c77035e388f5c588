/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting: look the name up on a worker, then try its addresses one after the other, all within
 * one deadline. At the deadline the caller is told at once; what is still under way (a look-up
 * cannot be called back) is thrown away when it ends.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct connecting {
	struct list link;
	struct uring *loop;
	struct io_op *op; /* NULL after it completed */
	struct io_stream **ret_stream;
	struct io_op lookup;
	struct uring_req req, cancel_req;
	struct io_timer deadline;
	struct addrinfo *found, *next;
	struct sockaddr_storage address; /* of the attempt under way */
	socklen_t address_len;
	int fd;
	int err; /* of the last attempt */
	char host[sizeof(((struct io_address *)0)->text)];
	char *name, *port;
};

static void connecting_free(struct connecting *c)
{
	list_remove(&c->link);
	if (c->fd >= 0)
		(void)close(c->fd);
	if (c->found)
		freeaddrinfo(c->found);
	free(c);
}

void connects_free(struct uring *loop)
{
	while (!list_empty(&loop->connects))
		connecting_free(container_of(list_first(&loop->connects), struct connecting, link));
}

/* Tells the caller, once. */
static void tell(struct connecting *c, int res)
{
	struct io_op *op = c->op;

	c->op = NULL;
	io_timer_stop(&c->loop->io, &c->deadline);
	loop_complete(c->loop, op, res);
}

static void connect_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct connecting *c = container_of(req, struct connecting, req);

	io_uring_prep_connect(sqe, c->fd, (struct sockaddr *)&c->address, c->address_len);
}

/* Starts an attempt at c->address. */
static int attempt(struct connecting *c)
{
	c->fd = socket(c->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	if (c->address.ss_family != AF_UNIX)
		tcp_options(c->fd);
	loop_queue(c->loop, &c->req);
	return 0;
}

/* The next address; the last error when there is none left. */
static int attempt_next(struct connecting *c)
{
	while (c->next) {
		must(c->next->ai_addrlen <= sizeof(c->address));
		memcpy(&c->address, c->next->ai_addr, c->next->ai_addrlen);
		c->address_len = c->next->ai_addrlen;
		c->next = c->next->ai_next;
		c->err = attempt(c);
		if (c->err == 0)
			return 0;
	}
	return c->err;
}

static void connect_done(struct uring_req *req, int res)
{
	struct connecting *c = container_of(req, struct connecting, req);
	struct uring_stream *stream;
	int fd = c->fd;

	if (c->op && (res == -EINTR || res == -EAGAIN) && c->address.ss_family != AF_UNIX) {
		loop_queue(c->loop, req);
		return;
	}
	c->fd = -1;
	if (c->op && res == 0) {
		res = stream_new(c->loop, fd, &stream);
		if (res == 0)
			*c->ret_stream = (struct io_stream *)stream;
		tell(c, res);
	} else {
		(void)close(fd);
		c->err = res;
		if (c->op) {
			res = attempt_next(c);
			if (res == 0)
				return;
			tell(c, res);
		}
	}
	if (!c->cancel_req.busy)
		connecting_free(c);
}

static void connect_cancel_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	cancel_fd_prep(container_of(req, struct connecting, cancel_req)->fd, sqe);
}

static void connect_cancel_done(struct uring_req *req, int res)
{
	struct connecting *c = container_of(req, struct connecting, cancel_req);

	(void)res; /* the connect says how it ended */
	if (!c->req.busy)
		connecting_free(c);
}

static void deadline_fire(struct io_timer *timer)
{
	struct connecting *c = container_of(timer, struct connecting, deadline);

	if (c->req.busy)
		loop_queue(c->loop, &c->cancel_req);
	tell(c, -ETIMEDOUT);
}

static int lookup_errno(int code)
{
	switch (code) {
	case 0:
		return 0;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_SYSTEM:
		return errno ? -errno : -EIO;
	case EAI_AGAIN: /* no name server answers: may be better later */
		return -EHOSTUNREACH;
	default:
		return -EADDRNOTAVAIL;
	}
}

static int lookup(struct connecting *c, int flags)
{
	struct addrinfo hints = {
		.ai_flags = flags | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM,
	};

	return lookup_errno(getaddrinfo(c->name, c->port, &hints, &c->found));
}

static void lookup_work(struct io_op *op)
{
	op->res = lookup(container_of(op, struct connecting, lookup), AI_ADDRCONFIG);
}

static void lookup_done(struct io_op *op, int64_t res)
{
	struct connecting *c = container_of(op, struct connecting, lookup);

	if (c->op && res == 0) {
		c->next = c->found;
		res = attempt_next(c);
		if (res == 0)
			return;
	}
	if (c->op)
		tell(c, (int)res);
	connecting_free(c);
}

/* 0 when an attempt or a look-up is under way. */
static int begin(struct connecting *c, const struct io_address *address)
{
	const char *path = address_unix_path(address->text);
	int err;

	if (path) {
		err = unix_sockaddr(path, &c->address, &c->address_len);
		return err < 0 ? err : attempt(c);
	}
	(void)snprintf(c->host, sizeof(c->host), "%s", address->text);
	err = address_split(c->host, &c->name, &c->port);
	if (err < 0)
		return err;
	if (!*c->name)
		return -EINVAL;
	if (lookup(c, AI_NUMERICHOST) == 0) { /* asks nobody */
		c->next = c->found;
		return attempt_next(c);
	}
	c->lookup.done = lookup_done;
	uring_work(&c->loop->io, lookup_work, &c->lookup);
	return 0;
}

void uring_connect(struct io *io, const struct io_address *address, struct io_stream **ret_stream,
		   struct io_op *op)
{
	struct uring *loop = uring_of(io);
	struct connecting *c = calloc(1, sizeof(*c));
	int err;

	op_begin(op);
	if (!c) {
		loop_ready(loop, op, -ENOMEM);
		return;
	}
	list_push_back(&loop->connects, &c->link);
	c->loop = loop;
	c->op = op;
	c->ret_stream = ret_stream;
	c->fd = -1;
	c->req.prep = connect_prep;
	c->req.done = connect_done;
	c->cancel_req.prep = connect_cancel_prep;
	c->cancel_req.done = connect_cancel_done;
	c->deadline.fire = deadline_fire;
	err = begin(c, address);
	if (err < 0) {
		connecting_free(c);
		loop_ready(loop, op, err);
		return;
	}
	io_timer_start(io, &c->deadline, NET_DEADLINE_NS);
}
