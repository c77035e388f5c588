/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/decoder/hfdecode.py reads journals as docs/formats.md says: rings that have gone round,
 * slots that were given up after a failed write, damage. Replayed onto volumes it gives the bytes
 * that a plain array of the records gives.
 */
#include "tests/unit/proto/decoder.h"
#include "tests/unit/proto/samples.h"

#define SLOTS	     5u
#define SLOT_BYTES   (72u << 10)
#define VOLUMES	     4u
#define VOLUME_BYTES (1200u << 10) /* the samples' ranges end before */
#define PLACED_MAX   200u

/* A segment of the history, and where it lies. */
struct placed {
	struct segment_header header;
	uint32_t slot, off;
	bool live; /* not overwritten */
	uint8_t *stored;
};

static struct sample sample;
static uint8_t slots[SLOTS][SLOT_BYTES];
static struct placed history[PLACED_MAX];
static uint32_t history_count, head_slot, head_off;
static uint64_t head_seq, head_chain;
static uint8_t images[VOLUMES][VOLUME_BYTES], replayed[VOLUME_BYTES];

/* ---- making a journal -------------------------------------------------------------------------
 */

static void next_slot(void)
{
	uint32_t i;

	head_slot = (head_slot + 1) % SLOTS;
	head_off = 0;
	for (i = 0; i < history_count; i++) {
		if (history[i].slot == head_slot)
			history[i].live = false;
	}
}

/* A random segment that would continue the history at `seq`, in sample.stored. */
static void seal(struct prng *prng, uint64_t seq, uint64_t chain)
{
	sample_random(&sample, prng, seq, chain, 12, 9000);
	sample.header.durable_seq = head_seq - 1;
	segment_seal(&sample.header, sample.table, sample_data(&sample), sample.stored);
}

static void put(const uint8_t *stored, uint32_t total_bytes)
{
	memcpy(slots[head_slot] + head_off, stored, total_bytes);
	head_off += total_bytes;
}

static void append(struct prng *prng)
{
	struct placed *placed = &history[history_count];

	must(history_count < PLACED_MAX);
	seal(prng, head_seq, head_chain);
	if (head_off + sample.header.total_bytes > SLOT_BYTES)
		next_slot();
	*placed = (struct placed){ .header = sample.header,
				   .slot = head_slot,
				   .off = head_off,
				   .live = true,
				   .stored = malloc(sample.header.total_bytes) };
	must(placed->stored != NULL);
	memcpy(placed->stored, sample.stored, sample.header.total_bytes);
	history_count++;
	put(sample.stored, sample.header.total_bytes);
	head_seq = segment_last_seq(&sample.header) + 1;
	head_chain = segment_chain(sample.stored);
}

/* A write failed: the last one to three segments are written again to a later slot. */
static void write_again(struct prng *prng)
{
	uint32_t wanted = (uint32_t)prng_between(prng, 1, 3), first = history_count;
	uint32_t before = (head_slot + SLOTS - 1) % SLOTS, slot = head_slot;

	while (wanted-- > 0 && first > 0 && history[first - 1].live &&
	       (history[first - 1].slot == slot || history[first - 1].slot == before))
		first--;
	next_slot();
	for (; first < history_count; first++) {
		history[first].slot = head_slot;
		history[first].off = head_off;
		history[first].live = true;
		put(history[first].stored, history[first].header.total_bytes);
	}
}

/* A crash tore the first of some segments that were under way; what is left of the others lies
 * behind what is written after it. */
static void write_torn(struct prng *prng)
{
	uint64_t seq = head_seq, chain = head_chain;
	uint32_t left = (uint32_t)prng_between(prng, 1, 4), off = head_off,
		 torn_at = head_off + 200;

	while (left-- > 0) {
		seal(prng, seq, chain);
		if (head_off + sample.header.total_bytes > SLOT_BYTES)
			break;
		put(sample.stored, sample.header.total_bytes);
		seq = segment_last_seq(&sample.header) + 1;
		chain = segment_chain(sample.stored);
	}
	if (head_off > off)
		slots[head_slot][torn_at] ^= 0x55;
	head_off = off;
}

