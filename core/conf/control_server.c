/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/conf/check.h"
#include "core/conf/control.h"

#define CONNECTIONS_MAX 64u
#define PER_HOST_MAX	16u /* over TCP, so that one host does not keep others out */
#define IDLE_SECONDS	30u
#define ROUTE_DEPTH_MAX 8u
#define LISTEN_BACKLOG	32

struct control_server {
	struct control_options options;
	struct MHD_Daemon *local, *tcp;
};

/* One request while its body arrives. */
struct exchange {
	char *body;
	size_t length_bytes;
	bool too_long;
};

void control_fail(struct control_response *response, enum exit_code code, const char *reason,
		  const char *remedy, const char *text_format, ...)
{
	static const unsigned statuses[] = {
		[EXIT_OK] = 200,       [EXIT_FAILED] = 500,  [EXIT_USAGE] = 400,
		[EXIT_CHECK] = 409,    [EXIT_REFUSED] = 409, [EXIT_UNREACHABLE] = 503,
		[EXIT_CONFLICT] = 409, [EXIT_TIMEOUT] = 504, [EXIT_NOT_FOUND] = 404,
	};
	char text[1024];
	va_list args;

	va_start(args, text_format);
	(void)vsnprintf(text, sizeof(text), text_format, args);
	va_end(args);
	json_decref(response->json);
	/* Texts may carry bytes of peers and files; what is no UTF-8 is no JSON. */
	response->json = json_pack("{s:{s:i, s:s, s:s, s:s}}", "error", "exit_code", (int)code,
				   "reason", reason, "text", text, "remedy", remedy);
	if (!response->json)
		response->json =
			json_pack("{s:{s:i, s:s, s:s, s:s}}", "error", "exit_code", (int)code,
				  "reason", reason, "text", reason, "remedy", remedy);
	response->status =
		(size_t)code < array_len(statuses) && statuses[code] ? statuses[code] : 500;
}

/* Whether `path` has the form of `pattern`; the component that {group} stands for goes to `group`.
 */
static bool path_matches(const char *pattern, const char *path, char group[CONTROL_NAME_MAX + 1])
{
	group[0] = '\0';
	for (unsigned i = 0; i < ROUTE_DEPTH_MAX; i++) {
		size_t want = strcspn(pattern, "/"), have = strcspn(path, "/");

		if (want == strlen("{group}") && strncmp(pattern, "{group}", want) == 0) {
			if (have == 0 || have > CONTROL_NAME_MAX)
				return false;
			memcpy(group, path, have);
			group[have] = '\0';
		} else if (want != have || strncmp(pattern, path, want) != 0) {
			return false;
		}
		pattern += want;
		path += have;
		if (*pattern == '\0' || *path == '\0')
			return *pattern == *path;
		pattern++;
		path++;
	}
	return false;
}

static void dispatch(const struct control_server *server, bool local, const char *method,
		     const char *path, const struct exchange *exchange,
		     struct control_response *response)
{
	struct control_request request = { .group = "" };
	char group[CONTROL_NAME_MAX + 1];
	bool path_known = false;
	json_error_t why;
	json_t *body = NULL;

	for (unsigned i = 0; i < server->options.route_count; i++) {
		const struct control_route *route = &server->options.routes[i];

		if ((!local && !route->open) || !path_matches(route->path, path, group))
			continue;
		path_known = true;
		if (strcmp(route->method, method) != 0)
			continue;
		if (exchange->too_long) {
			control_fail(response, EXIT_USAGE, "too-long", "send less",
				     "the request's body is longer than %u bytes",
				     CONTROL_BODY_MAX_BYTES);
			response->status = MHD_HTTP_CONTENT_TOO_LARGE;
			return;
		}
		if (exchange->length_bytes > 0) {
			body = json_loadb(exchange->body, exchange->length_bytes,
					  JSON_REJECT_DUPLICATES, &why);
			if (!json_is_object(body)) {
				control_fail(response, EXIT_USAGE, "bad-json", "send a JSON object",
					     "the request's body is not a JSON object: %s",
					     body ? "it is something else" : why.text);
				json_decref(body);
				return;
			}
		}
		request.group = group;
		request.body = body;
		route->handle(server->options.owner, &request, response);
		json_decref(body);
		return;
	}
	if (path_known) {
		control_fail(response, EXIT_USAGE, "method", "see docs/reference.md",
			     "%s is not possible on %.200s", method, path);
		response->status = MHD_HTTP_METHOD_NOT_ALLOWED;
		return;
	}
	control_fail(response, EXIT_NOT_FOUND, "no-such-path", "see docs/reference.md",
		     "there is nothing at %.200s", path);
}

