/* SPDX-License-Identifier: Apache-2.0 */
/* The write set against a plain array: newest version of each byte, whatever is removed when. */
#include "core/group/volume.h"
#include "core/group/writeset.h"
#include "tests/sim/sim.h"
#include "tests/unit/unit.h"

#define VOLUMES	     3u
#define VOLUME_BYTES 65536u
#define SEGMENTS     24u
#define RECORDS	     20u

struct fixture {
	struct sim_world *world;
	struct io *io;
	struct writeset ws;
	struct segment segments[SEGMENTS];
	uint8_t data[SEGMENTS][RECORDS * 4096];
	uint8_t table[SEGMENTS][RECORDS * RECORD_BYTES];
	/* which segment's version each byte is, 0 = none; and what it is */
	unsigned owner[VOLUMES][VOLUME_BYTES];
	uint8_t byte[VOLUMES][VOLUME_BYTES];
};

static void run(void (*body)(struct fixture *f))
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sim_options options;

	assert_non_null(f);
	sim_options_calm(&options);
	f->world = sim_new(1, &options);
	f->io = sim_node_io(sim_node_new(f->world, "node"));
	assert_int_equal(writeset_init(&f->ws, f->io, SEGMENTS * RECORDS), 0);
	body(f);
	extmap_check(&f->ws.map);
	writeset_deinit(&f->ws);
	sim_free(f->world);
	free(f);
}

static void add(struct fixture *f, unsigned index, enum record_type type, unsigned volume,
		uint64_t off, uint32_t len)
{
	struct segment *segment = &f->segments[index];
	struct segment_header *header = &segment->header;
	bool mark = type == RECORD_MARK;
	struct record record = { .type = (uint8_t)type,
				 .volume = (uint16_t)(mark ? 0 : volume),
				 .offset_bytes = mark ? 0 : off,
				 .length_bytes = mark ? 8 : len };

	segment->data = f->data[index];
	segment->table = f->table[index];
	if (record_has_data(&record)) {
		record.data_off = header->data_raw_bytes;
		header->data_raw_bytes += record.length_bytes;
		for (uint32_t i = 0; i < record.length_bytes; i++)
			segment->data[record.data_off + i] = (uint8_t)sim_random(f->world);
	}
	header->data_off = SEGMENT_HEAD_MAX_BYTES;
	record_encode(&record, segment->table + header->records * RECORD_BYTES);
	header->records++;
	assert_true(writeset_has_room(&f->ws, 1));
	writeset_insert(&f->ws, segment, &record);
	for (uint32_t i = 0; !mark && i < len; i++) {
		f->owner[volume][off + i] = index + 1;
		f->byte[volume][off + i] =
			type == RECORD_WRITE ? segment->data[record.data_off + i] : 0;
	}
}

static void take_out(struct fixture *f, unsigned index)
{
	writeset_remove(&f->ws, &f->segments[index]);
	memset(&f->segments[index].header, 0, sizeof(f->segments[index].header));
	for (unsigned v = 0; v < VOLUMES; v++)
		for (unsigned i = 0; i < VOLUME_BYTES; i++)
			if (f->owner[v][i] == index + 1)
				f->owner[v][i] = 0;
}

/* Overlay, cover and runs of one range are what the array says. */
static void check(struct fixture *f, unsigned volume, uint64_t off, uint64_t len)
{
	static uint8_t buf[VOLUME_BYTES];
	uint64_t covered = 0, run;
	enum writeset_cover cover = writeset_covers(&f->ws, volume, off, len);

	memset(buf, 0xa5, sizeof(buf));
	writeset_overlay(&f->ws, volume, off, len, buf);
	for (uint64_t i = 0; i < len; i++) {
		bool owned = f->owner[volume][off + i] != 0;

		covered += owned;
		assert_int_equal(buf[i], owned ? f->byte[volume][off + i] : 0xa5);
	}
	assert_int_equal(buf[len], 0xa5);
	assert_int_equal(cover, covered == len ? WRITESET_ALL
				: covered      ? WRITESET_SOME
					       : WRITESET_NONE);
	for (uint64_t at = 0; at < len; at += run) {
		enum writeset_run kind = writeset_run_at(&f->ws, volume, off + at, len - at, &run);

		assert_true(run > 0 && run <= len - at);
		for (uint64_t i = 0; i < run; i++) {
			bool owned = f->owner[volume][off + at + i] != 0;

			assert_int_equal(owned, kind != WRITESET_GAP);
			if (kind == WRITESET_ZERO)
				assert_int_equal(f->byte[volume][off + at + i], 0);
		}
	}
}

