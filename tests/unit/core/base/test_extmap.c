/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/extmap.h"
#include "tests/unit/unit.h"

#define NODES  64u
#define SPACE  512u
#define OWNERS 5u

/* What one byte is mapped to: seq 0 is nothing. */
struct model_byte {
	void *owner;
	uint64_t seq;
	uint64_t data_offset_bytes;
};

static char owners[OWNERS];

static void insert(struct extmap *map, uint64_t offset, uint64_t length, unsigned owner,
		   uint64_t seq, uint64_t data_offset)
{
	struct extmap_value value = { &owners[owner], seq, data_offset };

	assert_int_equal(extmap_insert(map, offset, length, &value), 0);
	extmap_check(map);
}

static void expect_piece(const struct extmap *map, uint64_t offset, uint64_t end, uint64_t length,
			 int owner, uint64_t seq, uint64_t data_offset)
{
	struct extmap_piece piece = extmap_piece_at(map, offset, end);

	assert_int_equal(piece.offset_bytes, offset);
	assert_int_equal(piece.length_bytes, length);
	assert_int_equal(piece.covered, owner >= 0);
	if (owner >= 0) {
		assert_ptr_equal(piece.value.owner, &owners[owner]);
		assert_int_equal(piece.value.seq, seq);
		assert_int_equal(piece.value.data_offset_bytes, data_offset);
	}
}

UNIT(empty)
{
	struct extmap_node nodes[NODES];
	struct extmap map;

	extmap_init(&map, nodes, NODES, 1);
	extmap_check(&map);
	expect_piece(&map, 0, UINT64_MAX, UINT64_MAX, -1, 0, 0);
	assert_false(extmap_overlaps(&map, 0, UINT64_MAX));
	assert_int_equal(extmap_remove(&map, 0, UINT64_MAX, NULL, UINT64_MAX), 0);
	assert_int_equal(map.free_count, NODES);
}

UNIT(insert_into_the_middle_splits)
{
	struct extmap_node nodes[NODES];
	struct extmap map;

	extmap_init(&map, nodes, NODES, 1);
	insert(&map, 100, 100, 0, 1, 1000);
	insert(&map, 120, 10, 1, 2, 0);
	assert_int_equal(map.count, 3);
	assert_int_equal(map.covered_bytes, 100);
	expect_piece(&map, 0, 500, 100, -1, 0, 0);
	expect_piece(&map, 100, 500, 20, 0, 1, 1000);
	expect_piece(&map, 120, 500, 10, 1, 2, 0);
	expect_piece(&map, 130, 500, 70, 0, 1, 1030);
	expect_piece(&map, 150, 160, 10, 0, 1, 1050);
	expect_piece(&map, 200, 500, 300, -1, 0, 0);
}

UNIT(insert_trims_and_swallows_neighbours)
{
	struct extmap_node nodes[NODES];
	struct extmap map;

	extmap_init(&map, nodes, NODES, 1);
	insert(&map, 0, 10, 0, 1, 0);
	insert(&map, 10, 10, 1, 2, 0);
	insert(&map, 20, 10, 2, 3, 0);
	insert(&map, 5, 20, 3, 4, 700);
	assert_int_equal(map.count, 3);
	expect_piece(&map, 0, 30, 5, 0, 1, 0);
	expect_piece(&map, 5, 30, 20, 3, 4, 700);
	expect_piece(&map, 25, 30, 5, 2, 3, 5);
}

UNIT(remove_only_what_belongs)
{
	struct extmap_node nodes[NODES];
	struct extmap map;

	extmap_init(&map, nodes, NODES, 1);
	insert(&map, 0, 100, 0, 1, 0);
	insert(&map, 40, 20, 1, 2, 0);
	/* The first write reached the volume; what overwrote it did not. */
	assert_int_equal(extmap_remove(&map, 0, 100, &owners[0], UINT64_MAX), 0);
	extmap_check(&map);
	expect_piece(&map, 0, 100, 40, -1, 0, 0);
	expect_piece(&map, 40, 100, 20, 1, 2, 0);
	expect_piece(&map, 60, 100, 40, -1, 0, 0);
	/* Same owner, newer seq than asked for: stays. */
	assert_int_equal(extmap_remove(&map, 0, 100, &owners[1], 1), 0);
	assert_true(extmap_overlaps(&map, 0, 100));
	assert_int_equal(extmap_remove(&map, 0, 100, &owners[1], 2), 0);
	assert_false(extmap_overlaps(&map, 0, 100));
	assert_int_equal(map.covered_bytes, 0);
	assert_int_equal(map.free_count, NODES);
}

