/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume has grown at the primary: HELLO names a larger size than ours (agent/resize.c).
 *
 * Invariant Z3: before the superblock has the larger size - in the store that adopts START - what
 * is new is there and reads as zeroes, durably. So no record that lies behind the old size meets a
 * volume without that place, and what was never written is the same here as there.
 *
 * Invariant Z4: a position that a copy keeps has its volumes as large as they were there: a volume
 * that is smaller at the primary becomes so in the store that ends the copy, and nothing behind
 * their size is touched before.
 *
 * An undo log that is open already does not cover what is new: a promote that goes back to a
 * position kept before the volume grew leaves there what the copy has written.
 *
 * A regular file grows by itself; a device is the operator's to enlarge. Until it is done the
 * connection waits for its WELCOME. Loop thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "engine/internal.h"

#define ZERO_PIECE_BYTES (1ull << 30)

static void zero_next(struct engine_group *group);

static void done(struct engine_group *group, int res, const char *what)
{
	struct grow *grow = &group->grow;
	const struct volume *volume = &group->volumes.list[grow->index];

	grow->busy = false;
	if (res < 0) {
		char text[200];

		snprintf(text, sizeof(text), "volume \"%s\" has grown at the primary and cannot %s",
			 volume->id.name, what);
		standby_fail(group, res, text);
		return;
	}
	log_info("volume grows", "group=%s volume=%s to_bytes=%" PRIu64, group->conf->name,
		 volume->id.name, grow->end);
	grow->ready[grow->index] = grow->end;
	standby_poke(group);
}

static void flushed(struct io_op *op, int64_t res)
{
	done(container_of(op, struct engine_group, grow.op), (int)res, "be flushed");
}

static void zeroed(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, grow.op);

	if (res < 0)
		done(group, (int)res, "be zeroed");
	else
		zero_next(group);
}

static void zero_next(struct engine_group *group)
{
	struct grow *grow = &group->grow;
	struct io_file *file = group->volumes.list[grow->index].file;
	uint64_t len = min_u64(grow->end - grow->off, ZERO_PIECE_BYTES);

	if (len == 0) {
		grow->op.done = flushed;
		io_flush(file, &grow->op);
		return;
	}
	grow->op.done = zeroed;
	io_discard(file, grow->off, len, &grow->op);
	grow->off += len;
}

void resize_look(struct engine_group *group)
{
	for (unsigned i = 0; group->volumes_open && i < group->volumes.count; i++) {
		struct volume *volume = &group->volumes.list[i];

		if (io_file_grow(volume->file, 0) == 0)
			io_file_info(volume->file, &volume->info);
	}
}

void resize_end(struct engine_group *group)
{
	struct superblock *sb = &group->dir.sb;

	for (uint32_t i = 0; i < sb->volume_count; i++) {
		if (!group->grow.theirs[i])
			continue;
		sb->volumes[i].size_bytes = group->grow.theirs[i];
		group->volumes.list[i].id = sb->volumes[i];
	}
}

/* Between their size of when the copy began and ours lies what the kept position has. */
static bool is_kept(const struct engine_group *group, unsigned index, uint64_t theirs)
{
	uint64_t began = group->grow.theirs[index];

	return group->dir.sb.kept.undo_id && began && theirs > began &&
	       group->volumes.list[index].id.size_bytes > began;
}

int resize_prepare(struct engine_group *group, const struct link_hello *hello, char *error,
		   size_t error_max)
{
	struct grow *grow = &group->grow;

	if (grow->busy)
		return 1;
	for (unsigned i = 0; i < group->volumes.count; i++) {
		struct volume *volume = &group->volumes.list[i];
		uint64_t theirs = admit_size(hello, volume->id.name);
		int r;

		if (is_kept(group, i, theirs)) {
			snprintf(error, error_max,
				 "volume \"%s\" has grown at the primary, and a position is kept "
				 "here that has something else there; holdfast resync %s "
				 "--drop-kept here gives it up",
				 volume->id.name, group->conf->name);
			return -EBUSY;
		}
		if (uuid_is_zero(&group->dir.sb.group) || theirs <= volume->id.size_bytes ||
		    theirs <= grow->ready[i])
			continue;
		r = io_file_grow(volume->file, theirs);
		if (r < 0) {
			snprintf(error, error_max,
				 "volume \"%s\" has %" PRIu64
				 " bytes at the primary, and %.120s cannot grow to that: %s",
				 volume->id.name, theirs, volume->path, err_text(r));
			return r;
		}
		io_file_info(volume->file, &volume->info);
		grow->busy = true;
		grow->index = i;
		grow->off = volume->id.size_bytes;
		grow->end = theirs;
		zero_next(group);
		return 1;
	}
	return 0;
}
