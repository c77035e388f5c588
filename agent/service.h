/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One group of this host as the agent's process runs it: a loop thread, the group's state machine,
 * and the NBD server in front of it. Control threads start and stop it from outside.
 *
 * Threads: functions without a note are for control threads (main, control connections) and block.
 * `turn` lets one of them change the service at a time; `lock` guards what several threads read.
 */
#ifndef HOLDFAST_AGENT_SERVICE_H
#define HOLDFAST_AGENT_SERVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/agent.h"
#include "core/base/log.h"
#include "core/block/nbd_server.h"
#include "core/conf/peek.h"
#include "core/io/loop.h"

#define SERVICE_PATH_MAX 108u /* of an address of a unix socket */

enum service_state {
	SERVICE_STOPPED = 0, /* no group object */
	SERVICE_STARTING,
	SERVICE_SERVING,
	SERVICE_FAILED, /* the group object is there and tells why */
	SERVICE_STOPPING,
};

struct agent_service {
	const struct conf *conf;
	const struct conf_group *group_conf;
	struct io_tls *tls;
	char socket_path[SERVICE_PATH_MAX];
	void (*broken)(const char *name, int res);
	void (*changed)(void *owner); /* from any thread, after the state changed */
	void *owner;

	pthread_mutex_t turn;
	pthread_mutex_t
		lock; /* taken after `turn`, also on loop threads, never held while blocking */
	pthread_cond_t moved;
	/* under `lock` */
	enum service_state state;
	int res;
	struct nbd_server *nbd;				/* NULL: nothing is served */
	struct export_limits limits[GROUP_VOLUMES_MAX]; /* of each volume of the configuration, */
	bool served[GROUP_VOLUMES_MAX];			/* when it is served */

	struct loop *loop; /* made at the first start, kept */
	/* loop thread only */
	struct agent_group *group;
	struct nbd_server *stopping_nbd;
	bool stop_group; /* once the NBD server is gone */
	bool released; /* the group has let go by itself; it is freed once the NBD server is gone */
	bool was_served; /* since its last start */
	struct log_limit ended_limit;
	char error[STATUS_TEXT_MAX];
};

struct service_result {
	int res; /* 0; -ENOENT no such group directory; -ESTALE not primary here; else why it failed
		  */
	bool already;
	bool not_ours;			/* standby or fenced here */
	char text[STATUS_TEXT_MAX * 2]; /* what, where, when res != 0 */
	char remedy[STATUS_TEXT_MAX];
	uint64_t took_ns;
};

void agent_service_init(struct agent_service *service);
/* Stops what runs, ends the loop's thread. */
void agent_service_deinit(struct agent_service *service);
/* Serves the group when its superblock says primary; when it is being served already, says so. */
void agent_service_adopt(struct agent_service *service, struct service_result *ret_result);
/* Stops serving, keeps the role. */
void agent_service_release(struct agent_service *service, struct service_result *ret_result);
/* 0 and the mark's seq, or a negative errno. */
int64_t agent_service_mark(struct agent_service *service, const char *name);
/* Fill everything below `out`; the group is served, or held. -ESHUTDOWN: it is neither. */
void agent_service_task(struct agent_service *service, struct agent_task *task);
void agent_service_switchover(struct agent_service *service, struct agent_switchover *switchover);
/* False when there is no such group directory; `error` says so, or why it cannot be read. */
bool agent_service_status(struct agent_service *service, struct status_group *ret_status,
			  char *error, size_t error_max);
enum service_state agent_service_state(struct agent_service *service);
bool agent_service_alive(struct agent_service *service, unsigned ms);

/* For the lobby, on its loop's thread. */
/* Whether the volume is served now; then *ret_limits is filled. */
bool agent_service_limits(struct agent_service *service, unsigned volume,
			  struct export_limits *ret_limits);
/* Hands a connection over. 0, or -ESHUTDOWN. */
int agent_service_give(struct agent_service *service, struct nbd_conn *conn);
/* Whether an NBD client of that identity may open the group's volumes; any thread. */
bool agent_service_client_allowed(const struct conf_group *group, const struct io_peer *peer);

/* On the loop's thread: the lobby learns what the volumes are like now. `arg` is the service. */
void agent_service_note_exports(void *arg);

/* CLOCK_BOOTTIME for control threads. */
uint64_t agent_service_now_ns(void);

#endif
