/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/undo.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/base/hash64.h"
#include "core/group/undo_internal.h"

/* ---- memory -----------------------------------------------------------------------------------
 */

static uint64_t chunk_bytes_for(uint64_t size_bytes)
{
	uint64_t chunk_bytes = UNDO_CHUNK_BYTES;

	while (div_round_up(size_bytes, chunk_bytes) > UNDO_BITS_MAX &&
	       chunk_bytes < UNDO_CHUNK_MAX)
		chunk_bytes *= 2;
	return chunk_bytes;
}

/* By the size of what lies under a volume, which may be more than the group uses of it: so a volume
 * that grows within it keeps its chunks. */
static void lay_out(struct undo *undo)
{
	for (unsigned i = 0; i < undo->volume_count; i++) {
		const struct volume *volume = &undo->options.volumes->list[i];
		struct undo_volume *to = &undo->volumes[i];

		to->id = volume->id.id;
		to->size_bytes = round_down(volume->info.size_bytes, UNDO_ALIGN_BYTES);
		to->chunk_bytes = chunk_bytes_for(to->size_bytes);
		to->saved.bits = to->wanted.bits = div_round_up(to->size_bytes, to->chunk_bytes);
	}
}

static int take_words(struct undo *undo)
{
	size_t bytes = 8;
	uint64_t *at;

	for (unsigned i = 0; i < undo->volume_count; i++)
		bytes += 2 * bitmap_memory_bytes(undo->volumes[i].saved.bits);
	undo->words = io_alloc(undo->io, bytes, 64);
	if (!undo->words)
		return -ENOMEM;
	at = undo->words;
	for (unsigned i = 0; i < undo->volume_count; i++) {
		struct undo_volume *volume = &undo->volumes[i];
		uint64_t bits = volume->saved.bits;
		size_t words = bitmap_memory_bytes(bits) / sizeof(*at);

		bitmap_init(&volume->saved, at, bits);
		bitmap_init(&volume->wanted, at + words, bits);
		at += 2 * words;
	}
	return 0;
}

static int take_slots(struct undo *undo)
{
	undo->slots = io_alloc(undo->io, UNDO_SLOTS * sizeof(*undo->slots), 64);
	if (!undo->slots)
		return -ENOMEM;
	for (unsigned i = 0; i < UNDO_SLOTS; i++) {
		struct undo_slot *slot = &undo->slots[i];

		slot->undo = undo;
		slot->block = io_alloc(undo->io, SEGMENT_TOTAL_MAX_BYTES, SEGMENT_ALIGN_BYTES);
		slot->packed = io_alloc(undo->io, SEGMENT_TOTAL_MAX_BYTES, SEGMENT_ALIGN_BYTES);
		if (!slot->block || !slot->packed)
			return -ENOMEM;
	}
	return 0;
}

int undo_new(const struct undo_options *options, struct undo **ret_undo)
{
	struct undo *undo;
	int r = 0;

	if (strlen(options->dir) >= GROUP_PATH_MAX)
		return -ENAMETOOLONG;
	undo = io_alloc(options->io, sizeof(*undo), 64);
	if (!undo)
		return -ENOMEM;
	undo->io = options->io;
	undo->options = *options;
	memcpy(undo->dir, options->dir, strlen(options->dir) + 1);
	undo->volume_count = options->volumes->count;
	undo->volumes =
		io_alloc(undo->io, max_u32(undo->volume_count, 1) * sizeof(*undo->volumes), 64);
	if (!undo->volumes)
		r = -ENOMEM;
	if (!r) {
		lay_out(undo);
		r = take_words(undo);
	}
	if (!r)
		r = take_slots(undo);
	if (r) {
		undo_free(undo);
		return r;
	}
	*ret_undo = undo;
	return 0;
}

bool undo_covers(const struct undo *undo)
{
	for (unsigned i = 0; i < undo->volume_count; i++)
		if (undo->volumes[i].size_bytes <
		    round_down(undo->options.volumes->list[i].info.size_bytes, UNDO_ALIGN_BYTES))
			return false;
	return true;
}

