/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/dirty.h"

#include "core/base/crc32c.h"
#include "core/base/endian.h"
#include "core/base/err.h"
#include "core/base/prng.h"
#include "core/base/units.h"
#include "tests/unit/core/group/waiting.h"

#define FILE_PATH    "/state/db/dirty.b"
#define HEADER_BYTES 8192u
#define PAGE_BYTES   4096u
#define CHUNK_BYTES  DIRTY_CHUNK_MIN_BYTES
/* Volume 0 covers two pages and a bit, its last chunk is short; volume 9 is a single short chunk.
 */
#define BIG_CHUNKS  70000u
#define BIG_BYTES   ((uint64_t)BIG_CHUNKS * CHUNK_BYTES - 4096)
#define SMALL_ID    9u
#define SMALL_BYTES 8192u
#define PAGE_CHUNKS 32704u
#define PAGES	    4u

static struct superblock sb;
static struct dirty_map *map;
static struct waiting wait;

static void set_up(struct waiting_world *w)
{
	memset(&sb, 0, sizeof(sb));
	memset(sb.group.bytes, 0x5a, UUID_BYTES);
	sb.volume_count = 2;
	sb.volumes[0] = (struct superblock_volume){ .size_bytes = BIG_BYTES, .name = "big" };
	sb.volumes[1] = (struct superblock_volume){ .id = SMALL_ID,
						    .size_bytes = SMALL_BYTES,
						    .name = "small" };
	sb.volumes[1].uuid.bytes[0] = 1;
	sim_file_make(w->node, "/state/db/lock", 0, false, false);
	sim_check(w->world, dirty_new(w->io, FILE_PATH, &sb, &map) == 0);
}

static void renew(struct waiting_world *w)
{
	map = dirty_free(map);
	sim_check(w->world, dirty_new(w->io, FILE_PATH, &sb, &map) == 0);
}

static int64_t run_op(struct waiting_world *w, void (*fn)(struct dirty_map *map, struct io_op *op))
{
	fn(map, waiting_op(&wait));
	sim_check(w->world, !wait.done && dirty_busy(map));
	waiting_for(w->world, &wait);
	sim_check(w->world, !dirty_busy(map));
	return wait.res;
}

/* Every chunk of volume 0 that is dirty, as bytes of an array; the number of bytes in all runs. */
static uint64_t read_map(struct waiting_world *w, uint8_t chunks[BIG_CHUNKS], uint64_t max)
{
	uint64_t off = 0, run_off, run_len, total_bytes = 0;

	memset(chunks, 0, BIG_CHUNKS);
	while (dirty_next(map, 0, off, max, &run_off, &run_len)) {
		sim_check(w->world, run_off >= off && run_len > 0 && run_len <= max);
		sim_check(w->world, run_off + run_len <= BIG_BYTES);
		memset(chunks + run_off / CHUNK_BYTES, 1,
		       (run_off % CHUNK_BYTES + run_len + CHUNK_BYTES - 1) / CHUNK_BYTES);
		total_bytes += run_len;
		off = run_off + run_len;
	}
	return total_bytes;
}

static void run(void (*body)(struct sim_world *world, void *context))
{
	struct waiting_world w;

	waiting_calm(1, body, &w, NULL);
}

/* ---- bits --------------------------------------------------------------------------------- */

