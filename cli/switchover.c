/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast switchover, accept and demote: the verbs by which a group changes hands, or goes on in
 * spite of what was found.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/document.h"
#include "cli/journal_read.h"
#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/conf/peek.h"

#define HOLD_NS_DEFAULT	  (30 * NS_PER_S)
#define HOLD_NS_MAX	  NS_PER_HOUR
#define ANSWER_MS	  60000u /* beyond the hold: draining, the standby's promote */
#define ACCEPT_TIMEOUT_MS 120000u
#define DEMOTE_TIMEOUT_MS 300000u

/* Whole seconds, or a duration with its unit. */
static bool parse_timeout(const char *text, uint64_t *ret_ns)
{
	uint64_t seconds;

	if (units_parse_u64(text, &seconds) == 0 && seconds <= HOLD_NS_MAX / NS_PER_S)
		*ret_ns = seconds * NS_PER_S;
	else if (units_parse_duration(text, ret_ns) != 0)
		return false;
	return *ret_ns >= 10 * NS_PER_MS && *ret_ns <= HOLD_NS_MAX;
}

static void put_epoch(json_t *body, const char *expect, uint64_t epoch)
{
	if (expect)
		json_object_set_new(body, "expect_epoch", json_integer((json_int_t)epoch));
}

/* ---- switchover --------------------------------------------------------------------------------
 */

static bool confirm_switchover(const struct cli *cli, const char *group, const char *to)
{
	json_t *json = doc_group(cli, "agent", group);
	char question[640];
	bool yes;

	(void)snprintf(question, sizeof(question),
		       "%s is %s here, epoch %" PRIu64 ". Hold its writes, hand it over to %s, and "
		       "stop serving it here?",
		       group, json ? doc_text(json, "role") : "not known", doc_u64(json, "epoch"),
		       to ? to : "its standby");
	yes = !json || cli_confirm(cli, question);
	json_decref(json);
	return yes;
}

int cli_switchover(struct cli *cli, int argc, char **argv)
{
	const char *expect = NULL, *timeout = NULL, *to = NULL;
	const struct cli_option options[] = {
		{ "to", 0, CLI_TEXT, NULL, &to },
		{ "timeout", 0, CLI_TEXT, NULL, &timeout },
		{ "expect-epoch", 0, CLI_TEXT, NULL, &expect },
	};
	uint64_t epoch = 0, hold_ns = HOLD_NS_DEFAULT;
	char text[UNITS_TEXT_BYTES], took[UNITS_TEXT_BYTES];
	int first, code;
	json_t *body, *json;

	if (cli_parse(cli, argc, argv, options, array_len(options), 1, 1, &first, &code) ==
	    CLI_STOP)
		return code;
	if (expect && (code = doc_epoch(cli, argv[0], expect, &epoch)) != EXIT_OK)
		return code;
	if (timeout && !parse_timeout(timeout, &hold_ns))
		return cli_fail(cli, EXIT_USAGE, "usage",
				"write seconds, or a duration like 500ms, up to 1h",
				"switchover: '%s' is no timeout", timeout);
	if (!cli_group(cli, argv[first], &code))
		return code;
	if (!confirm_switchover(cli, argv[first], to))
		return cli_fail(cli, EXIT_REFUSED, "declined", "", "nothing was done");
	body = json_pack("{s:f}", "timeout_seconds", (double)hold_ns / 1e9);
	if (to)
		json_object_set_new(body, "to", json_string(to));
	put_epoch(body, expect, epoch);
	code = doc_post(cli, "agent", argv[first], "switchover", body,
			(unsigned)(hold_ns / NS_PER_MS) + ANSWER_MS, &json);
	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	printf("group %s is primary at %s under epoch %" PRIu64 ", from seq %" PRIu64 " on\n",
	       argv[first], doc_text(json, "to"), doc_u64(json, "epoch"), doc_u64(json, "seq") + 1);
	printf("  lost           nothing\n");
	printf("  writes held    %s, all of it took %s\n", doc_duration(json, "held_seconds", text),
	       doc_duration(json, "took_seconds", took));
	printf("  this copy      follows it by itself; attach the clients there\n");
	json_decref(json);
	return EXIT_OK;
}

/* ---- accept ------------------------------------------------------------------------------------
 */

