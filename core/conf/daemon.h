/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both daemons do the same way as processes: command line, configuration, directories, limits,
 * signals, and the service manager's notifications.
 *
 * Owner: the main thread. daemon_begin() runs before any other thread exists, because every thread
 * inherits its signal mask.
 */
#ifndef HOLDFAST_CORE_CONF_DAEMON_H
#define HOLDFAST_CORE_CONF_DAEMON_H

#include <stdbool.h>

#include "core/conf/conf.h"

enum daemon_event {
	DAEMON_TICK,   /* a second passed, or daemon_poke() was called */
	DAEMON_RELOAD, /* SIGHUP */
	DAEMON_STOP,   /* SIGTERM, SIGINT */
};

/* True to go on with *ret_conf; false to leave with *ret_exit (after --help, --version or an error,
 * which has been printed). */
bool daemon_begin(int argc, char **argv, const char *name, struct conf **ret_conf, int *ret_exit);
enum daemon_event daemon_wait(void);
/* From any thread: the next daemon_wait() returns at once. */
void daemon_poke(void);
/* States for the service manager; no effect without one. */
__attribute__((format(printf, 1, 2))) void daemon_status(const char *format, ...);
void daemon_ready(void);
void daemon_stopping(void);
void daemon_reloading(void);
/* Whether the manager's watchdog wants a sign of life by now; then daemon_alive() gives it. */
bool daemon_watchdog_due(void);
void daemon_alive(void);
/* For loop_start(): says which loop broke and ends the process; recovery is the next start's. */
__attribute__((noreturn)) void daemon_broken(const char *loop, int res);

#endif
