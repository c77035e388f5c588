/* SPDX-License-Identifier: Apache-2.0 */
/* The two images of a file, and what becomes of writes that are not durable. */
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/disk.h"

struct chunk chunk_zero = { .now_alloc = CHUNK_ALL, .durable_alloc = CHUNK_ALL };

/* Chunks outlive worlds: thousands of small worlds run in one process. */
static struct chunk *free_chunks;

static struct chunk *chunk_new(uint32_t alloc)
{
	struct chunk *chunk = free_chunks;

	if (chunk)
		free_chunks = chunk->next_free;
	else
		chunk = malloc(sizeof(*chunk));
	must(chunk);
	memset(chunk, 0, sizeof(*chunk));
	chunk->now_alloc = alloc;
	chunk->durable_alloc = alloc;
	return chunk;
}

static void chunk_free(struct chunk *chunk)
{
	if (chunk == CHUNK_HOLE || chunk == CHUNK_ZERO)
		return;
	chunk->next_free = free_chunks;
	free_chunks = chunk;
}

static struct chunk *chunk_writable(struct sim_file *file, uint64_t index)
{
	struct chunk *chunk = file->chunks[index];

	if (chunk == CHUNK_HOLE || chunk == CHUNK_ZERO) {
		chunk = chunk_new(chunk == CHUNK_ZERO ? CHUNK_ALL : 0);
		file->chunks[index] = chunk;
	}
	return chunk;
}

static void chunk_diverges(struct sim_file *file, struct chunk *chunk)
{
	if (!list_linked(&chunk->diverged))
		list_push_back(&file->diverged, &chunk->diverged);
}

static void account(struct sim_file *file, int64_t sectors)
{
	file->used_sectors += (uint64_t)sectors;
	file->disk->used_bytes += (uint64_t)(sectors * (int64_t)SIM_SECTOR_BYTES);
}

static void set_now_alloc(struct sim_file *file, struct chunk *chunk, uint32_t alloc)
{
	account(file, (int64_t)__builtin_popcount(alloc) - __builtin_popcount(chunk->now_alloc));
	chunk->now_alloc = alloc;
}

struct sim_file *file_new(struct sim_disk *disk, const char *path, uint64_t size_bytes, bool device,
			  bool hole)
{
	struct sim_file *file = calloc(1, sizeof(*file));

	must(file);
	file->disk = disk;
	file->path = path;
	file->size_bytes = size_bytes;
	file->device = device;
	file->chunk_count = div_round_up(size_bytes, CHUNK_BYTES);
	file->chunks = calloc(file->chunk_count + 1, sizeof(*file->chunks));
	must(file->chunks);
	list_init(&file->pending);
	list_init(&file->diverged);
	list_init(&file->in_flight);
	list_push_back(&disk->files, &file->link);
	if (!hole) {
		for (uint64_t i = 0; i < file->chunk_count; i++)
			file->chunks[i] = CHUNK_ZERO;
		account(file, (int64_t)(file->chunk_count * CHUNK_SECTORS));
	}
	return file;
}

void file_grow(struct sim_file *file, uint64_t size_bytes)
{
	uint64_t chunk_count = div_round_up(size_bytes, CHUNK_BYTES);
	struct chunk **chunks = calloc(chunk_count + 1, sizeof(*chunks));

	must(chunks && size_bytes >= file->size_bytes);
	memcpy(chunks, file->chunks, file->chunk_count * sizeof(*chunks));
	free(file->chunks);
	file->chunks = chunks;
	file->chunk_count = chunk_count;
	file->size_bytes = size_bytes;
}

void file_free(struct sim_file *file)
{
	struct version *version;

	must(list_empty(&file->in_flight));
	while ((version = list_pop_front_as(&file->pending, struct version, link)))
		version_free(version);
	account(file, -(int64_t)file->used_sectors);
	for (uint64_t i = 0; i < file->chunk_count; i++)
		chunk_free(file->chunks[i]);
	list_remove(&file->link);
	free(file->chunks);
	free(file);
}

struct version *version_new(enum version_kind kind, uint64_t first_sector, uint64_t sector_count)
{
	struct version *version = calloc(1, sizeof(*version));

	must(version);
	version->kind = kind;
	version->first_sector = first_sector;
	version->sector_count = sector_count;
	if (kind == VERSION_DATA) {
		version->bytes = malloc(sector_count * SIM_SECTOR_BYTES);
		must(version->bytes);
	}
	return version;
}

void version_free(struct version *version)
{
	if (!version)
		return;
	free(version->bytes);
	free(version->skipped);
	free(version);
}

