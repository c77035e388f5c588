/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control: HTTP with JSON over a unix socket of each daemon, and its client.
 *
 * The server answers on RUN_DIR/agent.sock or engine.sock (mode 0660; only root and the daemon's
 * own user get past it) and, for routes that are `open`, on TCP. Each connection has a thread of
 * its own, so a handler may block: it posts to a group's loop and waits. Handlers of one server run
 * at the same time; what they share they lock. One request per connection.
 *
 * Exit codes are those of the command (docs/reference.md).
 */
#ifndef HOLDFAST_CORE_CONF_CONTROL_H
#define HOLDFAST_CORE_CONF_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define CONTROL_BODY_MAX_BYTES 65536u
#define CONTROL_NAME_MAX       255u

enum exit_code {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_CHECK = 4,	      /* an objective or a verification failed */
	EXIT_REFUSED = 5,     /* by a safety gate */
	EXIT_UNREACHABLE = 6, /* peer or daemon */
	EXIT_CONFLICT = 7,
	EXIT_TIMEOUT = 8, /* with the outcome unknown */
	EXIT_NOT_FOUND = 9,
};

struct control_request {
	const char *group;  /* what stood for {group} in the path, "" when the route has none */
	const json_t *body; /* an object; NULL when none was sent */
};

struct control_response {
	unsigned status;  /* HTTP; 200 at first */
	json_t *json;	  /* the answer, given away; or */
	char *text;	  /* malloc'ed text, given away, */
	const char *type; /* with its content type */
};

typedef void (*control_fn)(void *owner, const struct control_request *request,
			   struct control_response *response);

struct control_route {
	const char *method; /* GET or POST */
	const char *path;   /* a component {group} stands for any name */
	control_fn handle;
	bool open; /* harmless: also answered on TCP */
};

struct control_options {
	const char *socket_path;
	const char *tcp_listen; /* HOST:PORT, NULL: none */
	const struct control_route *routes;
	unsigned route_count;
	void *owner;
};

struct control_server;

/* 0, or a negative errno with the reason in `error`. A stale socket file is replaced; one that
 * somebody listens on is -EADDRINUSE. `options` is copied, what it points at must stay. */
int control_server_new(const struct control_options *options, struct control_server **ret_server,
		       char *error, size_t error_max);
/* Waits for handlers that are running. NULL is allowed. Returns NULL. */
struct control_server *control_server_free(struct control_server *server);

/* Fills a response with {"error": {exit_code, reason, text, remedy}}. `reason` is a word for
 * programs, `text` says what and where, `remedy` (may be "") what to do. */
void control_fail(struct control_response *response, enum exit_code code, const char *reason,
		  const char *remedy, const char *text_format, ...)
	__attribute__((format(printf, 5, 6)));

struct control_reply {
	unsigned status;
	json_t *json; /* NULL when the answer is no JSON */
};

/*
 * One request to a daemon of this host; blocks up to `timeout_ms`. 0 with the reply, whatever its
 * status is; or, with words in `error`: -ENOENT or -ECONNREFUSED nobody is there, -EACCES,
 * -ETIMEDOUT and -ECONNRESET the outcome is unknown, -EPROTO the answer makes no sense.
 */
int control_call(const char *socket_path, const char *method, const char *path, const json_t *body,
		 unsigned timeout_ms, struct control_reply *ret_reply, char *error,
		 size_t error_max);
void control_reply_free(struct control_reply *reply);

#endif
