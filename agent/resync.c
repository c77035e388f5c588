/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies and verifications on request: of one standby, or of each.
 *
 * A resync begins with a new session, in which START says that copied content comes: what shall be
 * copied is set in the dirty map, and that is durable before the session begins.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/sync.h"
#include "agent/task.h"

static void resync_stored(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, resync_op);

	if (res < 0)
		agent_fail(ship->group, (int)res, "a standby's dirty map cannot be written");
}

int ship_resync(struct ship *ship, bool everything, bool compare)
{
	if (ship->stopped || ship->release_user || ship->prepare_pending ||
	    ship->group->handover.state != HANDOVER_NONE)
		return -EAGAIN;
	if (!everything && ship->peer->needs_sync)
		return 0; /* it is copied to, or will be */
	if (!everything && !dirty_bytes(ship->dirty))
		return -EINVAL;
	ship_disconnect(ship, NULL);
	ship->peer->needs_compare = compare || (!everything && ship->peer->needs_compare);
	if (everything) {
		dirty_set_all(ship->dirty);
		ship_verify_everything(ship->verify);
	}
	ship->resync_op.done = resync_stored;
	ship_mark_sync(ship, &ship->resync_op);
	return 0;
}

static int run(struct ship *ship, struct agent_task *task)
{
	switch (task->kind) {
	case AGENT_RESYNC:
		return ship_resync(ship, task->everything, task->compare);
	case AGENT_VERIFY:
		return ship_verify(ship->verify, task->repair, task->rate_bytes);
	default:
		return ship_verify_stop(ship->verify) ? 0 : -EINVAL;
	}
}

static void explain(struct agent_task *task, const struct ship *ship)
{
	const char *why;

	if (task->res == -EAGAIN && task->kind == AGENT_RESYNC)
		why = "what it lacks is being set down just now, or it is about to take over; try "
		      "again";
	else if (task->res == -EAGAIN)
		why = "it is not connected, or is being copied to; see holdfast status, and try "
		      "again when it is streaming";
	else if (task->kind == AGENT_RESYNC)
		why = "nothing is known to differ; verify it first, or copy everything";
	else
		why = "no verification is under way";
	snprintf(task->text, sizeof(task->text), "standby %s: %s", ship->conf->node, why);
}

void task_standbys(struct agent_group *group, struct agent_task *task)
{
	unsigned found = 0, begun = 0;

	for (unsigned i = 0; i < group->ship_count; i++) {
		struct ship *ship = group->ships[i];
		int r;

		if (task->node && strcmp(task->node, ship->conf->node) != 0)
			continue;
		found++;
		r = run(ship, task);
		begun += !r;
		if (!r || task->res)
			continue;
		task->res = r;
		explain(task, ship);
	}
	if (begun) { /* asked of all, those that can */
		task->res = 0;
		task->text[0] = 0;
	}
	if (found)
		return;
	task->res = -ENOENT;
	snprintf(task->text, sizeof(task->text), "group %s has no standby %s; see holdfast status",
		 group->conf->name, task->node ? task->node : "at all");
}