static void random_model(struct fixture *f)
{
	unsigned first = 0, next = 0; /* segments that are in, modulo SEGMENTS */

	for (unsigned round = 0; round < 3000; round++) {
		uint64_t dice = sim_between(f->world, 0, 9);
		unsigned volume = (unsigned)sim_between(f->world, 0, VOLUMES - 1);
		uint64_t off = sim_between(f->world, 0, VOLUME_BYTES / 512 - 9) * 512;
		uint32_t len = (uint32_t)sim_between(f->world, 1, 8) * 512;
		unsigned index = next % SEGMENTS;

		if (f->segments[index].header.records == RECORDS && next - first < SEGMENTS - 1)
			index = ++next % SEGMENTS;
		if (f->segments[index].header.records < RECORDS)
			add(f, index,
			    dice < 6   ? RECORD_WRITE
			    : dice < 8 ? RECORD_DISCARD
			    : dice < 9 ? RECORD_WRITE_ZEROES
				       : RECORD_MARK,
			    volume, off, len);
		if (next - first > 8 && dice < 2)
			take_out(f, first++ % SEGMENTS);
		if (next - first >= SEGMENTS - 2)
			take_out(f, first++ % SEGMENTS);
		off = sim_between(f->world, 0, VOLUME_BYTES - 20000);
		check(f, volume, off, sim_between(f->world, 1, 19999));
	}
	assert_true(first > SEGMENTS); /* places were used again */
	while (first <= next)
		take_out(f, first++ % SEGMENTS);
	assert_int_equal(f->ws.map.count, 0);
}

UNIT(test_random_model)
{
	run(random_model);
}

/* A segment that is removed takes only what no newer one has. */
static void removal(struct fixture *f)
{
	uint8_t buf[1536];
	uint64_t len;

	add(f, 0, RECORD_WRITE, 1, 0, 4096);
	add(f, 1, RECORD_WRITE, 1, 512, 512);
	add(f, 2, RECORD_DISCARD, 1, 2048, 512);
	take_out(f, 0);
	assert_int_equal(f->ws.map.count, 2);
	assert_int_equal(writeset_covers(&f->ws, 1, 512, 512), WRITESET_ALL);
	assert_int_equal(writeset_covers(&f->ws, 1, 0, 512), WRITESET_NONE);
	assert_int_equal(writeset_covers(&f->ws, 1, 0, 4096), WRITESET_SOME);
	assert_int_equal(writeset_covers(&f->ws, 0, 0, 4096), WRITESET_NONE);
	assert_int_equal(writeset_run_at(&f->ws, 1, 2048, 4096, &len), WRITESET_ZERO);
	assert_int_equal(len, 512);
	memset(buf, 1, sizeof(buf));
	writeset_overlay(&f->ws, 1, 0, sizeof(buf), buf);
	assert_memory_equal(buf + 512, f->data[1], 512);
	assert_int_equal(buf[511], 1);
	assert_int_equal(buf[1024], 1);
	/* Again: nothing of it is there any more. */
	take_out(f, 1);
	take_out(f, 2);
	assert_int_equal(f->ws.map.count, 0);
}

UNIT(test_removal)
{
	run(removal);
}

/* has_room() is a promise: also when each insert cuts one extent into two. */
static void room(struct fixture *f)
{
	unsigned count = 0;

	add(f, 0, RECORD_WRITE_ZEROES, 0, 0, VOLUME_BYTES);
	while (writeset_has_room(&f->ws, 1) && count < VOLUME_BYTES / 1024) {
		struct record record = { .type = RECORD_DISCARD,
					 .offset_bytes = (uint64_t)count++ * 1024 + 512,
					 .length_bytes = 512 };

		writeset_insert(&f->ws, &f->segments[1], &record);
	}
	assert_int_equal(f->ws.map.count, 2 * count + (count < VOLUME_BYTES / 1024));
	assert_true(count == VOLUME_BYTES / 1024);
}

UNIT(test_room)
{
	run(room);
}

/* The last byte of the last volume that can be, and the first one of the next: not neighbours. */
static void edges(struct fixture *f)
{
	struct record record = { .type = RECORD_DISCARD,
				 .volume = 6,
				 .offset_bytes = VOLUME_KEY_BYTES_MAX - 4096,
				 .length_bytes = 4096 };

	writeset_insert(&f->ws, &f->segments[0], &record);
	assert_int_equal(writeset_covers(&f->ws, 6, record.offset_bytes, 4096), WRITESET_ALL);
	assert_int_equal(writeset_covers(&f->ws, 7, 0, 4096), WRITESET_NONE);
	assert_int_equal(writeset_covers(&f->ws, 5, record.offset_bytes, 4096), WRITESET_NONE);
}

UNIT(test_edges)
{
	run(edges);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_model),
		cmocka_unit_test(test_removal),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
