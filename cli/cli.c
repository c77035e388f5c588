/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/units.h"

#define OPTIONS_MAX	  12u
#define CONF_ERROR_BYTES  32768u
#define PROGRESS_EVERY_NS (100 * NS_PER_MS)
#define BAR_COLUMNS	  30u

uint64_t cli_now_ns(void)
{
	struct timespec now;

	must(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t cli_wall_ns(void)
{
	struct timespec now;

	must(clock_gettime(CLOCK_REALTIME, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- options -----------------------------------------------------------------------------------
 */

static int usage(const struct cli *cli, const char *verb, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int usage(const struct cli *cli, const char *verb, const char *format, ...)
{
	char text[256], remedy[64];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)snprintf(remedy, sizeof(remedy), "see holdfast help %s", verb);
	return cli_fail(cli, EXIT_USAGE, "usage", remedy, "%s: %s", verb, text);
}

struct parser {
	struct option longs[OPTIONS_MAX + 5];
	char letters[3 * OPTIONS_MAX + 8];
	unsigned long_count;
	size_t letter_count;
};

static void add_option(struct parser *parser, const char *name, char letter,
		       enum cli_option_kind kind, int value)
{
	parser->longs[parser->long_count++] =
		(struct option){ .name = name,
				 .has_arg = kind == CLI_FLAG   ? no_argument
					    : kind == CLI_TEXT ? required_argument
							       : optional_argument,
				 .val = value };
	if (!letter)
		return;
	parser->letters[parser->letter_count++] = letter;
	for (int i = 0; i < (int)kind; i++)
		parser->letters[parser->letter_count++] = ':';
}

/* The arguments that every verb has. False when `c` is none of them. */
static bool take_common(struct cli *cli, const char *verb, int c, int *ret_stop, int *ret_exit)
{
	switch (c) {
	case 'c':
		cli->conf_path = optarg;
		return true;
	case 'y':
		cli->yes = true;
		return true;
	case 'o':
		cli->json = strcmp(optarg, "json") == 0;
		if (!cli->json && strcmp(optarg, "table") != 0) {
			*ret_exit = usage(cli, verb, "output '%s' is unknown, use table or json",
					  optarg);
			*ret_stop = CLI_STOP;
		}
		return true;
	case 'h':
		cli_help(stdout, cli_verb(verb));
		*ret_exit = EXIT_OK;
		*ret_stop = CLI_STOP;
		return true;
	default:
		return false;
	}
}

static void take_own(const struct cli_option *option, int argc, char **argv)
{
	uint64_t number;

	if (option->flag)
		*option->flag = true;
	if (option->text && optarg) {
		*option->text = optarg;
	} else if (option->text && option->kind == CLI_OPTIONAL && optind < argc &&
		   units_parse_u64(argv[optind], &number) == 0) {
		*option->text = argv[optind++];
	}
}

/* The option's name as the caller wrote it; a short one has no entry in argv of its own. */
static int bad_option(const struct cli *cli, int c, char **argv, int at)
{
	const char *what = c == ':' ? "needs an argument" : "is unknown";

	if (optopt > ' ' && optopt < 0x7f)
		return usage(cli, argv[0], "option -%c %s", optopt, what);
	return usage(cli, argv[0], "option %.60s %s", argv[at], what);
}

int cli_parse(struct cli *cli, int argc, char **argv, const struct cli_option *options,
	      unsigned option_count, int arguments_min, int arguments_max, int *ret_first,
	      int *ret_exit)
{
	struct parser parser = { .letters = ":", .letter_count = 1 };
	int c, stop = 0, at;

	must(option_count <= OPTIONS_MAX);
	add_option(&parser, "config", 'c', CLI_TEXT, 'c');
	add_option(&parser, "output", 'o', CLI_TEXT, 'o');
	add_option(&parser, "yes", 0, CLI_FLAG, 'y');
	add_option(&parser, "help", 'h', CLI_FLAG, 'h');
	for (unsigned i = 0; i < option_count; i++)
		add_option(&parser, options[i].name, options[i].letter, options[i].kind,
			   0x100 + (int)i);
	optind = 0; /* start anew: the verb was taken off */
	while (at = optind ? optind : 1,
	       (c = getopt_long(argc, argv, parser.letters, parser.longs, NULL)) != -1) {
		if (c == '?' || c == ':') {
			*ret_exit = bad_option(cli, c, argv, at < argc ? at : argc - 1);
			return CLI_STOP;
		}
		if (take_common(cli, argv[0], c, &stop, ret_exit)) {
			if (stop)
				return stop;
			continue;
		}
		for (unsigned i = 0; i < option_count; i++) {
			if (c == 0x100 + (int)i || (options[i].letter && c == options[i].letter))
				take_own(&options[i], argc, argv);
		}
	}
	*ret_first = optind;
	if (argc - optind < arguments_min) {
		*ret_exit = usage(cli, argv[0], "an argument is missing");
		return CLI_STOP;
	}
	if (argc - optind > arguments_max) {
		*ret_exit = usage(cli, argv[0], "unexpected argument '%.60s'",
				  argv[optind + arguments_max]);
		return CLI_STOP;
	}
	return 0;
}

/* ---- errors ------------------------------------------------------------------------------------
 */

static int print_error(const struct cli *cli, int code, const char *reason, const char *text,
		       const char *remedy)
{
	json_t *json;

	if (!cli->json) {
		(void)fprintf(stderr, "holdfast: %s%s%s\n", text, remedy[0] ? "; " : "", remedy);
		return code;
	}
	json = json_pack("{s:{s:i, s:s, s:s, s:s}}", "error", "exit_code", code, "reason", reason,
			 "text", text, "remedy", remedy);
	if (json) {
		(void)json_dumpf(json, stderr, JSON_COMPACT);
		(void)fputc('\n', stderr);
	}
	json_decref(json);
	return code;
}

int cli_fail(const struct cli *cli, enum exit_code code, const char *reason, const char *remedy,
	     const char *format, ...)
{
	char text[2048];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return print_error(cli, (int)code, reason, text, remedy);
}

static const char *text_of(const json_t *json, const char *key, const char *preset)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : preset;
}

int cli_fail_reply(const struct cli *cli, struct control_reply *reply)
{
	const json_t *error = json_object_get(reply->json, "error");
	json_int_t code = json_integer_value(json_object_get(error, "exit_code"));

	if (code <= 0 || code > 255)
		code = EXIT_FAILED;
	code = print_error(cli, (int)code, text_of(error, "reason", "unknown"),
			   text_of(error, "text", "the daemon refused without a reason"),
			   text_of(error, "remedy", ""));
	control_reply_free(reply);
	return (int)code;
}

int cli_fail_call(const struct cli *cli, int res, const char *error)
{
	switch (res) {
	case -ENOENT:
	case -ECONNREFUSED:
		return cli_fail(cli, EXIT_UNREACHABLE, "no-daemon", "", "%s", error);
	case -ETIMEDOUT:
		return cli_fail(cli, EXIT_TIMEOUT, "timeout", "look at holdfast status", "%s",
				error);
	case -ECONNRESET:
		return cli_fail(cli, EXIT_TIMEOUT, "connection-lost", "look at holdfast status",
				"%s", error);
	default:
		return cli_fail(cli, EXIT_FAILED, err_name(res), "", "%s", error);
	}
}

int cli_load(struct cli *cli)
{
	char *error;
	int res;

	if (cli->conf)
		return EXIT_OK;
	error = calloc(1, CONF_ERROR_BYTES);
	if (!error)
		return cli_fail(cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	res = conf_load(cli->conf_path, &cli->conf, error, CONF_ERROR_BYTES);
	/* The lines name their file: they stand alone, as an editor can jump to them. */
	if (res < 0 && !cli->json)
		(void)fprintf(stderr, "%s\n", error);
	else if (res < 0)
		print_error(cli, EXIT_USAGE, "configuration", error, "");
	free(error);
	return res < 0 ? EXIT_USAGE : EXIT_OK;
}

const struct conf_group *cli_group(struct cli *cli, const char *name, int *ret_exit)
{
	const struct conf_group *group;

	*ret_exit = cli_load(cli);
	if (*ret_exit != EXIT_OK)
		return NULL;
	group = conf_group(cli->conf, name);
	if (!group)
		*ret_exit = cli_fail(cli, EXIT_NOT_FOUND, "no-such-group",
				     "holdfast config show lists the groups",
				     "%s: there is no group '%s'", cli->conf_path, name);
	return group;
}

int cli_call(const struct cli *cli, const char *daemon, const char *method, const char *path,
	     const json_t *body, unsigned timeout_ms, struct control_reply *ret_reply, char *error,
	     size_t error_max)
{
	char socket_path[300];

	(void)snprintf(socket_path, sizeof(socket_path), "%s/%s.sock", cli->conf->run_dir, daemon);
	return control_call(socket_path, method, path, body, timeout_ms, ret_reply, error,
			    error_max);
}

/* ---- output ------------------------------------------------------------------------------------
 */

int cli_print_json(json_t *json)
{
	int res = json_dumpf(json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);

	json_decref(json);
	(void)fputc('\n', stdout);
	return res == 0 && fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
}

bool cli_confirm(const struct cli *cli, const char *question)
{
	char answer[16];

	if (cli->yes || cli->json || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return true;
	(void)fprintf(stderr, "%s [y/N] ", question);
	(void)fflush(stderr);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

void cli_progress_start(struct cli_progress *progress, const char *what, bool quiet)
{
	*progress = (struct cli_progress){ .what = what, .begin_ns = cli_now_ns() };
	progress->on = !quiet && isatty(STDERR_FILENO);
}

void cli_progress_show(struct cli_progress *progress, uint64_t done_bytes, uint64_t total_bytes)
{
	char done[UNITS_TEXT_BYTES], total[UNITS_TEXT_BYTES], left[UNITS_TEXT_BYTES];
	char bar[BAR_COLUMNS + 1];
	uint64_t now_ns = cli_now_ns(), elapsed_ns = now_ns - progress->begin_ns;
	double share = total_bytes ? (double)done_bytes / (double)total_bytes : 1;
	unsigned filled = (unsigned)(share * BAR_COLUMNS);

	if (!progress->on ||
	    (now_ns - progress->last_ns < PROGRESS_EVERY_NS && done_bytes < total_bytes))
		return;
	progress->last_ns = now_ns;
	progress->shown = true;
	memset(bar, ' ', BAR_COLUMNS);
	memset(bar, '#', min_u32(filled, BAR_COLUMNS));
	bar[BAR_COLUMNS] = '\0';
	(void)units_format_duration(
		share > 0 ? (uint64_t)((double)elapsed_ns * (1 - share) / share) : 0, left);
	(void)fprintf(stderr, "\r%s [%s] %3u%%  %s of %s  %s left\033[K", progress->what, bar,
		      (unsigned)(share * 100), units_format_size(done_bytes, done),
		      units_format_size(total_bytes, total), share > 0 ? left : "?");
	(void)fflush(stderr);
}

void cli_progress_end(struct cli_progress *progress)
{
	if (progress->shown)
		(void)fputs("\r\033[K", stderr);
	(void)fflush(stderr);
}
