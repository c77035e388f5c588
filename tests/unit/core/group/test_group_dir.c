/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/group_dir.h"

#include "core/base/err.h"
#include "core/base/prng.h"
#include "tests/unit/core/group/waiting.h"

#define SB_PATH WAITING_STATE_DIR "/" WAITING_GROUP "/superblock"

static struct group_dir dir, other;
static struct superblock made;
static struct waiting waits[8];

static void make_group(struct waiting_world *w)
{
	waiting_make_group(w->world, w->node, &made);
	sim_check(w->world, group_dir_init(&dir, w->io, WAITING_STATE_DIR, WAITING_GROUP) == 0);
}

static int64_t open_dir(struct waiting_world *w, struct group_dir *which)
{
	group_dir_open(which, waiting_op(&waits[0]));
	sim_check(w->world, !waits[0].done);
	return waiting_for(w->world, &waits[0]);
}

static int64_t peek_dir(struct waiting_world *w, struct group_dir *which)
{
	group_dir_peek(which, waiting_op(&waits[0]));
	sim_check(w->world, !waits[0].done);
	return waiting_for(w->world, &waits[0]);
}

static int64_t store_dir(struct waiting_world *w)
{
	struct group_dir_store store = { 0 };

	group_dir_store(&dir, &store, waiting_op(&waits[1]));
	sim_check(w->world, !waits[1].done);
	return waiting_for(w->world, &waits[1]);
}

static void run(void (*body)(struct sim_world *world, void *context))
{
	struct waiting_world w;

	waiting_calm(1, body, &w, NULL);
}

/* ---- open and peek ----------------------------------------------------------------------------
 */

static void body_open(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;

	make_group(w);
	sim_check(world, open_dir(w, &dir) == 0);
	sim_check(world, memcmp(&dir.sb, &made, sizeof(made)) == 0);
	/* One owner at a time; looking is free. */
	sim_check(world, group_dir_init(&other, w->io, WAITING_STATE_DIR, WAITING_GROUP) == 0);
	sim_check(world, open_dir(w, &other) == -EWOULDBLOCK);
	sim_check(world, peek_dir(w, &other) == 0);
	sim_check(world, memcmp(&other.sb, &made, sizeof(made)) == 0);
	dir.sb.durable_seq = 5;
	sim_check(world, store_dir(w) == 0);
	sim_check(world, peek_dir(w, &other) == 0 && other.sb.durable_seq == 5);
	group_dir_close(&dir);
	sim_check(world, open_dir(w, &other) == 0);
	group_dir_deinit(&other);
	group_dir_deinit(&dir);
	group_dir_deinit(&dir);
	sim_check(world, sim_node_alloc_bytes(w->node) == 0);
}

static void body_open_nothing(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	char longer[GROUP_PATH_MAX + 2];

	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	sim_check(world, group_dir_init(&dir, w->io, "/nowhere", "../x") == -EINVAL);
	sim_check(world, group_dir_init(&dir, w->io, longer, "db") == -ENAMETOOLONG);
	sim_node_fail_alloc(w->node, 1);
	sim_check(world, group_dir_init(&dir, w->io, "/nowhere", "db") == -ENOMEM);
	sim_check(world, group_dir_init(&dir, w->io, "/nowhere", "db") == 0);
	sim_check(world, open_dir(w, &dir) == -ENOENT);
	sim_check(world, peek_dir(w, &dir) == -ENOENT);
	group_dir_deinit(&dir);
	/* A directory without a superblock: and the lock is free again. */
	sim_file_make(w->node, "/state/db/journal/x", 1, false, false);
	sim_check(world, group_dir_init(&dir, w->io, WAITING_STATE_DIR, WAITING_GROUP) == 0);
	sim_check(world, open_dir(w, &dir) == -ENOENT);
	sim_check(world, open_dir(w, &dir) == -ENOENT);
	/* An empty one, a short one, one of zeroes. */
	sim_file_make(w->node, SB_PATH, 0, false, false);
	sim_check(world, open_dir(w, &dir) == SUPERBLOCK_E_NONE_VALID);
	sim_file_make(w->node, SB_PATH, SUPERBLOCK_FILE_BYTES - 1, false, false);
	sim_check(world, peek_dir(w, &dir) == SUPERBLOCK_E_NONE_VALID);
	sim_file_make(w->node, SB_PATH, SUPERBLOCK_FILE_BYTES, false, false);
	sim_check(world, open_dir(w, &dir) == SUPERBLOCK_E_NONE_VALID);
	sim_check(world, peek_dir(w, &dir) == SUPERBLOCK_E_NONE_VALID);
	group_dir_deinit(&dir);
	sim_check(world, sim_node_alloc_bytes(w->node) == 0);
}

