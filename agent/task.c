/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator asks of a group that is served here: to whom it goes. */
#include "agent/task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static bool is_served(struct agent_group *group, struct agent_task *task)
{
	if (group->state == AGENT_SERVING)
		return true;
	task->res = -ESHUTDOWN;
	snprintf(task->text, sizeof(task->text), "group %s is not served here", group->conf->name);
	return false;
}

static bool epoch_fits(struct agent_group *group, struct agent_task *task)
{
	if (!task->has_expect_epoch || task->expect_epoch == group->dir.sb.epoch)
		return true;
	task->res = -ESTALE;
	snprintf(task->text, sizeof(task->text),
		 "group %s is in epoch %" PRIu64 ", not %" PRIu64
		 ": it has changed since you looked",
		 group->conf->name, group->dir.sb.epoch, task->expect_epoch);
	return false;
}

void agent_group_task(struct agent_group *group, struct agent_task *task)
{
	task->res = 0;
	task->text[0] = 0;
	task->seq = 0;
	if (epoch_fits(group, task)) {
		switch (task->kind) {
		case AGENT_RESYNC:
		case AGENT_VERIFY:
		case AGENT_VERIFY_STOP:
			if (is_served(group, task))
				task_standbys(group, task);
			break;
		case AGENT_VOLUME_RESIZE:
			if (is_served(group, task) && task_resize(group, task))
				return;
			break;
		case AGENT_ACCEPT:
			held_accept(group, task);
			return;
		case AGENT_VOLUME_ADD:
		case AGENT_VOLUME_REMOVE:
			task->res = -ENOTSUP;
			snprintf(task->text, sizeof(task->text), "this program cannot do that yet");
			break;
		}
	}
	task->done(task);
}