struct undo *undo_free(struct undo *undo)
{
	struct io *io;

	if (!undo)
		return NULL;
	io = undo->io;
	must(undo_is_quiet(undo));
	io_file_close(undo->file);
	for (unsigned i = 0; undo->slots && i < UNDO_SLOTS; i++) {
		if (undo->slots[i].block)
			io_free(io, undo->slots[i].block);
		if (undo->slots[i].packed)
			io_free(io, undo->slots[i].packed);
	}
	if (undo->slots)
		io_free(io, undo->slots);
	if (undo->words)
		io_free(io, undo->words);
	if (undo->volumes)
		io_free(io, undo->volumes);
	io_free(io, undo);
	return NULL;
}

/* ---- what the files share ---------------------------------------------------------------------
 */

void undo_finish(struct undo *undo, int64_t res)
{
	struct io_op *user = undo->user;

	undo->user = NULL;
	io_defer(undo->io, user, res);
}

void undo_say(struct undo *undo, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(undo->error, sizeof(undo->error), format, args);
	va_end(args);
}

static void path_of(const char *dir, uint32_t number, char path[UNDO_PATH_MAX])
{
	snprintf(path, UNDO_PATH_MAX, "%s/undo.%08" PRIu32, dir, number);
}

void undo_path(const struct undo *undo, uint32_t number, char path[UNDO_PATH_MAX])
{
	path_of(undo->dir, number, path);
}

struct undo_volume *undo_volume(struct undo *undo, unsigned id)
{
	for (unsigned i = 0; i < undo->volume_count; i++)
		if (undo->volumes[i].id == id)
			return &undo->volumes[i];
	return NULL;
}

/* The words keep it apart from the journal's, the id from every other log's. */
struct undo_place undo_root(const struct undo *undo)
{
	uint8_t bytes[16 + UUID_BYTES + 8] = "holdfast.undo.v1";

	memcpy(bytes + 16, undo->group.bytes, UUID_BYTES);
	le64_put(bytes + 16 + UUID_BYTES, undo->id);
	return (struct undo_place){ .seq = 1, .chain = hash64(0, bytes, sizeof(bytes)) };
}

bool undo_continues(const struct undo *undo, const struct undo_place *at,
		    const struct segment_header *header)
{
	return uuid_equal(&header->group, &undo->group) && header->epoch == undo->id &&
	       header->first_seq == at->seq && header->chain == at->chain;
}

void undo_advance(struct undo_place *at, const struct segment_header *header,
		  const uint8_t *header_bytes)
{
	at->seq = segment_last_seq(header) + 1;
	at->chain = segment_chain(header_bytes);
	at->volume_bytes = header->bytes_end;
	at->log_bytes += header->total_bytes;
	at->off += header->total_bytes;
}

void undo_start_at(struct undo *undo, uint64_t id)
{
	must(id != 0 && undo->options.volumes->count == undo->volume_count);
	for (unsigned i = 0; i < undo->volume_count; i++) {
		struct undo_volume *volume = &undo->volumes[i];

		volume->id = undo->options.volumes->list[i].id.id;
		bitmap_init(&volume->saved, volume->saved.words, volume->saved.bits);
		bitmap_init(&volume->wanted, volume->wanted.words, volume->wanted.bits);
		volume->low = volume->high = 0;
	}
	io_file_close(undo->file);
	undo->file = NULL;
	undo->file_bytes = undo->files_bytes = 0;
	undo->id = id;
	undo->group = *undo->options.group;
	undo->writer = io_random(undo->io);
	undo->placed = undo->durable = undo_root(undo);
	undo->failed = 0;
	undo->full = undo->checked = undo->unflushed = false;
	undo->error[0] = 0;
}

/* ---- removing ---------------------------------------------------------------------------------
 */

/* Files are removed from the last to the first, so those that are there always begin with 1. */
static uint32_t last_file(struct io *io, const char *dir)
{
	char path[UNDO_PATH_MAX];
	struct io_file *file;
	uint32_t number = 0;
	int r;

	do {
		path_of(dir, number + 1, path);
		r = io_file_open(io, path, IO_OPEN_READ_ONLY, &file);
		if (r == 0)
			io_file_close(file);
		if (r != -ENOENT)
			number++;
	} while (r == 0);
	return number;
}