static void body_damage(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct sim_fault fault = { .ops = SIM_READ,
				   .pattern = "*superblock",
				   .action = SIM_ERROR,
				   .error = -EIO,
				   .count = 1 };

	make_group(w);
	sim_fault_add(world, &fault);
	sim_check(world, open_dir(w, &dir) == -EIO);
	/* The newer of the two is damaged: the older one rules. */
	sim_file_flip(w->node, SB_PATH, (SUPERBLOCK_SLOT_BYTES + 700) * 8 + 3);
	sim_check(world, open_dir(w, &dir) == 0);
	sim_check(world, dir.sb.generation == made.generation - 1 && dir.slot == 0);
	/* The next store goes over the damaged one. */
	dir.sb.durable_seq = 9;
	sim_check(world, store_dir(w) == 0);
	group_dir_close(&dir);
	sim_file_flip(w->node, SB_PATH, 100);
	sim_check(world, open_dir(w, &dir) == 0);
	sim_check(world, dir.sb.durable_seq == 9 && dir.slot == 1);
	group_dir_close(&dir);
	sim_file_flip(w->node, SB_PATH, (SUPERBLOCK_SLOT_BYTES + 5000) * 8);
	sim_check(world, open_dir(w, &dir) == SUPERBLOCK_E_NONE_VALID);
	group_dir_deinit(&dir);
}

UNIT(test_open)
{
	run(body_open);
	run(body_open_nothing);
	run(body_damage);
}

/* ---- store ------------------------------------------------------------------------------------
 */

static void body_store_shared(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct group_dir_store stores[4] = { 0 };
	uint64_t ops;
	unsigned i;

	make_group(w);
	sim_check(world, open_dir(w, &dir) == 0);
	ops = sim_disk_ops(world);
	for (i = 0; i < 4; i++) {
		dir.sb.durable_seq = i + 1;
		group_dir_store(&dir, &stores[i], waiting_op(&waits[i]));
	}
	waiting_for(world, &waits[0]);
	sim_check(world, waits[0].res == 0 && !waits[1].done);
	/* The first write holds what there was when it was submitted. */
	sim_check(world, group_dir_init(&other, w->io, WAITING_STATE_DIR, WAITING_GROUP) == 0);
	for (i = 1; i < 4; i++)
		sim_check(world, waiting_for(world, &waits[i]) == 0);
	sim_check(world, sim_disk_ops(world) == ops + 2);
	dir.sb.durable_seq = 50; /* not stored */
	sim_check(world, peek_dir(w, &other) == 0 && other.sb.durable_seq == 4);
	sim_check(world, other.sb.generation == made.generation + 2);
	group_dir_deinit(&dir);
	group_dir_deinit(&other);
}

static void body_store_fails(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct group_dir_store stores[3] = { 0 };
	struct sim_fault fault = { .ops = SIM_WRITE,
				   .pattern = "*superblock",
				   .action = SIM_ERROR,
				   .error = -EIO,
				   .count = 1 };
	unsigned i;

	make_group(w);
	sim_check(world, open_dir(w, &dir) == 0);
	sim_fault_add(world, &fault);
	dir.sb.durable_seq = 7;
	for (i = 0; i < 3; i++)
		group_dir_store(&dir, &stores[i], waiting_op(&waits[i]));
	for (i = 0; i < 3; i++)
		sim_check(world, waiting_for(world, &waits[i]) == -EIO);
	/* The disk is well again; the superblock in memory is not. */
	sim_check(world, store_dir(w) == -EIO);
	group_dir_close(&dir);
	sim_check(world, open_dir(w, &dir) == 0);
	sim_check(world, dir.sb.durable_seq == 0 || dir.sb.durable_seq == 7);
	sim_check(world, store_dir(w) == 0);
	group_dir_deinit(&dir);
}

UNIT(test_store)
{
	run(body_store_shared);
	run(body_store_fails);
}

/* ---- crash at every event ---------------------------------------------------------------------
 */

static struct {
	struct waiting_world *w;
	enum sim_crash kind;
	bool crashed;
	uint64_t stored, asked;
	struct io_op op;
	struct group_dir_store store, extra;
	struct waiting extra_wait;
} c;

static void crash_store(void);

static void crash_stored(struct io_op *op, int64_t res)
{
	(void)op;
	sim_check(c.w->world, res == 0);
	c.stored = c.asked;
	if (c.asked < 6)
		crash_store();
}

static void crash_store(void)
{
	dir.sb.durable_seq = ++c.asked;
	dir.sb.applied_seq = dir.sb.heard_head_seq = c.asked;
	c.op = (struct io_op){ .done = crash_stored };
	group_dir_store(&dir, &c.store, &c.op);
}

static void crash_now(void *context)
{
	(void)context;
	c.crashed = true;
	sim_node_crash(c.w->node, c.kind);
}

