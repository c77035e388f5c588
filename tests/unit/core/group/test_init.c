/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/init.h"

#include "core/base/err.h"
#include "tests/unit/core/group/waiting.h"

#define GROUP_PATH WAITING_STATE_DIR "/" WAITING_GROUP
#define SB_PATH	   GROUP_PATH "/superblock"

static struct group_init init;
static struct superblock sb;
static struct group_dir dir;
static struct waiting wait;

static int64_t run_init(struct waiting_world *w)
{
	group_init_run(&init, waiting_op(&wait));
	sim_check(w->world, !wait.done);
	waiting_for(w->world, &wait);
	sim_check(w->world, (wait.res == 0) == (init.error[0] == '\0'));
	return wait.res;
}

static int64_t open_dir(struct waiting_world *w)
{
	sim_check(w->world, group_dir_init(&dir, w->io, WAITING_STATE_DIR, WAITING_GROUP) == 0);
	group_dir_open(&dir, waiting_op(&wait));
	return waiting_for(w->world, &wait);
}

static void run(void (*body)(struct sim_world *world, void *context))
{
	struct waiting_world w;

	waiting_calm(1, body, &w, NULL);
}

/* ---- what it makes ----------------------------------------------------------------------------
 */

static struct {
	unsigned calls;
	uint64_t last, total;
} progress;

static void on_progress(void *owner, uint64_t done_bytes, uint64_t total_bytes)
{
	must(owner == &progress);
	must(progress.calls == 0 || done_bytes > progress.last);
	progress.calls++;
	progress.last = done_bytes;
	progress.total = total_bytes;
}

static void body_primary(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t total_bytes = (uint64_t)WAITING_FILES * WAITING_FILE_BYTES;

	waiting_make_volumes(w->node);
	waiting_init(&init, w->node, &sb);
	memset(&progress, 0, sizeof(progress));
	init.progress = on_progress;
	init.owner = &progress;
	sim_check(world, run_init(w) == 0);
	sim_check(world, progress.calls == WAITING_FILES && progress.last == total_bytes &&
				 progress.total == total_bytes);
	sim_check(world, sim_node_alloc_bytes(w->node) == 0);
	sim_node_crash(w->node, SIM_POWER);
	sim_node_restart(w->node);
	sim_check(world,
		  sim_file_size(w->node, GROUP_PATH "/journal/00000000") == WAITING_FILE_BYTES);
	sim_check(world,
		  sim_file_size(w->node, GROUP_PATH "/journal/00000002") == WAITING_FILE_BYTES);
	sim_check(world, sim_file_size(w->node, GROUP_PATH "/journal/00000003") == -ENOENT);
	sim_check(world, open_dir(w) == 0);
	sim_check(world, memcmp(&dir.sb, &sb, sizeof(sb)) == 0);
	sim_check(world, sb.role == GROUP_PRIMARY && sb.epoch == 1 && sb.history_count == 1);
	sim_check(world, sb.history[0].epoch == 1 && sb.history[0].first_seq == 1);
	sim_check(world, sb.applied_chain == segment_chain_root(&sb.group));
	sim_check(world, sb.flags == SUPERBLOCK_CLEAN && !uuid_is_zero(&sb.group));
	sim_check(world, sb.slots == WAITING_FILES && sb.slot_bytes == WAITING_FILE_BYTES);
	sim_check(world, sb.volume_count == 2 && sb.volumes[1].id == 1 &&
				 strcmp(sb.volumes[1].name, "log") == 0);
	/* 100 bytes do not fill a block. */
	sim_check(world, sb.volumes[0].size_bytes == WAITING_VOLUME_SIZE);
	group_dir_deinit(&dir);
}

static void body_standby(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;

	waiting_make_volumes(w->node);
	waiting_init(&init, w->node, &sb);
	init.role = GROUP_STANDBY;
	sim_check(world, run_init(w) == 0);
	sim_check(world, open_dir(w) == 0);
	sim_check(world, dir.sb.role == GROUP_STANDBY && dir.sb.epoch == 0 &&
				 dir.sb.history_count == 0 && uuid_is_zero(&dir.sb.group) &&
				 dir.sb.applied_seq == 0 && dir.sb.flags == 0);
	group_dir_deinit(&dir);
}