/* A primary that serves, and somebody holds something else under its epoch. */
static const char *parted_node(const json_t *json)
{
	size_t i;
	json_t *peer;

	json_array_foreach(json_object_get(json, "peers"), i,
			   peer) if (doc_text(peer, "parted")[0]) return doc_text(peer, "node");
	return NULL;
}

static bool confirm_accept(const struct cli *cli, const char *group)
{
	json_t *json = doc_group(cli, "agent", group);
	char question[900];
	const char *parted = parted_node(json);
	bool yes;

	if (parted)
		(void)snprintf(question, sizeof(question),
			       "%.128s holds something else under the epoch of %s. Go on with what "
			       "is here under a higher epoch? What it has and this copy has not is "
			       "then of no use but as salvage.",
			       parted, group);
	else
		(void)snprintf(question, sizeof(question),
			       "%s is held: %s. Serve what is here under a higher epoch? What its "
			       "standbys "
			       "have and this copy has not is then of no use but as salvage.",
			       group, doc_text(json, "held"));
	yes = !json || (doc_text(json, "held")[0] == '\0' && !parted) || cli_confirm(cli, question);
	json_decref(json);
	return yes;
}

int cli_accept(struct cli *cli, int argc, char **argv)
{
	const char *expect = NULL;
	const struct cli_option options[] = {
		{ "expect-epoch", 0, CLI_TEXT, NULL, &expect },
	};
	uint64_t epoch = 0;
	json_t *body, *json;
	int first, code;

	if (cli_parse(cli, argc, argv, options, array_len(options), 1, 1, &first, &code) ==
	    CLI_STOP)
		return code;
	/* Whoever accepts has looked: the epoch proves it. */
	if (!expect)
		return cli_fail(cli, EXIT_USAGE, "usage",
				"look at holdfast status, then give --expect-epoch",
				"accept: the option --expect-epoch is missing");
	if ((code = doc_epoch(cli, argv[0], expect, &epoch)) != EXIT_OK)
		return code;
	if (!cli_group(cli, argv[first], &code))
		return code;
	if (!confirm_accept(cli, argv[first]))
		return cli_fail(cli, EXIT_REFUSED, "declined", "", "nothing was done");
	body = json_object();
	put_epoch(body, expect, epoch);
	code = doc_post(cli, "agent", argv[first], "accept", body, ACCEPT_TIMEOUT_MS, &json);
	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	printf("group %s goes on here under epoch %" PRIu64 ", %s\n", argv[first],
	       doc_u64(json, "epoch"), doc_text(json, "state"));
	json_decref(json);
	return EXIT_OK;
}

/* ---- demote ------------------------------------------------------------------------------------
 */

/* The part of the journal that only this copy may have. */
struct own {
	uint64_t common_seq;
	uint64_t end_seq; /* the journal's last one */
	uint64_t first_seq, last_seq, bytes;
	uint64_t first_time_ns, last_time_ns;
};

static void add_own(void *arg, const struct journal_segment *segment)
{
	const struct segment_header *header = &segment->header;
	struct own *own = arg;

	if (segment_last_seq(header) <= own->common_seq)
		return;
	if (!own->first_seq) {
		own->first_seq = max_u64(header->first_seq, own->common_seq + 1);
		own->first_time_ns = header->first_time_ns;
	}
	own->last_seq = segment_last_seq(header);
	own->last_time_ns = header->last_time_ns;
	own->bytes += header->data_raw_bytes;
}

/* Reads the journal offline. False when it cannot be read. */
static bool find_own(const struct cli *cli, const char *group, struct own *own)
{
	struct journal_view *view = calloc(1, sizeof(*view));
	char dir[1024], error[1300];
	bool read = false;

	(void)snprintf(dir, sizeof(dir), "%s/%s", cli->conf->state_dir, group);
	if (view) {
		read = journal_view_read(view, dir, error, sizeof(error)) == 0;
		if (read) {
			journal_view_each(view, add_own, own);
			own->end_seq = view->end_seq - 1;
		}
		journal_view_free(view);
	}
	free(view);
	return read;
}

