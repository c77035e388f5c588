/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/base/uuid.h"
#include "core/group/init.h"
#include "core/io/loop.h"

#define ADOPT_TIMEOUT_MS 120000u

struct work {
	struct group_init init;
	struct cli_progress progress;
};

static void broken(const char *name, int res)
{
	(void)name;
	(void)fprintf(stderr, "holdfast: io_uring broke: %s; see holdfast doctor\n", err_text(res));
	_exit(EXIT_FAILED);
}

static void show_progress(void *owner, uint64_t done_bytes, uint64_t total_bytes)
{
	struct work *work = owner;

	cli_progress_show(&work->progress, done_bytes, total_bytes);
}

static void begin(void *arg, struct io_op *op)
{
	struct work *work = arg;

	group_init_run(&work->init, op);
}

/* Runs the state machine on a loop of its own. 0, or the exit code after complaining. */
static int run(struct cli *cli, const struct conf_group *group, struct work *work)
{
	const struct uring_config config = { .name = "init" };
	struct loop *loop = NULL;
	int64_t res = loop_start(&config, broken, &loop);

	if (res < 0)
		return cli_fail(cli, EXIT_FAILED, err_name((int)res), "see holdfast doctor",
				"cannot start io_uring: %s", err_text((int)res));
	work->init.io = loop_io(loop);
	cli_progress_start(&work->progress, "writing the journal", cli->json);
	res = loop_submit(loop, begin, work);
	cli_progress_end(&work->progress);
	(void)loop_stop(loop);
	if (res == 0)
		return EXIT_OK;
	if (res == -EEXIST)
		return cli_fail(cli, EXIT_CONFLICT, "exists",
				"remove that directory first, if its content is not needed",
				"group '%s' has a directory in %s already", group->name,
				cli->conf->state_dir);
	return cli_fail(cli, EXIT_FAILED, err_name((int)res), "", "group '%s' was not made: %s",
			group->name, work->init.error[0] ? work->init.error : err_text((int)res));
}

static void show_made(const struct cli *cli, const struct conf_group *group,
		      const struct superblock *sb)
{
	bool primary = sb->role == GROUP_PRIMARY;
	char text[UNITS_TEXT_BYTES], uuid[UUID_TEXT_BYTES];

	printf("group %s is made, as %s, in %s/%s\n", group->name, primary ? "primary" : "standby",
	       cli->conf->state_dir, group->name);
	if (primary)
		printf("  uuid      %s\n", uuid_format(&sb->group, uuid));
	printf("  journal   %s\n", units_format_size((uint64_t)sb->slots * sb->slot_bytes, text));
	for (uint32_t i = 0; i < sb->volume_count; i++)
		printf("  volume    %s, %s, %s\n", sb->volumes[i].name,
		       units_format_size(sb->volumes[i].size_bytes, text), group->volumes[i].path);
	if (primary)
		printf("next: start holdfast-agent; it serves the volumes at %s/nbd-%s.sock\n"
		       "      from now on write to them through it only\n",
		       cli->conf->run_dir, group->name);
	else
		printf("next: start holdfast-engine here, then the primary's agent copies the "
		       "content over\n");
}

static json_t *made_json(const struct conf_group *group, const struct superblock *sb, bool served)
{
	char uuid[UUID_TEXT_BYTES];
	json_t *volumes = json_array();

	for (uint32_t i = 0; i < sb->volume_count; i++)
		json_array_append_new(volumes,
				      json_pack("{s:s, s:I, s:s}", "name", sb->volumes[i].name,
						"size_bytes", (json_int_t)sb->volumes[i].size_bytes,
						"path", group->volumes[i].path));
	return json_pack("{s:s, s:s, s:s, s:I, s:b, s:o}", "group", group->name, "role",
			 sb->role == GROUP_PRIMARY ? "primary" : "standby", "uuid",
			 uuid_format(&sb->group, uuid), "journal_size_bytes",
			 (json_int_t)((uint64_t)sb->slots * sb->slot_bytes), "served", (int)served,
			 "volumes", volumes);
}

/* An agent that runs already need not be restarted for a new primary. */
static bool tell_agent(const struct cli *cli, const char *group)
{
	struct control_reply reply = { .json = NULL };
	char path[300], error[512];
	bool served;

	(void)snprintf(path, sizeof(path), "/v1/groups/%s/adopt", group);
	served = cli_call(cli, "agent", "POST", path, NULL, ADOPT_TIMEOUT_MS, &reply, error,
			  sizeof(error)) == 0 &&
		 reply.status == 200;
	control_reply_free(&reply);
	return served;
}

int cli_init(struct cli *cli, int argc, char **argv)
{
	const char *role = NULL;
	const struct cli_option options[] = { { "role", 'r', CLI_TEXT, NULL, &role } };
	struct group_init_volume volumes[GROUP_VOLUMES_MAX];
	const struct conf_group *group;
	struct work *work;
	bool primary, served = false;
	int first, code;

	if (cli_parse(cli, argc, argv, options, array_len(options), 1, 1, &first, &code) ==
	    CLI_STOP)
		return code;
	primary = role && strcmp(role, "primary") == 0;
	if (!primary && (!role || strcmp(role, "standby") != 0))
		return cli_fail(cli, EXIT_USAGE, "usage", "say --role primary or --role standby",
				"init: %s", role ? "that role is unknown" : "the role is missing");
	group = cli_group(cli, argv[first], &code);
	if (!group)
		return code;
	for (unsigned i = 0; i < group->volume_count; i++)
		volumes[i] = (struct group_init_volume){ group->volumes[i].name,
							 group->volumes[i].path };
	if (mkdir(cli->conf->state_dir, 0700) != 0 && errno != EEXIST)
		return cli_fail(cli, EXIT_FAILED, err_name(errno), "make it, or change state_dir",
				"state_dir %s: %s", cli->conf->state_dir, err_text(errno));
	work = calloc(1, sizeof(*work));
	if (work)
		work->init.sb = calloc(1, sizeof(*work->init.sb));
	if (!work || !work->init.sb) {
		free(work);
		return cli_fail(cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	}
	work->init.state_dir = cli->conf->state_dir;
	work->init.group = group->name;
	work->init.role = primary ? GROUP_PRIMARY : GROUP_STANDBY;
	work->init.journal_file_bytes = group->journal_file_bytes;
	work->init.journal_files =
		(uint32_t)(group->journal_size_bytes / group->journal_file_bytes);
	work->init.volumes = volumes;
	work->init.volume_count = group->volume_count;
	work->init.progress = show_progress;
	work->init.owner = work;
	code = run(cli, group, work);
	if (code == EXIT_OK) {
		if (primary)
			served = tell_agent(cli, group->name);
		if (cli->json)
			code = cli_print_json(made_json(group, work->init.sb, served));
		else
			show_made(cli, group, work->init.sb);
	}
	free(work->init.sb);
	free(work);
	return code;
}