static void make_journal(struct prng *prng, uint32_t segments)
{
	while (history_count > 0)
		free(history[--history_count].stored);
	memset(slots, 0, sizeof(slots));
	head_slot = head_off = 0;
	head_seq = 1;
	sample_begin(&sample, 1, 0);
	head_chain = segment_chain_root(&sample.header.group);
	while (history_count < segments) {
		append(prng);
		if (prng_chance(prng, 1, 15))
			write_again(prng);
		else if (prng_chance(prng, 1, 10))
			write_torn(prng);
	}
}

/* ---- the model --------------------------------------------------------------------------------
 */

static void apply(const struct placed *placed, uint64_t last_seq)
{
	static uint8_t data[SEGMENT_DATA_MAX_BYTES];
	struct record record;
	uint32_t i;

	assert_int_equal(segment_unpack(placed->stored, &placed->header, data), 0);
	for (i = 0; i < placed->header.records; i++) {
		if (placed->header.first_seq + i > last_seq)
			return;
		assert_int_equal(
			record_decode(placed->stored + SEGMENT_HEADER_BYTES + i * RECORD_BYTES,
				      &placed->header, &record),
			0);
		if (record.type == RECORD_WRITE)
			memcpy(images[record.volume] + record.offset_bytes, data + record.data_off,
			       record.length_bytes);
		else if (record_has_range(&record))
			memset(images[record.volume] + record.offset_bytes, 0, record.length_bytes);
	}
}

static void images_at(uint64_t last_seq)
{
	uint32_t i;

	memset(images, 0, sizeof(images));
	for (i = 0; i < history_count; i++)
		apply(&history[i], last_seq);
}

static void write_images(void)
{
	char name[32];
	uint32_t i;

	for (i = 0; i < VOLUMES; i++) {
		snprintf(name, sizeof(name), "volume.%u", i);
		write_file(name, images[i], VOLUME_BYTES);
	}
}

static void compare_images(void)
{
	char name[32];
	uint32_t i;

	for (i = 0; i < VOLUMES; i++) {
		snprintf(name, sizeof(name), "volume.%u", i);
		assert_int_equal(read_file(name, replayed, sizeof(replayed)), VOLUME_BYTES);
		assert_memory_equal(replayed, images[i], VOLUME_BYTES);
	}
}

/* ---- the group directory ----------------------------------------------------------------------
 */

static void write_slots(void)
{
	char name[32];
	uint32_t i;

	for (i = 0; i < SLOTS; i++) {
		snprintf(name, sizeof(name), "journal/%08u", i);
		write_file(name, slots[i], SLOT_BYTES);
	}
}

/* Everything before history[index] is applied. */
static void write_superblock(uint32_t index, uint64_t durable_seq)
{
	static struct superblock sb;
	static uint8_t file[SUPERBLOCK_FILE_BYTES];

	superblock_sample(&sb, 0, 0, 0);
	sb.slots = SLOTS;
	sb.slot_bytes = SLOT_BYTES;
	sb.role = GROUP_PRIMARY;
	sb.epoch = 3; /* of the samples */
	sb.durable_seq = durable_seq;
	if (index == history_count) {
		sb.applied_slot = head_slot;
		sb.applied_off = head_off;
		sb.applied_seq = head_seq - 1;
		sb.applied_chain = head_chain;
	} else {
		sb.applied_slot = history[index].slot;
		sb.applied_off = history[index].off;
		sb.applied_seq = history[index].header.first_seq - 1;
		sb.applied_chain = history[index].header.chain;
	}
	/* Right behind the one before means the same place. */
	if (index > 0 && index < history_count && history[index].off == 0 &&
	    history[index - 1].live) {
		sb.applied_slot = history[index - 1].slot;
		sb.applied_off = history[index - 1].off + history[index - 1].header.total_bytes;
	}
	memset(file, 0, sizeof(file));
	superblock_encode(&sb, file + SUPERBLOCK_SLOT_BYTES);
	write_file("superblock", file, sizeof(file));
}

