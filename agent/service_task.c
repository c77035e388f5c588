/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What control threads ask of a group that runs: posted to its loop, waited for. `turn` is held
 * meanwhile, so the group neither comes nor goes by anybody else's word.
 */
#include <errno.h>
#include <stdio.h>

#include "agent/service.h"
#include "core/base/macros.h"

static bool is_there(struct agent_service *service, char *text, size_t text_max)
{
	enum service_state state = agent_service_state(service);

	/* A group that is held has not been served, and is there to be asked. */
	if (state == SERVICE_SERVING || state == SERVICE_FAILED)
		return true;
	(void)snprintf(text, text_max, "group %s is not served here", service->group_conf->name);
	return false;
}

struct task_call {
	struct agent_task task; /* first: the state machine gives this pointer back */
	struct agent_service *service;
	struct io_op *op;
};

static void task_done(struct agent_task *task)
{
	struct task_call *call = container_of(task, struct task_call, task);

	/* From a later turn: the group is still on the stack. */
	io_defer(loop_io(call->service->loop), call->op, 0);
}

static void begin_task(void *arg, struct io_op *op)
{
	struct task_call *call = arg;

	call->op = op;
	call->task.done = task_done;
	if (call->service->group) {
		agent_group_task(call->service->group, &call->task);
		return;
	}
	call->task.res = -ESHUTDOWN;
	io_defer(loop_io(call->service->loop), op, 0);
}

void agent_service_task(struct agent_service *service, struct agent_task *task)
{
	struct task_call call = { .task = *task, .service = service };

	must(pthread_mutex_lock(&service->turn) == 0);
	if (is_there(service, call.task.text, sizeof(call.task.text)))
		(void)loop_submit(service->loop, begin_task, &call);
	else
		call.task.res = -ESHUTDOWN;
	if (call.task.res == 0 && task->kind == AGENT_VOLUME_RESIZE)
		loop_call(service->loop, agent_service_note_exports, service);
	must(pthread_mutex_unlock(&service->turn) == 0);
	*task = call.task;
}

struct switchover_call {
	struct agent_switchover switchover; /* first, as above */
	struct agent_service *service;
	struct io_op *op;
};

static void switchover_done(struct agent_switchover *switchover)
{
	struct switchover_call *call = container_of(switchover, struct switchover_call, switchover);

	io_defer(loop_io(call->service->loop), call->op, 0);
}

static void begin_switchover(void *arg, struct io_op *op)
{
	struct switchover_call *call = arg;

	call->op = op;
	call->switchover.done = switchover_done;
	if (call->service->group) {
		agent_group_switchover(call->service->group, &call->switchover);
		return;
	}
	call->switchover.res = -ESHUTDOWN;
	io_defer(loop_io(call->service->loop), op, 0);
}

void agent_service_switchover(struct agent_service *service, struct agent_switchover *switchover)
{
	struct switchover_call call = { .switchover = *switchover, .service = service };

	must(pthread_mutex_lock(&service->turn) == 0);
	if (is_there(service, call.switchover.text, sizeof(call.switchover.text)))
		(void)loop_submit(service->loop, begin_switchover, &call);
	else
		call.switchover.res = -ESHUTDOWN;
	must(pthread_mutex_unlock(&service->turn) == 0);
	*switchover = call.switchover;
}
