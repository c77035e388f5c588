/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/daemon.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/conf/control.h"

#define ERROR_BYTES 32768u

static sigset_t signals;
static uint64_t watchdog_us;
static uint64_t alive_at_ns;

static uint64_t now_ns(void)
{
	struct timespec now;

	must(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void usage(FILE *out, const char *name)
{
	(void)fprintf(
		out,
		"usage: %s [-c FILE]\n"
		"  -c, --config FILE   configuration (%s)\n"
		"      --foreground    stay in the foreground; the default, and the only way\n"
		"      --version       print the version\n"
		"      --help          print this\n",
		name, CONF_PATH_DEFAULT);
}

/* The configuration's path; NULL to leave with *ret_exit. */
static const char *parse_options(int argc, char **argv, const char *name, int *ret_exit)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "version", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *file = CONF_PATH_DEFAULT;
	int c;

	while ((c = getopt_long(argc, argv, "c:fh", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			file = optarg;
			break;
		case 'f':
			break;
		case 'v':
			printf("%s %s\n", name, HOLDFAST_VERSION);
			*ret_exit = EXIT_OK;
			return NULL;
		case 'h':
			usage(stdout, name);
			*ret_exit = EXIT_OK;
			return NULL;
		default:
			usage(stderr, name);
			*ret_exit = EXIT_USAGE;
			return NULL;
		}
	}
	if (optind < argc) {
		(void)fprintf(stderr, "%s: unexpected argument '%s'\n", name, argv[optind]);
		usage(stderr, name);
		*ret_exit = EXIT_USAGE;
		return NULL;
	}
	return file;
}

static bool make_directory(const char *name, const char *option, const char *path, mode_t mode)
{
	if (mkdir(path, mode) == 0 || errno == EEXIST)
		return true;
	(void)fprintf(stderr, "%s: %s = %s cannot be made: %s; make it, or choose another\n", name,
		      option, path, err_text(errno));
	return false;
}

static void raise_limit(__rlimit_resource_t resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(resource, &limit);
	}
}

bool daemon_begin(int argc, char **argv, const char *name, struct conf **ret_conf, int *ret_exit)
{
	const char *file = parse_options(argc, argv, name, ret_exit);
	enum log_level level;
	struct conf *conf;
	char *error;

	if (!file)
		return false;
	*ret_exit = EXIT_USAGE;
	error = calloc(1, ERROR_BYTES);
	if (!error || conf_load(file, &conf, error, ERROR_BYTES) < 0) {
		(void)fprintf(stderr, "%s\n", error ? error : "out of memory");
		free(error);
		return false;
	}
	free(error);
	must(log_level_parse(conf->log_level, &level) == 0);
	log_set_level(level);
	*ret_exit = EXIT_FAILED;
	if (!make_directory(name, "run_dir", conf->run_dir, 0755) ||
	    !make_directory(name, "state_dir", conf->state_dir, 0700)) {
		conf_free(conf);
		return false;
	}
	raise_limit(RLIMIT_NOFILE);
	raise_limit(RLIMIT_MEMLOCK);
	/* What the group's memory holds does not belong into a core file's reader's hands. */
	(void)umask(0077);
	must(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	(void)sigaddset(&signals, SIGUSR1);
	must(pthread_sigmask(SIG_BLOCK, &signals, NULL) == 0);
	if (sd_watchdog_enabled(0, &watchdog_us) <= 0)
		watchdog_us = 0;
	*ret_conf = conf;
	return true;
}

enum daemon_event daemon_wait(void)
{
	const struct timespec second = { .tv_sec = 1 };
	int number = sigtimedwait(&signals, NULL, &second);

	if (number == SIGTERM || number == SIGINT)
		return DAEMON_STOP;
	return number == SIGHUP ? DAEMON_RELOAD : DAEMON_TICK;
}

void daemon_poke(void)
{
	/* Directed at the process: only the main thread waits for it. */
	(void)kill(getpid(), SIGUSR1);
}

void daemon_status(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)sd_notifyf(0, "STATUS=%s", text);
}

void daemon_ready(void)
{
	(void)sd_notify(0, "READY=1");
}

void daemon_stopping(void)
{
	(void)sd_notify(0, "STOPPING=1");
}

void daemon_reloading(void)
{
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
			 (unsigned long long)(now_ns() / NS_PER_US));
}

bool daemon_watchdog_due(void)
{
	return watchdog_us > 0 && now_ns() - alive_at_ns >= watchdog_us * NS_PER_US / 3;
}

void daemon_alive(void)
{
	alive_at_ns = now_ns();
	(void)sd_notify(0, "WATCHDOG=1");
}

void daemon_broken(const char *loop, int res)
{
	log_error("the loop broke; the process ends and recovers at the next start",
		  "loop=%s reason=%s", loop, err_name(res));
	_exit(EXIT_FAILED);
}
