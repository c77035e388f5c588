/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume of a served group grows to what its file or device has become.
 *
 *   zero what is new -> flush -> wait for the maps -> larger maps, superblock -> exported
 *
 * Sizes only grow, and what is new reads as zeroes on every node before the node takes the new size
 * over. So no record has to say when: the standby learns of it from HELLO, before any record that
 * lies behind its own size can reach it (engine/resize.c), and a position at which it was smaller
 * is the same with zeroes behind it.
 *
 * Invariant Z1: what lies behind a volume's size was zeroed, durably, before the superblock has the
 * larger size; a crash before leaves the old size, and nothing that anybody can see.
 * Invariant Z2: a record behind the old size is made only after the store, and after every dirty
 * map is as large as the volume.
 *
 * A map's file of the old size reads as damaged after a crash: then everything is copied. Loop
 * thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ship.h"
#include "agent/task.h"
#include "core/base/log.h"

#define ALIGN_BYTES	 4096u
#define ZERO_PIECE_BYTES (1ull << 30)
#define MAPS_POLL_NS	 2000000ull
#define MAPS_WAIT_NS	 10000000000ull

static void finish(struct agent_group *group, int res, const char *text)
{
	struct agent_task *task = group->resize.task;

	group->resize.task = NULL;
	task->res = res;
	task->seq = group->head_seq;
	snprintf(task->text, sizeof(task->text), "%s", text);
	task->done(task);
}

/* False after it has ended because the group is not served any more. */
static bool goes_on(struct agent_group *group)
{
	if (group->state == AGENT_SERVING)
		return true;
	finish(group, -ESHUTDOWN, "the group is not served here any more");
	return false;
}

static void stored(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, resize.op);
	struct resize *resize = &group->resize;
	struct volume *volume = resize->volume;

	if (res < 0) {
		finish(group, (int)res, "the superblock cannot be written");
		agent_fail(group, (int)res, "the superblock cannot be written");
		return;
	}
	/* Also where the group stops meanwhile: the superblock says so. */
	volume->id.size_bytes = resize->new_bytes;
	for (unsigned i = 0; i < group->volumes.count; i++)
		if (group->exports[i].volume == volume)
			group->exports[i].export.limits.size_bytes = resize->new_bytes;
	log_info("volume has grown", "group=%s volume=%s from_bytes=%" PRIu64 " to_bytes=%" PRIu64,
		 group->conf->name, volume->id.name, resize->old_bytes, resize->new_bytes);
	finish(group, 0, "");
}

/* Nothing of the standby's is in flight that works on its map. The connection is given up: the next
 * one tells the new size. */
static bool map_is_free(struct ship *ship)
{
	ship_disconnect(ship, NULL);
	return !dirty_busy(ship->dirty) && !ship->release_user && !ship->prepare_pending &&
	       ship_sync_quiet(ship->sync) && ship_extents_quiet(ship->extents) &&
	       ship_verify_quiet(ship->verify) && !ship->coalesce.busy;
}

struct larger {
	struct dirty_map *dirty, *coalesce;
};

static void free_maps(struct larger maps[GROUP_PEERS_MAX])
{
	for (unsigned i = 0; i < GROUP_PEERS_MAX; i++) {
		dirty_free(maps[i].dirty);
		dirty_free(maps[i].coalesce);
	}
}

static int make_maps(struct agent_group *group, struct larger maps[GROUP_PEERS_MAX])
{
	const struct superblock *sb = &group->dir.sb;
	int r = 0;

	memset(maps, 0, GROUP_PEERS_MAX * sizeof(*maps));
	for (unsigned i = 0; i < group->ship_count && !r; i++) {
		const struct ship *ship = group->ships[i];

		r = dirty_regrow(ship->dirty, sb, &maps[i].dirty);
		if (!r && ship->coalesce.map)
			r = dirty_regrow(ship->coalesce.map, sb, &maps[i].coalesce);
	}
	if (r)
		free_maps(maps);
	return r;
}

static void swap_maps(struct dirty_map **map, struct dirty_map **larger)
{
	struct dirty_map *old = *map;

	*map = *larger;
	*larger = old;
}

