/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/link.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/link.pb-c.h"
#include "tests/unit/proto/samples.h"

static uint8_t bytes[FRAME_CONTROL_MAX_BYTES], again[FRAME_CONTROL_MAX_BYTES];
static struct link_hello hello, hello_back;
static struct link_welcome welcome, welcome_back;

static void welcome_sample(uint32_t history)
{
	hello_sample(&hello, 0, history);
	memset(&welcome, 0, sizeof(welcome));
	welcome = (struct link_welcome){
		.protocol = 1,
		.software = "holdfast 0.1.0",
		.node = "holdfast://node/b",
		.epoch = 1000,
		.durable = { .epoch = 7, .seq = 99, .chain = 77, .bytes = 4096 },
		.applied_seq = 98,
		.syncing = true,
		.empty = false,
		.window_bytes = 64 << 20,
		.wall_time_ns = 1700000000000000001ull,
		.seeded = true,
		.diverged = true,
		.common_seq = 99,
		.ranges = 3,
		.kept = true,
		.kept_seq = UINT64_MAX,
		.history_count = history,
	};
	memcpy(welcome.history, hello.history, sizeof(welcome.history));
}

static int hello_pack(void)
{
	int len = link_hello_pack(&hello, bytes, sizeof(bytes));

	assert_true(len > 0);
	return len;
}

/* Structures are zeroed before they are filled, so they compare byte by byte. */
static void test_hello_round_trip(void **state)
{
	static const uint32_t counts[][2] = {
		{ 0, 0 }, { 1, 1 }, { 3, 2 }, { GROUP_VOLUMES_MAX, HISTORY_MAX }
	};
	size_t i;
	int len;

	(void)state;
	for (i = 0; i < array_len(counts); i++) {
		hello_sample(&hello, counts[i][0], counts[i][1]);
		len = hello_pack();
		memset(&hello_back, 0xee, sizeof(hello_back));
		assert_int_equal(link_hello_unpack(bytes, (size_t)len, &hello_back), 0);
		assert_int_equal(link_hello_pack(&hello_back, again, sizeof(again)), len);
		assert_memory_equal(again, bytes, (size_t)len);
		assert_int_equal(link_hello_pack(&hello, again, (size_t)len), len);
		assert_int_equal(link_hello_pack(&hello, again, (size_t)len - 1), -EMSGSIZE);
	}
	assert_int_equal(hello_back.protocol_min, 1);
	assert_int_equal(hello_back.protocol_max, 2);
	assert_int_equal(hello_back.features_required, 5);
	assert_int_equal(hello_back.features_optional, 1ull << 63);
	assert_string_equal(hello_back.software, "holdfast 0.1.0");
	assert_string_equal(hello_back.node, "a.example");
	assert_string_equal(hello_back.group, "orders-db");
	assert_memory_equal(&hello_back.group_uuid, &hello.group_uuid, sizeof(struct uuid));
	assert_int_equal(hello_back.epoch, 1000);
	assert_memory_equal(&hello_back.head, &hello.head, sizeof(hello.head));
	assert_int_equal(hello_back.oldest_seq, 5);
	assert_int_equal(hello_back.wall_time_ns, 1700000000000000001ull);
	assert_int_equal(hello_back.session, 0xdeadbeefcafef00dull);
	assert_int_equal(hello_back.volume_count, GROUP_VOLUMES_MAX);
	assert_string_equal(hello_back.volumes[127].name, "volume-127");
	assert_int_equal(hello_back.volumes[127].id, 382);
	assert_int_equal(hello_back.volumes[127].size_bytes, 128ull << 30);
	assert_memory_equal(hello_back.history, hello.history, sizeof(hello.history));
}