static void body_ranges(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t off, len;

	set_up(w);
	sim_check(world, dirty_bytes(map) == 0 && dirty_chunk_bytes(map, 0) == CHUNK_BYTES);
	sim_check(world, !dirty_next(map, 0, 0, UINT64_MAX, &off, &len));
	dirty_set(map, 0, 5, 0);
	sim_check(world, dirty_bytes(map) == 0);
	/* A byte dirties its chunk, two bytes across a border two. */
	dirty_set(map, 0, 3 * CHUNK_BYTES - 1, 2);
	sim_check(world, dirty_bytes(map) == 2 * CHUNK_BYTES);
	sim_check(world, dirty_next(map, 0, 0, UINT64_MAX, &off, &len));
	sim_check(world, off == 2 * CHUNK_BYTES && len == 2 * CHUNK_BYTES);
	/* In pieces, from inside. */
	sim_check(world, dirty_next(map, 0, 2 * CHUNK_BYTES + 100, CHUNK_BYTES, &off, &len));
	sim_check(world, off == 2 * CHUNK_BYTES + 100 && len == CHUNK_BYTES);
	sim_check(world, dirty_next(map, 0, 4 * CHUNK_BYTES - 1, 4096, &off, &len));
	sim_check(world, off == 4 * CHUNK_BYTES - 1 && len == 1);
	sim_check(world, !dirty_next(map, 0, 4 * CHUNK_BYTES, 4096, &off, &len));
	/* Only whole chunks are cleared. */
	dirty_clear(map, 0, 2 * CHUNK_BYTES + 1, 2 * CHUNK_BYTES - 1);
	sim_check(world, dirty_next(map, 0, 0, UINT64_MAX, &off, &len));
	sim_check(world, off == 2 * CHUNK_BYTES && len == CHUNK_BYTES);
	dirty_clear(map, 0, 2 * CHUNK_BYTES, CHUNK_BYTES - 1);
	sim_check(world, dirty_bytes(map) == CHUNK_BYTES);
	dirty_clear(map, 0, 0, BIG_BYTES);
	sim_check(world, dirty_bytes(map) == 0);
	/* The last chunk ends with the volume. */
	dirty_set(map, 0, BIG_BYTES - 1, 1);
	sim_check(world, dirty_next(map, 0, 0, UINT64_MAX, &off, &len));
	sim_check(world, off == (uint64_t)(BIG_CHUNKS - 1) * CHUNK_BYTES &&
				 off + len == BIG_BYTES && dirty_bytes(map) == len);
	sim_check(world, !dirty_next(map, 0, BIG_BYTES, UINT64_MAX, &off, &len));
	dirty_clear(map, 0, off, len);
	dirty_set(map, SMALL_ID, 0, 1);
	sim_check(world, dirty_bytes(map) == SMALL_BYTES);
	sim_check(world, !dirty_next(map, 0, 0, UINT64_MAX, &off, &len));
	sim_check(world, dirty_next(map, SMALL_ID, 4096, UINT64_MAX, &off, &len));
	sim_check(world, off == 4096 && len == 4096);
	dirty_set_all(map);
	sim_check(world, dirty_bytes(map) == BIG_BYTES + SMALL_BYTES);
	map = dirty_free(map);
	sim_check(world, dirty_free(NULL) == NULL);
	sim_check(world, sim_node_alloc_bytes(w->node) == 0);
}

/* 16 TiB and beyond: chunks grow, memory does not. */
static void body_large(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t off, len;
	static char longer[GROUP_PATH_MAX + 1];
	unsigned nth;

	memset(&sb, 0, sizeof(sb));
	sb.volume_count = 1;
	sb.volumes[0].size_bytes = 16 * TIB;
	for (nth = 1; nth <= 5; nth++) {
		sim_node_fail_alloc(w->node, nth);
		sim_check(world, dirty_new(w->io, FILE_PATH, &sb, &map) == -ENOMEM);
		sim_check(world, sim_node_alloc_bytes(w->node) == 0);
	}
	sim_check(world, dirty_new(w->io, FILE_PATH, &sb, &map) == 0);
	sim_check(world, dirty_chunk_bytes(map, 0) == 512 * KIB);
	sim_check(world, sim_node_alloc_bytes(w->node) < 5 * MIB);
	dirty_set(map, 0, 16 * TIB - 1, 1);
	sim_check(world, dirty_next(map, 0, 1, UINT64_MAX, &off, &len));
	sim_check(world, off == 16 * TIB - 512 * KIB && len == 512 * KIB);
	map = dirty_free(map);
	sb.volumes[0].size_bytes = 2 * TIB + 4096;
	sim_check(world, dirty_new(w->io, FILE_PATH, &sb, &map) == 0);
	sim_check(world, dirty_chunk_bytes(map, 0) == 128 * KIB);
	map = dirty_free(map);
	memset(longer, 'x', GROUP_PATH_MAX);
	sim_check(world, dirty_new(w->io, longer, &sb, &map) == -ENAMETOOLONG);
	sb.volume_count = 0;
	sim_check(world, dirty_new(w->io, FILE_PATH, &sb, &map) == 0);
	sim_file_make(w->node, "/state/db/lock", 0, false, false);
	sim_check(world, run_op(w, dirty_create) == 0 && run_op(w, dirty_load) == 0);
	sim_check(world, dirty_bytes(map) == 0);
	map = dirty_free(map);
}

UNIT(test_bits)
{
	run(body_ranges);
	run(body_large);
}

/* ---- the file ----------------------------------------------------------------------------- */

