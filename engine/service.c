/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/service.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/conf/salvage_read.h"
#include "engine/adopt.h"

#define ADOPT_AGAIN_NS (60 * NS_PER_S)

uint64_t engine_service_now_ns(void)
{
	struct timespec now;

	must(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void move(struct engine_service *service, enum service_state state, int res)
{
	must(pthread_mutex_lock(&service->lock) == 0);
	service->state = state;
	service->res = res;
	must(pthread_cond_broadcast(&service->moved) == 0);
	must(pthread_mutex_unlock(&service->lock) == 0);
	service->changed(service->owner);
}

static enum service_state wait_while(struct engine_service *service, enum service_state state,
				     int *ret_res)
{
	enum service_state now;

	must(pthread_mutex_lock(&service->lock) == 0);
	while (service->state == state)
		must(pthread_cond_wait(&service->moved, &service->lock) == 0);
	now = service->state;
	*ret_res = service->res;
	must(pthread_mutex_unlock(&service->lock) == 0);
	return now;
}

enum service_state engine_service_state(struct engine_service *service, int *ret_res)
{
	enum service_state state;

	must(pthread_mutex_lock(&service->lock) == 0);
	state = service->state;
	if (ret_res)
		*ret_res = service->res;
	must(pthread_mutex_unlock(&service->lock) == 0);
	return state;
}

/* ---- on the loop's thread ----------------------------------------------------------------------
 */

static void group_started(void *owner, struct engine_group *group, int res)
{
	struct engine_service *service = owner;
	enum service_state state = res == 0   ? SERVICE_READY
				   : res == 1 ? SERVICE_ELSEWHERE
					      : SERVICE_FAILED;

	(void)group;
	/* A group that was elsewhere may open by itself while somebody begins to stop it. */
	if (engine_service_state(service, NULL) != SERVICE_STOPPING)
		move(service, state, res);
}

static void group_stopped(void *owner, struct engine_group *group, int res)
{
	(void)group;
	move(owner, SERVICE_STOPPED, res);
}

/* The primary has handed it over: from here on HELLOs are answered by the new role, and the thread
 * that calls engine_service_retry() sees to it that the agent serves it. */
static void group_handed(void *owner, struct engine_group *group, uint64_t epoch)
{
	struct engine_service *service = owner;

	(void)group;
	log_info("group handed over to this node", "group=%s epoch=%" PRIu64,
		 service->group_conf->name, epoch);
	must(pthread_mutex_lock(&service->lock) == 0);
	service->handed = true;
	if (service->state == SERVICE_READY)
		service->state = SERVICE_ELSEWHERE;
	must(pthread_mutex_unlock(&service->lock) == 0);
	service->changed(service->owner);
	service->due(service->owner);
}

struct start_call {
	struct engine_service *service;
	int res;
};

static void begin_start(void *arg)
{
	struct start_call *call = arg;
	struct engine_service *service = call->service;
	const struct engine_options options = {
		.io = loop_io(service->loop),
		.conf = service->conf,
		.group = service->group_conf,
		.events = { .owner = service,
			    .started = group_started,
			    .stopped = group_stopped,
			    .handed = group_handed },
	};

	call->res = engine_group_new(&options, &service->group);
	if (call->res == 0)
		engine_group_start(service->group);
}

static void begin_stop(void *arg)
{
	struct engine_service *service = arg;

	engine_group_stop(service->group);
}

static void drop_group(void *arg)
{
	struct engine_service *service = arg;

	service->group = engine_group_free(service->group);
}

/* ---- control threads --------------------------------------------------------------------------
 */

int engine_service_init(struct engine_service *service)
{
	const struct uring_config config = { .name = service->group_conf->name };

	must(pthread_mutex_init(&service->turn, NULL) == 0);
	must(pthread_mutex_init(&service->lock, NULL) == 0);
	must(pthread_cond_init(&service->moved, NULL) == 0);
	service->told = INT_MIN;
	return loop_start(&config, service->broken, &service->loop);
}

/* With `turn` held. */
static int stop_group(struct engine_service *service)
{
	int res = 0;

	if (engine_service_state(service, NULL) == SERVICE_STOPPED)
		return 0;
	must(pthread_mutex_lock(&service->lock) == 0);
	service->state = SERVICE_STOPPING;
	must(pthread_mutex_unlock(&service->lock) == 0);
	loop_call(service->loop, begin_stop, service);
	(void)wait_while(service, SERVICE_STOPPING, &res);
	loop_call(service->loop, drop_group, service);
	return res;
}

void engine_service_deinit(struct engine_service *service)
{
	int res;

	must(pthread_mutex_lock(&service->turn) == 0);
	res = stop_group(service);
	if (res < 0)
		log_warning("group did not stop cleanly; it recovers at the next start",
			    "group=%s reason=%s", service->group_conf->name, err_name(res));
	service->loop = loop_stop(service->loop);
	must(pthread_mutex_unlock(&service->turn) == 0);
	must(pthread_cond_destroy(&service->moved) == 0);
	must(pthread_mutex_destroy(&service->lock) == 0);
	must(pthread_mutex_destroy(&service->turn) == 0);
}

/* With `turn` held. */
static int start_group(struct engine_service *service)
{
	struct start_call call = { .service = service };
	int res;

	(void)stop_group(service);
	move(service, SERVICE_STARTING, 0);
	loop_call(service->loop, begin_start, &call);
	if (call.res < 0) {
		move(service, SERVICE_STOPPED, call.res);
		return call.res;
	}
	(void)wait_while(service, SERVICE_STARTING, &res);
	return res;
}

/* With `turn` held: each news once. */
static void tell(struct engine_service *service, int res)
{
	const char *name = service->group_conf->name;

	if (service->told == res)
		return;
	service->told = res;
	if (res == 0)
		log_info("group is ready to receive", "group=%s", name);
	else if (res == 1)
		log_info("group is no standby here", "group=%s", name);
	else if (res == -ENOENT)
		log_warning("group has no directory yet; make it with holdfast init", "group=%s",
			    name);
	else
		log_error("group cannot be opened", "group=%s reason=%s", name, err_name(res));
}

int engine_service_start(struct engine_service *service)
{
	int res;

	must(pthread_mutex_lock(&service->turn) == 0);
	res = start_group(service);
	tell(service, res);
	must(pthread_mutex_unlock(&service->turn) == 0);
	return res;
}

/*
 * Whether a primary's superblock is as a promote left it: no agent has opened it since (it would
 * know its standbys, and not be clean). A killed engine may have left it like that.
 */
static bool is_fresh(const struct superblock *sb)
{
	return sb->role == GROUP_PRIMARY && (sb->flags & SUPERBLOCK_CLEAN) && !sb->peer_count &&
	       sb->promoted_time_ns;
}

static void hand_to_agent(struct engine_service *service)
{
	const char *name = service->group_conf->name;
	char error[512];
	int res = engine_adopt(service->conf, name, NULL, error, sizeof(error));

	/* Once for a reason. */
	if (res != 0 && res != service->adopt_told)
		log_warning("group is primary here and not served: start or mend holdfast-agent",
			    "group=%s reason=\"%s\"", name, error);
	else if (res == 0)
		log_info("group is served by the agent", "group=%s", name);
	service->adopt_told = res;
	service->adopt_again_ns = res == -EIO ? engine_service_now_ns() + ADOPT_AGAIN_NS : 0;
	must(pthread_mutex_lock(&service->lock) == 0);
	service->handed = false;
	must(pthread_mutex_unlock(&service->lock) == 0);
}

/* With `turn` held. Primary or fenced when it was looked at: that may be over. */
static void look_again(struct engine_service *service)
{
	struct superblock *sb = calloc(1, sizeof(*sb));
	bool handed;

	must(pthread_mutex_lock(&service->lock) == 0);
	handed = service->handed;
	must(pthread_mutex_unlock(&service->lock) == 0);
	if (sb && peek_superblock(service->conf->state_dir, service->group_conf->name, sb) == 0) {
		if (handed || is_fresh(sb)) {
			if (engine_service_now_ns() >= service->adopt_again_ns)
				hand_to_agent(service);
		} else if (sb->role != GROUP_PRIMARY) { /* it came back */
			tell(service, start_group(service));
		}
	}
	free(sb);
}

void engine_service_retry(struct engine_service *service)
{
	enum service_state state;
	int res;

	must(pthread_mutex_lock(&service->turn) == 0);
	state = engine_service_state(service, &res);
	/* Made meanwhile, or let go by its owner. */
	if ((state == SERVICE_FAILED || state == SERVICE_STOPPED) &&
	    (res == -ENOENT || res == -EWOULDBLOCK || res == -EBUSY))
		tell(service, start_group(service));
	else if (state == SERVICE_ELSEWHERE)
		look_again(service);
	must(pthread_mutex_unlock(&service->turn) == 0);
}

struct promote_call {
	struct engine_promote promote; /* first: the state machine gives this pointer back */
	struct engine_service *service;
	struct io_op *op;
};

static void promote_done(struct engine_promote *promote)
{
	struct promote_call *call = container_of(promote, struct promote_call, promote);

	/* From a later turn: the group is still on the stack. */
	io_defer(loop_io(call->service->loop), call->op, 0);
}

static void begin_promote(void *arg, struct io_op *op)
{
	struct promote_call *call = arg;

	call->op = op;
	call->promote.done = promote_done;
	engine_group_promote(call->service->group, &call->promote);
}

void engine_service_promote(struct engine_service *service, struct engine_promote *promote)
{
	struct promote_call call = { .promote = *promote, .service = service };
	enum service_state state;

	must(pthread_mutex_lock(&service->turn) == 0);
	state = engine_service_state(service, NULL);
	if (state == SERVICE_FAILED || state == SERVICE_STOPPED) {
		/* What kept it from opening may be over. */
		(void)start_group(service);
		state = engine_service_state(service, NULL);
	}
	if (state == SERVICE_READY || state == SERVICE_ELSEWHERE) {
		(void)loop_submit(service->loop, begin_promote, &call);
		/* The directory is a primary's now: from here on HELLOs are answered by its epoch.
		 */
		if (call.promote.res == 0)
			tell(service, start_group(service));
	} else {
		(void)engine_service_state(service, &call.promote.res);
		if (call.promote.res >= 0)
			call.promote.res = -EIO;
		/* Locked by somebody; the same number would mean a primary that is alive. */
		if (call.promote.res == -EWOULDBLOCK)
			call.promote.res = -EBUSY;
		(void)snprintf(call.promote.text, sizeof(call.promote.text),
			       "group %s cannot be opened: %s", service->group_conf->name,
			       err_text(call.promote.res));
	}
	must(pthread_mutex_unlock(&service->turn) == 0);
	*promote = call.promote;
}

struct task_call {
	struct engine_task task; /* first: the state machine gives this pointer back */
	struct engine_service *service;
	struct io_op *op;
};

static void task_done(struct engine_task *task)
{
	struct task_call *call = container_of(task, struct task_call, task);

	io_defer(loop_io(call->service->loop), call->op, 0);
}

static void begin_task(void *arg, struct io_op *op)
{
	struct task_call *call = arg;

	call->op = op;
	call->task.done = task_done;
	engine_group_task(call->service->group, &call->task);
}

void engine_service_task(struct engine_service *service, struct engine_task *task)
{
	struct task_call call = { .task = *task, .service = service };
	enum service_state state;

	must(pthread_mutex_lock(&service->turn) == 0);
	state = engine_service_state(service, NULL);
	if (state == SERVICE_FAILED || state == SERVICE_STOPPED) {
		(void)start_group(service);
		state = engine_service_state(service, NULL);
	}
	if (state == SERVICE_READY || state == SERVICE_ELSEWHERE) {
		(void)loop_submit(service->loop, begin_task, &call);
	} else {
		(void)engine_service_state(service, &call.task.res);
		if (call.task.res >= 0)
			call.task.res = -EIO;
		(void)snprintf(call.task.text, sizeof(call.task.text),
			       "group %s cannot be opened: %s", service->group_conf->name,
			       err_text(call.task.res));
	}
	must(pthread_mutex_unlock(&service->turn) == 0);
	*task = call.task;
}

struct status_call {
	struct engine_service *service;
	struct status_group *status;
	bool filled;
};

static void fill_status(void *arg)
{
	struct status_call *call = arg;

	if (!call->service->group)
		return;
	engine_group_status(call->service->group, call->status);
	call->filled = true;
}

bool engine_service_status(struct engine_service *service, struct status_group *ret_status,
			   char *error, size_t error_max)
{
	struct status_call call = { .service = service, .status = ret_status };
	enum service_state state = engine_service_state(service, NULL);
	struct superblock *sb;
	char dir[1100];
	int res;

	/* A group that is not this engine's is described by its superblock. */
	if (state != SERVICE_STOPPED && state != SERVICE_ELSEWHERE)
		loop_call(service->loop, fill_status, &call);
	if (!call.filled) {
		sb = calloc(1, sizeof(*sb));
		res = sb ? peek_superblock(service->conf->state_dir, service->group_conf->name, sb)
			 : -ENOMEM;
		if (res == 0)
			peek_status(sb, service->conf->node, ret_status);
		free(sb);
		if (res != 0) {
			(void)snprintf(error, error_max, "%s/%s/superblock: %s",
				       service->conf->state_dir, service->group_conf->name,
				       res > 0 ? superblock_condition_text(res) : err_text(res));
			return false;
		}
	}
	(void)snprintf(dir, sizeof(dir), "%s/%s", service->conf->state_dir,
		       service->group_conf->name);
	ret_status->salvages = salvage_count(dir);
	ret_status->rpo_objective_ns = service->group_conf->rpo_objective_ns;
	ret_status->rto_objective_ns = service->group_conf->rto_objective_ns;
	for (unsigned i = 0; i < ret_status->volume_count; i++) {
		struct status_volume *volume = &ret_status->volumes[i];

		for (unsigned j = 0; j < service->group_conf->volume_count; j++) {
			if (strcmp(service->group_conf->volumes[j].name, volume->name) == 0)
				(void)snprintf(volume->path, sizeof(volume->path), "%s",
					       service->group_conf->volumes[j].path);
		}
	}
	return true;
}

bool engine_service_alive(struct engine_service *service, unsigned ms)
{
	return loop_alive(service->loop, ms);
}