static void remove_next(struct undo *undo);

static void remove_work(struct io_op *op)
{
	struct undo *undo = container_of(op, struct undo, remove_op);

	op->res = io_file_remove(undo->io, undo->remove_path);
}

/* One that stays is in nobody's way: its segments are of a log that nobody names. */
static void removed(struct io_op *op, int64_t res)
{
	struct undo *undo = container_of(op, struct undo, remove_op);

	(void)res;
	undo->remove_number--;
	remove_next(undo);
}

static void remove_next(struct undo *undo)
{
	if (undo->remove_number > 0) {
		undo_path(undo, undo->remove_number, undo->remove_path);
		undo->remove_op.done = removed;
		io_work(undo->io, remove_work, &undo->remove_op);
	} else if (undo->user && !undo->open) {
		undo->open = true;
		undo_finish(undo, 0);
	}
}

static void remove_start(struct undo *undo)
{
	if (undo->remove_number > 0)
		return;
	undo->remove_number = last_file(undo->io, undo->dir);
	remove_next(undo);
}

void undo_begin(struct undo *undo, uint64_t id, struct io_op *op)
{
	must(!undo->user && !undo->open);
	undo->user = op;
	undo_start_at(undo, id);
	remove_start(undo);
}

void undo_end(struct undo *undo)
{
	must(!undo->user);
	undo->open = undo->full = false;
	io_file_close(undo->file);
	undo->file = NULL;
	undo->id = 0;
	undo->files_bytes = 0;
	undo->placed = undo->durable = (struct undo_place){ 0 };
	remove_start(undo);
}

void undo_clean(struct io *io, const char *dir, uint64_t keep)
{
	char path[UNDO_PATH_MAX];

	/* Files of one log at a time: a log's beginning waits until those before it are gone. */
	if (keep != 0)
		return;
	for (uint32_t number = last_file(io, dir); number > 0; number--) {
		path_of(dir, number, path);
		(void)io_file_remove(io, path);
	}
}

/* ---- what is asked ----------------------------------------------------------------------------
 */

void undo_add(struct undo *undo, unsigned volume_id, uint64_t off, uint64_t len)
{
	struct undo_volume *volume = undo_volume(undo, volume_id);
	uint64_t chunk, end;

	must(undo->open && !undo->user && volume);
	/* What lies behind was not there when the log began. */
	if (off >= volume->size_bytes || len == 0)
		return;
	end = div_round_up(off + min_u64(len, volume->size_bytes - off), volume->chunk_bytes);
	for (chunk = off / volume->chunk_bytes; chunk < end; chunk++) {
		if (bitmap_test(&volume->saved, chunk))
			continue;
		bitmap_set(&volume->wanted, chunk);
		volume->low = volume->high ? min_u64(volume->low, chunk) : chunk;
		volume->high = max_u64(volume->high, chunk + 1);
	}
}

void undo_cancel(struct undo *undo)
{
	undo->cancelled = undo->user != NULL;
}

bool undo_is_open(const struct undo *undo)
{
	return undo->open;
}

const char *undo_error(const struct undo *undo)
{
	return undo->error;
}

bool undo_is_quiet(const struct undo *undo)
{
	return !undo->user && undo->remove_number == 0;
}

bool undo_is_full(const struct undo *undo)
{
	return undo->full;
}

uint64_t undo_durable_bytes(const struct undo *undo)
{
	return undo->durable.log_bytes;
}

uint64_t undo_log_bytes(const struct undo *undo)
{
	return undo->files_bytes;
}

uint64_t undo_saved_bytes(const struct undo *undo)
{
	return undo->durable.volume_bytes;
}

void undo_progress(const struct undo *undo, uint64_t *ret_done_bytes, uint64_t *ret_total_bytes)
{
	*ret_done_bytes = undo->back.done_bytes;
	*ret_total_bytes = undo->back.total_bytes;
}