void version_tear(struct sim_world *world, struct version *version)
{
	uint64_t style = sim_between(world, 0, 3);
	uint64_t cut = sim_between(world, 0, version->sector_count);

	if (!version->skipped)
		version->skipped = calloc(1, version->sector_count + 1);
	must(version->skipped);
	for (uint64_t i = 0; i < version->sector_count; i++) {
		bool skip = style == 0 ? true : style == 1 ? false : i >= cut;

		if (style == 3)
			skip = sim_random(world) & 1;
		version->skipped[i] |= skip;
	}
}

static void sector_to_now(struct sim_file *file, const struct version *version, uint64_t i)
{
	uint64_t sector = version->first_sector + i;
	uint32_t in_chunk = (uint32_t)(sector % CHUNK_SECTORS);
	struct chunk *chunk = chunk_writable(file, sector / CHUNK_SECTORS);
	uint8_t *target = chunk->now + (size_t)in_chunk * SIM_SECTOR_BYTES;

	chunk_diverges(file, chunk);
	if (version->kind == VERSION_DATA)
		memcpy(target, version->bytes + i * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
	else
		memset(target, 0, SIM_SECTOR_BYTES);
	if (version->kind == VERSION_HOLE)
		set_now_alloc(file, chunk, chunk->now_alloc & ~(1u << in_chunk));
	else if (!(chunk->now_alloc & 1u << in_chunk))
		set_now_alloc(file, chunk, chunk->now_alloc | 1u << in_chunk);
}

static void sector_to_durable(struct sim_file *file, const struct version *version, uint64_t i)
{
	uint64_t sector = version->first_sector + i;
	uint32_t in_chunk = (uint32_t)(sector % CHUNK_SECTORS);
	struct chunk *chunk = chunk_writable(file, sector / CHUNK_SECTORS);
	uint8_t *target = chunk->durable + (size_t)in_chunk * SIM_SECTOR_BYTES;

	if (version->kind == VERSION_DATA)
		memcpy(target, version->bytes + i * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
	else
		memset(target, 0, SIM_SECTOR_BYTES);
	if (version->kind == VERSION_HOLE)
		chunk->durable_alloc &= ~(1u << in_chunk);
	else
		chunk->durable_alloc |= 1u << in_chunk;
	chunk->durable_version[in_chunk] = version->number;
}

void version_apply(struct sim_file *file, struct version *version)
{
	version->number = ++file->disk->versions;
	for (uint64_t i = 0; i < version->sector_count; i++) {
		if (!version->skipped || !version->skipped[i])
			sector_to_now(file, version, i);
	}
}

/* Whether sector i of the version can still reach the durable image. */
static bool sector_open(const struct sim_file *file, const struct version *version, uint64_t i)
{
	uint64_t sector = version->first_sector + i;
	const struct chunk *chunk = file->chunks[sector / CHUNK_SECTORS];

	if (version->skipped && version->skipped[i])
		return false;
	return !chunk || chunk->durable_version[sector % CHUNK_SECTORS] < version->number;
}

void version_commit(struct sim_file *file, const struct version *version)
{
	for (uint64_t i = 0; i < version->sector_count; i++) {
		if (sector_open(file, version, i))
			sector_to_durable(file, version, i);
	}
}

uint64_t version_open_sectors(const struct sim_file *file, const struct version *version)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < version->sector_count; i++)
		count += sector_open(file, version, i);
	return count;
}

void file_copy_out(const struct sim_file *file, bool durable, uint64_t off, void *buf, size_t len)
{
	uint8_t *out = buf;

	while (len) {
		uint64_t index = off / CHUNK_BYTES, at = off % CHUNK_BYTES;
		size_t piece = min_size(len, CHUNK_BYTES - at);
		const struct chunk *chunk =
			index < file->chunk_count ? file->chunks[index] : CHUNK_HOLE;

		if (chunk == CHUNK_HOLE || chunk == CHUNK_ZERO)
			memset(out, 0, piece);
		else
			memcpy(out, (durable ? chunk->durable : chunk->now) + at, piece);
		out += piece;
		off += piece;
		len -= piece;
	}
}

void file_touch(struct sim_file *file)
{
	uint64_t now_ns = sim_now(file->disk->world);

	/* 0 would be a device's. */
	file->mtime_ns = now_ns > file->mtime_ns ? now_ns : file->mtime_ns + 1;
}

