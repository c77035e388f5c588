/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast status: asks both daemons, takes each group from the one that owns it, and what no
 * daemon tells from the superblocks.
 */
#include <errno.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/status_notes.h"
#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"
#include "core/conf/peek.h"
#include "core/conf/status_json.h"
#include "core/conf/status_metrics.h"

#define ASK_TIMEOUT_MS	  10000u
#define WATCH_SECONDS	  2u
#define WATCH_SECONDS_MAX 86400u

struct view {
	struct status_group *groups;
	unsigned count;
	bool agent, engine; /* who answered */
	char error[512];    /* why the last silent one did not */
	int res;
};

/* The daemon's groups, as an array that the caller drops. NULL: it did not answer. */
static json_t *ask(const struct cli *cli, const char *daemon, struct view *view)
{
	struct control_reply reply = { .json = NULL };
	json_t *groups = NULL;
	int res = cli_call(cli, daemon, "GET", "/v1/status", NULL, ASK_TIMEOUT_MS, &reply,
			   view->error, sizeof(view->error));

	if (res == 0 && reply.status == 200)
		groups = json_incref(json_object_get(reply.json, "groups"));
	else if (res == 0)
		res = -EPROTO;
	if (!groups)
		view->res = res ? res : -EPROTO;
	control_reply_free(&reply);
	return groups;
}

static bool find(const json_t *groups, const char *name, struct status_group *ret_status)
{
	for (size_t i = 0; i < json_array_size(groups); i++) {
		const json_t *one = json_array_get(groups, i);
		const char *have = json_string_value(json_object_get(one, "group"));

		if (have && strcmp(have, name) == 0)
			return status_from_json(one, ret_status) == 0;
	}
	return false;
}

/* What is known of one group. False when it has no directory here. */
static bool look(const struct cli *cli, const struct conf_group *group, const json_t *agent,
		 const json_t *engine, struct status_group *status)
{
	struct superblock *sb;
	int res;

	/* A standby is the engine's, and a fenced copy once it has opened it; everything else the
	 * agent's. */
	if (find(engine, group->name, status) && status_is_follower(status))
		return true;
	if (find(agent, group->name, status) && strcmp(status->role, "standby") != 0)
		return true;
	sb = calloc(1, sizeof(*sb));
	res = sb ? peek_superblock(cli->conf->state_dir, group->name, sb) : -ENOMEM;
	if (res == 0) {
		peek_status(sb, cli->conf->node, status);
		(void)snprintf(status->state, sizeof(status->state), "no daemon");
		(void)snprintf(status->detail, sizeof(status->detail), "holdfast-%s is not running",
			       sb->role == GROUP_STANDBY ? "engine" : "agent");
	}
	free(sb);
	return res == 0;
}

static int gather(struct cli *cli, const char *only, struct view *view)
{
	json_t *agent, *engine;
	int code = EXIT_OK;

	if (only && !cli_group(cli, only, &code))
		return code;
	memset(view, 0, sizeof(*view));
	agent = ask(cli, "agent", view);
	engine = ask(cli, "engine", view);
	view->agent = agent != NULL;
	view->engine = engine != NULL;
	view->groups = calloc(cli->conf->group_count + 1, sizeof(*view->groups));
	for (unsigned i = 0; view->groups && i < cli->conf->group_count; i++) {
		const struct conf_group *group = &cli->conf->groups[i];

		if (only && strcmp(group->name, only) != 0)
			continue;
		if (look(cli, group, agent, engine, &view->groups[view->count]))
			view->count++;
	}
	json_decref(agent);
	json_decref(engine);
	if (!view->agent && !view->engine && view->count == 0)
		return cli_fail_call(cli, view->res, view->error);
	if (only && view->count == 0)
		return cli_fail(cli, EXIT_NOT_FOUND, "no-group-directory",
				"make the group with holdfast init",
				"group '%s' has no directory in %s", only, cli->conf->state_dir);
	return EXIT_OK;
}

