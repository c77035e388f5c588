/* SPDX-License-Identifier: Apache-2.0 */
/* Where a journal ends: torn tails are cut, damaged middles are refused and named. */
#include "core/group/journal.h"

#include <errno.h>

#include "core/base/prng.h"
#include "tests/unit/core/group/journal_bench.h"

#define PLACES_MAX 256u

/* Where a segment behind the applied position lies. */
struct place {
	const struct model_segment *segment;
	uint32_t slot;
	uint64_t off;
};

static struct place places[PLACES_MAX];
static unsigned place_count;
static struct journal_model saved;
static struct sim_disk_copy *saved_disk;

static void note_places(const struct journal_model *model)
{
	const struct journal *journal = &model->run->journal;

	place_count = 0;
	for (unsigned i = 0; i < model->appended; i++) {
		const struct model_segment *segment = &model->segments[i];

		if (segment->last_seq <= model->sb.applied_seq)
			continue;
		for (uint32_t s = 0; s < journal->options.slots; s++) {
			const struct journal_slot *slot = &journal->slots[s];
			uint64_t off = slot->first_off;

			if (segment->first_seq < slot->first_seq ||
			    segment->last_seq > slot->last_seq)
				continue;
			for (unsigned k = i; model->segments[k].first_seq > slot->first_seq; k--)
				off += model->segments[k - 1].total_bytes;
			must(place_count < PLACES_MAX);
			places[place_count++] = (struct place){ segment, s, off };
		}
	}
}

/* Remembers model and disk; power is lost, everything durable. */
static void save(struct journal_model *model)
{
	note_places(model);
	bench_crash(model, SIM_POWER);
	sim_node_crash(model->node, SIM_KILL);
	saved = *model;
	/* What is damaged may be missing; the test itself says how much. */
	saved.must_seq = 0;
	saved_disk = sim_disk_save(model->node);
}

static void restore(struct journal_model *model)
{
	if (sim_node_is_up(model->node))
		sim_node_crash(model->node, SIM_KILL);
	sim_disk_restore(model->node, saved_disk);
	*model = saved;
}

static void flip(struct journal_model *model, uint32_t slot, uint64_t off, unsigned bit)
{
	char path[64];

	bench_slot_path(slot, path);
	sim_file_flip(model->node, path, off * 8 + bit);
}

static bool start_up(struct journal_model *model)
{
	sim_node_restart(model->node);
	return bench_restart(model);
}

/* The error names the place, in the words that people search for. */
static bool names(const struct journal_model *model, uint32_t slot, uint64_t off)
{
	char first[80], also[80];

	snprintf(first, sizeof(first), "journal/%08u: damaged at offset %" PRIu64, slot, off);
	snprintf(also, sizeof(also), "(or journal/%08u offset %" PRIu64 ")", slot, off);
	return strncmp(model->error, first, strlen(first)) == 0 || strstr(model->error, also);
}

/* Whether something behind place i says that it had been durable. */
static bool is_proved(const struct journal_model *model, unsigned i)
{
	uint64_t first_seq = places[i].segment->first_seq;

	if (model->sb.durable_seq >= first_seq)
		return true;
	if (model->options.standby)
		return place_count - 1 - i >= JOURNAL_WINDOW_MAX;
	for (unsigned k = i + 1; k < place_count; k++) {
		if (places[k].segment->durable_seq >= first_seq)
			return true;
	}
	return false;
}

/* One bit of segment i is wrong: refused and named, or cut exactly there; never anything else. */
static void check_flip(struct journal_model *model, unsigned i, uint64_t at, unsigned bit,
		       unsigned *ret_refused)
{
	const struct place *place = &places[i];
	bool runs;

	restore(model);
	flip(model, place->slot, place->off + at, bit);
	runs = start_up(model);
	if (is_proved(&saved, i)) {
		if (runs || model->res != JOURNAL_E_DAMAGED ||
		    !names(model, place->slot, place->off))
			sim_fail(model->world,
				 "segment %u byte %" PRIu64 ": not refused as it should: %s", i, at,
				 model->error);
		++*ret_refused;
		return;
	}
	if (!runs || model->durable_seq != place->segment->first_seq - 1)
		sim_fail(model->world, "segment %u byte %" PRIu64 ": not cut there: %s", i, at,
			 model->error);
}