static void body_crash(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t event = *(uint64_t *)w->context;

	make_group(w);
	sim_check(world, open_dir(w, &dir) == 0);
	memset(&c, 0, sizeof(c));
	c.w = w;
	c.kind = event % 2 ? SIM_KILL : SIM_POWER;
	if (event / 2 == 0)
		crash_now(NULL);
	else
		sim_at_event(world, sim_events(world) + event / 2, crash_now, NULL);
	if (!c.crashed)
		crash_store();
	sim_run_for(world, SIM_SECOND);
	if (!c.crashed)
		sim_node_crash(w->node, c.kind);
	sim_node_restart(w->node);
	sim_check(world, group_dir_init(&dir, w->io, WAITING_STATE_DIR, WAITING_GROUP) == 0);
	sim_check(world, open_dir(w, &dir) == 0);
	sim_check(world, dir.sb.durable_seq >= c.stored && dir.sb.durable_seq <= c.asked);
	sim_check(world, dir.sb.applied_seq == dir.sb.durable_seq &&
				 dir.sb.heard_head_seq == dir.sb.durable_seq);
	sim_check(world, uuid_equal(&dir.sb.group, &made.group));
	/* And life goes on. */
	dir.sb.durable_seq = 100;
	sim_check(world, store_dir(w) == 0);
	group_dir_close(&dir);
	sim_check(world, open_dir(w, &dir) == 0 && dir.sb.durable_seq == 100);
	group_dir_deinit(&dir);
}

UNIT(test_crash_at_every_event)
{
	struct waiting_world w;
	uint64_t event = 0;
	unsigned seed;

	do {
		for (seed = 1; seed <= 8; seed++)
			waiting_calm(seed, body_crash, &w, &event);
		event++;
	} while (c.stored < 6);
	assert_true(event > 12);
}

/* ---- what it holds ----------------------------------------------------------------------------
 */

static void body_tables(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct journal_position at = {
		.seq = 8, .chain = 0x1234, .bytes = 4096, .slot = 2, .off = 8192
	};
	struct journal_position got;
	struct superblock_peer *peer;
	char node[32];
	unsigned i;

	make_group(w);
	sim_check(world, open_dir(w, &dir) == 0);
	sim_check(world, group_dir_volume(&dir, "log") == &dir.sb.volumes[1]);
	sim_check(world, group_dir_volume(&dir, "lo") == NULL);
	group_dir_get_applied(&dir, &got);
	sim_check(world, got.seq == 1 && got.chain == segment_chain_root(&made.group));
	group_dir_set_applied(&dir, &at);
	sim_check(world, dir.sb.applied_seq == 7);
	sim_check(world, group_dir_peer(&dir, "") == NULL);
	sim_check(world, group_dir_peer(&dir, "two words") == NULL);
	for (i = 0; i < GROUP_PEERS_MAX; i++) {
		snprintf(node, sizeof(node), "node%u", i);
		peer = group_dir_peer(&dir, node);
		sim_check(world, peer && peer->durable_seq == 0 && !peer->needs_sync);
		peer->durable_seq = i + 1;
		sim_check(world, group_dir_peer(&dir, node) == peer);
	}
	sim_check(world, group_dir_peer(&dir, "another") == NULL);
	sim_check(world, store_dir(w) == 0);
	group_dir_close(&dir);
	sim_check(world, open_dir(w, &dir) == 0);
	group_dir_get_applied(&dir, &got);
	sim_check(world, got.seq == at.seq && got.chain == at.chain && got.bytes == at.bytes &&
				 got.slot == at.slot && got.off == at.off);
	sim_check(world, group_dir_peer(&dir, "node3")->durable_seq == 4);
	group_dir_deinit(&dir);
}

UNIT(test_tables)
{
	run(body_tables);
}

/* A history written out: the epoch of each seq from 1. */
#define SEQS 12u

struct told {
	struct history_entry entries[8];
	unsigned count;
	uint64_t last_seq;
	uint64_t epoch_of[SEQS + 1];
};

static void tell(struct told *told)
{
	unsigned i;
	uint64_t seq;

	for (i = 0; i < told->count; i++) {
		for (seq = told->entries[i].first_seq; seq <= SEQS; seq++)
			told->epoch_of[seq] = told->entries[i].epoch;
	}
}

/* Continues `told` from a random seq on under new epochs. */
static void fork_history(struct told *told, struct prng *prng)
{
	unsigned more = (unsigned)prng_below(prng, 3);

	while (more-- > 0 && told->count < array_len(told->entries)) {
		struct history_entry *last = told->count ? &told->entries[told->count - 1] : NULL;
		uint64_t first = last ? last->first_seq : 1;

		told->entries[told->count++] = (struct history_entry){
			.epoch = (last ? last->epoch : 0) + prng_between(prng, 1, 2),
			.first_seq = prng_between(prng, first, SEQS),
		};
		if (told->count == 1)
			told->entries[0].first_seq = 1;
	}
	told->last_seq = prng_between(prng, 0, SEQS);
	tell(told);
}

