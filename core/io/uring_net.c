/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and listeners. */
#include "core/io/internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/units.h"

#define BACKLOG		     256
#define KEEPALIVE_IDLE_S     10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT	     3
#define USER_TIMEOUT_MS	     10000u

const char *address_unix_path(const char *text)
{
	static const char prefix[] = "unix:";

	return strncmp(text, prefix, sizeof(prefix) - 1) == 0 ? text + sizeof(prefix) - 1 : NULL;
}

int address_split(char *text, char **ret_host, char **ret_port)
{
	char *host = text, *colon;
	uint64_t port;

	if (*text == '[') {
		char *end = strchr(text, ']');

		if (!end || end[1] != ':')
			return -EINVAL;
		host = text + 1;
		*end = 0;
		colon = end + 1;
	} else {
		colon = strrchr(text, ':');
		/* More than one colon: an IPv6 address that lacks its brackets. */
		if (!colon || memchr(text, ':', (size_t)(colon - text)))
			return -EINVAL;
		*colon = 0;
	}
	if (units_parse_u64(colon + 1, &port) < 0 || port > UINT16_MAX)
		return -EINVAL;
	*ret_host = host;
	*ret_port = colon + 1;
	return 0;
}

int unix_sockaddr(const char *path, struct sockaddr_storage *ret_address, socklen_t *ret_len)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, len + 1);
	memset(ret_address, 0, sizeof(*ret_address));
	memcpy(ret_address, &address, sizeof(address));
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

static void set_option(int fd, int level, int option, int value)
{
	/* Advice to the kernel; the stream works without. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

void tcp_options(int fd)
{
	unsigned timeout_ms = USER_TIMEOUT_MS;

	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
	/* Data that nobody acknowledges ends the connection: a dead peer is noticed in 10 s. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

/* Removes a socket file that no process listens on. -EADDRINUSE when one does, or when the file is
 * something else. */
static int remove_stale(const struct sockaddr_storage *address, socklen_t len, const char *path)
{
	struct stat st;
	int fd, err = -EADDRINUSE;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EADDRINUSE;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN, a full backlog, also means that somebody is there. */
	if (connect(fd, (const struct sockaddr *)address, len) < 0 && errno == ECONNREFUSED)
		err = unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	(void)close(fd);
	return err;
}

static int listen_unix(struct uring_listener *listener, const char *path)
{
	struct sockaddr_storage address;
	struct stat st;
	socklen_t len;
	int err = unix_sockaddr(path, &address, &len);

	if (err < 0)
		return err;
	listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener->fd < 0)
		return -errno;
	/* The mode of the socket becomes the file's, so it is never open to others for a moment. */
	if (fchmod(listener->fd, 0660) < 0)
		return -errno;
	if (bind(listener->fd, (struct sockaddr *)&address, len) < 0) {
		if (errno != EADDRINUSE)
			return -errno;
		err = remove_stale(&address, len, path);
		if (err < 0)
			return err;
		if (bind(listener->fd, (struct sockaddr *)&address, len) < 0)
			return -errno;
	}
	if (stat(path, &st) < 0)
		return -errno;
	(void)snprintf(listener->unix_path, sizeof(listener->unix_path), "%s", path);
	listener->unix_device = st.st_dev;
	listener->unix_inode = st.st_ino;
	/* Whatever the umask took away. */
	return chmod(path, 0660) < 0 ? -errno : 0;
}

static int bound_port(int fd)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	char text[NI_MAXSERV];
	uint64_t port;

	if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		return -errno;
	if (getnameinfo((struct sockaddr *)&address, len, NULL, 0, text, sizeof(text),
			NI_NUMERICSERV) != 0 ||
	    units_parse_u64(text, &port) < 0)
		return -EINVAL;
	return (int)port;
}

