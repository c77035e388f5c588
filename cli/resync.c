/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast resync and verify: copying to a standby again, and comparing it with this copy.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/document.h"
#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/conf/status_json.h"

#define TASK_TIMEOUT_MS 120000u
#define POLL_NS		(300 * NS_PER_MS)
#define SILENCE_NS	(60 * NS_PER_S) /* the agent does not answer: it is given up */

static void put_to(json_t *body, const char *to)
{
	if (to)
		json_object_set_new(body, "to", json_string(to));
}

/* ---- resync ------------------------------------------------------------------------------------
 */

static int drop_kept(struct cli *cli, const char *group)
{
	json_t *status = doc_group(cli, "engine", group), *json = NULL;
	const json_t *kept = json_object_get(json_object_get(status, "standby"), "kept");
	char question[400];
	bool yes = true;
	int code;

	if (json_is_object(kept)) {
		(void)snprintf(question, sizeof(question),
			       "%s keeps seq %" PRIu64
			       " of %s while it is copied to. Give that up? "
			       "Until the copy ends there is nothing to promote.",
			       group, doc_u64(kept, "seq"), doc_text(kept, "time"));
		yes = cli_confirm(cli, question);
	}
	json_decref(status);
	if (!yes)
		return cli_fail(cli, EXIT_REFUSED, "declined", "", "nothing was done");
	code = doc_post(cli, "engine", group, "resync-drop-kept", json_object(), TASK_TIMEOUT_MS,
			&json);
	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	printf("group %s: %s\n", group,
	       strcmp(doc_text(json, "result"), "already") == 0
		       ? "no position is kept; nothing was done"
		       : "the kept position is given up; there is nothing to promote until the "
			 "copy "
			 "ends");
	json_decref(json);
	return EXIT_OK;
}

int cli_resync(struct cli *cli, int argc, char **argv)
{
	bool everything = false, compare = false, drop = false;
	const char *to = NULL;
	const struct cli_option options[] = {
		{ "to", 0, CLI_TEXT, NULL, &to },
		{ "everything", 0, CLI_FLAG, &everything, NULL },
		{ "compare", 0, CLI_FLAG, &compare, NULL },
		{ "drop-kept", 0, CLI_FLAG, &drop, NULL },
	};
	json_t *body, *json;
	int first, code;

	if (cli_parse(cli, argc, argv, options, array_len(options), 1, 1, &first, &code) ==
	    CLI_STOP)
		return code;
	if (drop && (to || everything || compare))
		return cli_fail(cli, EXIT_USAGE, "usage", "see holdfast help resync",
				"resync: --drop-kept stands alone, on the standby");
	if (!cli_group(cli, argv[first], &code))
		return code;
	if (drop)
		return drop_kept(cli, argv[first]);
	body = json_pack("{s:b, s:b}", "everything", (int)everything, "compare", (int)compare);
	put_to(body, to);
	code = doc_post(cli, "agent", argv[first], "resync", body, TASK_TIMEOUT_MS, &json);
	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	printf("group %s: the resync to %s has begun; holdfast status -w %s shows it\n",
	       argv[first], to ? to : "its standbys", argv[first]);
	json_decref(json);
	return EXIT_OK;
}

/* ---- verify ------------------------------------------------------------------------------------
 */

struct verification {
	struct cli *cli;
	const char *group, *to;
	bool repair;
	struct status_group *before, *now;
	bool waited[STATUS_PEERS_MAX]; /* of peers in `before` */
};

static bool ask(struct verification *verification, struct status_group *status)
{
	json_t *json = doc_group(verification->cli, "agent", verification->group);
	bool found = json && status_from_json(json, status) == 0;

	json_decref(json);
	return found;
}

static const struct status_peer *peer_of(const struct status_group *status, const char *node)
{
	for (unsigned i = 0; i < status->peer_count; i++) {
		if (strcmp(status->peers[i].node, node) == 0)
			return &status->peers[i];
	}
	return NULL;
}

static bool is_meant(const struct verification *verification, const struct status_peer *peer)
{
	return !verification->to || strcmp(verification->to, peer->node) == 0;
}

/* What differs is on its way, in a session of its own that is about to begin: that belongs to it.
 */
static bool is_repaired(const struct verification *verification, const struct status_peer *peer)
{
	return verification->repair && peer->verify.repaired_bytes < peer->verify.differing_bytes &&
	       (peer->needs_sync || peer->sync.active || !peer->connected);
}

