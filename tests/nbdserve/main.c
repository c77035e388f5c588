/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbdserve: serves memory, files or nothing over NBD through the product's own server and its
 * io_uring loop. A test program: `nbdserve --help`.
 *
 * The main thread waits for a signal; one loop thread serves, with --lobby a second one accepts.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/must.h"
#include "core/base/units.h"
#include "core/block/nbd_server.h"
#include "core/io/tls.h"
#include "core/io/uring.h"
#include "tests/nbdserve/exports.h"

#define EXPORTS_MAX 16u

struct thread {
	struct io *io;
	pthread_t id;
	struct nbd_server *server;
	struct io_op stop_op;
	struct io_timer hard_stop;
};

struct program {
	struct thread lobby, main;
	bool with_lobby;
	struct export *exports[EXPORTS_MAX];
	unsigned export_count;
	const char *identity; /* only this peer may open anything */
	uint64_t observed;
};

static struct program program;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)fputs("nbdserve: ", stderr);
	(void)vfprintf(stderr, format, args);
	(void)fputc('\n', stderr);
	va_end(args);
	exit(1);
}

/* ---- hooks -------------------------------------------------------------------------------------
 */

static struct export *find(void *owner, const char *name, size_t name_length_bytes)
{
	(void)owner;
	if (name_length_bytes == 0)
		return program.exports[0];
	for (unsigned i = 0; i < program.export_count; i++) {
		struct export *export = program.exports[i];

		if (strlen(export->name) == name_length_bytes &&
		    memcmp(export->name, name, name_length_bytes) == 0)
			return export;
	}
	return NULL;
}

static struct export *list(void *owner, size_t index)
{
	(void)owner;
	return index < program.export_count ? program.exports[index] : NULL;
}

static bool may_open(void *owner, const struct io_peer *peer, const struct export *export)
{
	(void)owner;
	(void)export;
	return !program.identity || strcmp(program.identity, peer->identity) == 0;
}

static int handover(void *owner, struct nbd_conn *conn, struct export *export)
{
	(void)owner;
	(void)export;
	nbd_conn_adopt(conn, program.main.io, program.main.server);
	return 0;
}

static void observe(void *owner, const struct nbd_observation *observation)
{
	(void)owner;
	(void)observation;
	program.observed++;
}

static void ended(void *owner, const struct io_peer *peer, const struct export *export,
		  const char *reason)
{
	(void)owner;
	if (reason[0])
		(void)fprintf(stderr, "nbdserve: %s %s: %s: %s\n", peer->address, peer->identity,
			      export ? export->name : "-", reason);
}

static const struct nbd_hooks hooks = {
	.find = find,
	.list = list,
	.may_open = may_open,
	.observe = observe,
	.ended = ended,
};

static const struct nbd_hooks lobby_hooks = {
	.find = find,
	.list = list,
	.may_open = may_open,
	.handover = handover,
	.ended = ended,
};

/* ---- threads -----------------------------------------------------------------------------------
 */

static void *thread_main(void *arg)
{
	struct thread *thread = arg;
	int r = uring_run(thread->io);

	if (r < 0)
		die("the loop broke: %s", err_text(r));
	return NULL;
}

static void print_stats(struct nbd_server *server)
{
	static const char *const names[] = { NULL,   "read",	     "write", "flush",
					     "trim", "write_zeroes", "cache", "map" };
	struct nbd_stats stats;

	nbd_server_stats(server, &stats);
	(void)fprintf(stderr, "nbdserve: connections %llu refused %llu memory_waits %llu\n",
		      (unsigned long long)stats.connections_total,
		      (unsigned long long)stats.connections_refused,
		      (unsigned long long)stats.memory_waits);
	for (unsigned i = EXPORT_READ; i <= EXPORT_MAP; i++)
		(void)fprintf(stderr, "nbdserve: %s ops %llu errors %llu bytes %llu\n", names[i],
			      (unsigned long long)stats.op[i].ops,
			      (unsigned long long)stats.op[i].errors,
			      (unsigned long long)stats.op[i].bytes);
	if (stats.buffer_used_bytes != 0)
		die("%zu bytes of buffers are still out", stats.buffer_used_bytes);
}

