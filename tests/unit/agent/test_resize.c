/* SPDX-License-Identifier: Apache-2.0 */
/* A volume of a served group grows: what is new reads as zeroes, and survives every crash. */
#include "tests/unit/agent/stage.h"

#define OLD_BYTES STAGE_VOLUME_BYTES
#define NEW_BYTES (OLD_BYTES + (1u << 19))
#define JUNK_AT	  (OLD_BYTES + 65536)
#define JUNK	  8192u

struct change {
	struct agent_task task;
	bool done;
};

static void changed(struct agent_task *task)
{
	container_of(task, struct change, task)->done = true;
}

static bool is_changed(void *context)
{
	return ((struct change *)context)->done;
}

static struct change *begin(struct stage *stage, const char *volume)
{
	struct change *change = sim_alloc(stage->world, sizeof(*change));

	change->task.kind = AGENT_VOLUME_RESIZE;
	change->task.volume = volume;
	change->task.done = changed;
	agent_group_task(stage->group, &change->task);
	return change;
}

static int end(struct stage *stage, struct change *change)
{
	sim_check(stage->world, sim_run_until(stage->world, is_changed, change, STAGE_LIMIT));
	sim_check(stage->world, !change->task.res || change->task.text[0]);
	return change->task.res;
}

/* The operator enlarges the device, which has held something there before. */
static void enlarge(struct stage *stage)
{
	uint8_t *junk = sim_alloc(stage->world, JUNK);

	memset(junk, 0x5a, JUNK);
	sim_file_grow(stage->node, "/vol/v0", NEW_BYTES + 512);
	sim_file_poke(stage->node, "/vol/v0", OLD_BYTES, junk, JUNK);
	sim_file_poke(stage->node, "/vol/v0", JUNK_AT, junk, JUNK);
	sim_file_poke(stage->node, "/vol/v0", NEW_BYTES, junk, 512);
}

/* Room for what is written behind the old size. */
static void larger_content(struct stage *stage)
{
	uint8_t *content = sim_alloc(stage->world, NEW_BYTES);

	memcpy(content, stage->content[0], OLD_BYTES);
	stage->content[0] = content;
	for (unsigned i = 0; i < stage->peer_count; i++) {
		content = sim_alloc(stage->world, NEW_BYTES);
		memcpy(content, stage->peers[i].content[0], OLD_BYTES);
		stage->peers[i].content[0] = content;
	}
}

static void serve(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 20; i++)
		stage_write(stage, i % 2, i * 8192, 8192, 0);
	stage_converge(stage, "before");
}

static uint64_t stored_size(struct stage *stage)
{
	static struct superblock sb;

	stage_superblock(stage, &sb);
	return sb.volumes[0].size_bytes;
}

/* Z1: a superblock with the larger size promises zeroes. */
static void check_zeroes(struct stage *stage)
{
	static uint8_t bytes[NEW_BYTES - OLD_BYTES];

	sim_file_peek_durable(stage->node, "/vol/v0", OLD_BYTES, bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes); i++)
		if (bytes[i])
			sim_fail(stage->world, "byte %zu behind the old size is not zero", i);
}

/* Every byte, the new ones included, as clients and standbys see them. */
static void check_all(struct stage *stage)
{
	struct stage_request *request = stage_request(stage, EXPORT_READ, 0, 0, NEW_BYTES, 0);

	stage_submit(stage, request);
	sim_check(stage->world, stage_wait(stage, request) == 0);
	sim_check(stage->world, !memcmp(request->buf, stage->content[0], NEW_BYTES));
	for (unsigned i = 0; i < stage->peer_count; i++)
		sim_check(stage->world,
			  !memcmp(stage->peers[i].content[0], stage->content[0], NEW_BYTES));
}

static void write_behind(struct stage *stage)
{
	stage_wait(stage, stage_write(stage, 0, OLD_BYTES - 4096, 16384, 0));
	stage_wait(stage, stage_write(stage, 0, NEW_BYTES - 4096, 4096, EXPORT_FUA));
	stage_converge(stage, "behind the old size");
	check_all(stage);
}

/* ---- it grows ----------------------------------------------------------------------------------
 */