static int listen_tcp(struct uring_listener *listener, const char *text)
{
	struct addrinfo hints = {
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM,
	};
	struct addrinfo *found = NULL;
	char copy[sizeof(((struct io_address *)0)->text)];
	char *host, *port;
	int err;

	(void)snprintf(copy, sizeof(copy), "%s", text);
	err = address_split(copy, &host, &port);
	if (err < 0)
		return err;
	if (!*host || strcmp(host, "*") == 0)
		host = NULL;
	if (getaddrinfo(host, port, &hints, &found) != 0)
		return -EADDRNOTAVAIL;
	listener->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener->fd < 0) {
		err = -errno;
		goto out;
	}
	set_option(listener->fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (found->ai_family == AF_INET6)
		set_option(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (bind(listener->fd, found->ai_addr, found->ai_addrlen) < 0) {
		err = -errno;
		goto out;
	}
	err = bound_port(listener->fd);
	if (err >= 0) {
		listener->port = err;
		err = 0;
	}
out:
	freeaddrinfo(found);
	return err;
}

static void listener_free(struct uring_listener *listener)
{
	struct stat st;

	list_remove(&listener->link);
	/* Only the file that we made: a successor may have put its own there. */
	if (listener->unix_path[0] && lstat(listener->unix_path, &st) == 0 &&
	    st.st_dev == listener->unix_device && st.st_ino == listener->unix_inode)
		(void)unlink(listener->unix_path);
	if (listener->fd >= 0)
		(void)close(listener->fd);
	free(listener);
}

static void listener_reap(struct uring_listener *listener)
{
	if (!listener->op && !listener->req.busy && !listener->cancel_req.busy &&
	    listener->reap_op.state == IO_OP_IDLE)
		listener_free(listener);
}

static void accept_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct uring_listener *listener = container_of(req, struct uring_listener, req);

	io_uring_prep_accept(sqe, listener->fd, NULL, NULL, SOCK_CLOEXEC);
}

/* Whether the failure is of one connection, not of the listener. */
static bool accept_again(int res)
{
	switch (-res) {
	case EINTR:
	case EAGAIN:
	case ECONNABORTED:
	case EPROTO:
	case ENETDOWN:
	case ENETUNREACH:
	case EHOSTDOWN:
	case EHOSTUNREACH:
		return true;
	default:
		return false;
	}
}

static void accept_done(struct uring_req *req, int res)
{
	struct uring_listener *listener = container_of(req, struct uring_listener, req);
	struct uring *loop = uring_of(listener->handle.io);
	struct io_op *op = listener->op;
	struct uring_stream *stream;

	if (listener->closing) {
		if (res >= 0)
			(void)close(res);
		listener->op = NULL;
		loop_complete(loop, op, -ECANCELED);
		listener_reap(listener);
		return;
	}
	if (accept_again(res)) {
		loop_queue(loop, req);
		return;
	}
	if (res >= 0) {
		res = stream_new(loop, res, &stream);
		if (res == 0)
			*listener->ret_stream = (struct io_stream *)stream;
	}
	listener->op = NULL;
	loop_complete(loop, op, res);
}

static void listener_cancel_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	cancel_fd_prep(container_of(req, struct uring_listener, cancel_req)->fd, sqe);
}

static void listener_cancel_done(struct uring_req *req, int res)
{
	(void)res; /* the accept says how it ended */
	listener_reap(container_of(req, struct uring_listener, cancel_req));
}

static void listener_reap_done(struct io_op *op, int64_t res)
{
	struct uring_listener *listener = container_of(op, struct uring_listener, reap_op);

	(void)res;
	listener_reap(listener);
}

int uring_listen(struct io *io, const struct io_address *address, struct io_listener **ret_listener)
{
	struct uring *loop = uring_of(io);
	struct uring_listener *listener = calloc(1, sizeof(*listener));
	const char *path = address_unix_path(address->text);
	int err;

	if (!listener)
		return -ENOMEM;
	listener->handle.io = io;
	listener->fd = -1;
	listener->req.prep = accept_prep;
	listener->req.done = accept_done;
	listener->cancel_req.prep = listener_cancel_prep;
	listener->cancel_req.done = listener_cancel_done;
	listener->reap_op.done = listener_reap_done;
	list_push_back(&loop->listeners, &listener->link);
	err = path ? listen_unix(listener, path) : listen_tcp(listener, address->text);
	if (err == 0 && listen(listener->fd, BACKLOG) < 0)
		err = -errno;
	if (err < 0) {
		listener_free(listener);
		return err;
	}
	*ret_listener = (struct io_listener *)listener;
	return 0;
}

int uring_listener_port(struct io_listener *listener)
{
	return ((struct uring_listener *)listener)->port;
}

void uring_accept(struct io_listener *handle, struct io_stream **ret_stream, struct io_op *op)
{
	struct uring_listener *listener = (struct uring_listener *)handle;

	op_begin(op);
	must(!listener->op && !listener->closing);
	listener->op = op;
	listener->ret_stream = ret_stream;
	loop_queue(uring_of(listener->handle.io), &listener->req);
}

void uring_listener_close(struct io_listener *handle)
{
	struct uring_listener *listener = (struct uring_listener *)handle;
	struct uring *loop = uring_of(listener->handle.io);

	must(!listener->closing);
	listener->closing = true;
	if (listener->req.busy)
		loop_queue(loop, &listener->cancel_req);
	op_begin(&listener->reap_op);
	loop_ready(loop, &listener->reap_op, 0);
}

void listeners_free(struct uring *loop)
{
	while (!list_empty(&loop->listeners))
		listener_free(
			container_of(list_first(&loop->listeners), struct uring_listener, link));
}