static void test_welcome_round_trip(void **state)
{
	int len;

	(void)state;
	welcome_sample(HISTORY_MAX);
	len = link_welcome_pack(&welcome, bytes, sizeof(bytes));
	assert_true(len > 0);
	assert_int_equal(link_welcome_unpack(bytes, (size_t)len, &welcome_back), 0);
	assert_int_equal(welcome_back.protocol, 1);
	assert_string_equal(welcome_back.software, welcome.software);
	assert_string_equal(welcome_back.node, "holdfast://node/b");
	assert_int_equal(welcome_back.epoch, 1000);
	assert_memory_equal(&welcome_back.durable, &welcome.durable, sizeof(welcome.durable));
	assert_int_equal(welcome_back.applied_seq, 98);
	assert_true(welcome_back.syncing && !welcome_back.empty);
	assert_int_equal(welcome_back.window_bytes, 64 << 20);
	assert_int_equal(welcome_back.wall_time_ns, welcome.wall_time_ns);
	assert_true(welcome_back.seeded && welcome_back.diverged && welcome_back.kept);
	assert_int_equal(welcome_back.common_seq, 99);
	assert_int_equal(welcome_back.ranges, 3);
	assert_int_equal(welcome_back.kept_seq, UINT64_MAX);
	assert_int_equal(welcome_back.history_count, HISTORY_MAX);
	assert_memory_equal(welcome_back.history, welcome.history, sizeof(welcome.history));
	assert_int_equal(link_welcome_pack(&welcome, bytes, (size_t)len - 1), -EMSGSIZE);

	welcome_sample(0);
	welcome.diverged = true;
	welcome.common_seq = welcome.durable.seq;
	welcome.common_chain = UINT64_MAX - 5;
	welcome.ranges = 3;
	len = link_welcome_pack(&welcome, bytes, sizeof(bytes));
	assert_int_equal(link_welcome_unpack(bytes, (size_t)len, &welcome_back), 0);
	assert_true(welcome_back.diverged && welcome_back.common_seq == welcome.durable.seq);
	assert_int_equal(welcome_back.common_chain, UINT64_MAX - 5);
	assert_int_equal(welcome_back.ranges, 3);
	welcome.common_seq++; /* beyond what it holds */
	len = link_welcome_pack(&welcome, bytes, sizeof(bytes));
	assert_int_equal(link_welcome_unpack(bytes, (size_t)len, &welcome_back), LINK_E_VALUE);
	welcome_sample(0);
	welcome.applied_seq = 100; /* beyond what is durable */
	len = link_welcome_pack(&welcome, bytes, sizeof(bytes));
	assert_int_equal(link_welcome_unpack(bytes, (size_t)len, &welcome_back), LINK_E_VALUE);
	welcome_sample(0);
	welcome.common_seq = 100; /* beyond what it has */
	len = link_welcome_pack(&welcome, bytes, sizeof(bytes));
	assert_int_equal(link_welcome_unpack(bytes, (size_t)len, &welcome_back), LINK_E_VALUE);
	/* Without the flags the numbers are not sent. */
	welcome.diverged = welcome.kept = welcome.seeded = false;
	welcome.ranges = 0;
	len = link_welcome_pack(&welcome, bytes, sizeof(bytes));
	assert_int_equal(link_welcome_unpack(bytes, (size_t)len, &welcome_back), 0);
	assert_true(!welcome_back.seeded && !welcome_back.diverged && !welcome_back.kept);
	assert_int_equal(welcome_back.common_seq, 0);
	assert_int_equal(welcome_back.ranges, 0);
	assert_int_equal(welcome_back.kept_seq, 0);
	welcome_sample(0);
	welcome.window_bytes = 0;
	len = link_welcome_pack(&welcome, bytes, sizeof(bytes));
	assert_int_equal(link_welcome_unpack(bytes, (size_t)len, &welcome_back), LINK_E_VALUE);
	assert_int_equal(link_welcome_unpack(bytes, 0, &welcome_back), LINK_E_MISSING);
}

