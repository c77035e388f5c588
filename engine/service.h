/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One group of this host as the engine's process runs it: a loop thread and the group's state
 * machine. Control threads start, stop and promote it; the lobby gives it connections.
 *
 * Threads: functions without a note are for control threads and block. `turn` lets one of them
 * change the service at a time; `lock` guards what several threads read.
 */
#ifndef HOLDFAST_ENGINE_SERVICE_H
#define HOLDFAST_ENGINE_SERVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/conf/peek.h"
#include "core/io/loop.h"
#include "engine/engine.h"

enum service_state {
	SERVICE_STOPPED = 0, /* no group object */
	SERVICE_STARTING,
	SERVICE_READY,	   /* a standby: receives */
	SERVICE_ELSEWHERE, /* primary here: connections are answered by role and epoch */
	SERVICE_FAILED,	   /* the group object is there and tells why */
	SERVICE_STOPPING,
};

struct engine_service {
	const struct conf *conf;
	const struct conf_group *group_conf;
	void (*broken)(const char *name, int res);
	void (*changed)(void *owner); /* from any thread, after the state changed */
	void (*due)(void *owner); /* from any thread: engine_service_retry() has something to do */
	void *owner;

	pthread_mutex_t turn;
	pthread_mutex_t
		lock; /* taken after `turn`, also on loop threads, never held while blocking */
	pthread_cond_t moved;
	/* under `lock` */
	enum service_state state;
	int res;

	struct loop *loop;	    /* until engine_service_deinit() */
	struct engine_group *group; /* loop thread only */
	bool handed;		    /* under `lock`: a primary handed it over; the agent is due */
	int adopt_told;		    /* under `turn`: the result that the log knows */
	uint64_t adopt_again_ns;    /* under `turn`: not before, when the agent refused */
	int told;		    /* under `turn`: the result that the log knows */
};

int engine_service_init(struct engine_service *service);
void engine_service_deinit(struct engine_service *service);
/* Opens the group, or finds that it is not this engine's. Returns how that went: 0, 1, or errno. */
int engine_service_start(struct engine_service *service);
/*
 * Looks after what changes without being asked, quietly: a group that was not there or not free;
 * one that its agent has let go of; one that became primary here and that no agent serves yet.
 */
void engine_service_retry(struct engine_service *service);
/* Fills everything below `in` of *promote. Afterwards the service answers by the new role. */
void engine_service_promote(struct engine_service *service, struct engine_promote *promote);
/* Fills everything below `in` of *task. */
void engine_service_task(struct engine_service *service, struct engine_task *task);
/* False when there is no such group directory; `error` says so, or why it cannot be read. */
bool engine_service_status(struct engine_service *service, struct status_group *ret_status,
			   char *error, size_t error_max);
enum service_state engine_service_state(struct engine_service *service, int *ret_res);
bool engine_service_alive(struct engine_service *service, unsigned ms);
uint64_t engine_service_now_ns(void);

#endif
