/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs of the holdfast command share: options, errors, tables, progress.
 *
 * One thread. A verb returns its exit code (core/conf/control.h); errors go to standard error, as
 * `holdfast: what; remedy`, or as one JSON object with `-o json`.
 */
#ifndef HOLDFAST_CLI_CLI_H
#define HOLDFAST_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/conf/conf.h"
#include "core/conf/control.h"

struct cli {
	const char *conf_path;
	bool json, yes;
	struct conf *conf; /* cli_load() */
};

struct cli_verb {
	const char *name;
	int (*run)(struct cli *cli, int argc, char **argv);
	const char *synopsis; /* behind the verb */
	const char *summary;
	const char *help; /* options and notes, lines */
};
extern const struct cli_verb cli_verbs[]; /* ends with an empty one */
const struct cli_verb *cli_verb(const char *name);
void cli_help(FILE *out, const struct cli_verb *verb);

/* ---- options ---- */

enum cli_option_kind {
	CLI_FLAG,
	CLI_TEXT,
	CLI_OPTIONAL
};
struct cli_option {
	const char *name;
	char letter; /* 0: none */
	enum cli_option_kind kind;
	bool *flag;	   /* set when the option is there */
	const char **text; /* its argument; CLI_OPTIONAL: only a number counts as one */
};
#define CLI_STOP (-1)
/*
 * Parses a verb's options (its own, and -c, -o, --yes, --help) and its arguments. Arguments end up
 * in argv[*ret_first ..argc). 0, or after --help or an error CLI_STOP with *ret_exit.
 */
int cli_parse(struct cli *cli, int argc, char **argv, const struct cli_option *options,
	      unsigned option_count, int arguments_min, int arguments_max, int *ret_first,
	      int *ret_exit);

/* ---- errors ---- */

/* Prints and returns `code`. `reason` is a word for programs; `remedy` may be "". */
int cli_fail(const struct cli *cli, enum exit_code code, const char *reason, const char *remedy,
	     const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The same out of a daemon's error document; `reply` is freed. */
int cli_fail_reply(const struct cli *cli, struct control_reply *reply);
/* The same after control_call() returned `res` with `error`. */
int cli_fail_call(const struct cli *cli, int res, const char *error);
/* Loads the configuration into cli->conf. 0, or the exit code after it complained. */
int cli_load(struct cli *cli);
/* The group of the configuration, or NULL after it complained with *ret_exit. */
const struct conf_group *cli_group(struct cli *cli, const char *name, int *ret_exit);

/* ---- daemons ---- */

/* "agent" or "engine". */
int cli_call(const struct cli *cli, const char *daemon, const char *method, const char *path,
	     const json_t *body, unsigned timeout_ms, struct control_reply *ret_reply, char *error,
	     size_t error_max);

/* ---- output ---- */

/* Prints a document to standard output; takes the reference. Returns EXIT_OK or EXIT_FAILED. */
int cli_print_json(json_t *json);
/* Asks on the terminal; true without asking when --yes was given or nobody is there. */
bool cli_confirm(const struct cli *cli, const char *question);

/* A progress bar on standard error where that is a terminal, else nothing. */
struct cli_progress {
	const char *what;
	uint64_t total, last_ns, begin_ns;
	bool on, shown;
};
void cli_progress_start(struct cli_progress *progress, const char *what, bool quiet);
void cli_progress_show(struct cli_progress *progress, uint64_t done_bytes, uint64_t total_bytes);
void cli_progress_end(struct cli_progress *progress);
uint64_t cli_now_ns(void);
uint64_t cli_wall_ns(void);

/* ---- verbs ---- */

int cli_init(struct cli *cli, int argc, char **argv);
int cli_config(struct cli *cli, int argc, char **argv);
int cli_status(struct cli *cli, int argc, char **argv);
int cli_promote(struct cli *cli, int argc, char **argv);
int cli_switchover(struct cli *cli, int argc, char **argv);
int cli_demote(struct cli *cli, int argc, char **argv);
int cli_accept(struct cli *cli, int argc, char **argv);
int cli_resync(struct cli *cli, int argc, char **argv);
int cli_verify(struct cli *cli, int argc, char **argv);
int cli_salvage(struct cli *cli, int argc, char **argv);
int cli_volume(struct cli *cli, int argc, char **argv);
int cli_mark(struct cli *cli, int argc, char **argv);
int cli_journal(struct cli *cli, int argc, char **argv);
int cli_pki(struct cli *cli, int argc, char **argv);
int cli_doctor(struct cli *cli, int argc, char **argv);

#endif