static void server_stopped(void *arg)
{
	struct thread *thread = arg;

	io_timer_stop(thread->io, &thread->hard_stop);
	print_stats(thread->server);
	nbd_server_free(thread->server);
	thread->server = NULL;
	uring_stop(thread->io);
}

static void stop_late(struct io_timer *timer)
{
	(void)timer;
	die("stopping took more than 20 s");
}

static void stop_posted(struct io_op *op, int64_t res)
{
	struct thread *thread = container_of(op, struct thread, stop_op);

	(void)res;
	thread->hard_stop.fire = stop_late;
	io_timer_start(thread->io, &thread->hard_stop, 20 * NS_PER_S);
	nbd_server_stop(thread->server, server_stopped, thread);
}

struct startup {
	struct io_op op;
	struct thread *thread;
	struct nbd_server_config config;
	_Atomic int result; /* 1 = not yet */
};

static void start_posted(struct io_op *op, int64_t res)
{
	struct startup *startup = container_of(op, struct startup, op);

	(void)res;
	startup->result =
		nbd_server_new(startup->thread->io, &startup->config, &startup->thread->server);
}

static void thread_start(struct thread *thread, const char *name,
			 const struct nbd_server_config *config)
{
	static struct startup startup;
	int r;

	startup = (struct startup){ .thread = thread, .config = *config, .result = 1 };
	startup.op.done = start_posted;
	r = pthread_create(&thread->id, NULL, thread_main, thread);
	if (r != 0)
		die("cannot start a thread: %s", err_text(r));
	io_post(thread->io, &startup.op);
	while (startup.result > 0)
		sched_yield();
	if (startup.result < 0)
		die("%s: %s", name, err_text(startup.result));
}

static void thread_stop(struct thread *thread)
{
	thread->stop_op.done = stop_posted;
	io_post(thread->io, &thread->stop_op);
	(void)pthread_join(thread->id, NULL);
	uring_free(thread->io);
}

static struct io *new_loop(const char *name)
{
	struct uring_config config = { .name = name };
	struct io *io;
	int r = uring_new(&config, &io);

	if (r < 0)
		die("io_uring: %s", err_text(r));
	return io;
}

/* ---- command line ------------------------------------------------------------------------------
 */

static const char usage[] =
	"Usage: nbdserve --listen unix:PATH|HOST:PORT [OPTION]... EXPORT...\n"
	"EXPORT: ram:NAME=SIZE | null:NAME=SIZE | file:NAME=PATH, with ro: in front: read-only\n"
	"  --delay DURATION         replies of memory come that late\n"
	"  --buffers SIZE           memory for requests\n"
	"  --connections N          at most\n"
	"  --tls CA,CERT,KEY        TLS is required\n"
	"  --identity NAME          only this peer may open exports\n"
	"  --handshake DURATION     time for the handshake\n"
	"  --lobby                  accept on one loop, serve on another\n"
	"  --port-file PATH         where to write the bound TCP port\n";

static uint64_t size_of(const char *text)
{
	uint64_t value;

	if (units_parse_size(text, &value) < 0)
		die("%s is no size", text);
	return value;
}

static uint64_t duration_of(const char *text)
{
	uint64_t value;

	if (units_parse_duration(text, &value) < 0)
		die("%s is no duration", text);
	return value;
}

static struct io_tls *tls_of(char *text)
{
	struct tls_config config = { 0 };
	struct io_tls *tls;
	char error[512];

	config.ca_path = strsep(&text, ",");
	config.cert_path = strsep(&text, ",");
	config.key_path = strsep(&text, ",");
	if (!config.key_path)
		die("--tls takes CA,CERT,KEY");
	if (tls_new(&config, &tls, error, sizeof(error)) < 0)
		die("%s", error);
	return tls;
}