static void check_segment_flips(struct journal_model *model, unsigned i, unsigned step,
				unsigned *ret_refused)
{
	uint32_t total = places[i].segment->total_bytes;
	uint64_t at;

	for (at = i % step; at < SEGMENT_HEADER_BYTES + 2 * RECORD_BYTES; at += step)
		check_flip(model, i, at, (unsigned)(at + i) % 8, ret_refused);
	check_flip(model, i, 4095, 7, ret_refused);
	check_flip(model, i, total / 2, 0, ret_refused);
	check_flip(model, i, total - 1, 3, ret_refused);
}

/* More than a lap, so that stale segments lie everywhere; then a path over three slots. */
static void fill_laps(struct journal_model *model, unsigned small)
{
	for (unsigned i = 0; i < 6; i++) {
		bench_append_durably(model, BENCH_LARGE);
		bench_append_durably(model, 12000);
		journal_model_apply(model, model->durable_seq);
		journal_model_floor(model, model->durable_seq);
	}
	for (unsigned i = 0; i < small; i++)
		bench_append_durably(model, 3000);
	bench_append_durably(model, BENCH_LARGE);
	for (unsigned i = 0; i < small; i++)
		bench_append_durably(model, 3000 + 9000 * (i & 1));
	/* The last ones together: none says of the other that it was durable. */
	for (unsigned i = 0; i < 3; i++)
		bench_append(model, 5000);
	journal_model_flush(model);
	bench_await_durable(model);
	model->sb.durable_seq = 0;
}

static void body_flips(struct journal_model *model)
{
	unsigned refused = 0, i;

	fill_laps(model, 4);
	save(model);
	sim_check(model->world, place_count == 12);
	for (i = 0; i < place_count; i++)
		check_segment_flips(model, i, i == 4 ? 1 : 11, &refused);
	sim_check(model->world, refused > 200);
	/* The superblock knows of the very last one, too. */
	saved.sb.durable_seq = places[place_count - 1].segment->last_seq;
	check_segment_flips(model, place_count - 1, 3, &refused);
	check_segment_flips(model, place_count - 3, 3, &refused);
}

/* A standby's headers speak of another node's disk: how many lie behind the gap tells. */
static void body_flips_standby(struct journal_model *model)
{
	unsigned refused = 0, i;

	fill_laps(model, 18);
	save(model);
	sim_check(model->world, place_count == 40);
	for (i = 0; i<place_count; i += i> 3 && i < 17 ? 2 : 1)
		check_segment_flips(model, i, i == 18 ? 5 : 61, &refused);
	sim_check(model->world, refused > 50);
}

/* Anywhere outside of the path a bit does not matter. */
static void body_flips_elsewhere(struct journal_model *model)
{
	uint64_t end_seq, at;
	struct prng prng;
	unsigned i, missed = 0;

	fill_laps(model, 4);
	save(model);
	end_seq = places[place_count - 1].segment->last_seq;
	prng_seed(&prng, 3);
	for (unsigned round = 0; round < 150; round++) {
		uint32_t slot = (uint32_t)prng_below(&prng, saved.options.slots);

		at = prng_below(&prng, round % 3 ? saved.options.slot_bytes : 4096);
		for (i = 0; i < place_count; i++) {
			if (places[i].slot == slot && at >= places[i].off &&
			    at < places[i].off + places[i].segment->total_bytes)
				break;
		}
		if (i < place_count)
			continue;
		missed++;
		restore(model);
		flip(model, slot, at, (unsigned)prng_below(&prng, 8));
		sim_check(model->world, start_up(model) && model->durable_seq == end_seq);
	}
	sim_check(model->world, missed > 50);
}

static void lose_one(struct journal_model *model, enum sim_action action, int64_t offset_delta)
{
	struct sim_fault fault = {
		.pattern = BENCH_FILES,
		.ops = SIM_WRITE,
		.action = action,
		.offset_delta = offset_delta,
		.skip = 2,
		.count = 1,
	};

	sim_fault_add(model->world, &fault);
	for (unsigned i = 0; i < 20; i++)
		bench_append_durably(model, 7000);
	sim_check(model->world, sim_fault_hits(model->world) == 1);
}

/* The disk said yes and wrote nothing, or somewhere else: noticed, and not taken for the end. */
static void body_lost_write(struct journal_model *model)
{
	lose_one(model, SIM_LOSE, 0);
	save(model);
	restore(model);
	sim_check(model->world, !start_up(model) && model->res == JOURNAL_E_DAMAGED);
	sim_check(model->world, names(model, 0, places[2].off));
}

