/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/superblock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/proto/samples.h"

static struct superblock sb, decoded;
static uint8_t slot[SUPERBLOCK_SLOT_BYTES], again[SUPERBLOCK_SLOT_BYTES];
static uint8_t file[SUPERBLOCK_FILE_BYTES];

static void assert_superblock_equal(const struct superblock *a, const struct superblock *b)
{
	static uint8_t a_bytes[SUPERBLOCK_SLOT_BYTES], b_bytes[SUPERBLOCK_SLOT_BYTES];

	superblock_encode(a, a_bytes);
	superblock_encode(b, b_bytes);
	assert_memory_equal(a_bytes, b_bytes, sizeof(a_bytes));
}

static void test_round_trip(void **state)
{
	static const uint32_t counts[][3] = { { 0, 0, 0 },
					      { 1, 1, 1 },
					      { 3, 2, 2 },
					      { GROUP_VOLUMES_MAX, HISTORY_MAX, GROUP_PEERS_MAX } };
	size_t i;

	(void)state;
	for (i = 0; i < array_len(counts); i++) {
		superblock_sample(&sb, counts[i][0], counts[i][1], counts[i][2]);
		memset(slot, 0xee, sizeof(slot));
		superblock_encode(&sb, slot);
		memset(&decoded, 0xee, sizeof(decoded));
		assert_int_equal(superblock_decode(slot, &decoded), 0);
		assert_superblock_equal(&sb, &decoded);
		assert_int_equal(decoded.volume_count, counts[i][0]);
		assert_int_equal(decoded.history_count, counts[i][1]);
		assert_int_equal(decoded.peer_count, counts[i][2]);
	}
	assert_string_equal(decoded.volumes[127].name, "volume-127");
	assert_int_equal(decoded.volumes[127].id, 382);
	assert_int_equal(decoded.volumes[127].size_bytes, 128ull << 30);
	assert_int_equal(decoded.history[127].first_seq, 127001);
	assert_string_equal(decoded.peers[7].node, "node-7.example");
	assert_true(decoded.peers[7].needs_sync && !decoded.peers[6].needs_sync);
	assert_int_equal(decoded.peers[7].durable_seq, 1007);
	assert_int_equal(decoded.peers[7].released_seq, 7);
	assert_string_equal(decoded.name, "orders-db");
	assert_string_equal(decoded.fenced_by, "holdfast://node/b.example");
	assert_int_equal(decoded.generation, 41);
	assert_int_equal(decoded.features_compat, 0x8000000000000001ull);
	assert_int_equal(decoded.sync_end_seq, UINT64_MAX);
	assert_int_equal(decoded.promoted_time_ns, 1690000000000000001ull);
	assert_int_equal(decoded.applied_off, 12 * 4096);
}