static void add_export(struct io *io, char *text, uint64_t delay_ns)
{
	bool read_only = strncmp(text, "ro:", 3) == 0;
	char *kind = strsep(&text, ":");
	char *name;
	struct export *export = NULL;

	if (read_only && text)
		kind = strsep(&text, ":");
	name = strsep(&text, "=");
	if (!name || !text || program.export_count == EXPORTS_MAX)
		die("an export is KIND:NAME=WHAT, at most %u of them", EXPORTS_MAX);
	if (strcmp(kind, "ram") == 0) {
		export = ram_export_new(io, name, size_of(text), delay_ns);
	} else if (strcmp(kind, "null") == 0) {
		export = null_export_new(io, name, size_of(text));
	} else if (strcmp(kind, "file") == 0) {
		int r = file_export_new(io, name, text, &export);

		if (r < 0)
			die("%s: %s", text, err_text(r));
	}
	if (!export)
		die("%s: cannot make this export", name);
	export->limits.read_only = read_only;
	program.exports[program.export_count++] = export;
}

static void write_port(const char *path, int port)
{
	FILE *file = fopen(path, "we");

	if (!file || fprintf(file, "%d\n", port) < 0 || fclose(file) != 0)
		die("%s: %s", path, err_text(errno));
}

static void wait_for_signal(void)
{
	sigset_t signals;
	int signal_number;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigwait(&signals, &signal_number);
}

static void block_signals(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

struct options {
	struct nbd_server_config config;
	struct io_address address;
	uint64_t delay_ns;
	const char *port_file;
};

static void parse(int argc, char **argv, struct options *options)
{
	static const struct option known[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "delay", required_argument, NULL, 'd' },
		{ "buffers", required_argument, NULL, 'b' },
		{ "connections", required_argument, NULL, 'c' },
		{ "tls", required_argument, NULL, 't' },
		{ "identity", required_argument, NULL, 'i' },
		{ "handshake", required_argument, NULL, 's' },
		{ "lobby", no_argument, NULL, 'L' },
		{ "port-file", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct nbd_server_config *config = &options->config;
	uint64_t count;
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 'l':
			(void)snprintf(options->address.text, sizeof(options->address.text), "%s",
				       optarg);
			break;
		case 'd':
			options->delay_ns = duration_of(optarg);
			break;
		case 'b':
			config->buffer_bytes = size_of(optarg);
			break;
		case 'c':
			if (units_parse_u64(optarg, &count) < 0)
				die("%s is no number", optarg);
			config->connections_max = (unsigned)count;
			break;
		case 't':
			config->tls = NBD_TLS_REQUIRED;
			config->tls_identity = tls_of(optarg);
			break;
		case 'i':
			program.identity = optarg;
			break;
		case 's':
			config->handshake_ns = duration_of(optarg);
			break;
		case 'L':
			program.with_lobby = true;
			break;
		case 'p':
			options->port_file = optarg;
			break;
		default:
			(void)fputs(usage, c == 'h' ? stdout : stderr);
			exit(c == 'h' ? 0 : 2);
		}
	}
	if (!options->address.text[0] || optind == argc) {
		(void)fputs(usage, stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct options options = { .config = { .hooks = &hooks } };
	struct thread *front = &program.main;

	parse(argc, argv, &options);
	block_signals();
	program.main.io = new_loop("exports");
	for (int i = optind; i < argc; i++)
		add_export(program.main.io, argv[i], options.delay_ns);
	if (program.with_lobby) {
		struct nbd_server_config config = options.config;

		front = &program.lobby;
		thread_start(&program.main, "exports", &options.config);
		program.lobby.io = new_loop("lobby");
		config.hooks = &lobby_hooks;
		config.lobby = true;
		config.listen = &options.address;
		thread_start(&program.lobby, options.address.text, &config);
	} else {
		options.config.listen = &options.address;
		thread_start(&program.main, options.address.text, &options.config);
	}
	if (options.port_file)
		write_port(options.port_file,
			   uring_listener_port(nbd_server_listener(front->server)));
	(void)printf("ready\n");
	(void)fflush(stdout);
	wait_for_signal();
	if (program.with_lobby)
		thread_stop(&program.lobby);
	thread_stop(&program.main);
	if (options.config.tls_identity)
		tls_free(options.config.tls_identity);
	return 0;
}
