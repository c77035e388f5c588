/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/macros.h"
#include "core/conf/control.h"

static char directory[64], path[100], error[512];
static struct control_server *server;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned inside, inside_most;
static bool open_gate;

static void get_echo(void *owner, const struct control_request *request,
		     struct control_response *response)
{
	response->json = json_pack("{s:s, s:s, s:O?}", "owner", (const char *)owner, "group",
				   request->group, "body", request->body);
}

static void get_text(void *owner, const struct control_request *request,
		     struct control_response *response)
{
	(void)owner;
	(void)request;
	response->text = strdup("some text\n");
}

static void post_refuse(void *owner, const struct control_request *request,
			struct control_response *response)
{
	(void)owner;
	control_fail(response, EXIT_REFUSED, "gate", "do this", "group %s: \xff no",
		     request->group);
}

/* Blocks until both callers are inside, so it proves that handlers run at the same time. */
static void post_wait(void *owner, const struct control_request *request,
		      struct control_response *response)
{
	(void)owner;
	(void)request;
	(void)pthread_mutex_lock(&lock);
	inside++;
	inside_most = inside > inside_most ? inside : inside_most;
	(void)pthread_cond_broadcast(&changed);
	while (!open_gate)
		(void)pthread_cond_wait(&changed, &lock);
	inside--;
	(void)pthread_mutex_unlock(&lock);
	response->json = json_object();
}

static const struct control_route routes[] = {
	{ "GET", "/v1/status", get_echo, false },
	{ "GET", "/v1/groups/{group}", get_echo, false },
	{ "POST", "/v1/groups/{group}/echo", get_echo, false },
	{ "POST", "/v1/groups/{group}/refuse", post_refuse, false },
	{ "POST", "/v1/wait", post_wait, false },
	{ "GET", "/metrics", get_text, true },
};

static struct control_options options_of(const char *tcp)
{
	return (struct control_options){ .socket_path = path,
					 .tcp_listen = tcp,
					 .routes = routes,
					 .route_count = array_len(routes),
					 .owner = (void *)(uintptr_t) "me" };
}

static int setup(void **state)
{
	const char *base = getenv("TMPDIR");
	const struct control_options options = options_of(NULL);

	(void)state;
	(void)snprintf(directory, sizeof(directory), "%s/test_control.XXXXXX",
		       base ? base : "/tmp");
	assert_non_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/x.sock", directory);
	assert_int_equal(control_server_new(&options, &server, error, sizeof(error)), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	server = control_server_free(server);
	assert_int_equal(rmdir(directory), 0); /* the socket file went with the server */
	return 0;
}

static unsigned call(const char *method, const char *url, const json_t *body,
		     struct control_reply *reply)
{
	assert_int_equal(control_call(path, method, url, body, 5000, reply, error, sizeof(error)),
			 0);
	return reply->status;
}

static void test_routes(void **state)
{
	struct control_reply reply;
	json_t *body = json_pack("{s:i}", "n", 3);

	(void)state;
	assert_int_equal(call("GET", "/v1/status", NULL, &reply), 200);
	assert_string_equal(json_string_value(json_object_get(reply.json, "owner")), "me");
	control_reply_free(&reply);
	assert_int_equal(call("GET", "/v1/groups/db.1", NULL, &reply), 200);
	assert_string_equal(json_string_value(json_object_get(reply.json, "group")), "db.1");
	control_reply_free(&reply);
	assert_int_equal(call("POST", "/v1/groups/db/echo", body, &reply), 200);
	assert_true(json_equal(json_object_get(reply.json, "body"), body));
	control_reply_free(&reply);
	json_decref(body);
}

static void expect(const char *method, const char *url, unsigned status, int exit_code)
{
	struct control_reply reply;
	const json_t *why;

	assert_int_equal(call(method, url, NULL, &reply), status);
	why = json_object_get(reply.json, "error");
	assert_int_equal(json_integer_value(json_object_get(why, "exit_code")), exit_code);
	assert_true(strlen(json_string_value(json_object_get(why, "text"))) > 0);
	control_reply_free(&reply);
}

static void test_errors(void **state)
{
	(void)state;
	expect("GET", "/", 404, EXIT_NOT_FOUND);
	expect("GET", "/v1", 404, EXIT_NOT_FOUND);
	expect("GET", "/v1/status/", 404, EXIT_NOT_FOUND);
	expect("GET", "/v1/groups/", 404, EXIT_NOT_FOUND);
	expect("GET", "/v1/groups/a/b/c", 404, EXIT_NOT_FOUND);
	expect("POST", "/v1/status", 405, EXIT_USAGE);
	expect("GET", "/v1/groups/db/echo", 405, EXIT_USAGE);
	/* Bytes that are no UTF-8 do not break the document. */
	expect("POST", "/v1/groups/db/refuse", 409, EXIT_REFUSED);
}

/* Speaks by hand what a well-behaved client does not. */
static void raw(const char *request, size_t length, char *answer, size_t answer_max)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t used = 0;
	ssize_t n;

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	while (length > 0 && (n = send(fd, request, length, MSG_NOSIGNAL)) > 0) {
		request += n;
		length -= (size_t)n;
	}
	while (used < answer_max - 1 && (n = read(fd, answer + used, answer_max - 1 - used)) > 0)
		used += (size_t)n;
	answer[used] = '\0';
	(void)close(fd);
}

