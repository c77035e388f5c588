/* SPDX-License-Identifier: Apache-2.0 */
/* A volume has grown at the primary: the standby's grows with it, and what is new is zeroes. */
#include "tests/unit/engine/stage.h"

#define OLD_BYTES STAGE_VOLUME_BYTES
#define NEW_BYTES (3u * STAGE_VOLUME_BYTES)
#define AT	  1u /* v0's place in HELLO */

static void primary_grows(struct stage *stage)
{
	uint8_t *content = sim_alloc(stage->world, NEW_BYTES);

	sim_check(stage->world, !strcmp(stage->hello.volumes[AT].name, "v0"));
	stage->hello.volumes[AT].size_bytes = NEW_BYTES;
	memcpy(content, stage->content[0], OLD_BYTES);
	stage->content[0] = content;
}

/* What the standby's file holds behind the old size is somebody's old data. */
static void junk(struct stage *stage, uint64_t size)
{
	uint8_t *bytes = sim_alloc(stage->world, size - OLD_BYTES);

	memset(bytes, 0x5a, size - OLD_BYTES);
	sim_file_grow(stage->standby, "/vol/v0", size);
	sim_file_poke(stage->standby, "/vol/v0", OLD_BYTES, bytes, size - OLD_BYTES);
}

static uint64_t stored_size(struct stage *stage)
{
	static struct superblock sb;

	stage_superblock(stage, &sb);
	for (uint32_t i = 0; i < sb.volume_count; i++)
		if (!strcmp(sb.volumes[i].name, "v0"))
			return sb.volumes[i].size_bytes;
	return 0;
}

/* Z3. */
static void check_zeroes(struct stage *stage)
{
	static uint8_t bytes[NEW_BYTES - OLD_BYTES];

	sim_file_peek_durable(stage->standby, "/vol/v0", OLD_BYTES, bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes); i++)
		if (bytes[i])
			sim_fail(stage->world, "byte %zu behind the old size is not zero", i);
}

static void write_behind(struct stage *stage)
{
	static uint8_t bytes[NEW_BYTES];

	stage_send_segment(stage, stage_write(stage, 0, OLD_BYTES - 4096, 8192, 501));
	stage_send_segment(stage, stage_write(stage, 0, NEW_BYTES - 4096, 4096, 502));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	sim_file_peek(stage->standby, "/vol/v0", 0, bytes, sizeof(bytes));
	sim_check(stage->world, !memcmp(bytes, stage->content[0], sizeof(bytes)));
}

static void grows(struct stage *stage)
{
	stage_fill(stage);
	primary_grows(stage);
	junk(stage, OLD_BYTES + 8192);
	stage_resume(stage);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, stored_size(stage) == NEW_BYTES);
	sim_check(stage->world, sim_file_size(stage->standby, "/vol/v0") == NEW_BYTES);
	check_zeroes(stage);
	sim_check(stage->world, stage_status(stage)->consistent);
	write_behind(stage);
	stage_stop_engine(stage);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_resume(stage);
	stage_send_segment(stage, stage_write(stage, 0, NEW_BYTES - 8192, 4096, 503));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
}

UNIT(test_grows)
{
	stage_run(grows);
}

/* A record behind the size that was taken over is as wrong as before. */
static void not_beyond(struct stage *stage)
{
	stage_fill(stage);
	primary_grows(stage);
	stage_resume(stage);
	stage_send_segment(stage, stage_write(stage, STAGE_VOLUMES + 1, 0, 4096, 7));
	sim_check(stage->world, stage_until(stage, stage_is_over));
}

UNIT(test_not_beyond)
{
	stage_run(not_beyond);
}

/* A device is the operator's to enlarge; the engine notices it without a restart. */
static void device(struct stage *stage)
{
	stage_fill(stage);
	stage_crash(stage, SIM_KILL); /* behind a clean stop, another device is a changed volume */
	sim_file_make(stage->standby, "/vol/v0", OLD_BYTES, true, false);
	sim_file_poke(stage->standby, "/vol/v0", 0, stage->content[0], OLD_BYTES);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	primary_grows(stage);
	stage_dial_refused(stage, LINK_REFUSE_VOLUMES);
	sim_check(stage->world, strstr(stage->refuse.text, "enlarge it there") != NULL);
	sim_check(stage->world, stored_size(stage) == OLD_BYTES);
	junk(stage, NEW_BYTES + 4096);
	stage_resume(stage);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, stored_size(stage) == NEW_BYTES);
	check_zeroes(stage);
	write_behind(stage);
}

UNIT(test_device)
{
	stage_run(device);
}