static void body_file(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	static uint8_t expect[BIG_CHUNKS], got[BIG_CHUNKS];
	struct prng prng;
	uint64_t bytes, ops;
	unsigned i;

	set_up(w);
	sim_check(world, run_op(w, dirty_load) == -ENOENT && dirty_bytes(map) == 0);
	sim_check(world, dirty_remove(map) == 0);
	prng_seed(&prng, 5);
	for (i = 0; i < 3000; i++)
		dirty_set(map, 0, prng_below(&prng, BIG_BYTES - 300000), 1 + i * 100);
	dirty_set(map, SMALL_ID, 0, 1);
	read_map(w, expect, UINT64_MAX);
	bytes = dirty_bytes(map);
	sim_check(world, run_op(w, dirty_create) == 0);
	sim_check(world, sim_file_size(w->node, FILE_PATH) == HEADER_BYTES + PAGES * PAGE_BYTES);
	sim_node_crash(w->node, SIM_POWER);
	sim_node_restart(w->node);
	sim_check(world, dirty_new(w->io, FILE_PATH, &sb, &map) == 0);
	/* What is in memory makes way. */
	dirty_set_all(map);
	sim_check(world, run_op(w, dirty_load) == 0);
	sim_check(world, dirty_bytes(map) == bytes);
	sim_check(world, read_map(w, got, 100000) == bytes - SMALL_BYTES);
	sim_check(world, memcmp(expect, got, sizeof(got)) == 0);
	/* Nothing changed: a flush alone. One page changed: a write and a flush. */
	ops = sim_disk_ops(world);
	sim_check(world, run_op(w, dirty_save) == 0 && sim_disk_ops(world) == ops + 1);
	dirty_clear(map, 0, 0, BIG_BYTES);
	dirty_clear(map, SMALL_ID, 0, SMALL_BYTES);
	sim_check(world, run_op(w, dirty_save) == 0);
	dirty_set(map, 0, (uint64_t)PAGE_CHUNKS * CHUNK_BYTES, 1);
	ops = sim_disk_ops(world);
	sim_check(world, run_op(w, dirty_save) == 0 && sim_disk_ops(world) == ops + 2);
	dirty_set(map, 0, (uint64_t)PAGE_CHUNKS * CHUNK_BYTES, 1);
	ops = sim_disk_ops(world);
	sim_check(world, run_op(w, dirty_save) == 0 && sim_disk_ops(world) == ops + 1);
	renew(w);
	sim_check(world, run_op(w, dirty_load) == 0 && dirty_bytes(map) == CHUNK_BYTES);
	sim_check(world, dirty_remove(map) == 0 && dirty_remove(map) == 0);
	sim_check(world, sim_file_size(w->node, FILE_PATH) == -ENOENT);
	map = dirty_free(map);
	sim_check(world, sim_node_alloc_bytes(w->node) == 0);
}

static void check_all_dirty(struct waiting_world *w)
{
	sim_check(w->world, run_op(w, dirty_load) == 1);
	sim_check(w->world, dirty_bytes(map) == BIG_BYTES + SMALL_BYTES);
	renew(w);
}

static void body_damage(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	static uint8_t old[PAGE_BYTES], chunks[BIG_CHUNKS];
	unsigned i;

	set_up(w);
	dirty_set(map, 0, 0, 1);
	sim_check(world, run_op(w, dirty_create) == 0);
	/* A page of an earlier file, in its place with its number right, is not taken for a new
	 * one. */
	sim_file_peek(w->node, FILE_PATH, HEADER_BYTES + PAGE_BYTES, old, PAGE_BYTES);
	sim_check(world, run_op(w, dirty_create) == 0);
	sim_file_poke(w->node, FILE_PATH, HEADER_BYTES + PAGE_BYTES, old, PAGE_BYTES);
	renew(w);
	sim_check(world, run_op(w, dirty_load) == 0);
	sim_check(world, dirty_bytes(map) == (uint64_t)(PAGE_CHUNKS + 1) * CHUNK_BYTES);
	/* Any flipped bit of any page, and a page in the place of another one. */
	for (i = 0; i < PAGES; i++) {
		renew(w);
		sim_check(world, run_op(w, dirty_create) == 0);
		sim_file_flip(w->node, FILE_PATH,
			      (HEADER_BYTES + i * PAGE_BYTES) * 8ull + i * 5000);
		sim_check(world, run_op(w, dirty_load) == 0);
		sim_check(world, dirty_bytes(map) ==
					 (i == 3   ? SMALL_BYTES
					  : i == 2 ? BIG_BYTES - 2ull * PAGE_CHUNKS * CHUNK_BYTES
						   : (uint64_t)PAGE_CHUNKS * CHUNK_BYTES));
		/* It is written anew by the next save. */
		dirty_clear(map, 0, 0, BIG_BYTES);
		dirty_clear(map, SMALL_ID, 0, SMALL_BYTES);
		sim_check(world, run_op(w, dirty_save) == 0);
		renew(w);
		sim_check(world, run_op(w, dirty_load) == 0 && dirty_bytes(map) == 0);
	}
	sim_file_peek(w->node, FILE_PATH, HEADER_BYTES, old, PAGE_BYTES);
	sim_file_poke(w->node, FILE_PATH, HEADER_BYTES + PAGE_BYTES, old, PAGE_BYTES);
	renew(w);
	sim_check(world, run_op(w, dirty_load) == 0);
	sim_check(world, read_map(w, chunks, UINT64_MAX) == (uint64_t)PAGE_CHUNKS * CHUNK_BYTES);
	sim_check(world, chunks[PAGE_CHUNKS] && !chunks[PAGE_CHUNKS - 1]);
	map = dirty_free(map);
}