static void test_refuse_and_bye(void **state)
{
	struct link_refuse refuse = { .code = LINK_REFUSE_STALE_EPOCH, .epoch = 9, .node = "b" };
	struct link_refuse refuse_back;
	struct link_bye bye = { .text = "stopping" }, bye_back;
	uint32_t code;
	int len;

	(void)state;
	memset(refuse.text, 'x', LINK_TEXT_MAX);
	len = link_refuse_pack(&refuse, bytes, sizeof(bytes));
	assert_int_equal(link_refuse_unpack(bytes, (size_t)len, &refuse_back), 0);
	assert_int_equal(refuse_back.code, LINK_REFUSE_STALE_EPOCH);
	assert_int_equal(refuse_back.epoch, 9);
	assert_string_equal(refuse_back.node, "b");
	assert_string_equal(refuse_back.text, refuse.text);
	for (code = 0; code <= LINK_REFUSE_MAX; code++)
		assert_true(strlen(link_refuse_text(code)) > 3);
	assert_string_equal(link_refuse_text(LINK_REFUSE_MAX + 1), "error");

	len = link_bye_pack(&bye, bytes, sizeof(bytes));
	assert_int_equal(link_bye_unpack(bytes, (size_t)len, &bye_back), 0);
	assert_string_equal(bye_back.text, "stopping");
	assert_int_equal(link_bye_unpack(bytes, 0, &bye_back), 0);
	assert_string_equal(bye_back.text, "");
}

static void test_start_and_heartbeat(void **state)
{
	struct link_start start = {
		.from_seq = 100, .sync = true, .reset = true, .sync_bytes = 1 << 20, .compare = true
	};
	struct link_start start_back;
	struct link_heartbeat heartbeat = {
		.head = { .epoch = 3, .seq = 10, .bytes = 100 },
		.durable = { .epoch = 3, .seq = 9, .chain = 8, .bytes = 90 },
		.wall_time_ns = 1,
		.behind_ns = 2,
		.sync_left_bytes = 3,
		.mode = LINK_SYNC_LOST,
	};
	struct link_heartbeat heartbeat_back;
	int len;

	(void)state;
	start.base = (struct link_position){ .epoch = 1, .seq = 99, .chain = 5, .bytes = 6 };
	len = link_start_pack(&start, bytes, sizeof(bytes));
	assert_int_equal(link_start_unpack(bytes, (size_t)len, &start_back), 0);
	assert_int_equal(start_back.from_seq, 100);
	assert_true(start_back.sync && start_back.reset && start_back.compare);
	assert_memory_equal(&start_back.base, &start.base, sizeof(start.base));
	assert_int_equal(start_back.sync_bytes, 1 << 20);
	start.base.seq = 98;
	len = link_start_pack(&start, bytes, sizeof(bytes));
	assert_int_equal(link_start_unpack(bytes, (size_t)len, &start_back), LINK_E_VALUE);
	start.reset = start.compare = false;
	len = link_start_pack(&start, bytes, sizeof(bytes));
	assert_int_equal(link_start_unpack(bytes, (size_t)len, &start_back), 0);
	assert_int_equal(start_back.base.seq, 0);
	assert_false(start_back.compare);
	start.from_seq = 0;
	len = link_start_pack(&start, bytes, sizeof(bytes));
	assert_int_equal(link_start_unpack(bytes, (size_t)len, &start_back), LINK_E_VALUE);
	assert_int_equal(link_start_unpack(bytes, 0, &start_back), LINK_E_MISSING);

	len = link_heartbeat_pack(&heartbeat, bytes, sizeof(bytes));
	assert_int_equal(link_heartbeat_unpack(bytes, (size_t)len, &heartbeat_back), 0);
	assert_memory_equal(&heartbeat_back, &heartbeat, sizeof(heartbeat));
	assert_int_equal(link_heartbeat_unpack(bytes, 0, &heartbeat_back), LINK_E_MISSING);
}