UNIT(test_history_is_prefix)
{
	struct prng prng;
	unsigned i, prefixes = 0;

	prng_seed(&prng, 3);
	for (i = 0; i < 20000; i++) {
		struct told ours = { 0 }, theirs;
		bool expect;
		uint64_t seq;

		fork_history(&ours, &prng);
		theirs = ours;
		fork_history(&ours, &prng);
		fork_history(&theirs, &prng);
		expect = theirs.last_seq <= ours.last_seq;
		for (seq = 1; seq <= theirs.last_seq && expect; seq++)
			expect = ours.epoch_of[seq] == theirs.epoch_of[seq];
		prefixes += expect;
		assert_int_equal(history_is_prefix(ours.entries, ours.count, ours.last_seq,
						   theirs.entries, theirs.count, theirs.last_seq),
				 expect);
	}
	assert_in_range(prefixes, 2000, 18000);
	/* A standby that has nothing follows anybody. */
	assert_true(history_is_prefix(NULL, 0, 0, NULL, 0, 0));
}

/* The last seq up to which both say the same of every seq, and that they are whole up to there. */
UNIT(test_history_common)
{
	struct prng prng;
	unsigned i, parted = 0;

	prng_seed(&prng, 4);
	for (i = 0; i < 20000; i++) {
		struct told ours = { 0 }, theirs;
		uint64_t expect = 0, common;

		fork_history(&ours, &prng);
		theirs = ours;
		fork_history(&ours, &prng);
		fork_history(&theirs, &prng);
		while (expect < ours.last_seq && expect < theirs.last_seq &&
		       ours.epoch_of[expect + 1] == theirs.epoch_of[expect + 1])
			expect++;
		common = history_common(ours.entries, ours.count, ours.last_seq, theirs.entries,
					theirs.count, theirs.last_seq);
		assert_int_equal(common, expect);
		parted += common < ours.last_seq && common < theirs.last_seq;
		assert_int_equal(history_is_prefix(ours.entries, ours.count, ours.last_seq,
						   theirs.entries, theirs.count, theirs.last_seq),
				 common == theirs.last_seq);
	}
	assert_in_range(parted, 1000, 19000);
}

/* Without its `drop` oldest entries, as a history that has become too long. */
static struct told without(const struct told *told, unsigned drop)
{
	struct told rest = *told;

	memmove(rest.entries, rest.entries + drop, (rest.count - drop) * sizeof(rest.entries[0]));
	rest.count -= drop;
	return rest;
}

static bool has(const struct told *told, const struct history_entry *entry)
{
	unsigned i;

	for (i = 0; i < told->count; i++)
		if (told->entries[i].epoch == entry->epoch &&
		    told->entries[i].first_seq == entry->first_seq)
			return true;
	return false;
}

/* What both have lost, or one of them, changes nothing as long as the other one knows the first
 * that is left; else it agrees up to less, never to more. */
UNIT(test_history_cut)
{
	unsigned i, same = 0, less = 0;
	struct prng prng;

	prng_seed(&prng, 5);
	for (i = 0; i < 40000; i++) {
		struct told ours = { 0 }, theirs, our_rest, their_rest;
		uint64_t whole, common;
		unsigned shared;

		fork_history(&ours, &prng);
		fork_history(&ours, &prng);
		theirs = ours;
		shared = ours.count;
		fork_history(&ours, &prng);
		fork_history(&theirs, &prng);
		if (shared < 2)
			continue;
		whole = history_common(ours.entries, ours.count, ours.last_seq, theirs.entries,
				       theirs.count, theirs.last_seq);
		our_rest = without(&ours, (unsigned)prng_below(&prng, shared));
		their_rest = without(&theirs, (unsigned)prng_below(&prng, shared));
		common = history_common(our_rest.entries, our_rest.count, our_rest.last_seq,
					their_rest.entries, their_rest.count, their_rest.last_seq);
		assert_true(has(&our_rest, &their_rest.entries[0]) ||
			    has(&their_rest, &our_rest.entries[0]));
		assert_int_equal(common, whole);
		same++;
		/* Cut behind where they part: nothing is taken on trust. */
		if (ours.count == shared)
			continue;
		our_rest = without(&ours, shared);
		if (has(&theirs, &our_rest.entries[0]))
			continue;
		common = history_common(our_rest.entries, our_rest.count, our_rest.last_seq,
					theirs.entries, theirs.count, theirs.last_seq);
		assert_true(common <= whole);
		less++;
	}
	assert_true(same > 10000 && less > 3000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_store),
		cmocka_unit_test(test_crash_at_every_event),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_history_is_prefix),
		cmocka_unit_test(test_history_common),
		cmocka_unit_test(test_history_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