/* A page whose checksum is right and whose content cannot be; and a damaged page of a map that is
 * all dirty anyway. */
static void body_odd_pages(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	static uint8_t page[PAGE_BYTES], again[PAGE_BYTES];
	uint8_t salt[4];

	set_up(w);
	sim_check(world, run_op(w, dirty_create) == 0);
	sim_file_peek(w->node, FILE_PATH, HEADER_BYTES - 4, salt, sizeof(salt));
	sim_file_peek(w->node, FILE_PATH, HEADER_BYTES + 3 * PAGE_BYTES, page, PAGE_BYTES);
	/* Bit 1 of a volume of one chunk. */
	page[8] = 2;
	le32_put(page, crc32c(le32_load(salt), page + 4, PAGE_BYTES - 4));
	sim_file_poke(w->node, FILE_PATH, HEADER_BYTES + 3 * PAGE_BYTES, page, PAGE_BYTES);
	renew(w);
	sim_check(world, run_op(w, dirty_load) == 0 && dirty_bytes(map) == SMALL_BYTES);
	sim_check(world, run_op(w, dirty_save) == 0);
	sim_file_peek(w->node, FILE_PATH, HEADER_BYTES + 3 * PAGE_BYTES, page, PAGE_BYTES);
	sim_check(world, page[8] == 1);
	sim_file_flip(w->node, FILE_PATH, (HEADER_BYTES + 3 * PAGE_BYTES + 100) * 8);
	sim_check(world, run_op(w, dirty_load) == 0 && dirty_bytes(map) == SMALL_BYTES);
	/* Nothing changed in memory, yet the page is mended. */
	sim_check(world, run_op(w, dirty_save) == 0);
	sim_file_peek(w->node, FILE_PATH, HEADER_BYTES + 3 * PAGE_BYTES, again, PAGE_BYTES);
	sim_check(world, memcmp(page, again, PAGE_BYTES) == 0);
	map = dirty_free(map);
}

static void body_damaged_header(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct sim_fault fault = { .ops = SIM_READ,
				   .pattern = "*dirty*",
				   .action = SIM_ERROR,
				   .error = -EIO,
				   .count = 1 };
	unsigned i;

	set_up(w);
	sim_check(world, run_op(w, dirty_create) == 0);
	/* Pages that cannot be read are all dirty too; a header that cannot be is damage. */
	fault.skip = 1;
	sim_fault_add(world, &fault);
	renew(w);
	sim_check(world, run_op(w, dirty_load) == 0);
	sim_check(world, dirty_bytes(map) == BIG_BYTES + SMALL_BYTES);
	fault.skip = 0;
	sim_fault_add(world, &fault);
	renew(w);
	check_all_dirty(w);
	/* The header: any bit of it. */
	for (i = 0; i < HEADER_BYTES * 8; i += 2039) {
		sim_file_flip(w->node, FILE_PATH, i);
		check_all_dirty(w);
		sim_file_flip(w->node, FILE_PATH, i);
	}
	sim_check(world, run_op(w, dirty_load) == 0);
	/* Of another group, of other volumes, of another length. */
	sb.group.bytes[3] ^= 1;
	renew(w);
	check_all_dirty(w);
	sb.group.bytes[3] ^= 1;
	sb.volumes[1].size_bytes -= 4096;
	renew(w);
	sim_check(world, run_op(w, dirty_load) == 1);
	sb.volumes[1].size_bytes += 4096;
	sim_file_make(w->node, FILE_PATH, HEADER_BYTES + PAGES * PAGE_BYTES - 1, false, false);
	renew(w);
	check_all_dirty(w);
	map = dirty_free(map);
}

