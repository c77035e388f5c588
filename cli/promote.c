/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast promote and holdfast mark: the verbs that act on a running group.
 */
#include <inttypes.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/document.h"
#include "core/base/macros.h"

#define PROMOTE_SECONDS	    600u
#define PROMOTE_SECONDS_MAX 86400u
#define MARK_TIMEOUT_MS	    30000u

static void show_volumes(const json_t *json)
{
	const json_t *volumes = json_object_get(json, "nbd");

	for (size_t i = 0; i < json_array_size(volumes); i++) {
		const json_t *volume = json_array_get(volumes, i);

		printf("  volume         %s: %s\n", doc_text(volume, "volume"),
		       doc_text(volume, "uri"));
	}
}

static void show_promoted(const json_t *json)
{
	const json_t *lost = json_object_get(json, "lost");
	char text[UNITS_TEXT_BYTES], size[UNITS_TEXT_BYTES];
	uint64_t epoch = doc_u64(json, "epoch");

	if (strcmp(doc_text(json, "result"), "already") == 0) {
		printf("group %s is primary here already, under epoch %" PRIu64 ", and is served\n",
		       doc_text(json, "group"), epoch);
		show_volumes(json);
		return;
	}
	printf("group %s is primary here under epoch %" PRIu64 ", after %s\n",
	       doc_text(json, "group"), epoch, doc_duration(json, "total_seconds", text));
	printf("  recovered to   seq %" PRIu64 "%s%s\n", doc_u64(json, "seq"),
	       doc_text(json, "position_time")[0] ? ", written " : "",
	       doc_text(json, "position_time"));
	if (!json_is_integer(json_object_get(lost, "writes")))
		printf("  lost           not known: no primary whose history goes on from here has "
		       "been heard\n");
	else if (doc_u64(lost, "writes") == 0)
		printf("  known lost     nothing that was reported; what was written later than "
		       "that "
		       "is not known\n");
	else
		printf("  known lost     %" PRIu64 " writes, %s, %s\n", doc_u64(lost, "writes"),
		       units_format_size(doc_u64(lost, "bytes"), size),
		       doc_duration(lost, "seconds", text));
	if (!strcmp(doc_text(json, "acknowledged_lost"), "none"))
		printf("  acknowledged   nothing is lost: mode sync with on_sync_loss = freeze\n");
	else if (!strcmp(doc_text(json, "acknowledged_lost"), "none-when-last-heard"))
		printf("  acknowledged   nothing was lost when last heard: mode sync; what the old "
		       "primary acknowledged alone after its sync_timeout is\n");
	if (doc_u64(json, "differing_ranges"))
		printf("  differs        in %" PRIu64 " ranges from what the old primary had, as a "
		       "verification found that nobody has repaired\n",
		       doc_u64(json, "differing_ranges"));
	printf("  last heard     %s before\n", doc_duration(json, "heard_seconds_ago", text));
	show_volumes(json);
}

/* What the operator is about to give up, as far as the standby knows. */
static bool confirm(const struct cli *cli, const char *group, bool force)
{
	json_t *json = doc_group(cli, "engine", group);
	const json_t *standby = json_object_get(json, "standby");
	const json_t *lag = json_object_get(standby, "lag"),
		     *kept = json_object_get(standby, "kept");
	char question[1024], back[200] = "", behind[128] = "how far behind is not known, source";
	char text[UNITS_TEXT_BYTES];
	bool yes;

	/* The promotion itself will say what is wrong. */
	if (!json)
		return true;
	if (json_is_object(kept))
		(void)snprintf(back, sizeof(back),
			       "It is being copied to, and goes back to seq %" PRIu64 " of %s. ",
			       doc_u64(kept, "seq"),
			       doc_text(kept, "time")[0] ? doc_text(kept, "time") : "unknown time");
	if (json_is_integer(json_object_get(lag, "writes")))
		(void)snprintf(behind, sizeof(behind), "%" PRIu64 " writes (%s) behind",
			       doc_u64(lag, "writes"), doc_duration(lag, "seconds", text));
	(void)snprintf(question, sizeof(question),
		       "%s is %s here, epoch %" PRIu64 ", %s %s, %s. "
		       "%sMake this node its primary%s?",
		       group, doc_text(json, "role"), doc_u64(json, "epoch"), behind,
		       doc_text(standby, "source")[0] ? doc_text(standby, "source") : "its primary",
		       json_is_true(json_object_get(standby, "connected"))
			       ? "which is alive and connected"
			       : "which is not connected",
		       back, force ? ", whatever the other side does" : "");
	yes = cli_confirm(cli, question);
	json_decref(json);
	return yes;
}