UNIT(test_makes)
{
	run(body_primary);
	run(body_standby);
}

/* ---- what it refuses --------------------------------------------------------------------------
 */

static void refuses(struct waiting_world *w, int res, const char *word)
{
	uint64_t bytes = sim_node_alloc_bytes(w->node);

	sim_check(w->world, run_init(w) == res);
	if (!strstr(init.error, word))
		sim_fail(w->world, "\"%s\" does not hold \"%s\"", init.error, word);
	sim_check(w->world, sim_node_alloc_bytes(w->node) == bytes);
}

static void body_refuses(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct group_init_volume volumes[2] = { { "data", "/vol/data" }, { "log", "/vol/log" } };
	static const char *const bad_names[] = { "", "../x", "-x", ".x", "a b" };
	unsigned i;

	waiting_make_volumes(w->node);
	sim_file_make(w->node, "/vol/tiny", 4095, false, false);
	waiting_init(&init, w->node, &sb);
	init.volumes = volumes;
	for (i = 0; i < array_len(bad_names); i++) {
		init.group = bad_names[i];
		refuses(w, -EINVAL, "no name for a group");
		init.group = WAITING_GROUP;
		volumes[1].name = bad_names[i];
		refuses(w, -EINVAL, "no name for a volume");
		volumes[1].name = "log";
	}
	init.role = GROUP_FENCED;
	refuses(w, -EINVAL, "primary or standby");
	init.role = GROUP_PRIMARY;
	init.journal_file_bytes = WAITING_FILE_BYTES + 512;
	refuses(w, -EINVAL, "multiple of 4096");
	init.journal_file_bytes = 4096;
	refuses(w, -EINVAL, "at least");
	init.journal_file_bytes = WAITING_FILE_BYTES;
	init.journal_files = 1;
	refuses(w, -EINVAL, "at least 2");
	init.journal_files = WAITING_FILES;
	init.volume_count = 0;
	refuses(w, -EINVAL, "0 volumes");
	init.volume_count = GROUP_VOLUMES_MAX + 1;
	refuses(w, -EINVAL, "129 volumes");
	init.volume_count = 2;
	volumes[1].name = "data";
	refuses(w, -EINVAL, "two volumes are named \"data\"");
	volumes[1] = (struct group_init_volume){ "log", "/vol/data" };
	refuses(w, -EINVAL, "both lie at /vol/data");
	volumes[1].path = "/vol/gone";
	refuses(w, -ENOENT, "/vol/gone");
	volumes[1].path = "/vol/tiny";
	refuses(w, -EINVAL, "4095 bytes");
	/* None of it left anything behind. */
	sim_check(world, io_lock(w->io, GROUP_PATH "/lock", &init.lock) == -ENOENT);
	init.state_dir = "/no/such/parent";
	volumes[1].path = "/vol/log";
	refuses(w, -ENOENT, "/no/such/parent");
	sim_node_fail_alloc(w->node, 1);
	refuses(w, -ENOMEM, "memory");
}

static void body_exists(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	static const uint8_t zeroes[SUPERBLOCK_SLOT_BYTES];
	struct uuid uuid;

	waiting_make_volumes(w->node);
	waiting_init(&init, w->node, &sb);
	sim_check(world, run_init(w) == 0);
	uuid = sb.group;
	refuses(w, -EEXIST, "exists already");
	sim_check(world, open_dir(w) == 0 && uuid_equal(&dir.sb.group, &uuid));
	refuses(w, -EWOULDBLOCK, "lock");
	group_dir_deinit(&dir);
	/* Damage is not an interrupted init. */
	sim_file_flip(w->node, SB_PATH, 80000);
	refuses(w, -EEXIST, "exists already");
	sim_file_flip(w->node, SB_PATH, 80000 + SUPERBLOCK_SLOT_BYTES * 8);
	refuses(w, -EEXIST, "no valid superblock");
	/* Unless one slot was never written. */
	sim_file_poke(w->node, SB_PATH, SUPERBLOCK_SLOT_BYTES, zeroes, SUPERBLOCK_SLOT_BYTES);
	sim_check(world, run_init(w) == 0);
	sim_file_flip(w->node, SB_PATH, 80000 + SUPERBLOCK_SLOT_BYTES * 8);
	sim_file_poke(w->node, SB_PATH, 0, zeroes, SUPERBLOCK_SLOT_BYTES);
	sim_check(world, run_init(w) == 0 && !uuid_equal(&sb.group, &uuid));
	sim_check(world,
		  sim_file_size(w->node, GROUP_PATH "/journal/00000000") == WAITING_FILE_BYTES);
}

