/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "agent/held.h"
#include "agent/ship.h"
#include "core/base/log.h"

static void cleared(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, held.op);

	if (res < 0)
		snprintf(group->detail, sizeof(group->detail), "the superblock cannot be written");
	recover_marked(group, res < 0 ? (int)res : 0);
}

static void mark_next(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, held.op);
	struct held *held = &group->held;
	struct ship *ship;

	if (res < 0) {
		snprintf(group->detail, sizeof(group->detail),
			 "a standby's dirty map cannot be written");
		recover_marked(group, (int)res);
		return;
	}
	if (held->next_ship == group->ship_count) {
		group->dir.sb.flags &= ~(uint32_t)(SUPERBLOCK_SUSPECT | SUPERBLOCK_SELF_DIRTY);
		op->done = cleared;
		group_dir_store(&group->dir, &held->store, op);
		return;
	}
	ship = group->ships[held->next_ship++];
	ship_set_everything(ship);
	ship->peer->needs_compare = ship->conf->compare != CONF_COMPARE_NEVER;
	ship_mark_sync(ship, op);
}

bool suspect_mark(struct agent_group *group)
{
	const struct superblock *sb = &group->dir.sb;

	if (!(sb->flags & SUPERBLOCK_SUSPECT) || (sb->flags & SUPERBLOCK_HELD) ||
	    group->held.changed)
		return false;
	log_warning("a copy that was changed behind the engine's back was made primary: everything "
		    "will be compared",
		    "group=%s epoch=%llu", group->conf->name, (unsigned long long)sb->epoch);
	group->held.next_ship = 0;
	group->held.op.done = mark_next;
	io_defer(group->io, &group->held.op, 0);
	return true;
}