UNIT(full_changes_nothing)
{
	struct extmap_node nodes[4];
	struct extmap_value value = { &owners[1], 9, 0 };
	struct extmap map;

	extmap_init(&map, nodes, 4, 1);
	insert(&map, 0, 100, 0, 1, 0);
	insert(&map, 200, 100, 0, 2, 0);
	insert(&map, 400, 100, 0, 3, 0);
	assert_int_equal(map.free_count, 1);
	assert_int_equal(extmap_insert(&map, 250, 10, &value), EXTMAP_E_FULL);
	assert_int_equal(extmap_insert(&map, 0, 100, &value), EXTMAP_E_FULL);
	expect_piece(&map, 0, 100, 100, 0, 1, 0);
	expect_piece(&map, 200, 300, 100, 0, 2, 0);

	/* The last node pays for one hole, a second one is refused, trims and drops always work. */
	assert_int_equal(extmap_remove(&map, 40, 20, NULL, UINT64_MAX), 0);
	assert_int_equal(map.free_count, 0);
	assert_int_equal(extmap_remove(&map, 240, 20, NULL, UINT64_MAX), EXTMAP_E_FULL);
	expect_piece(&map, 200, 300, 100, 0, 2, 0);
	assert_int_equal(extmap_remove(&map, 240, 20, &owners[1], UINT64_MAX), 0);
	assert_int_equal(extmap_remove(&map, 250, 200, NULL, UINT64_MAX), 0);
	extmap_check(&map);
	expect_piece(&map, 200, 500, 50, 0, 2, 0);
	expect_piece(&map, 450, 500, 50, 0, 3, 50);
	assert_int_equal(map.free_count, 0);
	assert_int_equal(extmap_remove(&map, 200, 50, NULL, UINT64_MAX), 0);
	assert_int_equal(map.free_count, 1);
	extmap_check(&map);
}

UNIT(the_very_end_of_the_range)
{
	struct extmap_node nodes[NODES];
	struct extmap map;

	extmap_init(&map, nodes, NODES, 1);
	insert(&map, 0, UINT64_MAX, 0, 1, 0);
	insert(&map, UINT64_MAX - 1, 1, 1, 2, 0);
	expect_piece(&map, UINT64_MAX - 1, UINT64_MAX, 1, 1, 2, 0);
	expect_piece(&map, 0, UINT64_MAX, UINT64_MAX - 1, 0, 1, 0);
	extmap_clear(&map);
	extmap_check(&map);
	assert_int_equal(map.count, 0);
	assert_int_equal(map.free_count, NODES);
	assert_int_equal(map.covered_bytes, 0);
}

/* The whole map, piece by piece, against one model entry per byte. */
static void compare(const struct extmap *map, const struct model_byte *model, uint64_t begin,
		    uint64_t end)
{
	struct extmap_piece piece;
	uint64_t at = begin;
	bool any = false;

	extmap_check(map);
	extmap_for_each (piece, map, begin, end) {
		uint64_t i;

		assert_int_equal(piece.offset_bytes, at);
		assert_true(piece.length_bytes > 0 && piece.length_bytes <= end - at);
		for (i = 0; i < piece.length_bytes; i++) {
			const struct model_byte *byte = &model[at + i];

			assert_int_equal(piece.covered, byte->seq != 0);
			if (!piece.covered)
				continue;
			assert_ptr_equal(piece.value.owner, byte->owner);
			assert_int_equal(piece.value.seq, byte->seq);
			assert_int_equal(piece.value.data_offset_bytes + i,
					 byte->data_offset_bytes);
		}
		any |= piece.covered;
		at += piece.length_bytes;
	}
	assert_int_equal(at, end);
	assert_int_equal(extmap_overlaps(map, begin, end - begin), any);
}

static void model_insert(struct model_byte *model, uint64_t offset, uint64_t length,
			 const struct extmap_value *value)
{
	uint64_t i;

	for (i = 0; i < length; i++)
		model[offset + i] = (struct model_byte){ value->owner, value->seq,
							 value->data_offset_bytes + i };
}