static uint32_t first_live(void)
{
	uint32_t i = history_count;

	while (i > 0 && history[i - 1].live)
		i--;
	return i;
}

#define VOLUME_ARGS                                                                                \
	"--volume 0=volume.0 --volume 1=volume.1 --volume 2=volume.2 --volume 3=volume.3"

static void test_replay(void **state)
{
	char args[256], end[256];
	struct prng prng;
	unsigned round;

	(void)state;
	prng_seed(&prng, 21);
	for (round = 0; round < 7; round++) {
		uint64_t start_seq, to_seq;
		uint32_t index;

		make_journal(&prng, (uint32_t)prng_between(&prng, 1, round < 5 ? 20 : 80));
		index = (uint32_t)prng_between(&prng, first_live(), history_count);
		start_seq = index == history_count ? head_seq : history[index].header.first_seq;
		write_slots();
		write_superblock(index, round % 2 == 0 ? head_seq - 1 : 0);
		decoder_well("journal .");
		snprintf(end, sizeof(end),
			 "{\"end\":{\"slot\":%u,\"offset\":%u,\"seq\":%ju,\"chain\":%ju}}\n",
			 head_slot, head_off, (uintmax_t)head_seq, (uintmax_t)head_chain);
		assert_non_null(strstr(output, end));

		to_seq = prng_between(&prng, start_seq - 1, head_seq - 1);
		images_at(start_seq - 1);
		write_images();
		snprintf(args, sizeof(args), "replay . --to %ju " VOLUME_ARGS, (uintmax_t)to_seq);
		decoder_well(args);
		images_at(to_seq);
		compare_images();
		decoder_well("replay . " VOLUME_ARGS);
		images_at(UINT64_MAX);
		compare_images();
		/* Again, and from as far back as it goes: replay is idempotent. */
		decoder_well("replay . --from oldest " VOLUME_ARGS);
		compare_images();
	}
}

/* From the very first record, before anything was overwritten. */
static void test_replay_oldest(void **state)
{
	struct prng prng;

	(void)state;
	prng_seed(&prng, 22);
	do
		make_journal(&prng, 15);
	while (first_live() != 0);
	write_slots();
	write_superblock(history_count, head_seq - 1);
	memset(images, 0, sizeof(images));
	write_images();
	decoder_well("replay . --from oldest " VOLUME_ARGS);
	images_at(UINT64_MAX);
	compare_images();
}

/* A torn tail is cut, a damaged middle is named. */
static void test_damage(void **state)
{
	struct prng prng;
	unsigned round, named = 0;
	char errors[1024];

	(void)state;
	prng_seed(&prng, 23);
	for (round = 0; round < 5; round++) {
		const struct placed *last;
		uint32_t first, index;

		make_journal(&prng, 40);
		append(&prng); /* so that the last one lies in one place only */
		first = first_live();
		last = &history[history_count - 1];
		/* The last one, torn in its first block. */
		slots[last->slot][last->off + 130] ^= 1;
		write_slots();
		write_superblock(first, last->header.first_seq - 1);
		decoder_well("journal .");
		/* It had been durable. */
		write_superblock(first, last->header.first_seq);
		assert_int_equal(decoder("journal ."), 1);
		slots[last->slot][last->off + 130] ^= 1;

		index = (uint32_t)prng_between(&prng, first, history_count - 2);
		slots[history[index].slot][history[index].off + prng_below(&prng, 160)] ^= 0x10;
		write_slots();
		write_superblock(first, head_seq - 1);
		assert_int_equal(decoder("journal ."), 1);
		memset(errors, 0, sizeof(errors));
		read_file("errors", errors, sizeof(errors) - 1);
		assert_non_null(strstr(errors, "damage: the journal ends before seq "));
		/* Without the superblock's word it takes a later segment that knows. */
		write_superblock(first, 0);
		named += decoder("journal .") == 1;
	}
	assert_true(named >= 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replay),
		cmocka_unit_test(test_replay_oldest),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