static void body_misdirected_write(struct journal_model *model)
{
	lose_one(model, SIM_MISDIRECT, 500 * 1024);
	save(model);
	restore(model);
	sim_check(model->world, !start_up(model) && model->res == JOURNAL_E_DAMAGED);
	sim_check(model->world, names(model, 0, places[2].off));
}

/* A whole first block is gone: the path is broken between two files. */
static void body_first_block_gone(struct journal_model *model)
{
	static const uint8_t zeroes[4096];
	char path[64];
	uint32_t slot;
	unsigned i;

	fill_laps(model, 4);
	save(model);
	for (i = 0; places[i].off > 0; i++)
		;
	slot = places[i].slot;
	restore(model);
	bench_slot_path(slot, path);
	sim_file_poke(model->node, path, 0, zeroes, sizeof(zeroes));
	sim_check(model->world, !start_up(model) && model->res == JOURNAL_E_DAMAGED);
	sim_check(model->world, names(model, slot, 0));
}

/* ---- cutting ------------------------------------------------------------------------------------
 */

/*
 * Cut off is cut off for good: should the bytes that were missing appear (as they can when the next
 * write over them is torn), nothing comes back.
 */
static void body_cut_for_good(struct journal_model *model)
{
	uint64_t end_seq;
	unsigned last;

	for (unsigned i = 0; i < 3; i++)
		bench_append(model, 3000);
	journal_model_flush(model);
	bench_await_durable(model);
	save(model);
	last = place_count - 1;
	end_seq = places[last].segment->first_seq - 1;
	restore(model);
	flip(model, places[last].slot, places[last].off + 4096 + 3500, 1);
	sim_check(model->world, start_up(model) && model->durable_seq == end_seq);
	sim_node_crash(model->node, SIM_POWER);
	journal_model_crashed(model, true);
	flip(model, places[last].slot, places[last].off + 4096 + 3500, 1);
	sim_check(model->world, start_up(model) && model->durable_seq == end_seq);
	bench_append_durably(model, 100);
	bench_crash(model, SIM_POWER);
	sim_check(model->world, bench_restart(model));
}

/*
 * B is torn, C behind it is whole. What is written in B's place has its length and its number of
 * records, so C lies where the next one would, with the right seq: only the chain tells that it is
 * another history's.
 */
static void body_orphan_behind_the_end(struct journal_model *model)
{
	const struct model_segment *b, *c;
	uint64_t end_seq;

	for (unsigned i = 0; i < 3; i++)
		bench_append(model, 3000);
	journal_model_flush(model);
	bench_await_durable(model);
	save(model);
	b = places[1].segment;
	c = places[2].segment;
	sim_check(model->world, b->durable_seq == 0 && c->durable_seq == 0);
	end_seq = b->last_seq;
	restore(model);
	flip(model, places[1].slot, places[1].off + 5000, 1);
	sim_check(model->world, start_up(model) && model->durable_seq == b->first_seq - 1);
	bench_append_durably(model, 3000);
	sim_check(model->world, model->durable_seq == end_seq);
	bench_crash(model, SIM_POWER);
	sim_check(model->world, bench_restart(model) && model->durable_seq == end_seq);
}

/* Segments of an epoch that has ended are neither followed nor evidence. */
static void body_old_epoch(struct journal_model *model)
{
	for (unsigned i = 0; i < 30; i++)
		bench_append_durably(model, 3000);
	save(model);
	restore(model);
	saved.sb.epoch = 2;
	saved.sb.history_count = 2;
	saved.sb.history[1].epoch = 2;
	saved.sb.history[1].first_seq = places[9].segment->last_seq + 1;
	saved.sb.durable_seq = places[9].segment->last_seq;
	restore(model);
	sim_check(model->world, start_up(model));
	sim_check(model->world, model->durable_seq == places[9].segment->last_seq);
	bench_append_durably(model, 3000);
	bench_crash(model, SIM_POWER);
	sim_check(model->world, bench_restart(model));
	sim_check(model->world, model->durable_seq > places[9].segment->last_seq);
}

/* ---- positions ----------------------------------------------------------------------------------
 */