static int promote(struct cli *cli, const char *group, const json_t *body, unsigned timeout_ms)
{
	struct control_reply reply = { .json = NULL };
	char path[300], error[512];
	int res;

	(void)snprintf(path, sizeof(path), "/v1/groups/%s/promote", group);
	res = cli_call(cli, "engine", "POST", path, body, timeout_ms, &reply, error, sizeof(error));
	if (res < 0)
		return cli_fail_call(cli, res, error);
	if (reply.status != 200) {
		const json_t *done = json_object_get(reply.json, "promote");

		/* Promoted but not served: what is known matters all the more. */
		if (done && cli->json)
			(void)cli_print_json(json_deep_copy(done));
		else if (done)
			show_promoted(done);
		return cli_fail_reply(cli, &reply);
	}
	if (cli->json)
		return cli_print_json(reply.json);
	show_promoted(reply.json);
	control_reply_free(&reply);
	return EXIT_OK;
}

int cli_promote(struct cli *cli, int argc, char **argv)
{
	bool force = false;
	const char *expect = NULL, *timeout = NULL;
	const struct cli_option options[] = {
		{ "force", 0, CLI_FLAG, &force, NULL },
		{ "expect-epoch", 0, CLI_TEXT, NULL, &expect },
		{ "timeout", 0, CLI_TEXT, NULL, &timeout },
	};
	uint64_t epoch = 0, seconds = PROMOTE_SECONDS;
	int first, code;
	json_t *body;

	if (cli_parse(cli, argc, argv, options, array_len(options), 1, 1, &first, &code) ==
	    CLI_STOP)
		return code;
	if (expect && (code = doc_epoch(cli, argv[0], expect, &epoch)) != EXIT_OK)
		return code;
	if (timeout && (units_parse_u64(timeout, &seconds) != 0 || seconds < 1 ||
			seconds > PROMOTE_SECONDS_MAX))
		return cli_fail(cli, EXIT_USAGE, "usage", "write whole seconds",
				"promote: '%s' is no timeout", timeout);
	if (!cli_group(cli, argv[first], &code))
		return code;
	if (!confirm(cli, argv[first], force))
		return cli_fail(cli, EXIT_REFUSED, "declined", "", "nothing was done");
	body = json_pack("{s:b}", "force", (int)force);
	if (expect)
		json_object_set_new(body, "expect_epoch", json_integer((json_int_t)epoch));
	code = promote(cli, argv[first], body, (unsigned)(seconds * 1000));
	json_decref(body);
	return code;
}

int cli_mark(struct cli *cli, int argc, char **argv)
{
	struct control_reply reply = { .json = NULL };
	char path[300], error[512];
	int first, code, res;
	json_t *body;

	if (cli_parse(cli, argc, argv, NULL, 0, 2, 2, &first, &code) == CLI_STOP)
		return code;
	if (!cli_group(cli, argv[first], &code))
		return code;
	body = json_pack("{s:s}", "name", argv[first + 1]);
	if (!body || strlen(argv[first + 1]) == 0 || strlen(argv[first + 1]) > 255) {
		json_decref(body);
		return cli_fail(cli, EXIT_USAGE, "bad-name", "use 1 to 255 bytes of UTF-8",
				"mark: that is no name");
	}
	(void)snprintf(path, sizeof(path), "/v1/groups/%s/mark", argv[first]);
	res = cli_call(cli, "agent", "POST", path, body, MARK_TIMEOUT_MS, &reply, error,
		       sizeof(error));
	json_decref(body);
	if (res < 0)
		return cli_fail_call(cli, res, error);
	if (reply.status != 200)
		return cli_fail_reply(cli, &reply);
	if (cli->json)
		return cli_print_json(reply.json);
	printf("mark '%s' is at seq %" PRIu64 " of group %s\n", argv[first + 1],
	       doc_u64(reply.json, "seq"), argv[first]);
	control_reply_free(&reply);
	return EXIT_OK;
}