static void test_bad_bodies(void **state)
{
	static const char *const bodies[] = { "{", "[1]", "3", "{\"a\":1,\"a\":2}",
					      "{\"a\":\"\xff\"}" };
	size_t size = CONTROL_BODY_MAX_BYTES + 100;
	char *big = malloc(size + 200), answer[4096];
	int head;

	(void)state;
	for (size_t i = 0; i < array_len(bodies); i++) {
		char request[300];
		int n = snprintf(request, sizeof(request),
				 "POST /v1/groups/g/echo HTTP/1.1\r\nHost: x\r\n"
				 "Content-Length: %zu\r\n\r\n%s",
				 strlen(bodies[i]), bodies[i]);

		raw(request, (size_t)n, answer, sizeof(answer));
		assert_non_null(strstr(answer, "400 Bad Request"));
		assert_non_null(strstr(answer, "bad-json"));
	}
	head = snprintf(big, 200,
			"POST /v1/groups/g/echo HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
			size);
	memset(big + head, ' ', size);
	raw(big, (size_t)head + size, answer, sizeof(answer));
	assert_non_null(strstr(answer, " 413 "));
	free(big);
	raw("nonsense\r\n\r\n", 12, answer, sizeof(answer));
	assert_null(strstr(answer, " 200 "));
}

static void *wait_inside(void *arg)
{
	struct control_reply reply = { .json = NULL };

	(void)arg;
	if (control_call(path, "POST", "/v1/wait", NULL, 20000, &reply, error, sizeof(error)) != 0)
		return arg;
	control_reply_free(&reply);
	return NULL;
}