/* A later copy, and a promote that goes back behind it: the log saves what is new as well. */
static void kept(struct stage *stage)
{
	static uint8_t was[NEW_BYTES], bytes[NEW_BYTES];

	stage_fill(stage);
	primary_grows(stage);
	stage_resume(stage);
	sim_run_for(stage->world, 100 * SIM_MS);
	write_behind(stage);
	memcpy(was, stage->content[0], sizeof(was));
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq,
						      .sync = true,
						      .sync_bytes = 8192 });
	stage_send_extent(stage, 0, 4096, 4096, 76, false);
	stage_send_extent(stage, 0, NEW_BYTES - 4096, 4096, 77, false);
	sim_run_for(stage->world, 300 * SIM_MS);
	sim_file_peek(stage->standby, "/vol/v0", 0, bytes, sizeof(bytes));
	sim_check(stage->world, memcmp(bytes, was, sizeof(was)) != 0);
	sim_check(stage->world, stage_promote(stage, true) == 0);
	sim_file_peek(stage->standby, "/vol/v0", 0, bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes); i++)
		if (bytes[i] != was[i])
			sim_fail(stage->world, "byte %zu is not that of the kept position", i);
}

UNIT(test_kept)
{
	stage_run(kept);
}

/* It is larger here than at its primary, which lacks what is here: a copy of that begins. */
static void begin_smaller(struct stage *stage, uint8_t *was)
{
	stage_fill(stage);
	primary_grows(stage);
	stage_resume(stage);
	sim_run_for(stage->world, 100 * SIM_MS);
	write_behind(stage);
	sim_file_peek(stage->standby, "/vol/v0", 0, was, NEW_BYTES);
	stage->hello.volumes[AT].size_bytes = OLD_BYTES;
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq,
						      .sync = true,
						      .reset = true,
						      .base = { .epoch = stage->hello.epoch,
								.seq = stage->next_seq - 1,
								.chain = stage->chain,
								.bytes = stage->bytes } });
	stage_send_extent(stage, 0, 4096, 4096, 76, false);
	sim_run_for(stage->world, 300 * SIM_MS);
	sim_check(stage->world, stage_status(stage)->kept);
}

/* Z4: whoever goes back has all of it, and the size. */
static void smaller_and_back(struct stage *stage)
{
	static uint8_t was[NEW_BYTES], bytes[NEW_BYTES];

	begin_smaller(stage, was);
	/* Not even when the primary's grows meanwhile. */
	stage->hello.volumes[AT].size_bytes = NEW_BYTES;
	stage_dial_refused(stage, LINK_REFUSE_ERROR);
	sim_check(stage->world, strstr(stage->refuse.text, "--drop-kept") != NULL);
	sim_check(stage->world, stage_promote(stage, true) == 0);
	sim_check(stage->world, stored_size(stage) == NEW_BYTES);
	sim_file_peek(stage->standby, "/vol/v0", 0, bytes, sizeof(bytes));
	sim_check(stage->world, !memcmp(bytes, was, sizeof(was)));
}

/* Z4: once the copy has ended the size is the primary's, and what it gains later is zeroes. */
static void smaller_for_good(struct stage *stage)
{
	static uint8_t was[NEW_BYTES];

	begin_smaller(stage, was);
	sim_check(stage->world, stored_size(stage) == NEW_BYTES);
	stage_send_end(stage, stage->next_seq - 1);
	sim_run_for(stage->world, 300 * SIM_MS);
	sim_check(stage->world, !stage_status(stage)->kept && stage->status.consistent);
	sim_check(stage->world, stored_size(stage) == OLD_BYTES);
	memset(stage->content[0] + OLD_BYTES, 0, NEW_BYTES - OLD_BYTES);
	stage->hello.volumes[AT].size_bytes = NEW_BYTES;
	stage_resume(stage);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, stored_size(stage) == NEW_BYTES);
	check_zeroes(stage);
}

UNIT(test_smaller)
{
	stage_run(smaller_and_back);
	stage_run(smaller_for_good);
}

static enum sim_crash kind;
static unsigned steps;
static bool ran_through;

static void crashed(struct stage *stage)
{
	bool started = false;

	stage_fill(stage);
	primary_grows(stage);
	junk(stage, OLD_BYTES + 8192);
	stage_dial(stage);
	ran_through = false;
	for (unsigned i = 0; i < steps && !ran_through; i++) {
		sim_step(stage->world);
		if (stage_is_welcomed(stage) && !started) {
			started = true;
			stage_send_start(
				stage,
				&(struct link_start){ .from_seq = stage->welcome.durable.seq + 1 });
		}
		ran_through = stored_size(stage) == NEW_BYTES;
	}
	stage_crash(stage, kind);
	if (stored_size(stage) == NEW_BYTES)
		check_zeroes(stage);
	else
		sim_check(stage->world, stored_size(stage) == OLD_BYTES);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_resume(stage);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, stored_size(stage) == NEW_BYTES);
	check_zeroes(stage);
	write_behind(stage);
}

UNIT(test_crashed)
{
	static const enum sim_crash kinds[] = { SIM_KILL, SIM_POWER };

	for (unsigned i = 0; i < array_len(kinds); i++) {
		kind = kinds[i];
		ran_through = false;
		for (steps = 0; !ran_through; steps++)
			stage_run(crashed);
		assert_in_range(steps, 5, 2000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows),	cmocka_unit_test(test_not_beyond),
		cmocka_unit_test(test_device),	cmocka_unit_test(test_kept),
		cmocka_unit_test(test_smaller), cmocka_unit_test(test_crashed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