/* A mode of a newer program is refused rather than taken for one of ours. */
static void test_modes(void **state)
{
	Holdfast__Link__V1__Heartbeat heartbeat = HOLDFAST__LINK__V1__HEARTBEAT__INIT;
	Holdfast__Link__V1__Position position = HOLDFAST__LINK__V1__POSITION__INIT;
	struct link_heartbeat back;
	uint32_t mode;
	size_t len;

	(void)state;
	heartbeat.head = heartbeat.durable = &position;
	heartbeat.has_mode = true;
	for (mode = 0; mode <= LINK_MODE_MAX + 1; mode++) {
		hello_sample(&hello, 1, 1);
		hello.mode = min_u32(mode, LINK_MODE_MAX);
		assert_int_equal(link_hello_unpack(bytes, (size_t)hello_pack(), &hello_back), 0);
		assert_int_equal(hello_back.mode, hello.mode);
		heartbeat.mode = mode;
		len = holdfast__link__v1__heartbeat__pack(&heartbeat, bytes);
		assert_int_equal(link_heartbeat_unpack(bytes, len, &back),
				 mode <= LINK_MODE_MAX ? 0 : LINK_E_VALUE);
		if (mode <= LINK_MODE_MAX)
			assert_int_equal(back.mode, mode);
	}
	/* The last byte of HELLO is its mode: field 16, a varint. */
	hello.mode = LINK_MODE_MAX;
	len = (size_t)hello_pack();
	assert_int_equal(bytes[len - 1], LINK_MODE_MAX);
	bytes[len - 1]++;
	assert_int_equal(link_hello_unpack(bytes, len, &hello_back), LINK_E_VALUE);
}

static int hello_result(void)
{
	return link_hello_unpack(bytes, (size_t)hello_pack(), &hello_back);
}

#define HELLO_CASE(change, result)                                                                 \
	do {                                                                                       \
		hello_sample(&hello, 3, 3);                                                        \
		change;                                                                            \
		assert_int_equal(hello_result(), result);                                          \
	} while (0)

static void test_hello_limits(void **state)
{
	(void)state;
	HELLO_CASE(hello.protocol_min = 0, LINK_E_VALUE);
	HELLO_CASE(hello.protocol_max = 0, LINK_E_VALUE);
	HELLO_CASE(hello.protocol_min = 3, LINK_E_VALUE);
	HELLO_CASE(hello.epoch = 0, LINK_E_VALUE);
	HELLO_CASE(memset(&hello.group_uuid, 0, sizeof(hello.group_uuid)), LINK_E_VALUE);
	HELLO_CASE(hello.node[0] = '\0', LINK_E_NAME);
	HELLO_CASE(hello.node[0] = '\x1b', LINK_E_NAME);
	HELLO_CASE(hello.group[0] = '.', LINK_E_NAME);
	HELLO_CASE(hello.group[1] = '/', LINK_E_NAME);
	HELLO_CASE(hello.group[0] = '\0', LINK_E_NAME);
	HELLO_CASE(hello.volumes[1].name[0] = '\0', LINK_E_NAME);
	HELLO_CASE(hello.volumes[1].name[0] = '-', LINK_E_NAME);
	HELLO_CASE(hello.volumes[2].name[7] = '1', LINK_E_NAME);
	HELLO_CASE(hello.volumes[2].id = hello.volumes[1].id, LINK_E_NAME);
	HELLO_CASE(hello.volumes[2].uuid = hello.volumes[0].uuid, LINK_E_NAME);
	HELLO_CASE(memset(&hello.volumes[2].uuid, 0, 16), LINK_E_VALUE);
	HELLO_CASE(hello.volumes[2].size_bytes = VOLUME_BYTES_MAX, 0);
	HELLO_CASE(hello.volumes[2].size_bytes = VOLUME_BYTES_MAX + 1, LINK_E_VALUE);
	HELLO_CASE(hello.history[0].epoch = 0, LINK_E_VALUE);
	HELLO_CASE(hello.history[1].epoch = 1, LINK_E_VALUE);
	HELLO_CASE(hello.history[1].first_seq = 0, LINK_E_VALUE);
	HELLO_CASE(hello.history[2].first_seq = 1000, LINK_E_VALUE);
	HELLO_CASE(hello.history[2].first_seq = 1001, 0);
	HELLO_CASE(hello.session = 0, 0);
}