/* The applied position is the very end of a file. */
static void body_applied_at_the_end(struct journal_model *model)
{
	uint32_t rest = SEGMENT_TOTAL_MAX_BYTES - (SEGMENT_DATA_MAX_BYTES + 4096);

	bench_append_durably(model, SEGMENT_DATA_MAX_BYTES);
	bench_append_durably(model, rest - 4096);
	sim_check(model->world, model->run->journal.head.off == model->options.slot_bytes);
	journal_model_apply(model, model->durable_seq);
	sim_check(model->world, model->sb.applied_off == model->options.slot_bytes);
	bench_crash(model, SIM_POWER);
	sim_check(model->world, bench_restart(model));
	sim_check(model->world, model->run->journal.head.off == model->options.slot_bytes);
	sim_check(model->world, journal_oldest_seq(&model->run->journal) == 1);
	bench_append_durably(model, 3000);
	sim_check(model->world, model->run->journal.head.slot == 1);
	bench_crash(model, SIM_POWER);
	sim_check(model->world, bench_restart(model));
	sim_check(model->world, model->run->journal.head.slot == 1);
	sim_check(model->world, journal_oldest_seq(&model->run->journal) == 1);
	/* Its slot is free, is written a lap later, and is still named by the superblock. */
	journal_model_floor(model, model->sb.applied_seq);
	for (unsigned i = 0; i < 4; i++)
		bench_append_durably(model, BENCH_LARGE);
	sim_check(model->world, model->run->journal.head.slot == 0);
	bench_crash(model, SIM_POWER);
	sim_check(model->world, bench_restart(model));
	sim_check(model->world, model->run->journal.head.slot == 0);
}

static void body_bad_position(struct journal_model *model)
{
	save(model);
	restore(model);
	model->sb.applied_slot = 4;
	sim_check(model->world, !start_up(model) && model->res == JOURNAL_E_DAMAGED);
	restore(model);
	model->sb.applied_off = 100;
	sim_check(model->world, !start_up(model) && model->res == JOURNAL_E_DAMAGED);
	restore(model);
	model->sb.applied_off = model->options.slot_bytes + 4096;
	sim_check(model->world, !start_up(model) && model->res == JOURNAL_E_DAMAGED);
	sim_check(model->world, strstr(model->error, "superblock: the applied position") != NULL);
	restore(model);
	sim_check(model->world, start_up(model));
}

static void body_files(struct journal_model *model)
{
	char path[64];

	bench_append_durably(model, 3000);
	save(model);
	restore(model);
	bench_fault(model, BENCH_FILES "2", SIM_READ, 0, 1);
	sim_check(model->world, !start_up(model) && model->res == -EIO);
	sim_check(model->world, strstr(model->error, "journal/00000002: read at offset 0") != NULL);
	restore(model);
	bench_fault(model, BENCH_FILES "0", SIM_FLUSH, 0, 1);
	sim_check(model->world, !start_up(model) && model->res == -EIO);
	sim_check(model->world, strstr(model->error, "journal/00000000: flush failed") != NULL);
	restore(model);
	model->options.slot_bytes += 4096;
	sim_check(model->world, !start_up(model) && model->res == JOURNAL_E_DAMAGED);
	sim_check(model->world, strstr(model->error, "the superblock says") != NULL);
	restore(model);
	sim_node_restart(model->node);
	bench_slot_path(3, path);
	sim_check(model->world, io_file_remove(sim_node_io(model->node), path) == 0);
	sim_check(model->world, !bench_restart(model) && model->res == -ENOENT);
	sim_check(model->world, strstr(model->error, "journal/00000003: cannot be opened") != NULL);
}

#define RUN(name, options)                                                                         \
	UNIT(test_##name)                                                                          \
	{                                                                                          \
		bench_run(body_##name, &(options));                                                \
	}
RUN(flips, bench_writeback)
RUN(flips_standby, bench_standby)
RUN(flips_elsewhere, bench_writeback)
RUN(lost_write, bench_dsync)
RUN(misdirected_write, bench_dsync)
RUN(first_block_gone, bench_writeback)
RUN(cut_for_good, bench_writeback)
RUN(orphan_behind_the_end, bench_writeback)
RUN(old_epoch, bench_dsync)
RUN(applied_at_the_end, bench_writeback)
RUN(bad_position, bench_writeback)
RUN(files, bench_writeback)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flips),
		cmocka_unit_test(test_flips_standby),
		cmocka_unit_test(test_flips_elsewhere),
		cmocka_unit_test(test_lost_write),
		cmocka_unit_test(test_misdirected_write),
		cmocka_unit_test(test_first_block_gone),
		cmocka_unit_test(test_cut_for_good),
		cmocka_unit_test(test_orphan_behind_the_end),
		cmocka_unit_test(test_old_epoch),
		cmocka_unit_test(test_applied_at_the_end),
		cmocka_unit_test(test_bad_position),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