/* Whoever can open the socket file still has to be root or the daemon's own user. */
static bool peer_allowed(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred peer;
	socklen_t length = sizeof(peer);

	if (!info || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

static enum MHD_Result send_response(struct MHD_Connection *connection,
				     struct control_response *response)
{
	struct MHD_Response *answer;
	enum MHD_Result result = MHD_NO;
	const char *type = response->type ? response->type : "text/plain; charset=utf-8";
	char *text = response->text;

	if (response->json) {
		free(text);
		text = json_dumps(response->json, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		type = "application/json";
	}
	json_decref(response->json);
	if (!text)
		return MHD_NO;
	answer = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!answer) {
		free(text);
		return MHD_NO;
	}
	(void)MHD_add_response_header(answer, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	(void)MHD_add_response_header(answer, MHD_HTTP_HEADER_CONNECTION, "close");
	(void)MHD_add_response_header(answer, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	result = MHD_queue_response(connection, response->status, answer);
	MHD_destroy_response(answer);
	return result;
}

static void collect(struct exchange *exchange, const char *data, size_t length_bytes)
{
	char *more;

	if (exchange->too_long || length_bytes > CONTROL_BODY_MAX_BYTES - exchange->length_bytes) {
		exchange->too_long = true;
		return;
	}
	more = realloc(exchange->body, exchange->length_bytes + length_bytes);
	if (!more) {
		exchange->too_long = true;
		return;
	}
	memcpy(more + exchange->length_bytes, data, length_bytes);
	exchange->body = more;
	exchange->length_bytes += length_bytes;
}

static enum MHD_Result serve(const struct control_server *server, bool local,
			     struct MHD_Connection *connection, const char *path,
			     const char *method, const char *data, size_t *data_bytes,
			     void **context)
{
	struct exchange *exchange = *context;
	struct control_response response = { .status = MHD_HTTP_OK };

	if (!exchange) {
		*context = calloc(1, sizeof(*exchange));
		return *context ? MHD_YES : MHD_NO;
	}
	if (*data_bytes > 0) {
		collect(exchange, data, *data_bytes);
		*data_bytes = 0;
		return MHD_YES;
	}
	/* A handler may take long: the connection is not idle meanwhile. */
	(void)MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
	if (local && !peer_allowed(connection)) {
		control_fail(&response, EXIT_REFUSED, "forbidden",
			     "run the command as root or as the daemon's user",
			     "the control socket is closed to this user");
		response.status = MHD_HTTP_FORBIDDEN;
	} else {
		dispatch(server, local, method, path, exchange, &response);
	}
	return send_response(connection, &response);
}

static enum MHD_Result serve_local(void *server, struct MHD_Connection *connection, const char *url,
				   const char *method, const char *version, const char *data,
				   size_t *data_bytes, void **context)
{
	(void)version;
	return serve(server, true, connection, url, method, data, data_bytes, context);
}

static enum MHD_Result serve_tcp(void *server, struct MHD_Connection *connection, const char *url,
				 const char *method, const char *version, const char *data,
				 size_t *data_bytes, void **context)
{
	(void)version;
	return serve(server, false, connection, url, method, data, data_bytes, context);
}

static void exchange_over(void *server, struct MHD_Connection *connection, void **context,
			  enum MHD_RequestTerminationCode why)
{
	struct exchange *exchange = *context;

	(void)server;
	(void)connection;
	(void)why;
	if (exchange)
		free(exchange->body);
	free(exchange);
	*context = NULL;
}

/* A socket file outlives its daemon: it may go when nobody listens on it. */
static int clear_stale(const struct sockaddr_un *address)
{
	struct stat st;
	int fd, res = 0;

	if (lstat(address->sun_path, &st) != 0)
		return errno == ENOENT ? 0 : -errno;
	/* A connect to what is no socket fails the same way; that file is somebody else's. */
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		res = -EADDRINUSE;
	else if (errno == ECONNREFUSED && unlink(address->sun_path) != 0)
		res = -errno;
	(void)close(fd);
	return res;
}

static int listen_local(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, res;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	res = clear_stale(&address);
	if (res < 0)
		return res;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The mode is set before anybody can connect: the socket does not listen yet. */
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
	    chmod(path, 0660) != 0 || listen(fd, LISTEN_BACKLOG) != 0) {
		res = -errno;
		(void)close(fd);
		return res;
	}
	return fd;
}

static int listen_tcp(const char *address)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC,
					.ai_socktype = SOCK_STREAM,
					.ai_flags = AI_PASSIVE };
	const char *colon = strrchr(address, ':');
	struct addrinfo *list = NULL;
	char host[256], reason[CHECK_TEXT_BYTES];
	size_t skip = address[0] == '[';
	int fd = -1, res = -EADDRNOTAVAIL, one = 1;

	if (!check_address(address, reason))
		return -EINVAL;
	(void)snprintf(host, sizeof(host), "%.*s", (int)((size_t)(colon - address) - 2 * skip),
		       address + skip);
	if (getaddrinfo(host, colon + 1, &hints, &list) != 0)
		return res;
	for (const struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
		fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
		if (fd < 0) {
			res = -errno;
			continue;
		}
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, LISTEN_BACKLOG) != 0) {
			res = -errno;
			(void)close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	return fd >= 0 ? fd : res;
}

static struct MHD_Daemon *start(struct control_server *server, int fd,
				MHD_AccessHandlerCallback handler)
{
	return MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL, 0,
		NULL, NULL, handler, server, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_NOTIFY_COMPLETED, exchange_over, NULL, MHD_OPTION_CONNECTION_LIMIT,
		CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT, PER_HOST_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_END);
}