/* Notes whose verification runs or has run since; true while one runs. */
static bool step(struct verification *verification, uint64_t *ret_done, uint64_t *ret_total)
{
	bool active = false;

	*ret_done = *ret_total = 0;
	for (unsigned i = 0; i < verification->before->peer_count; i++) {
		const struct status_peer *before = &verification->before->peers[i];
		const struct status_peer *now = peer_of(verification->now, before->node);

		if (!now || !is_meant(verification, now))
			continue;
		verification->waited[i] =
			verification->waited[i] || now->verify.active ||
			now->verify.failed != before->verify.failed ||
			now->verify.verified_time_ns != before->verify.verified_time_ns ||
			now->verify.differing_bytes != before->verify.differing_bytes;
		active = active || now->verify.active || is_repaired(verification, now);
		if (now->verify.active) {
			*ret_done += now->verify.done_bytes;
			*ret_total += now->verify.total_bytes;
		}
	}
	return active;
}

/* EXIT_OK when it is over, or the exit code after it complained. */
static int wait_for_end(struct verification *verification)
{
	const struct timespec pause = { .tv_nsec = (long)POLL_NS };
	struct cli_progress progress;
	uint64_t done, total, heard_ns = cli_now_ns();
	bool active = true;

	cli_progress_start(&progress, "verifying", verification->cli->json);
	while (active) {
		if (ask(verification, verification->now)) {
			heard_ns = cli_now_ns();
			active = step(verification, &done, &total);
			if (active && total)
				cli_progress_show(&progress, done, total);
		} else if (cli_now_ns() - heard_ns > SILENCE_NS) {
			cli_progress_end(&progress);
			return cli_fail(verification->cli, EXIT_TIMEOUT, "connection-lost",
					"look at holdfast status",
					"the agent does not answer any more; the verification may "
					"go on");
		}
		if (active)
			(void)nanosleep(&pause, NULL);
	}
	cli_progress_end(&progress);
	return EXIT_OK;
}

static json_t *verify_json(const struct verification *verification, const struct status_peer *peer)
{
	json_t *group = status_to_json(verification->now);
	const json_t *peers = json_object_get(group, "peers");
	json_t *json = json_object();

	for (size_t i = 0; i < json_array_size(peers); i++) {
		const json_t *one = json_array_get(peers, i);

		if (strcmp(doc_text(one, "node"), peer->node) != 0)
			continue;
		json_object_update(json, json_object_get(one, "verify"));
	}
	json_object_set_new(json, "node", json_string(peer->node));
	json_object_set_new(json, "equal",
			    json_boolean(!peer->verify.failed && !peer->verify.differing_bytes));
	json_decref(group);
	return json;
}

static void show_peer(const struct status_peer *peer)
{
	const struct status_verify *verify = &peer->verify;
	char size[UNITS_TEXT_BYTES], repaired[UNITS_TEXT_BYTES], at[TIMEFMT_BYTES];

	if (verify->failed) {
		printf("%s: the verification did not come to its end%s%s\n", peer->node,
		       peer->error[0] ? ": " : "", peer->error);
		return;
	}
	if (!verify->differing_bytes) {
		printf("%s: equal at seq %" PRIu64 ", %s\n", peer->node, verify->verified_seq,
		       timefmt_ms(verify->verified_time_ns, at));
		return;
	}
	printf("%s: differs in %" PRIu64 " range%s, %s", peer->node, verify->differing_ranges,
	       verify->differing_ranges == 1 ? "" : "s",
	       units_format_size(verify->differing_bytes, size));
	if (verify->repaired_bytes)
		printf("; %s were sent again", units_format_size(verify->repaired_bytes, repaired));
	printf("\n");
	for (unsigned i = 0; i < verify->range_count && i < array_len(verify->ranges); i++)
		printf("  volume %s, offset %" PRIu64 ", %s\n", verify->ranges[i].volume,
		       verify->ranges[i].off, units_format_size(verify->ranges[i].len, size));
	if (verify->differing_ranges > verify->range_count)
		printf("  and %" PRIu64 " more\n", verify->differing_ranges - verify->range_count);
}

/* It was over before one could look: then it was of those that are there. */
static void guess(struct verification *verification)
{
	const struct status_group *before = verification->before;

	for (unsigned i = 0; i < before->peer_count; i++) {
		if (verification->waited[i])
			return;
	}
	for (unsigned i = 0; i < before->peer_count; i++)
		verification->waited[i] =
			before->peers[i].connected && is_meant(verification, &before->peers[i]);
}