static void body_errors(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct sim_fault fault = { .pattern = "*dirty*", .action = SIM_ERROR, .error = -EIO };
	static const uint32_t ops[] = { SIM_WRITE, SIM_FLUSH };
	unsigned i;

	set_up(w);
	fault.count = 1;
	for (i = 0; i < array_len(ops); i++) {
		sim_check(world, run_op(w, dirty_create) == 0);
		dirty_set(map, 0, 0, 1);
		fault.ops = ops[i];
		sim_fault_add(world, &fault);
		sim_check(world, run_op(w, dirty_save) == -EIO);
		sim_check(world, run_op(w, dirty_save) == -EIO);
		dirty_set(map, 0, BIG_BYTES / 2, 1);
		sim_check(world, run_op(w, dirty_save) == -EIO);
		/* A new file ends it. */
		sim_check(world, run_op(w, dirty_create) == 0);
		sim_check(world, run_op(w, dirty_save) == 0);
		renew(w);
		sim_check(world, run_op(w, dirty_load) == 0);
		sim_check(world, dirty_bytes(map) == 2 * CHUNK_BYTES);
		dirty_clear(map, 0, 0, BIG_BYTES);
	}
	for (i = 0; i < 3; i++) {
		fault.ops = SIM_ANY_OP;
		fault.skip = i;
		sim_fault_add(world, &fault);
		sim_check(world, run_op(w, dirty_create) == -EIO);
		sim_check(world, run_op(w, dirty_save) == -EIO);
	}
	sim_check(world, run_op(w, dirty_create) == 0);
	map = dirty_free(map);
}

UNIT(test_file)
{
	run(body_file);
	run(body_damage);
	run(body_odd_pages);
	run(body_damaged_header);
	run(body_errors);
}

/* ---- invariant D1 ------------------------------------------------------------------------- */

/* Chunks of volume 0 whose loss a crash would be a fault: set before the last completed save. */
static struct {
	struct waiting_world *w;
	struct prng prng;
	enum sim_crash kind;
	bool crashed, creating;
	uint8_t set[BIG_CHUNKS], at_save[BIG_CHUNKS], promised[BIG_CHUNKS];
	struct io_op op;
	unsigned saves;
} d;

static void d1_next(void);

static void d1_saved(struct io_op *op, int64_t res)
{
	unsigned i;

	(void)op;
	sim_check(d.w->world, res == 0);
	d.creating = false;
	d.saves++;
	for (i = 0; i < BIG_CHUNKS; i++)
		d.promised[i] |= d.at_save[i] & d.set[i];
	d1_next();
}

static void d1_change(void)
{
	uint64_t first = prng_below(&d.prng, BIG_CHUNKS);
	uint64_t count = prng_between(&d.prng, 1, 1 + (BIG_CHUNKS - first) / 4);
	uint64_t off = first * CHUNK_BYTES;
	uint64_t len = min_u64(count * CHUNK_BYTES, BIG_BYTES - off);

	if (count > BIG_CHUNKS - first)
		count = BIG_CHUNKS - first;
	if (prng_chance(&d.prng, 2, 3)) {
		dirty_set(map, 0, off, len);
		memset(d.set + first, 1, count);
		return;
	}
	dirty_clear(map, 0, off, len);
	memset(d.set + first, 0, count);
	memset(d.promised + first, 0, count);
	/* A save under way may have been before or after this; set again, it is a later set. */
	memset(d.at_save + first, 0, count);
}

static void d1_next(void)
{
	unsigned changes = (unsigned)prng_below(&d.prng, 4);

	if (d.crashed)
		return;
	while (changes-- > 0)
		d1_change();
	memcpy(d.at_save, d.set, sizeof(d.set));
	d.op = (struct io_op){ .done = d1_saved };
	if (prng_chance(&d.prng, 1, 8)) {
		/* A new file: it promises what it holds when it is done. */
		d.creating = true;
		dirty_create(map, &d.op);
	} else {
		dirty_save(map, &d.op);
	}
}

static void d1_crash(void *context)
{
	(void)context;
	d.crashed = true;
	sim_node_crash(d.w->node, d.kind);
}

