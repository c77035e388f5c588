/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of agent_group_task(), by kind. Each fills task->res and task->text, and does not call
 * task->done: task.c does. Loop thread. */
#ifndef HOLDFAST_AGENT_TASK_H
#define HOLDFAST_AGENT_TASK_H

#include "agent/internal.h"

/* resync.c: AGENT_RESYNC, AGENT_VERIFY, AGENT_VERIFY_STOP; one standby or each. */
void task_standbys(struct agent_group *group, struct agent_task *task);

/* resize.c: AGENT_VOLUME_RESIZE. True: it has begun and calls task->done itself, later. */
bool task_resize(struct agent_group *group, struct agent_task *task);

#endif