/* ---- table -------------------------------------------------------------------------------------
 */

enum column {
	GROUP_,
	ROLE,
	STATE,
	MODE,
	EPOCH,
	HEAD,
	DURABLE,
	APPLIED,
	PEER,
	LINK,
	WRITES,
	BYTES,
	RPO
};

static const struct {
	const char *name;
	int flags;
} columns[] = {
	{ "GROUP", 0 },
	{ "ROLE", 0 },
	{ "STATE", 0 },
	{ "MODE", 0 },
	{ "EPOCH", SCOLS_FL_RIGHT },
	{ "HEAD", SCOLS_FL_RIGHT },
	{ "DURABLE", SCOLS_FL_RIGHT },
	{ "APPLIED", SCOLS_FL_RIGHT },
	{ "PEER", 0 },
	{ "LINK", 0 },
	{ "BEHIND", SCOLS_FL_RIGHT },
	{ "BYTES", SCOLS_FL_RIGHT },
	{ "RPO", SCOLS_FL_RIGHT },
};

static void set(struct libscols_line *line, enum column column, const char *text)
{
	(void)scols_line_set_data(line, (size_t)column, text);
}

static void set_number(struct libscols_line *line, enum column column, uint64_t number)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%" PRIu64, number);
	set(line, column, text);
}

static void set_lag(struct libscols_line *line, const struct status_lag *lag, uint64_t objective_ns)
{
	char text[UNITS_TEXT_BYTES], rpo[UNITS_TEXT_BYTES + 2];

	if (lag->writes == UINT64_MAX)
		set(line, WRITES, "unknown");
	else
		set_number(line, WRITES, lag->writes);
	set(line, BYTES,
	    lag->bytes == UINT64_MAX ? "unknown" : units_format_size(lag->bytes, text));
	if (lag->ns == UINT64_MAX) {
		set(line, RPO, "unknown");
		return;
	}
	(void)snprintf(rpo, sizeof(rpo), "%s%s", units_format_duration(lag->ns, text),
		       objective_ns && lag->ns > objective_ns ? " !" : "");
	set(line, RPO, rpo);
}

static void add_group(struct libscols_table *table, const struct status_group *status)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);
	bool standby = status_is_follower(status);
	bool bad_mode = strcmp(status->mode_state, "lost") == 0 ||
			strcmp(status->mode_state, "waiting") == 0 ||
			strcmp(status->mode_state, "frozen") == 0;
	char mode[sizeof(status->mode) + sizeof(status->mode_state) + 2];

	set(line, GROUP_, status->name);
	set(line, ROLE, status->role);
	set(line, STATE, status->state);
	/* in-sync and async are as it should be: only what is not gets a word. */
	(void)snprintf(mode, sizeof(mode), "%s%s%s", status->mode[0] ? status->mode : "-",
		       bad_mode ? " " : "", bad_mode ? status->mode_state : "");
	set(line, MODE, mode);
	set_number(line, EPOCH, status->epoch);
	set_number(line, HEAD,
		   standby ? max_u64(status->source_head_seq, status->durable_seq)
			   : status->head_seq);
	set_number(line, DURABLE, status->durable_seq);
	set_number(line, APPLIED, status->applied_seq);
	if (standby) {
		set(line, PEER, status->source[0] ? status->source : "-");
		set(line, LINK, status->connected ? "up" : "down");
		set_lag(line, &status->lag, status->rpo_objective_ns);
	}
	for (unsigned i = 0; !standby && i < status->peer_count; i++) {
		const struct status_peer *peer = &status->peers[i];

		if (i > 0)
			line = scols_table_new_line(table, NULL);
		set(line, PEER, peer->node);
		set(line, LINK, peer->state);
		if (i > 0) {
			set_number(line, DURABLE, peer->durable_seq);
			set_number(line, APPLIED, peer->applied_seq);
		}
		set_lag(line, &peer->lag, status->rpo_objective_ns);
	}
}