static void model_remove(struct model_byte *model, uint64_t offset, uint64_t length,
			 const void *owner, uint64_t seq_max)
{
	uint64_t i;

	for (i = offset; i < offset + length; i++) {
		if ((!owner || model[i].owner == owner) && model[i].seq <= seq_max)
			model[i] = (struct model_byte){ 0 };
	}
}

/* Random operations on few nodes, so that the full map is met often. */
static void stress(uint64_t seed, size_t node_count, int steps, unsigned *ret_full)
{
	struct extmap_node *nodes = calloc(node_count, sizeof(*nodes));
	struct model_byte model[SPACE] = { 0 };
	struct extmap map;
	struct prng prng;
	int step;

	assert_non_null(nodes);
	prng_seed(&prng, seed);
	extmap_init(&map, nodes, node_count, seed);
	for (step = 1; step <= steps; step++) {
		uint64_t offset = prng_below(&prng, SPACE);
		uint64_t length = 1 + prng_below(&prng, min_u64(SPACE - offset, 40));
		void *owner = &owners[prng_below(&prng, OWNERS)];
		uint64_t seq_max = prng_chance(&prng, 1, 2) ? UINT64_MAX : (uint64_t)step - 20;

		if (prng_chance(&prng, 2, 3)) {
			struct extmap_value value = { owner, (uint64_t)step,
						      prng_below(&prng, 1u << 20) };

			if (extmap_insert(&map, offset, length, &value) == 0) {
				model_insert(model, offset, length, &value);
			} else {
				assert_true(map.free_count < 2);
				++*ret_full;
			}
		} else {
			if (step < 20)
				seq_max = UINT64_MAX;
			if (prng_chance(&prng, 1, 4))
				owner = NULL;
			if (extmap_remove(&map, offset, length, owner, seq_max) == 0)
				model_remove(model, offset, length, owner, seq_max);
			else
				assert_int_equal(map.free_count, 0);
		}
		if (prng_chance(&prng, 1, 2000)) {
			extmap_clear(&map);
			memset(model, 0, sizeof(model));
		}
		if (step % 4 == 0) {
			uint64_t begin = prng_below(&prng, SPACE);

			compare(&map, model, begin, prng_between(&prng, begin + 1, SPACE));
		}
	}
	compare(&map, model, 0, SPACE);
	free(nodes);
}

UNIT(stress_against_a_byte_array)
{
	unsigned full = 0;
	uint64_t seed;

	for (seed = 1; seed <= 12; seed++) {
		stress(seed, 8, 2000, &full);
		assert_true(full > 0);
		stress(seed, 600, 4000, &full);
	}
}

static unsigned depth_of(const struct extmap_node *node)
{
	unsigned depth = 0;

	for (; node; node = node->parent)
		depth++;
	return depth;
}

/* Ascending offsets, the worst case of a plain tree: the depth stays logarithmic. */
UNIT(sequential_inserts_stay_shallow)
{
	const size_t count = 100000;
	struct extmap_node *nodes = calloc(count + 2, sizeof(*nodes));
	unsigned deepest = 0;
	struct extmap map;
	size_t i;

	assert_non_null(nodes);
	extmap_init(&map, nodes, count + 2, 1);
	for (i = 0; i < count; i++) {
		struct extmap_value value = { &owners[0], i + 1, 0 };

		assert_int_equal(extmap_insert(&map, i * 8, 4, &value), 0);
	}
	for (i = 0; i < count; i++) {
		unsigned depth = depth_of(&nodes[i]);

		if (depth > deepest)
			deepest = depth;
	}
	extmap_check(&map);
	assert_int_equal(map.count, count);
	assert_int_equal(map.covered_bytes, count * 4);
	/* log2(100000) is 17; random priorities give about 40 at the deepest. */
	assert_true(deepest < 64);
	free(nodes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty),
		cmocka_unit_test(insert_into_the_middle_splits),
		cmocka_unit_test(insert_trims_and_swallows_neighbours),
		cmocka_unit_test(remove_only_what_belongs),
		cmocka_unit_test(full_changes_nothing),
		cmocka_unit_test(the_very_end_of_the_range),
		cmocka_unit_test(stress_against_a_byte_array),
		cmocka_unit_test(sequential_inserts_stay_shallow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