/* Tells how it ended, and what that means as an exit code. */
static int conclude(struct verification *verification)
{
	json_t *peers = json_array();
	unsigned seen = 0, failed = 0, different = 0;
	int code = EXIT_OK;

	guess(verification);
	for (unsigned i = 0; i < verification->before->peer_count; i++) {
		const struct status_peer *peer =
			peer_of(verification->now, verification->before->peers[i].node);

		if (!verification->waited[i] || !peer)
			continue;
		seen++;
		failed += peer->verify.failed;
		different += !peer->verify.failed && peer->verify.differing_bytes > 0;
		if (verification->cli->json)
			json_array_append_new(peers, verify_json(verification, peer));
		else
			show_peer(peer);
	}
	if (verification->cli->json)
		code = cli_print_json(
			json_pack("{s:s, s:O}", "group", verification->group, "peers", peers));
	json_decref(peers);
	(void)fflush(stdout);
	if (code != EXIT_OK)
		return code;
	if (different)
		return cli_fail(verification->cli, EXIT_CHECK, "different",
				"find out who wrote there; holdfast verify --repair sends the "
				"ranges again",
				"group %s: %u standby%s from this copy", verification->group,
				different, different == 1 ? " differs" : "s differ");
	if (failed || !seen)
		return cli_fail(verification->cli, EXIT_FAILED, "incomplete",
				"see holdfast status, then repeat", "group %s: %s",
				verification->group,
				seen ? "not everything was compared" : "no standby was compared");
	return EXIT_OK;
}

static int verify_and_wait(struct verification *verification, json_t *body)
{
	json_t *json;
	int code;

	if (!ask(verification, verification->before))
		verification->before->peer_count = 0;
	code = doc_post(verification->cli, "agent", verification->group, "verify", body,
			TASK_TIMEOUT_MS, &json);
	if (code != EXIT_OK)
		return code;
	json_decref(json);
	code = wait_for_end(verification);
	return code == EXIT_OK ? conclude(verification) : code;
}

static int verify(struct cli *cli, const char *group, const char *to, bool repair, json_t *body)
{
	struct verification verification = {
		.cli = cli, .group = group, .to = to, .repair = repair
	};
	int code = EXIT_FAILED;

	verification.before = calloc(1, sizeof(*verification.before));
	verification.now = calloc(1, sizeof(*verification.now));
	if (verification.before && verification.now)
		code = verify_and_wait(&verification, body);
	else
		json_decref(body);
	free(verification.before);
	free(verification.now);
	return code;
}

static int verify_only(struct cli *cli, const char *group, json_t *body, bool stop)
{
	json_t *json;
	int code = doc_post(cli, "agent", group, "verify", body, TASK_TIMEOUT_MS, &json);

	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	if (stop)
		printf("group %s: the verification is stopped\n", group);
	else
		printf("group %s: the verification has begun; holdfast status -w %s shows it\n",
		       group, group);
	json_decref(json);
	return EXIT_OK;
}

int cli_verify(struct cli *cli, int argc, char **argv)
{
	bool repair = false, stop = false, no_wait = false;
	const char *to = NULL, *rate = NULL;
	const struct cli_option options[] = {
		{ "to", 0, CLI_TEXT, NULL, &to },
		{ "repair", 0, CLI_FLAG, &repair, NULL },
		{ "rate", 0, CLI_TEXT, NULL, &rate },
		{ "stop", 0, CLI_FLAG, &stop, NULL },
		{ "no-wait", 0, CLI_FLAG, &no_wait, NULL },
	};
	uint64_t rate_bytes = 0;
	int first, code;
	json_t *body;

	if (cli_parse(cli, argc, argv, options, array_len(options), 1, 1, &first, &code) ==
	    CLI_STOP)
		return code;
	if (stop && (repair || rate || no_wait))
		return cli_fail(cli, EXIT_USAGE, "usage", "see holdfast help verify",
				"verify: --stop goes with --to only");
	if (rate &&
	    (units_parse_size(rate, &rate_bytes) != 0 || rate_bytes < 64 * KIB || rate_bytes > TIB))
		return cli_fail(cli, EXIT_USAGE, "usage",
				"write a size per second from 64KiB to 1TiB, like 32MiB",
				"verify: '%s' is no rate", rate);
	if (!cli_group(cli, argv[first], &code))
		return code;
	body = json_pack("{s:b, s:b, s:I}", "repair", (int)repair, "stop", (int)stop, "rate_bytes",
			 (json_int_t)rate_bytes);
	put_to(body, to);
	if (stop || no_wait)
		return verify_only(cli, argv[first], body, stop);
	return verify(cli, argv[first], to, repair, body);
}
