/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes that somebody has changed while no daemon had them.
 *
 *   clean stop: everything is flushed and stored -> stamps are taken -> stored
 *   start behind it: stamps are taken -> the same or not, stored, without stamps -> open.c goes on
 *
 * Invariant F1: a copy that was found changed says so durably (SUSPECT, and SELF_DIRTY for its
 * primary) before it is offered to anybody, and follows only by a copy or comparison of everything:
 * SUSPECT goes in the store that ends that copy. Invariant F2: stamps are in the superblock only
 * while nothing of ours writes to the volumes: nobody is suspected of what we did.
 *
 * A crash leaves no stamps. Whose directory it was does not matter: an old primary's stamps are
 * those of its agent.
 */
#include <string.h>

#include "core/base/log.h"
#include "engine/internal.h"

static bool has_stamps(const struct superblock *sb)
{
	for (unsigned i = 0; i < sb->volume_count; i++)
		if ((sb->flags & SUPERBLOCK_CLEAN) && sb->stamps[i].sample)
			return true;
	return false;
}

/* What nobody has replicated to may be filled by hand: that is how a first copy is prepared. */
static bool means_anything(const struct superblock *sb)
{
	return sb->role == GROUP_FENCED ||
	       (sb->flags & (SUPERBLOCK_EVER_CONSISTENT | SUPERBLOCK_SYNCING));
}

/* ---- start ------------------------------------------------------------------------------------
 */

static void found_stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	group->op_busy = false;
	if (group->stop_wanted)
		standby_stop_start(group);
	else if (res < 0)
		standby_fail(group, (int)res, "the superblock cannot be written");
	else
		open_go_on(group);
}

static void looked(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	struct superblock *sb = &group->dir.sb;

	if (res < 0 || group->stop_wanted) {
		group->op_busy = false;
		if (group->stop_wanted)
			standby_stop_start(group);
		else
			standby_fail(group, (int)res, "a volume cannot be read");
		return;
	}
	for (unsigned i = 0; means_anything(sb) && i < sb->volume_count; i++) {
		if (stamp_same(&sb->stamps[i], &group->stamps[i]))
			continue;
		log_warning("a volume was changed behind the engine's back: all of it is copied or "
			    "compared before this copy counts again",
			    "group=%s volume=%s", group->conf->name, sb->volumes[i].name);
		sb->flags |= SUPERBLOCK_SUSPECT | SUPERBLOCK_SELF_DIRTY;
	}
	memset(sb->stamps, 0, sizeof(sb->stamps));
	group->state_op.done = found_stored;
	group_dir_store(&group->dir, &group->state_store, &group->state_op);
}

void suspect_look(struct engine_group *group)
{
	if (!has_stamps(&group->dir.sb)) {
		open_go_on(group);
		return;
	}
	group->op_busy = true;
	group->state_op.done = looked;
	stamp_take(&group->stamp, &group->volumes, group->stamps, &group->state_op);
}

/* ---- stop -------------------------------------------------------------------------------------
 */

static void stop_stored(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	(void)res; /* not stored: the next start does not know */
	group->op_busy = false;
	standby_poke(group);
}

static void stamped(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	struct superblock *sb = &group->dir.sb;

	if (res < 0) {
		stop_stored(op, res);
		return;
	}
	memset(sb->stamps, 0, sizeof(sb->stamps));
	memcpy(sb->stamps, group->stamps, sb->volume_count * sizeof(sb->stamps[0]));
	group->state_op.done = stop_stored;
	group_dir_store(&group->dir, &group->state_store, &group->state_op);
}

bool suspect_stamp(struct engine_group *group)
{
	if (!(group->dir.sb.flags & SUPERBLOCK_CLEAN) || !group->volumes_open || group->fail_res)
		return false;
	group->op_busy = true;
	group->state_op.done = stamped;
	stamp_take(&group->stamp, &group->volumes, group->stamps, &group->state_op);
	return true;
}