static int show_table(const struct cli *cli, const struct view *view, bool all)
{
	struct libscols_table *table = scols_new_table();

	if (!table)
		return cli_fail(cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	for (size_t i = 0; i < array_len(columns); i++)
		(void)scols_table_new_column(table, columns[i].name, 0, columns[i].flags);
	for (unsigned i = 0; i < view->count; i++)
		add_group(table, &view->groups[i]);
	if (view->count > 0)
		(void)scols_print_table(table);
	else
		printf("no group has a directory in %s; make one with holdfast init\n",
		       cli->conf->state_dir);
	scols_unref_table(table);
	for (unsigned i = 0; i < view->count; i++)
		status_notes(stdout, &view->groups[i], all, cli_wall_ns());
	return EXIT_OK;
}

static int show_json(const struct cli *cli, const struct view *view)
{
	json_t *json = status_document("holdfast", cli->conf->node, cli_wall_ns());
	json_t *groups = json_object_get(json, "groups");

	for (unsigned i = 0; i < view->count; i++) {
		json_t *one = status_to_json(&view->groups[i]);

		json_object_set_new(one, "protected",
				    json_boolean(status_is_protected(&view->groups[i])));
		json_array_append_new(groups, one);
	}
	json_object_set_new(
		json, "daemons",
		json_pack("{s:b, s:b}", "agent", (int)view->agent, "engine", (int)view->engine));
	return cli_print_json(json);
}

static int show_once(struct cli *cli, const char *only, bool check, bool clear)
{
	struct view view = { .groups = NULL };
	int code = gather(cli, only, &view);

	if (code == EXIT_OK) {
		if (clear)
			(void)fputs("\033[H\033[J", stdout);
		code = cli->json ? show_json(cli, &view) : show_table(cli, &view, only != NULL);
	}
	for (unsigned i = 0; check && code == EXIT_OK && i < view.count; i++) {
		if (status_differs(&view.groups[i]))
			code = cli_fail(cli, EXIT_CHECK, "differs",
					"repair it: holdfast verify GROUP --repair on the primary",
					"a standby of group '%s' is known to differ",
					view.groups[i].name);
		else if (!status_is_protected(&view.groups[i]))
			code = cli_fail(cli, EXIT_CHECK, "not-protected",
					"see holdfast status for the reason",
					"group '%s' is not protected", view.groups[i].name);
	}
	free(view.groups);
	(void)fflush(stdout);
	return code;
}

int cli_status(struct cli *cli, int argc, char **argv)
{
	bool watch = false, check = false;
	const char *interval = NULL, *only;
	const struct cli_option options[] = {
		{ "watch", 'w', CLI_OPTIONAL, &watch, &interval },
		{ "check", 0, CLI_FLAG, &check, NULL },
	};
	uint64_t seconds = WATCH_SECONDS;
	int first, code;

	if (cli_parse(cli, argc, argv, options, array_len(options), 0, 1, &first, &code) ==
	    CLI_STOP)
		return code;
	if (interval && (units_parse_u64(interval, &seconds) != 0 || seconds < 1 ||
			 seconds > WATCH_SECONDS_MAX))
		return cli_fail(cli, EXIT_USAGE, "usage", "write whole seconds",
				"status: '%s' is no interval", interval);
	only = first < argc ? argv[first] : NULL;
	code = cli_load(cli);
	if (code != EXIT_OK)
		return code;
	while (watch) {
		/* A daemon that restarts is no reason to stop watching. */
		code = show_once(cli, only, false, isatty(STDOUT_FILENO) && !cli->json);
		if (code == EXIT_NOT_FOUND || ferror(stdout))
			return code;
		if (!isatty(STDOUT_FILENO) && !cli->json)
			printf("\n");
		(void)sleep((unsigned)seconds);
	}
	return show_once(cli, only, check, false);
}