static void show_own(const char *group, const struct superblock *sb, const json_t *status,
		     const struct own *own, bool read)
{
	char size[UNITS_TEXT_BYTES], from[TIMEFMT_BYTES], to[TIMEFMT_BYTES];
	bool known = json_is_true(json_object_get(status, "diverged"));

	printf("group %s: %s here, epoch %" PRIu64, group, peek_role(sb), sb->epoch);
	if (sb->fenced_by_epoch)
		printf("; epoch %" PRIu64 " rules at %s", sb->fenced_by_epoch, sb->fenced_by);
	printf("\n");
	if (!read)
		printf("  becomes salvage   what the ruling history does not have (the journal "
		       "cannot "
		       "be read now)\n");
	else if (!known)
		printf("  becomes salvage   what the ruling history does not have, if anything: "
		       "that "
		       "is known once\n"
		       "                    its primary is met; this copy ends at seq %" PRIu64
		       "\n",
		       own->end_seq);
	else if (!own->first_seq)
		printf("  becomes salvage   nothing: the journal holds no record behind seq "
		       "%" PRIu64 "\n",
		       own->common_seq);
	else
		printf("  becomes salvage   seq %" PRIu64 " to %" PRIu64 ": %" PRIu64
		       " records, %s, written from %s to %s\n",
		       own->first_seq, own->last_seq, own->last_seq - own->first_seq + 1,
		       units_format_size(own->bytes, size), timefmt_ms(own->first_time_ns, from),
		       timefmt_ms(own->last_time_ns, to));
	if (known && read && own->first_seq > own->common_seq + 1)
		printf("  no salvage        seq %" PRIu64 " to %" PRIu64
		       ": not in the journal any more, their content is on the volumes only\n",
		       own->common_seq + 1, own->first_seq - 1);
	(void)fflush(stdout);
}

/* What is about to be given up. EXIT_OK, or the exit code after it complained. */
static int look(const struct cli *cli, const char *group)
{
	struct superblock *sb = calloc(1, sizeof(*sb));
	json_t *status = doc_group(cli, "engine", group), *agent = doc_group(cli, "agent", group);
	struct own own = { .common_seq = doc_u64(status, "common_seq") };
	int res = sb ? peek_superblock(cli->conf->state_dir, group, sb) : -1, code = EXIT_OK;

	if (res == 0 && strcmp(doc_text(agent, "role"), "primary") == 0 &&
	    strcmp(doc_text(agent, "state"), "serving") == 0)
		code = cli_fail(cli, EXIT_REFUSED, "served",
				"to hand it over use holdfast switchover",
				"group %s is primary here and is served", group);
	else if (res == 0 && !cli->json)
		show_own(group, sb, status, &own, find_own(cli, group, &own));
	json_decref(status);
	json_decref(agent);
	free(sb);
	return code;
}

int cli_demote(struct cli *cli, int argc, char **argv)
{
	const char *expect = NULL;
	bool without = false;
	const struct cli_option options[] = {
		{ "without-salvage", 0, CLI_FLAG, &without, NULL },
		{ "expect-epoch", 0, CLI_TEXT, NULL, &expect },
	};
	char question[200];
	uint64_t epoch = 0;
	json_t *body, *json;
	int first, code;

	if (cli_parse(cli, argc, argv, options, array_len(options), 1, 1, &first, &code) ==
	    CLI_STOP)
		return code;
	if (expect && (code = doc_epoch(cli, argv[0], expect, &epoch)) != EXIT_OK)
		return code;
	if (!cli_group(cli, argv[first], &code))
		return code;
	code = look(cli, argv[first]);
	if (code != EXIT_OK)
		return code;
	(void)snprintf(question, sizeof(question),
		       "Keep that as salvage%s, and let this copy of %s follow the ruling history?",
		       without ? ", give up what cannot be kept" : "", argv[first]);
	if (!cli_confirm(cli, question))
		return cli_fail(cli, EXIT_REFUSED, "declined", "", "nothing was done");
	body = json_object();
	if (without)
		json_object_set_new(body, "without_salvage", json_true());
	put_epoch(body, expect, epoch);
	code = doc_post(cli, "engine", argv[first], "demote", body, DEMOTE_TIMEOUT_MS, &json);
	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	if (strcmp(doc_text(json, "result"), "already") == 0)
		printf("group %s follows already; nothing was done\n", argv[first]);
	else
		printf("group %s follows as soon as the ruling primary is met; see holdfast status "
		       "%s and holdfast salvage list %s\n",
		       argv[first], argv[first], argv[first]);
	json_decref(json);
	return EXIT_OK;
}