static void take_size(struct agent_group *group)
{
	struct resize *resize = &group->resize;
	struct superblock_volume *entry = &group->dir.sb.volumes[resize->index];
	struct larger maps[GROUP_PEERS_MAX];

	entry->size_bytes = resize->new_bytes;
	if (make_maps(group, maps)) {
		entry->size_bytes = resize->old_bytes;
		finish(group, -ENOMEM, "no memory for larger dirty maps");
		return;
	}
	for (unsigned i = 0; i < group->ship_count; i++) {
		swap_maps(&group->ships[i]->dirty, &maps[i].dirty);
		swap_maps(&group->ships[i]->coalesce.map, &maps[i].coalesce);
	}
	free_maps(maps);
	resize->op.done = stored;
	group_dir_store(&group->dir, &resize->store, &resize->op);
}

static void maps_due(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, resize.timer);
	struct resize *resize = &group->resize;
	bool free = true;

	if (!goes_on(group))
		return;
	if (group->handover.state != HANDOVER_NONE) {
		finish(group, -EBUSY, "the group is being handed over");
		return;
	}
	for (unsigned i = 0; i < group->ship_count; i++)
		free = map_is_free(group->ships[i]) && free;
	if (free) {
		take_size(group);
	} else if (io_now(group->io) >= resize->deadline_ns) {
		finish(group, -EAGAIN,
		       "a standby's dirty map is being written; wait a moment, then repeat");
	} else {
		io_timer_start(group->io, timer, MAPS_POLL_NS);
	}
}

static void flushed(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, resize.op);

	if (res < 0) {
		/* It may have been about anything that was written there. */
		finish(group, (int)res, "the volume cannot be flushed");
		agent_fail(group, (int)res, "a volume cannot be flushed");
		return;
	}
	if (!goes_on(group))
		return;
	group->resize.deadline_ns = io_now(group->io) + MAPS_WAIT_NS;
	group->resize.timer.fire = maps_due;
	io_timer_start(group->io, &group->resize.timer, 0);
}

static void zero_next(struct agent_group *group);

static void zeroed(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, resize.op);

	if (res < 0) {
		/* Z1: it is nobody's yet. */
		finish(group, (int)res, "what is new of the volume cannot be zeroed");
		return;
	}
	if (goes_on(group))
		zero_next(group);
}

static void zero_next(struct agent_group *group)
{
	struct resize *resize = &group->resize;
	uint64_t len = min_u64(resize->new_bytes - resize->off, ZERO_PIECE_BYTES);

	if (len == 0) {
		resize->op.done = flushed;
		io_flush(resize->volume->file, &resize->op);
		return;
	}
	resize->op.done = zeroed;
	io_discard(resize->volume->file, resize->off, len, &resize->op);
	resize->off += len;
}

/* 0, or why not, with words in the task. */
static int look(struct agent_group *group, struct agent_task *task)
{
	struct resize *resize = &group->resize;
	struct volume *volume = resize->volume;
	int r = io_file_grow(volume->file, 0);

	if (r < 0) {
		snprintf(task->text, sizeof(task->text), "%.300s cannot be looked at",
			 volume->path);
		return r;
	}
	io_file_info(volume->file, &volume->info);
	resize->old_bytes = resize->off = volume->id.size_bytes;
	resize->new_bytes = round_down(volume->info.size_bytes, ALIGN_BYTES);
	if (resize->new_bytes > VOLUME_KEY_BYTES_MAX) {
		snprintf(task->text, sizeof(task->text), "%.300s is larger than 256 TiB",
			 volume->path);
		return -EFBIG;
	}
	if (resize->new_bytes <= resize->old_bytes) {
		snprintf(task->text, sizeof(task->text),
			 "volume %s has %" PRIu64
			 " bytes, and %.300s has no more; enlarge that first",
			 volume->id.name, resize->old_bytes, volume->path);
		return resize->new_bytes == resize->old_bytes ? -EALREADY : -EINVAL;
	}
	return 0;
}

bool task_resize(struct agent_group *group, struct agent_task *task)
{
	struct resize *resize = &group->resize;

	task->res = -EBUSY;
	snprintf(task->text, sizeof(task->text),
		 "a volume is being resized, or the group handed over");
	if (resize->task || group->handover.state != HANDOVER_NONE)
		return false;
	task->res = -ENOENT;
	snprintf(task->text, sizeof(task->text), "group %s has no volume %s", group->conf->name,
		 task->volume ? task->volume : "without a name");
	for (unsigned i = 0; task->volume && i < group->volumes.count; i++) {
		if (strcmp(group->volumes.list[i].id.name, task->volume) != 0)
			continue;
		resize->index = i;
		resize->volume = &group->volumes.list[i];
		task->res = look(group, task);
	}
	if (task->res)
		return false;
	resize->task = task;
	zero_next(group);
	return true;
}