/* Messages that our own packer would not make. */
static int craft(const Holdfast__Link__V1__Hello *message)
{
	size_t len = holdfast__link__v1__hello__pack(message, bytes);

	assert_true(len <= sizeof(bytes));
	return link_hello_unpack(bytes, len, &hello_back);
}

static void test_hello_crafted(void **state)
{
	static Holdfast__Link__V1__HistoryEntry entry = HOLDFAST__LINK__V1__HISTORY_ENTRY__INIT;
	static Holdfast__Link__V1__Volume volume = HOLDFAST__LINK__V1__VOLUME__INIT;
	static Holdfast__Link__V1__HistoryEntry *entries[30000];
	static Holdfast__Link__V1__Volume *volumes[GROUP_VOLUMES_MAX + 1];
	Holdfast__Link__V1__Hello message = HOLDFAST__LINK__V1__HELLO__INIT;
	uint8_t uuid[17] = { 1 };
	char group[] = "group", node[] = "node", name[80];
	size_t i;

	(void)state;
	assert_int_equal(craft(&message), LINK_E_MISSING);
	message.has_protocol_min = message.has_protocol_max = message.has_epoch = true;
	message.protocol_min = message.protocol_max = 1;
	message.epoch = 1;
	assert_int_equal(craft(&message), LINK_E_MISSING);
	message.node = node;
	assert_int_equal(craft(&message), LINK_E_MISSING);
	message.group = group;
	assert_int_equal(craft(&message), LINK_E_MISSING);
	message.has_group_uuid = true;
	for (i = 0; i <= sizeof(uuid); i++) {
		message.group_uuid.data = uuid;
		message.group_uuid.len = i;
		assert_int_equal(craft(&message), i == 16 ? 0 : LINK_E_VALUE);
	}
	message.group_uuid.len = 16;

	for (i = 0; i < array_len(entries); i++)
		entries[i] = &entry;
	message.history = entries;
	message.n_history = 1;
	assert_int_equal(craft(&message), LINK_E_MISSING);
	message.n_history = HISTORY_MAX + 1;
	assert_int_equal(craft(&message), LINK_E_LIMIT);
	message.n_history = array_len(entries); /* more than the arena holds */
	assert_int_equal(craft(&message), LINK_E_LIMIT);
	message.n_history = 0;

	for (i = 0; i < array_len(volumes); i++)
		volumes[i] = &volume;
	message.volumes = volumes;
	message.n_volumes = GROUP_VOLUMES_MAX + 1;
	assert_int_equal(craft(&message), LINK_E_LIMIT);
	message.n_volumes = 1;
	assert_int_equal(craft(&message), LINK_E_MISSING);
	volume.has_id = volume.has_size_bytes = true;
	assert_int_equal(craft(&message), LINK_E_MISSING);
	volume.has_uuid = true;
	volume.uuid = message.group_uuid;
	assert_int_equal(craft(&message), LINK_E_MISSING);
	volume.name = name;
	memset(name, 'n', sizeof(name));
	name[64] = '\0';
	assert_int_equal(craft(&message), LINK_E_LIMIT);
	name[63] = '\0';
	assert_int_equal(craft(&message), 0);
	volume.id = UINT16_MAX + 1;
	assert_int_equal(craft(&message), LINK_E_VALUE);
	volume.id = UINT16_MAX;
	assert_int_equal(craft(&message), 0);
	assert_int_equal(hello_back.volumes[0].id, UINT16_MAX);
	assert_string_equal(hello_back.volumes[0].name, name);
	assert_int_equal(hello_back.head.seq, 0);
	assert_string_equal(hello_back.software, "");
}

