/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast volume: which volumes a live group has, and how large they are. The primary decides; a
 * standby is told where the file or device of a volume is that was added, or will be.
 */
#include <inttypes.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/document.h"
#include "core/base/macros.h"
#include "core/conf/check.h"
#include "core/conf/peek.h"

#define VOLUME_TIMEOUT_MS 300000u

/* The path that was given, or that the configuration has already. */
static const char *find_path(const struct conf_group *group, const char *volume, const char *given)
{
	if (given)
		return given;
	for (unsigned i = 0; i < group->volume_count; i++) {
		if (strcmp(group->volumes[i].name, volume) == 0)
			return group->volumes[i].path;
	}
	return NULL;
}

static bool in_conf(const struct conf_group *group, const char *volume)
{
	return find_path(group, volume, NULL) != NULL;
}

/* What is left to do by hand: the configuration is the operator's. */
static void show_next(const struct cli *cli, const struct conf_group *group, const char *action,
		      const char *volume, const char *path)
{
	if (strcmp(action, "add") == 0 && !in_conf(group, volume))
		printf("next: put volume \"%s\" { path = \"%s\" } into group \"%s\" of %s, for the "
		       "next start\n",
		       volume, path, group->name, cli->conf_path);
	if (strcmp(action, "remove") == 0 && in_conf(group, volume))
		printf("next: take volume \"%s\" out of group \"%s\" of %s, here and on the "
		       "standbys, before the next start\n",
		       volume, group->name, cli->conf_path);
}

static bool confirm(const struct cli *cli, const char *group, const char *action,
		    const char *volume)
{
	char question[300];

	if (strcmp(action, "remove") != 0)
		return true;
	(void)snprintf(
		question, sizeof(question),
		"Remove volume %s from group %s, here and on its standbys? Its content stays "
		"where it is.",
		volume, group);
	return cli_confirm(cli, question);
}

/* A standby learns of changes through the journal; only the place is its own. */
static int on_standby(struct cli *cli, const char *group, const char *action, const char *volume,
		      const char *path)
{
	json_t *json;
	int code;

	if (strcmp(action, "add") != 0)
		return cli_fail(cli, EXIT_CONFLICT, "not-primary",
				"do that on its primary; this copy follows",
				"group %s is a standby here", group);
	code = doc_post(cli, "engine", group, "volume-path",
			json_pack("{s:s, s:s}", "volume", volume, "path", path), VOLUME_TIMEOUT_MS,
			&json);
	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	printf("group %s: volume %s is %s here\n", group, volume, path);
	json_decref(json);
	return EXIT_OK;
}

static int on_primary(struct cli *cli, const struct conf_group *group, const char *action,
		      const char *volume, const char *path)
{
	json_t *body = json_pack("{s:s, s:s}", "action", action, "volume", volume), *json;
	static const char *const past[] = { "added", "removed", "resized" };
	char text[UNITS_TEXT_BYTES];
	int code;

	if (path)
		json_object_set_new(body, "path", json_string(path));
	code = doc_post(cli, "agent", group->name, "volume", body, VOLUME_TIMEOUT_MS, &json);
	if (code != EXIT_OK)
		return code;
	if (cli->json)
		return cli_print_json(json);
	printf("group %s: volume %s is %s at seq %" PRIu64, group->name, volume,
	       past[strcmp(action, "add") == 0	    ? 0
		    : strcmp(action, "remove") == 0 ? 1
						    : 2],
	       doc_u64(json, "seq"));
	if (doc_u64(json, "size_bytes"))
		printf(", %s", units_format_size(doc_u64(json, "size_bytes"), text));
	printf("\n");
	json_decref(json);
	return EXIT_OK;
}

static int change(struct cli *cli, const struct conf_group *group, const char *action,
		  const char *volume, const char *path)
{
	json_t *status = doc_group(cli, "engine", group->name);
	bool standby = strcmp(doc_text(status, "role"), "standby") == 0;
	int code;

	json_decref(status);
	code = standby ? on_standby(cli, group->name, action, volume, path)
		       : on_primary(cli, group, action, volume, path);
	if (code == EXIT_OK && !cli->json)
		show_next(cli, group, action, volume, path);
	return code;
}

int cli_volume(struct cli *cli, int argc, char **argv)
{
	const char *given = NULL, *action, *volume, *path = NULL;
	const struct cli_option options[] = {
		{ "path", 0, CLI_TEXT, NULL, &given },
	};
	const struct conf_group *group;
	char reason[CHECK_TEXT_BYTES];
	int first, code;

	if (cli_parse(cli, argc, argv, options, array_len(options), 3, 3, &first, &code) ==
	    CLI_STOP)
		return code;
	action = argv[first];
	volume = argv[first + 2];
	if (strcmp(action, "add") != 0 && strcmp(action, "remove") != 0 &&
	    strcmp(action, "resize") != 0)
		return cli_fail(cli, EXIT_USAGE, "usage", "use add, remove or resize",
				"volume: '%s' is unknown", action);
	if (!group_name_valid(volume))
		return cli_fail(cli, EXIT_USAGE, "usage", CHECK_NAME_RULE,
				"volume: '%s' is no name", volume);
	if (given && strcmp(action, "add") != 0)
		return cli_fail(cli, EXIT_USAGE, "usage", "see holdfast help volume",
				"volume: --path goes with add only");
	if (given && !check_path(given, reason))
		return cli_fail(cli, EXIT_USAGE, "usage", "write the absolute path",
				"volume: '%s' %s", given, reason);
	group = cli_group(cli, argv[first + 1], &code);
	if (!group)
		return code;
	if (strcmp(action, "add") == 0) {
		path = find_path(group, volume, given);
		if (!path)
			return cli_fail(cli, EXIT_USAGE, "usage",
					"give --path, or put the volume into the configuration",
					"volume: where is '%s'?", volume);
	}
	if (!confirm(cli, group->name, action, volume))
		return cli_fail(cli, EXIT_REFUSED, "declined", "", "nothing was done");
	return change(cli, group, action, volume, path);
}