void file_copy_in(struct sim_file *file, uint64_t off, const void *buf, size_t len)
{
	const uint8_t *in = buf;

	must(off <= file->size_bytes && len <= file->size_bytes - off);
	while (len) {
		uint64_t at = off % CHUNK_BYTES;
		size_t piece = min_size(len, CHUNK_BYTES - at);
		struct chunk *chunk = chunk_writable(file, off / CHUNK_BYTES);
		uint32_t written = 0;

		memcpy(chunk->now + at, in, piece);
		memcpy(chunk->durable + at, in, piece);
		for (uint64_t s = at / SIM_SECTOR_BYTES; s <= (at + piece - 1) / SIM_SECTOR_BYTES;
		     s++) {
			written |= 1u << s;
			chunk->durable_version[s] = ++file->disk->versions;
		}
		chunk->durable_alloc |= written;
		set_now_alloc(file, chunk, chunk->now_alloc | written);
		in += piece;
		off += piece;
		len -= piece;
	}
}

bool file_sector_is_hole(const struct sim_file *file, uint64_t sector)
{
	const struct chunk *chunk = file->chunks[sector / CHUNK_SECTORS];

	return !chunk || !(chunk->now_alloc & 1u << sector % CHUNK_SECTORS);
}

uint64_t file_holes(const struct sim_file *file, uint64_t first_sector, uint64_t sector_count)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < sector_count; i++)
		count += file_sector_is_hole(file, first_sector + i);
	return count;
}

void file_flush(struct sim_file *file, uint64_t covers)
{
	struct list *pos, *after;

	list_for_each_safe (pos, after, &file->pending) {
		struct version *version = container_of(pos, struct version, link);

		if (version->number > covers)
			break;
		version_commit(file, version);
		list_remove(&version->link);
		version_free(version);
	}
}

/* Takes a version's sectors back to the durable content, then puts the later versions on top. */
static void version_revert(struct sim_file *file, const struct version *version)
{
	struct list *pos;

	for (uint64_t i = 0; i < version->sector_count; i++) {
		uint64_t sector = version->first_sector + i;
		uint32_t bit = 1u << sector % CHUNK_SECTORS;
		size_t at = (size_t)(sector % CHUNK_SECTORS) * SIM_SECTOR_BYTES;
		struct chunk *chunk = chunk_writable(file, sector / CHUNK_SECTORS);

		memcpy(chunk->now + at, chunk->durable + at, SIM_SECTOR_BYTES);
		set_now_alloc(file, chunk,
			      (chunk->now_alloc & ~bit) | (chunk->durable_alloc & bit));
	}
	list_for_each (pos, &file->pending) {
		const struct version *later = container_of(pos, struct version, link);

		for (uint64_t i = 0; i < later->sector_count; i++) {
			if (sector_open(file, later, i))
				sector_to_now(file, later, i);
		}
	}
}

void file_flush_failed(struct sim_file *file, uint64_t covers)
{
	struct list *pos, *after;

	list_for_each_safe (pos, after, &file->pending) {
		struct version *version = container_of(pos, struct version, link);
		uint64_t end;

		if (version->number > covers)
			break;
		end = sim_between(file->disk->world, 0, 2);
		list_remove(&version->link);
		if (end == 0)
			version_commit(file, version);
		else if (end == 1)
			version_revert(file, version);
		/* Else it is still read, counts as clean, and is gone after a power loss. */
		version_free(version);
	}
}

/* Drops from a version what a power loss does not let through. */
static void decide_sectors(struct sim_file *file, struct version *version, uint64_t *survivors)
{
	struct sim_world *world = file->disk->world;

	if (!world->exact) {
		version_tear(world, version);
		return;
	}
	if (!version->skipped)
		version->skipped = calloc(1, version->sector_count + 1);
	must(version->skipped);
	for (uint64_t i = 0; i < version->sector_count; i++) {
		if (!sector_open(file, version, i))
			continue;
		version->skipped[i] = !(*survivors & 1);
		*survivors >>= 1;
	}
}

void file_power_lost(struct sim_file *file)
{
	struct version *version;
	struct list *pos;

	/* Any of several unflushed versions of a sector may be the one that the medium has: each
	 * loses sectors of its own, so an older one shows where the newer one is missing. */
	while ((version = list_pop_front_as(&file->pending, struct version, link))) {
		decide_sectors(file, version, &file->disk->world->survivors);
		version_commit(file, version);
		version_free(version);
	}
	while ((pos = list_pop_front(&file->diverged))) {
		struct chunk *chunk = container_of(pos, struct chunk, diverged);

		memcpy(chunk->now, chunk->durable, CHUNK_BYTES);
		set_now_alloc(file, chunk, chunk->durable_alloc);
	}
}