static void grows(struct stage *stage)
{
	struct change *change;

	serve(stage);
	enlarge(stage);
	for (unsigned i = 0; i < 8; i++) /* while it is written */
		stage_write(stage, i % 2, i * 4096, 4096, 0);
	change = begin(stage, "v0");
	sim_check(stage->world, stage->group->exports[0].export.limits.size_bytes == OLD_BYTES);
	sim_check(stage->world, end(stage, change) == 0);
	sim_check(stage->world, stage->group->exports[0].export.limits.size_bytes == NEW_BYTES);
	sim_check(stage->world, stored_size(stage) == NEW_BYTES);
	sim_check(stage->world, stage_status(stage)->volumes[0].size_bytes == NEW_BYTES);
	check_zeroes(stage);
	larger_content(stage);
	stage_converge(stage, "grown");
	for (unsigned i = 0; i < stage->peer_count; i++) {
		sim_check(stage->world, stage->peers[i].hello.volumes[0].size_bytes == NEW_BYTES);
		sim_check(stage->world, !stage->group->ships[i]->peer->needs_sync);
	}
	write_behind(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "after a restart");
	check_all(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_grows)
{
	stage_run_raw(grows, 0, NULL);
	stage_run_raw(grows, 2, NULL);
}

/* A copy is under way: its map grows with what is set in it, and what is behind is copied, too. */
static void while_copying(struct stage *stage)
{
	struct agent_task resync = { .kind = AGENT_RESYNC, .everything = true };
	struct change *copy = sim_alloc(stage->world, sizeof(*copy)), *change;

	serve(stage);
	enlarge(stage);
	stage->peers[0].no_sync_ack = true; /* the copy does not come to its end by itself */
	copy->task = resync;
	copy->task.done = changed;
	agent_group_task(stage->group, &copy->task);
	sim_check(stage->world, end(stage, copy) == 0);
	sim_run_for(stage->world, 300 * SIM_MS);
	change = begin(stage, "v0");
	sim_check(stage->world, end(stage, change) == 0);
	stage->peers[0].no_sync_ack = false;
	sim_check(stage->world, stage->group->ships[0]->peer->needs_sync);
	sim_check(stage->world, dirty_bytes(stage->group->ships[0]->dirty) > 0);
	larger_content(stage);
	write_behind(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_while_copying)
{
	stage_run_raw(while_copying, 1, NULL);
}

/* ---- it does not -------------------------------------------------------------------------------
 */

static void refused(struct stage *stage)
{
	struct change *change, *second;

	serve(stage);
	sim_check(stage->world, end(stage, begin(stage, "v0")) == -EALREADY);
	sim_check(stage->world, end(stage, begin(stage, "none")) == -ENOENT);
	sim_check(stage->world, end(stage, begin(stage, NULL)) == -ENOENT);
	sim_file_grow(stage->node, "/vol/v0", OLD_BYTES + 512); /* less than a block */
	sim_check(stage->world, end(stage, begin(stage, "v0")) == -EALREADY);
	enlarge(stage);
	change = begin(stage, "v0");
	second = begin(stage, "v1");
	sim_check(stage->world, second->done && end(stage, second) == -EBUSY);
	sim_check(stage->world, end(stage, change) == 0);
	sim_check(stage->world, end(stage, begin(stage, "v0")) == -EALREADY);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_refused)
{
	stage_run_raw(refused, 1, NULL);
}

static unsigned steps;

/* The group stops in the middle: the task is answered, and one of the two sizes is there. */
static void stopped(struct stage *stage)
{
	struct change *change;

	serve(stage);
	enlarge(stage);
	change = begin(stage, "v0");
	for (unsigned i = 0; i < steps && !change->done; i++)
		sim_step(stage->world);
	agent_group_stop(stage->group);
	sim_check(stage->world, stage_end_stop(stage) == 0);
	sim_check(stage->world, change->done);
	sim_check(stage->world, !change->task.res || change->task.res == -ESHUTDOWN);
	if (stored_size(stage) == NEW_BYTES)
		check_zeroes(stage);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "after a stop");
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_stopped)
{
	for (steps = 0; steps < 40; steps += 1 + steps / 8)
		stage_run_raw(stopped, 1, NULL);
}

/* ---- crashes -----------------------------------------------------------------------------------
 */

static enum sim_crash kind;
static bool ran_through;

static void crashed(struct stage *stage)
{
	struct change *change;
	int res;

	serve(stage);
	enlarge(stage);
	change = begin(stage, "v0");
	for (unsigned i = 0; i < steps && !change->done; i++)
		sim_step(stage->world);
	ran_through = change->done;
	stage_crash(stage, kind);
	/* Z1, and what was answered is so. */
	if (ran_through)
		sim_check(stage->world, stored_size(stage) == NEW_BYTES);
	if (stored_size(stage) == NEW_BYTES)
		check_zeroes(stage);
	else
		sim_check(stage->world, stored_size(stage) == OLD_BYTES);
	sim_check(stage->world, stage_start(stage) == 0);
	res = end(stage, begin(stage, "v0"));
	sim_check(stage->world, res == 0 || (res == -EALREADY && stored_size(stage) == NEW_BYTES));
	larger_content(stage);
	stage_converge(stage, "after a crash");
	write_behind(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_crashed)
{
	static const enum sim_crash kinds[] = { SIM_KILL, SIM_POWER };

	for (unsigned i = 0; i < array_len(kinds); i++) {
		kind = kinds[i];
		ran_through = false;
		for (steps = 0; !ran_through; steps++)
			stage_run_raw(crashed, 1, NULL);
		assert_in_range(steps, 5, 2000);
	}
}

/* ---- its backlog -------------------------------------------------------------------------------
 */

static void narrow(struct stage *stage)
{
	stage->slots = 300;
	stage->peers_conf[0].bandwidth_bytes = 64 << 10;
	stage->peers_conf[0].coalesce_bytes = 512 << 10;
	stage->group_conf.peer_timeout_ns = 30 * SIM_SECOND;
}

/* Z2 is for the map that counts a backlog as well. */
static void coalesced(struct stage *stage)
{
	stage->peers_conf[0].bandwidth_bytes = 0;
	serve(stage);
	stage->peers_conf[0].bandwidth_bytes = 64 << 10;
	enlarge(stage);
	sim_check(stage->world, end(stage, begin(stage, "v0")) == 0);
	larger_content(stage);
	stage_converge(stage, "grown");
	for (unsigned i = 0; i < 512; i++) {
		stage->next_id = stage->next_id / 2 * 2; /* odd ones do not compress */
		stage_wait(stage, stage_write(stage, 0, NEW_BYTES - 65536 + i % 8 * 8192, 8192, 0));
		stage->next_id++;
		sim_run_for(stage->world, 5 * SIM_MS);
	}
	for (unsigned i = 0; i < 10 && !stage_in_sync(stage); i++)
		(void)stage_until(stage, stage_in_sync);
	sim_check(stage->world, stage->group->ships[0]->coalesce.count > 0);
	check_all(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_coalesced)
{
	stage_run_raw(coalesced, 1, narrow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows),	cmocka_unit_test(test_while_copying),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_crashed), cmocka_unit_test(test_coalesced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