static void test_every_bit(void **state)
{
	size_t bit;

	(void)state;
	superblock_sample(&sb, 2, 2, 1);
	superblock_encode(&sb, slot);
	for (bit = 0; bit < sizeof(slot) * 8; bit++) {
		slot[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(superblock_decode(slot, &decoded), SUPERBLOCK_E_NONE_VALID);
		slot[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(superblock_decode(slot, &decoded), 0);
}

/* Under a right checksum: each byte is either refused or kept. */
static void test_no_byte_ignored(void **state)
{
	size_t i, kept = 0;
	int r;

	(void)state;
	superblock_sample(&sb, 2, 2, 1);
	superblock_encode(&sb, slot);
	for (i = 0; i < offsetof(struct superblock_le, crc); i++) {
		uint8_t was = slot[i];

		slot[i] = (uint8_t)(was + 1);
		superblock_mend(slot);
		r = superblock_decode(slot, &decoded);
		if (r == 0) {
			superblock_encode(&decoded, again);
			assert_memory_equal(again, slot, sizeof(slot));
			kept++;
		}
		slot[i] = was;
	}
	assert_true(kept > 200 && kept < 600);
}

struct field_case {
	const char *what;
	size_t off;
	unsigned bytes;
	uint64_t value;
	int result;
};

#define AT(field) offsetof(struct superblock_le, field)

static void check_field_case(const struct field_case *c)
{
	int r;

	superblock_sample(&sb, 2, 2, 2);
	superblock_encode(&sb, slot);
	switch (c->bytes) {
	case 1:
		slot[c->off] = (uint8_t)c->value;
		break;
	case 4:
		le32_put(slot + c->off, (uint32_t)c->value);
		break;
	default:
		le64_put(slot + c->off, c->value);
		break;
	}
	superblock_mend(slot);
	r = superblock_decode(slot, &decoded);
	if (r != c->result)
		fail_msg("%s = %ju: %d, not %d", c->what, (uintmax_t)c->value, r, c->result);
}

enum {
	none = SUPERBLOCK_E_NONE_VALID,
	version = SUPERBLOCK_E_VERSION,
	field = SUPERBLOCK_E_FIELD
};

static const struct field_case field_cases[] = {
	{ "magic", AT(magic), 4, SUPERBLOCK_MAGIC + 1, none },
	{ "version", AT(version), 4, 0, version },
	{ "version", AT(version), 4, 2, version },
	{ "compat", AT(features_compat), 8, UINT64_MAX, 0 },
	{ "ro_compat", AT(features_ro_compat), 8, 1, version },
	{ "incompat", AT(features_incompat), 8, 1ull << 63, version },
	{ "role", AT(role), 1, 0, field },
	{ "role", AT(role), 1, 1, 0 },
	{ "role", AT(role), 1, 3, 0 },
	{ "role", AT(role), 1, 4, field },
	{ "flags", AT(flags), 4, 255 & ~SUPERBLOCK_HANDOVER, 0 },
	{ "handover to nobody", AT(flags), 4, SUPERBLOCK_HANDOVER, field },
	{ "back to nowhere", AT(flags), 4, SUPERBLOCK_ROLLBACK, field },
	{ "flags", AT(flags), 4, 2048, 0 },
	{ "flags", AT(flags), 4, 4096, field },
	{ "name empty", AT(name), 1, 0, field },
	{ "name first", AT(name), 1, '.', field },
	{ "name first", AT(name), 1, '-', field },
	{ "name slash", AT(name) + 2, 1, '/', field },
	{ "name space", AT(name) + 2, 1, ' ', field },
	{ "name high", AT(name) + 2, 1, 0xc3, field },
	{ "name padding", AT(name) + 20, 1, 'x', field },
	{ "name end", AT(name) + 63, 1, 'x', field },
	{ "epoch", AT(epoch), 8, 1, field }, /* the history knows epoch 2 */
	{ "epoch", AT(epoch), 8, 2, 0 },
	{ "fenced_by none", AT(fenced_by), 1, 0, field }, /* text behind the end */
	{ "fenced_by", AT(fenced_by), 1, ' ', field },
	{ "fenced_by", AT(fenced_by), 1, '"', field },
	{ "slot_bytes", AT(slot_bytes), 8, 0, field },
	{ "slot_bytes", AT(slot_bytes), 8, 4096 * 12, 0 },
	{ "slot_bytes", AT(slot_bytes), 8, 4096 * 12 + 512, field },
	{ "slot_bytes", AT(slot_bytes), 8, 4096 * 11, field },
	{ "slot_bytes", AT(slot_bytes), 8, 1ull << 63, field },
	{ "slots", AT(slots), 4, 0, field },
	{ "slots", AT(slots), 4, 7, field },
	{ "slots", AT(slots), 4, 8, 0 },
	{ "applied_slot", AT(applied_slot), 4, 16, field },
	{ "applied_off", AT(applied_off), 8, 64 << 20, 0 },
	{ "applied_off", AT(applied_off), 8, (64 << 20) + 4096, field },
	{ "applied_off", AT(applied_off), 8, 512, field },
	{ "volume_count", AT(volume_count), 4, 3, field },
	{ "volume_count", AT(volume_count), 4, 1, field },
	{ "volume_count", AT(volume_count), 4, GROUP_VOLUMES_MAX + 1, field },
	{ "volume_count", AT(volume_count), 4, UINT32_MAX, field },
	{ "history_count", AT(history_count), 4, 3, field },
	{ "history_count", AT(history_count), 4, 1, field },
	{ "history_count", AT(history_count), 4, HISTORY_MAX + 1, field },
	{ "history_count", AT(history_count), 4, UINT32_MAX, field },
	{ "peer_count", AT(peer_count), 4, 3, field },
	{ "peer_count", AT(peer_count), 4, GROUP_PEERS_MAX + 1, field },
	{ "peer_count", AT(peer_count), 4, UINT32_MAX, field },
	{ "history epoch", AT(history[0].epoch), 8, 0, field },
	{ "history epoch", AT(history[0].epoch), 8, 2, field },
	{ "history epoch", AT(history[1].epoch), 8, 1001, field },
	{ "history seq", AT(history[0].first_seq), 8, 0, field },
	{ "history seq", AT(history[0].first_seq), 8, 1001, 0 },
	{ "history seq", AT(history[0].first_seq), 8, 1002, field },
	{ "peer name", AT(peers[0].node), 1, 0, field },
	{ "peer twice", AT(peers[1].node) + 5, 1, '0', field },
	{ "peer flags", AT(peers[0].flags), 4, 1, 0 },
	{ "peer flags", AT(peers[0].flags), 4, 3, 0 },
	{ "peer flags", AT(peers[0].flags), 4, 4, field },
	{ "peer reserved", AT(peers[0].reserved) + 107, 1, 1, field },
	{ "peer reserved", AT(peers[0].reserved0), 1, 1, field },
	{ "peer reserved", AT(peers[0].reserved), 1, 1, field },
	{ "peer verified", AT(peers[0].verified_seq), 8, UINT64_MAX, 0 },
	{ "peer copy", AT(peers[0].copy_time_ns), 8, UINT64_MAX, 0 },
	{ "peer behind the end", AT(peers[2].copy_seq), 8, 1, field },
	{ "reserved", AT(reserved1), 1, 1, field },
	{ "reserved", AT(reserved1) + 391, 1, 1, field },
	{ "reserved", AT(reserved4), 1, 1, field },
	{ "reserved", AT(reserved4) + 9207, 1, 1, field },
	{ "undo bytes of no log", AT(undo_bytes), 8, 1, field },
	{ "undo log", AT(undo_id), 8, 1, 0 },
	{ "kept position without a log", AT(kept_seq), 8, 1, field },
	{ "kept history without a log", AT(kept_history_count), 4, 1, field },
	{ "kept history", AT(kept_history_count), 4, HISTORY_MAX + 1, field },
	{ "kept history", AT(kept_history_count), 4, UINT32_MAX, field },
	{ "kept history behind the end", AT(kept_history[0].epoch), 8, 1, field },
	{ "kept history behind the end", AT(kept_history[127].first_seq), 8, 1, field },
	{ "handover node", AT(handover_node), 1, 'b', 0 },
	{ "handover node", AT(handover_node), 1, ' ', field },
	{ "handover node padding", AT(handover_node) + 2, 1, 'b', field },
	{ "handover node end", AT(handover_node) + 127, 1, 'b', field },
	{ "stamp", AT(stamps[1].sample), 8, UINT64_MAX, 0 },
	{ "stamp behind the end", AT(stamps[2].mtime_ns), 8, 1, field },
	{ "opening", AT(openings[0].first_seq), 8, 1, field },
	{ "openings", AT(opening_count), 4, 65, field },
	{ "volume id twice", AT(volumes[1].id), 1, 1, field },
	{ "volume reserved", AT(volumes[1].reserved), 1, 1, field },
	{ "volume size", AT(volumes[0].size_bytes), 8, VOLUME_BYTES_MAX, 0 },
	{ "volume size", AT(volumes[0].size_bytes), 8, VOLUME_BYTES_MAX + 1, field },
	{ "volume name", AT(volumes[0].name), 1, '-', field },
	{ "volume twice", AT(volumes[1].name) + 7, 1, '0', field },
};

static void test_field_limits(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < array_len(field_cases); i++)
		check_field_case(&field_cases[i]);
}

/* A kept position has an undo log, and no epoch in its past that is higher than its own. */
static void test_kept(void **state)
{
	(void)state;
	superblock_sample(&sb, 1, 3, 0);
	sb.flags |= SUPERBLOCK_ROLLBACK;
	assert_false(superblock_valid(&sb));
	sb.kept.undo_id = 1;
	assert_true(superblock_valid(&sb));
	sb.kept.history_count = 2;
	sb.kept.history[0] = (struct history_entry){ .epoch = 3, .first_seq = 1 };
	sb.kept.history[1] = (struct history_entry){ .epoch = 5, .first_seq = 9 };
	sb.kept.epoch = 4;
	assert_false(superblock_valid(&sb));
	sb.kept.epoch = 5;
	assert_true(superblock_valid(&sb));
	sb.kept.history[1].epoch = 3;
	assert_false(superblock_valid(&sb));
}

/* Whoever wrote first comes first, and nobody nothing. */
static void test_openings(void **state)
{
	(void)state;
	superblock_sample(&sb, 1, 3, 0);
	sb.opening_count = 2;
	sb.openings[0] = (struct opening){ .writer = 0, .first_seq = 1 };
	sb.openings[1] = (struct opening){ .writer = 7, .first_seq = 2 };
	assert_true(superblock_valid(&sb));
	sb.openings[1].first_seq = 1;
	assert_false(superblock_valid(&sb));
	sb.openings[0].first_seq = 0;
	assert_false(superblock_valid(&sb));
	sb.opening_count = OPENINGS_MAX + 1;
	assert_false(superblock_valid(&sb));
}

static void test_random(void **state)
{
	struct prng prng;
	unsigned i;

	(void)state;
	prng_seed(&prng, 41);
	for (i = 0; i < 500; i++) {
		superblock_random(&sb, &prng);
		memset(slot, 0xee, sizeof(slot));
		superblock_encode(&sb, slot);
		memset(&decoded, 0xee, sizeof(decoded));
		assert_int_equal(superblock_decode(slot, &decoded), 0);
		assert_superblock_equal(&sb, &decoded);
		assert_int_equal(decoded.flags, sb.flags);
		assert_memory_equal(&decoded.kept, &sb.kept, sizeof(sb.kept));
		assert_memory_equal(decoded.stamps, sb.stamps, sizeof(sb.stamps));
		assert_int_equal(decoded.opening_count, sb.opening_count);
		assert_memory_equal(decoded.openings, sb.openings, sizeof(sb.openings));
		assert_string_equal(decoded.handover_node, sb.handover_node);
		assert_int_equal(decoded.handover_seq, sb.handover_seq);
		assert_int_equal(decoded.verified_seq, sb.verified_seq);
		assert_int_equal(decoded.verified_time_ns, sb.verified_time_ns);
		assert_int_equal(decoded.lost_writes, sb.lost_writes);
		assert_int_equal(decoded.lost_bytes, sb.lost_bytes);
		assert_int_equal(decoded.lost_ns, sb.lost_ns);
		assert_int_equal(decoded.differing_ranges, sb.differing_ranges);
		assert_int_equal(decoded.durable_time_ns, sb.durable_time_ns);
	}
}

/* What a VOLUME record carries. */
static void test_volume_record(void **state)
{
	struct superblock_volume volume = {
		.id = 7, .uuid = sample_uuid(3), .size_bytes = VOLUME_BYTES_MAX, .name = "wal"
	};
	uint8_t bytes[RECORD_VOLUME_BYTES], was;
	struct superblock_volume back;
	size_t i, refused = 0;

	(void)state;
	record_volume_encode(&volume, bytes);
	memset(&back, 0xee, sizeof(back));
	assert_int_equal(record_volume_decode(bytes, &back), 0);
	assert_int_equal(back.id, 7);
	assert_int_equal(back.size_bytes, VOLUME_BYTES_MAX);
	assert_string_equal(back.name, "wal");
	assert_memory_equal(&back.uuid, &volume.uuid, sizeof(back.uuid));
	for (i = 0; i < sizeof(bytes); i++) {
		was = bytes[i]++;
		if (record_volume_decode(bytes, &back) != 0)
			refused++;
		bytes[i] = was;
	}
	/* Reserved bytes, a size beyond the limit, text behind the name's end. */
	assert_int_equal(refused, 6 + 8 + 64 - 3);
	memset(bytes + 16, 0, 16);
	assert_int_equal(record_volume_decode(bytes, &back), SEGMENT_E_RECORD);
}

static void test_volume_uuids(void **state)
{
	(void)state;
	superblock_sample(&sb, 2, 0, 0);
	assert_true(superblock_valid(&sb));
	sb.volumes[1].uuid = sb.volumes[0].uuid;
	assert_false(superblock_valid(&sb));
	memset(&sb.volumes[1].uuid, 0, sizeof(sb.volumes[1].uuid));
	assert_false(superblock_valid(&sb));
}

static void test_choose(void **state)
{
	uint8_t *slots[2] = { file, file + SUPERBLOCK_SLOT_BYTES };
	unsigned chosen, newer;
	size_t torn;

	(void)state;
	memset(file, 0, sizeof(file));
	assert_int_equal(superblock_choose(file, &decoded, &chosen), SUPERBLOCK_E_NONE_VALID);
	superblock_sample(&sb, 1, 1, 1);
	for (newer = 0; newer < 2; newer++) {
		memset(file, 0, sizeof(file));
		sb.generation = 7;
		superblock_encode(&sb, slots[!newer]);
		assert_int_equal(superblock_choose(file, &decoded, &chosen), 0);
		assert_int_equal(chosen, !newer);
		sb.generation = 8;
		superblock_encode(&sb, slots[newer]);
		assert_int_equal(superblock_choose(file, &decoded, &chosen), 0);
		assert_int_equal(chosen, newer);
		assert_int_equal(decoded.generation, 8);
		/* The write of generation 9 over the older slot, cut after any sector. */
		sb.generation = 9;
		superblock_encode(&sb, again);
		for (torn = 512; torn < SUPERBLOCK_SLOT_BYTES; torn += 512) {
			memcpy(slots[!newer], again, torn);
			assert_int_equal(superblock_choose(file, &decoded, &chosen), 0);
			assert_int_equal(decoded.generation, 8);
		}
		memcpy(slots[!newer], again, SUPERBLOCK_SLOT_BYTES);
		assert_int_equal(superblock_choose(file, &decoded, &chosen), 0);
		assert_int_equal(decoded.generation, 9);
		assert_int_equal(chosen, !newer);
	}
}

static void test_choose_refuses(void **state)
{
	struct superblock_le *le = (struct superblock_le *)(void *)(file + SUPERBLOCK_SLOT_BYTES);
	unsigned chosen;

	(void)state;
	superblock_sample(&sb, 1, 1, 1);
	superblock_encode(&sb, file);
	superblock_encode(&sb, file + SUPERBLOCK_SLOT_BYTES);
	assert_int_equal(superblock_choose(file, &decoded, &chosen), 0);
	assert_int_equal(chosen, 0);
	/* Two different ones of one generation. */
	sb.epoch++;
	superblock_encode(&sb, file + SUPERBLOCK_SLOT_BYTES);
	assert_int_equal(superblock_choose(file, &decoded, &chosen), SUPERBLOCK_E_FIELD);
	/* A newer program was here, even if its slot has the lower generation. */
	sb.generation--;
	superblock_encode(&sb, file + SUPERBLOCK_SLOT_BYTES);
	assert_int_equal(superblock_choose(file, &decoded, &chosen), 0);
	le->features_incompat = le64_of(4);
	superblock_mend(file + SUPERBLOCK_SLOT_BYTES);
	assert_int_equal(superblock_choose(file, &decoded, &chosen), SUPERBLOCK_E_VERSION);
	le->features_incompat = le64_of(0);
	le->role = 9;
	superblock_mend(file + SUPERBLOCK_SLOT_BYTES);
	assert_int_equal(superblock_choose(file, &decoded, &chosen), SUPERBLOCK_E_FIELD);
}

static void test_names(void **state)
{
	char name[200];

	(void)state;
	assert_true(group_name_valid("a"));
	assert_true(group_name_valid("_a.b-C9"));
	assert_false(group_name_valid(""));
	assert_false(group_name_valid(".."));
	assert_false(group_name_valid("-a"));
	assert_false(group_name_valid("a/b"));
	assert_false(group_name_valid("a b"));
	assert_false(group_name_valid("a\n"));
	memset(name, 'x', sizeof(name));
	name[63] = '\0';
	assert_true(group_name_valid(name) && volume_name_valid(name));
	name[63] = 'x';
	name[64] = '\0';
	assert_false(group_name_valid(name) || volume_name_valid(name));
	name[64] = 'x';
	name[127] = '\0';
	assert_true(node_name_valid(name));
	name[127] = 'x';
	name[128] = '\0';
	assert_false(node_name_valid(name));
	assert_true(node_name_valid("spiffe://a/b?c"));
	assert_false(node_name_valid(""));
	assert_false(node_name_valid("a b"));
	assert_false(node_name_valid("a\"b"));
	assert_false(node_name_valid("a\\b"));
	assert_false(node_name_valid("a\x7f"));
	assert_false(node_name_valid("\xc3\xa9"));
}

static void test_texts(void **state)
{
	int i;

	(void)state;
	for (i = SUPERBLOCK_E_NONE_VALID; i <= SUPERBLOCK_E_FIELD; i++)
		assert_string_not_equal(superblock_condition_text(i), "unknown condition");
	assert_string_equal(superblock_condition_text(0), "unknown condition");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_bit),
		cmocka_unit_test(test_no_byte_ignored),
		cmocka_unit_test(test_field_limits),
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_openings),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_volume_record),
		cmocka_unit_test(test_volume_uuids),
		cmocka_unit_test(test_choose),
		cmocka_unit_test(test_choose_refuses),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