static bool d1_crashed(void *context)
{
	(void)context;
	return d.crashed;
}

static void body_d1(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t seed = *(uint64_t *)w->context;
	static uint8_t got[BIG_CHUNKS];
	uint64_t end;
	unsigned i;

	set_up(w);
	memset(&d, 0, sizeof(d));
	prng_seed(&d.prng, seed);
	d.w = w;
	d.kind = seed % 2 ? SIM_KILL : SIM_POWER;
	sim_check(world, run_op(w, dirty_create) == 0);
	end = sim_events(world) + prng_between(&d.prng, 1, 60);
	sim_at_event(world, end, d1_crash, NULL);
	d1_next();
	/* Changes come while a save is under way, too. */
	while (!sim_run_until(world, d1_crashed, NULL, prng_below(&d.prng, 3 * SIM_MS))) {
		if (!d.crashed)
			d1_change();
	}
	sim_node_restart(w->node);
	sim_check(world, dirty_new(w->io, FILE_PATH, &sb, &map) == 0);
	run_op(w, dirty_load);
	/* While a file is made anew the old one is gone for a moment: that is all dirty to its
	 * owner. */
	if (wait.res != 0) {
		sim_check(world, d.creating && (wait.res == 1 || wait.res == -ENOENT));
		dirty_free(map);
		return;
	}
	read_map(w, got, UINT64_MAX);
	for (i = 0; i < BIG_CHUNKS; i++) {
		if (d.promised[i] && !got[i])
			sim_fail(world, "chunk %u was set, saved, and is clear after a crash", i);
	}
	dirty_free(map);
}

/* A volume has grown: what was set is set, behind it nothing is, and a save makes a new file. */
static void grown(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct dirty_map *old;
	uint64_t off, len;

	(void)world;
	set_up(w);
	dirty_set(map, 0, 5 * CHUNK_BYTES, 2 * CHUNK_BYTES);
	dirty_set(map, 0, BIG_BYTES - 4096, 4096);
	dirty_set(map, SMALL_ID, 0, SMALL_BYTES);
	sim_check(w->world, run_op(w, dirty_create) == 0);
	sb.volumes[1].size_bytes = 10 * CHUNK_BYTES;
	old = map;
	sim_check(w->world, dirty_regrow(old, &sb, &map) == 0);
	dirty_free(old);
	sim_check(w->world, !dirty_has_file(map));
	sim_check(w->world, dirty_next(map, 0, 0, GIB, &off, &len));
	sim_check(w->world, off == 5 * CHUNK_BYTES && len == 2 * CHUNK_BYTES);
	sim_check(w->world, dirty_next(map, 0, off + len, GIB, &off, &len));
	sim_check(w->world, off + len == BIG_BYTES && len == CHUNK_BYTES - 4096);
	/* The chunk that was the short last one is whole now. */
	sim_check(w->world, dirty_next(map, SMALL_ID, 0, GIB, &off, &len));
	sim_check(w->world, off == 0 && len == CHUNK_BYTES);
	sim_check(w->world, !dirty_next(map, SMALL_ID, CHUNK_BYTES, GIB, &off, &len));
	dirty_set(map, SMALL_ID, 9 * CHUNK_BYTES, CHUNK_BYTES);
	/* The file that is there is of the old size: not trusted, and made anew. */
	sim_check(w->world, run_op(w, dirty_load) == 1);
	renew(w);
	dirty_set(map, SMALL_ID, 9 * CHUNK_BYTES, CHUNK_BYTES);
	sim_check(w->world, run_op(w, dirty_create) == 0);
	renew(w);
	sim_check(w->world, run_op(w, dirty_load) == 0);
	sim_check(w->world, dirty_next(map, SMALL_ID, 0, GIB, &off, &len));
	sim_check(w->world, off == 9 * CHUNK_BYTES && len == CHUNK_BYTES);
	map = dirty_free(map);
}

UNIT(test_grown)
{
	run(grown);
}

UNIT(test_crash)
{
	struct waiting_world w;
	uint64_t seed, saves = 0, promised = 0;

	for (seed = 1; seed <= 400; seed++) {
		unsigned i;

		waiting_calm(seed, body_d1, &w, &seed);
		saves += d.saves;
		for (i = 0; i < BIG_CHUNKS; i++)
			promised += d.promised[i];
	}
	assert_true(saves > 1000);
	assert_true(promised > 400 * 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bits),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_grown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