static void test_texts_cleaned(void **state)
{
	static char text[2000];
	Holdfast__Link__V1__Refuse message = HOLDFAST__LINK__V1__REFUSE__INIT;
	struct link_refuse refuse;
	size_t len, i;

	(void)state;
	message.text = text;
	for (i = 0; i < 255; i++)
		text[i] = (char)(i + 1);
	len = holdfast__link__v1__refuse__pack(&message, bytes);
	assert_int_equal(link_refuse_unpack(bytes, len, &refuse), 0);
	assert_int_equal(strlen(refuse.text), 255);
	for (i = 0; i < 255; i++)
		assert_int_equal(refuse.text[i], i + 1 >= 0x20 && i + 1 <= 0x7e ? (int)i + 1 : '?');
	memset(text, 'y', sizeof(text) - 1);
	len = holdfast__link__v1__refuse__pack(&message, bytes);
	assert_int_equal(link_refuse_unpack(bytes, len, &refuse), 0);
	assert_int_equal(strlen(refuse.text), LINK_TEXT_MAX);
	/* Codes of a newer program. */
	memcpy(bytes, (const uint8_t[]){ 0x08, 77 }, 2);
	assert_int_equal(link_refuse_unpack(bytes, 2, &refuse), 0);
	assert_int_equal(refuse.code, LINK_REFUSE_ERROR);
	memcpy(bytes, (const uint8_t[]){ 0x08, 0xff, 0xff, 0xff, 0xff, 0x0f }, 6);
	assert_int_equal(link_refuse_unpack(bytes, 6, &refuse), 0);
	assert_int_equal(refuse.code, LINK_REFUSE_ERROR);
}

static void test_unknown_fields(void **state)
{
	/* Field 100: a varint; field 101: two bytes; field 102: fixed32. */
	static const uint8_t newer[] = { 0xa0, 0x06, 0x05, 0xaa, 0x06, 0x02, 0x01,
					 0x02, 0xb5, 0x06, 1,	 2,    3,    4 };
	int len;

	(void)state;
	hello_sample(&hello, 2, 2);
	len = hello_pack();
	memcpy(bytes + len, newer, sizeof(newer));
	assert_int_equal(link_hello_unpack(bytes, (size_t)len + sizeof(newer), &hello_back), 0);
	assert_int_equal(link_hello_pack(&hello_back, again, sizeof(again)), len);
	assert_memory_equal(again, bytes, (size_t)len);
}

/* Whatever comes: an answer, and what is accepted packs again. */
static void hello_try(size_t len)
{
	if (link_hello_unpack(bytes, len, &hello_back) == 0)
		assert_true(link_hello_pack(&hello_back, again, sizeof(again)) > 0);
}

static void test_damaged(void **state)
{
	static const uint8_t garbage[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	struct prng prng;
	size_t len, i, bit;

	(void)state;
	hello_sample(&hello, 2, 2);
	len = (size_t)hello_pack();
	for (bit = 0; bit < len * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		hello_try(len);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (i = 0; i < len; i++)
		hello_try(i);
	memcpy(bytes, garbage, sizeof(garbage));
	assert_int_equal(link_hello_unpack(bytes, sizeof(garbage), &hello_back), LINK_E_SYNTAX);
	assert_int_equal(link_hello_unpack(bytes, FRAME_CONTROL_MAX_BYTES + 1, &hello_back),
			 LINK_E_LIMIT);
	prng_seed(&prng, 5);
	for (i = 0; i < 2000; i++) {
		len = prng_below(&prng, 200);
		prng_fill(&prng, bytes, len);
		hello_try(len);
	}
}

static void test_texts(void **state)
{
	int i;

	(void)state;
	for (i = LINK_E_SYNTAX; i <= LINK_E_VALUE; i++)
		assert_string_not_equal(link_condition_text(i), "unknown condition");
	assert_string_equal(link_condition_text(0), "unknown condition");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello_round_trip),
		cmocka_unit_test(test_welcome_round_trip),
		cmocka_unit_test(test_refuse_and_bye),
		cmocka_unit_test(test_start_and_heartbeat),
		cmocka_unit_test(test_hello_limits),
		cmocka_unit_test(test_hello_crafted),
		cmocka_unit_test(test_texts_cleaned),
		cmocka_unit_test(test_unknown_fields),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_modes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