static void test_blocking_handlers(void **state)
{
	struct control_reply reply;
	pthread_t threads[2];
	void *failed;

	(void)state;
	open_gate = false;
	for (size_t i = 0; i < array_len(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, wait_inside, &lock), 0);
	(void)pthread_mutex_lock(&lock);
	while (inside < array_len(threads))
		(void)pthread_cond_wait(&changed, &lock);
	(void)pthread_mutex_unlock(&lock);
	/* Others are answered meanwhile. */
	assert_int_equal(call("GET", "/v1/status", NULL, &reply), 200);
	control_reply_free(&reply);
	(void)pthread_mutex_lock(&lock);
	open_gate = true;
	(void)pthread_cond_broadcast(&changed);
	(void)pthread_mutex_unlock(&lock);
	for (size_t i = 0; i < array_len(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	assert_int_equal(inside_most, array_len(threads));
}

static void test_timeout(void **state)
{
	struct control_reply reply = { .json = NULL };

	(void)state;
	open_gate = false;
	assert_int_equal(
		control_call(path, "POST", "/v1/wait", NULL, 200, &reply, error, sizeof(error)),
		-ETIMEDOUT);
	assert_non_null(strstr(error, "may still happen"));
	(void)pthread_mutex_lock(&lock);
	open_gate = true;
	(void)pthread_cond_broadcast(&changed);
	(void)pthread_mutex_unlock(&lock);
}

static void test_socket_file(void **state)
{
	const struct control_options options = options_of(NULL);
	struct control_server *second = NULL;
	struct control_reply reply = { .json = NULL };
	struct stat info;

	(void)state;
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0660);
	/* Somebody listens. */
	assert_int_equal(control_server_new(&options, &second, error, sizeof(error)), -EADDRINUSE);
	assert_non_null(strstr(error, "another daemon"));
	/* Nobody listens, but the file is there: a daemon was killed. */
	server = control_server_free(server);
	assert_int_equal(
		control_call(path, "GET", "/v1/status", NULL, 1000, &reply, error, sizeof(error)),
		-ENOENT);
	{
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
		assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
		(void)close(fd);
	}
	assert_int_equal(
		control_call(path, "GET", "/v1/status", NULL, 1000, &reply, error, sizeof(error)),
		-ECONNREFUSED);
	assert_int_equal(control_server_new(&options, &server, error, sizeof(error)), 0);
	assert_int_equal(call("GET", "/v1/status", NULL, &reply), 200);
	control_reply_free(&reply);
}

/* A free port, as far as one can know. */
static unsigned free_port(void)
{
	struct sockaddr_storage address = { .ss_family = AF_INET };
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint8_t port[2];

	assert_int_equal(bind(fd, (const struct sockaddr *)&address, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	memcpy(port, (const char *)&address + 2, 2);
	(void)close(fd);
	return (unsigned)port[0] << 8 | port[1];
}

static void tcp_get(unsigned port, const char *url, char *answer, size_t answer_max)
{
	char command[256];
	size_t used;
	FILE *out;

	(void)snprintf(command, sizeof(command), "curl -s -i 'http://127.0.0.1:%u%s'", port, url);
	out = popen(command, "r");
	assert_non_null(out);
	used = fread(answer, 1, answer_max - 1, out);
	answer[used] = '\0';
	assert_int_equal(pclose(out), 0);
}

static void test_tcp(void **state)
{
	char tcp[64], answer[2048];
	struct control_options options;
	struct control_server *second = NULL;
	unsigned port = free_port();

	(void)state;
	(void)snprintf(tcp, sizeof(tcp), "127.0.0.1:%u", port);
	server = control_server_free(server);
	options = options_of(tcp);
	assert_int_equal(control_server_new(&options, &server, error, sizeof(error)), 0);
	tcp_get(port, "/metrics", answer, sizeof(answer));
	assert_non_null(strstr(answer, "200 OK"));
	assert_non_null(strstr(answer, "some text"));
	/* What is not marked open does not exist there. */
	tcp_get(port, "/v1/status", answer, sizeof(answer));
	assert_non_null(strstr(answer, "404 Not Found"));
	/* A taken port says so, and leaves no socket file behind. */
	(void)snprintf(path + strlen(path), 2, "2");
	assert_int_equal(control_server_new(&options, &second, error, sizeof(error)), -EADDRINUSE);
	assert_non_null(strstr(error, tcp));
	assert_int_not_equal(access(path, F_OK), 0);
	path[strlen(path) - 1] = '\0';
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_routes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_bodies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_blocking_handlers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_timeout, setup, teardown),
		cmocka_unit_test_setup_teardown(test_socket_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcp, setup, teardown),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