static void body_no_space(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;

	waiting_make_volumes(w->node);
	waiting_init(&init, w->node, &sb);
	sim_disk_set_free(w->node, 2 * WAITING_FILE_BYTES + 1000);
	refuses(w, -ENOSPC, "make room");
	sim_check(world, sim_file_size(w->node, GROUP_PATH "/journal/00000000") == -ENOENT);
	sim_check(world, sim_file_size(w->node, GROUP_PATH "/journal/00000002") == -ENOENT);
	sim_disk_set_free(w->node, UINT64_MAX);
	sim_check(world, run_init(w) == 0);
}

UNIT(test_refuses)
{
	run(body_refuses);
	run(body_exists);
	run(body_no_space);
}

/* Every disk operation of an init fails in turn: it says so, and can be run again. */
static void body_op_fails(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t nth = *(uint64_t *)w->context;

	waiting_make_volumes(w->node);
	waiting_init(&init, w->node, &sb);
	sim_fail_op(world, sim_disk_ops(world) + nth, -EIO, false);
	if (run_init(w) == 0) {
		*(uint64_t *)w->context = 0;
		return;
	}
	sim_check(world, wait.res == -EIO);
	run_init(w);
	/* A failed write may have happened all the same. */
	sim_check(world, wait.res == 0 || wait.res == -EEXIST);
	sim_check(world, open_dir(w) == 0);
	group_dir_deinit(&dir);
}

UNIT(test_every_operation_fails)
{
	struct waiting_world w;
	uint64_t nth, given;

	for (nth = 1;; nth++) {
		given = nth;
		waiting_calm(nth, body_op_fails, &w, &given);
		if (given == 0)
			break;
	}
	assert_true(nth > WAITING_FILES + 2);
}

/* ---- crash at every event ---------------------------------------------------------------------
 */

static struct {
	struct sim_node *node;
	enum sim_crash kind;
	bool crashed;
} c;

static void crash_now(void *context)
{
	(void)context;
	c.crashed = true;
	sim_node_crash(c.node, c.kind);
}

static bool crashed_or_done(void *context)
{
	(void)context;
	return c.crashed || wait.done;
}

static void body_crash(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t event = *(uint64_t *)w->context;
	bool done;
	int64_t opened;

	waiting_make_volumes(w->node);
	waiting_init(&init, w->node, &sb);
	c.node = w->node;
	c.kind = event % 2 ? SIM_KILL : SIM_POWER;
	c.crashed = false;
	sim_at_event(world, sim_events(world) + 1 + event / 2, crash_now, NULL);
	group_init_run(&init, waiting_op(&wait));
	sim_run_until(world, crashed_or_done, NULL, SIM_SECOND);
	done = wait.done;
	if (!c.crashed)
		crash_now(NULL);
	sim_node_restart(w->node);
	opened = open_dir(w);
	sim_check(world, opened == 0 || opened == -ENOENT || opened == SUPERBLOCK_E_NONE_VALID);
	sim_check(world, !done || opened == 0);
	group_dir_deinit(&dir);
	waiting_init(&init, w->node, &sb);
	run_init(w);
	if (wait.res != (opened == 0 ? -EEXIST : 0))
		sim_fail(world, "init again: %s", init.error);
	sim_check(world, open_dir(w) == 0);
	group_dir_deinit(&dir);
	if (done)
		*(uint64_t *)w->context = UINT64_MAX;
}

UNIT(test_crash_at_every_event)
{
	struct waiting_world w;
	uint64_t event, given = 0;
	unsigned seed;

	for (event = 0; given != UINT64_MAX; event++) {
		for (seed = 1; seed <= 30; seed++) {
			given = event;
			waiting_calm(seed, body_crash, &w, &given);
		}
	}
	assert_true(event > 12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_makes),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_every_operation_fails),
		cmocka_unit_test(test_crash_at_every_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