int control_server_new(const struct control_options *options, struct control_server **ret_server,
		       char *error, size_t error_max)
{
	struct control_server *server = calloc(1, sizeof(*server));
	int fd;

	if (!server)
		return -ENOMEM;
	server->options = *options;
	fd = listen_local(options->socket_path);
	if (fd < 0) {
		(void)snprintf(error, error_max, "control socket %s: %s; %s", options->socket_path,
			       err_text(fd),
			       fd == -EADDRINUSE ? "another daemon of this configuration runs"
						 : "check run_dir and its permissions");
		free(server);
		return fd;
	}
	server->local = start(server, fd, serve_local);
	if (!server->local) {
		(void)close(fd);
		free(server);
		(void)snprintf(error, error_max, "control socket %s: cannot start its threads",
			       options->socket_path);
		return -EAGAIN;
	}
	if (!options->tcp_listen) {
		*ret_server = server;
		return 0;
	}
	fd = listen_tcp(options->tcp_listen);
	if (fd >= 0)
		server->tcp = start(server, fd, serve_tcp);
	if (!server->tcp) {
		int res = fd < 0 ? fd : -EAGAIN;

		(void)snprintf(error, error_max, "metrics_listen %s: %s; choose another address",
			       options->tcp_listen, err_text(res));
		if (fd >= 0)
			(void)close(fd);
		control_server_free(server);
		return res;
	}
	*ret_server = server;
	return 0;
}

struct control_server *control_server_free(struct control_server *server)
{
	if (!server)
		return NULL;
	if (server->tcp)
		MHD_stop_daemon(server->tcp);
	if (server->local) {
		(void)unlink(server->options.socket_path);
		MHD_stop_daemon(server->local);
	}
	free(server);
	return NULL;
}
