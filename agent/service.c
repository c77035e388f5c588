/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting and stopping a group.
 *
 *   control thread                      loop thread
 *   adopt: peek, loop, begin_start ---> agent_group_new, agent_group_start
 *   waits on `moved`               <--- started: NBD server up, SERVING (or FAILED)
 *                                       failed:  NBD server down at once, FAILED
 *                                       released: once NBD is down, the group is freed: STOPPED
 *   release: begin_stop            ---> NBD server down, then agent_group_stop
 *   waits on `moved`               <--- stopped
 *   drop_group                     ---> agent_group_free
 */
#include "agent/service.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/base/units.h"

uint64_t agent_service_now_ns(void)
{
	struct timespec now;

	must(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void move(struct agent_service *service, enum service_state state, int res)
{
	must(pthread_mutex_lock(&service->lock) == 0);
	service->state = state;
	service->res = res;
	must(pthread_cond_broadcast(&service->moved) == 0);
	must(pthread_mutex_unlock(&service->lock) == 0);
	service->changed(service->owner);
}

/* Waits while the state is `state`. */
static enum service_state wait_while(struct agent_service *service, enum service_state state,
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

/* ---- NBD, on the loop's thread -----------------------------------------------------------------
 */

/* VOLUME or GROUP/VOLUME; nothing at all where there is only one. */
static struct export *find_export(void *owner, const char *name, size_t name_length_bytes)
{
	struct agent_service *service = owner;
	size_t prefix = strlen(service->group_conf->name);
	char volume[VOLUME_NAME_MAX + 1];

	if (!service->group)
		return NULL;
	if (name_length_bytes == 0)
		return agent_group_export_at(service->group, 1)
			       ? NULL
			       : agent_group_export_at(service->group, 0);
	if (name_length_bytes > prefix && name[prefix] == '/' &&
	    memcmp(name, service->group_conf->name, prefix) == 0) {
		name += prefix + 1;
		name_length_bytes -= prefix + 1;
	}
	if (name_length_bytes > VOLUME_NAME_MAX || memchr(name, '\0', name_length_bytes))
		return NULL;
	memcpy(volume, name, name_length_bytes);
	volume[name_length_bytes] = '\0';
	return agent_group_export(service->group, volume);
}

static struct export *list_export(void *owner, size_t index)
{
	struct agent_service *service = owner;

	if (!service->group || index >= GROUP_VOLUMES_MAX)
		return NULL;
	return agent_group_export_at(service->group, (unsigned)index);
}

bool agent_service_client_allowed(const struct conf_group *group, const struct io_peer *peer)
{
	/* Without TLS there is no identity: then the socket's own permissions decide. */
	if (peer->identity[0] == '\0' || group->nbd_client_count == 0)
		return true;
	for (unsigned i = 0; i < group->nbd_client_count; i++) {
		if (strcmp(group->nbd_clients[i], peer->identity) == 0)
			return true;
	}
	return false;
}

static bool may_open(void *owner, const struct io_peer *peer, const struct export *export)
{
	const struct agent_service *service = owner;

	(void)export;
	return agent_service_client_allowed(service->group_conf, peer);
}

static void conn_ended(void *owner, const struct io_peer *peer, const struct export *export,
		       const char *reason)
{
	struct agent_service *service = owner;
	uint64_t suppressed;
	char quoted[256];

	/* Clients decide how often they come and go. */
	if (reason[0] &&
	    log_allowed(&service->ended_limit, io_now(loop_io(service->loop)), &suppressed))
		log_info("nbd connection ended",
			 "group=%s volume=%s client=%s identity=%s reason=%s suppressed=%" PRIu64,
			 service->group_conf->name, export ? export->name : "-", peer->address,
			 peer->identity[0] ? peer->identity : "-",
			 log_quote(reason, quoted, sizeof(quoted)), suppressed);
}

static const struct nbd_hooks nbd_hooks = {
	.find = find_export,
	.list = list_export,
	.may_open = may_open,
	.ended = conn_ended,
};

void agent_service_note_exports(void *arg)
{
	struct agent_service *service = arg;

	must(pthread_mutex_lock(&service->lock) == 0);
	for (unsigned i = 0; service->nbd && i < service->group_conf->volume_count; i++) {
		const struct export *export =
			agent_group_export(service->group, service->group_conf->volumes[i].name);

		service->served[i] = export != NULL;
		if (export)
			service->limits[i] = export->limits;
	}
	must(pthread_mutex_unlock(&service->lock) == 0);
}

static int start_nbd(struct agent_service *service)
{
	struct io_address address;
	struct nbd_server_config config = {
		.listen = &address,
		.tls = NBD_TLS_OFF,
		.hooks = &nbd_hooks,
		.owner = service,
		.connections_max = service->conf->agent.nbd_connections_max,
	};
	struct nbd_server *nbd;
	int res;

	(void)snprintf(address.text, sizeof(address.text), "unix:%s", service->socket_path);
	res = nbd_server_new(loop_io(service->loop), &config, &nbd);
	if (res < 0) {
		(void)snprintf(service->error, sizeof(service->error), "NBD socket %s: %s%s",
			       service->socket_path, err_text(res),
			       res == -EADDRINUSE ? "; remove what is there, or stop who uses it"
						  : "; check run_dir and its permissions");
		return res;
	}
	must(pthread_mutex_lock(&service->lock) == 0);
	service->nbd = nbd;
	must(pthread_mutex_unlock(&service->lock) == 0);
	agent_service_note_exports(service);
	return 0;
}

static void nbd_stopped(void *arg);

/* Takes the server out of sight first: the lobby gives it nothing more. True when there was one. */
static bool stop_nbd(struct agent_service *service)
{
	struct nbd_server *nbd;

	must(pthread_mutex_lock(&service->lock) == 0);
	nbd = service->nbd;
	service->nbd = NULL;
	memset(service->served, 0, sizeof(service->served));
	must(pthread_mutex_unlock(&service->lock) == 0);
	if (!nbd)
		return false;
	service->stopping_nbd = nbd;
	nbd_server_stop(nbd, nbd_stopped, service);
	return true;
}

/* The group has let go of its directory: what it is now, the superblock says. */
static void drop_released(struct agent_service *service)
{
	bool dropped;

	must(pthread_mutex_lock(&service->lock) == 0);
	/* A stop that has been begun drops it. */
	dropped = service->state == SERVICE_FAILED;
	if (dropped)
		service->state = SERVICE_STOPPED;
	must(pthread_cond_broadcast(&service->moved) == 0);
	must(pthread_mutex_unlock(&service->lock) == 0);
	if (!dropped)
		return;
	service->group = agent_group_free(service->group);
	service->changed(service->owner);
}

static void nbd_stopped(void *arg)
{
	struct agent_service *service = arg;

	nbd_server_free(service->stopping_nbd);
	service->stopping_nbd = NULL;
	if (service->released) {
		service->released = false;
		drop_released(service);
	}
	if (service->stop_group) {
		service->stop_group = false;
		agent_group_stop(service->group);
	}
}

/* ---- the group's events, on the loop's thread -------------------------------------------------
 */

static void copy_detail(void *arg)
{
	struct agent_service *service = arg;
	struct status_group *status = calloc(1, sizeof(*status));

	if (status && service->group && !service->error[0]) {
		agent_group_status(service->group, status);
		(void)snprintf(service->error, sizeof(service->error), "%s", status->detail);
	}
	free(status);
}

static void group_started(void *owner, struct agent_group *group, int res)
{
	struct agent_service *service = owner;

	service->group = group;
	service->was_served = res == 0;
	if (res == 0 && agent_service_state(service) == SERVICE_FAILED) {
		service->error[0] = '\0';
		log_info("group was held and is served now", "group=%s socket=%s",
			 service->group_conf->name, service->socket_path);
	}
	if (res == 0)
		res = start_nbd(service);
	if (res != 0)
		copy_detail(service);
	move(service, res == 0 ? SERVICE_SERVING : SERVICE_FAILED, res);
}

static void group_failed(void *owner, struct agent_group *group, int res)
{
	struct agent_service *service = owner;

	service->group = group;
	copy_detail(service);
	log_error("group is no longer served", "group=%s reason=%s detail=\"%s\"",
		  service->group_conf->name, err_name(res), service->error);
	(void)stop_nbd(service);
	must(pthread_mutex_lock(&service->lock) == 0);
	/* While it is being stopped, `stopped` tells the rest. */
	if (service->state != SERVICE_STOPPING)
		service->state = SERVICE_FAILED;
	service->res = res;
	must(pthread_cond_broadcast(&service->moved) == 0);
	must(pthread_mutex_unlock(&service->lock) == 0);
	service->changed(service->owner);
}

static void group_stopped(void *owner, struct agent_group *group, int res)
{
	struct agent_service *service = owner;

	(void)group;
	if (!service->was_served)
		log_info("group stopped, it was not served", "group=%s", service->group_conf->name);
	else if (res == 0)
		log_info("group stopped, its volumes are current", "group=%s",
			 service->group_conf->name);
	else
		log_warning("group stopped, its volumes are not current: the journal has the rest",
			    "group=%s reason=%s", service->group_conf->name, err_name(res));
	move(service, SERVICE_STOPPED, res);
}

static void group_released(void *owner, struct agent_group *group)
{
	struct agent_service *service = owner;

	(void)group;
	log_info("group let go of", "group=%s", service->group_conf->name);
	service->released = service->stopping_nbd != NULL;
	if (!service->released)
		drop_released(service);
}

struct start_call {
	struct agent_service *service;
	int res;
};

static void begin_start(void *arg)
{
	struct start_call *call = arg;
	struct agent_service *service = call->service;
	const struct agent_options options = {
		.io = loop_io(service->loop),
		.conf = service->conf,
		.group = service->group_conf,
		.tls = service->tls,
		.events = { .owner = service,
			    .started = group_started,
			    .failed = group_failed,
			    .stopped = group_stopped,
			    .released = group_released },
	};

	service->error[0] = '\0';
	call->res = agent_group_new(&options, &service->group);
	if (call->res == 0)
		agent_group_start(service->group);
}

static void begin_stop(void *arg)
{
	struct agent_service *service = arg;

	if (!service->group) { /* it has just let go by itself */
		move(service, SERVICE_STOPPED, 0);
		return;
	}
	/* Clients first: what they have in flight still becomes part of the history. */
	agent_group_leave(service->group);
	service->stop_group = true;
	if (!stop_nbd(service) && !service->stopping_nbd) {
		service->stop_group = false;
		agent_group_stop(service->group);
	}
}

static void drop_group(void *arg)
{
	struct agent_service *service = arg;

	service->released = false;
	if (service->group)
		service->group = agent_group_free(service->group);
}

/* ---- control threads --------------------------------------------------------------------------
 */

void agent_service_init(struct agent_service *service)
{
	must(pthread_mutex_init(&service->turn, NULL) == 0);
	must(pthread_mutex_init(&service->lock, NULL) == 0);
	must(pthread_cond_init(&service->moved, NULL) == 0);
	service->ended_limit = (struct log_limit)LOG_LIMIT(10, 10 * NS_PER_S);
	(void)snprintf(service->socket_path, sizeof(service->socket_path), "%s/nbd-%s.sock",
		       service->conf->run_dir, service->group_conf->name);
}

enum service_state agent_service_state(struct agent_service *service)
{
	enum service_state state;

	must(pthread_mutex_lock(&service->lock) == 0);
	state = service->state;
	must(pthread_mutex_unlock(&service->lock) == 0);
	return state;
}

/* With `turn` held: whatever runs is stopped and freed. Returns how the stop went. */
static int stop_group(struct agent_service *service)
{
	enum service_state state = agent_service_state(service);
	int res = 0;

	if (state == SERVICE_STOPPED)
		return 0;
	must(pthread_mutex_lock(&service->lock) == 0);
	service->state = SERVICE_STOPPING;
	must(pthread_mutex_unlock(&service->lock) == 0);
	loop_call(service->loop, begin_stop, service);
	(void)wait_while(service, SERVICE_STOPPING, &res);
	loop_call(service->loop, drop_group, service);
	/* What had failed before was told then. */
	return state == SERVICE_FAILED ? 0 : res;
}

void agent_service_deinit(struct agent_service *service)
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

/* Whether the group is this agent's to serve; if not, *result says why. */
static bool is_ours(struct agent_service *service, struct service_result *result)
{
	const char *name = service->group_conf->name, *state_dir = service->conf->state_dir;
	struct superblock *sb = calloc(1, sizeof(*sb));
	bool ours = false;
	int res = sb ? peek_superblock(state_dir, name, sb) : -ENOMEM;

	if (res == 0 && sb->role == GROUP_PRIMARY) {
		ours = true;
	} else if (res == 0) {
		result->res = -ESTALE;
		result->not_ours = true;
		(void)snprintf(result->text, sizeof(result->text), "group %s is %s here", name,
			       peek_role(sb));
		(void)snprintf(result->remedy, sizeof(result->remedy),
			       sb->role == GROUP_STANDBY
				       ? "promote it first: holdfast promote %s"
				       : "group %s follows the new primary once it is rejoined",
			       name);
	} else {
		result->res = res < 0 ? res : -EUCLEAN;
		(void)snprintf(result->text, sizeof(result->text), "%s/%s/superblock: %s",
			       state_dir, name,
			       res > 0 ? superblock_condition_text(res) : err_text(res));
		(void)snprintf(result->remedy, sizeof(result->remedy), "%s",
			       res == -ENOENT ? "make the group with holdfast init"
					      : "check the directory with holdfast doctor");
	}
	free(sb);
	return ours;
}

static void adopt(struct agent_service *service, struct service_result *result)
{
	struct start_call call = { .service = service };
	const struct uring_config config = { .name = service->group_conf->name };
	const char *why;
	bool named;

	if (agent_service_state(service) == SERVICE_SERVING) {
		result->already = true;
		return;
	}
	if (!is_ours(service, result))
		return;
	(void)stop_group(service);
	if (!service->loop) {
		result->res = loop_start(&config, service->broken, &service->loop);
		if (result->res < 0) {
			(void)snprintf(result->text, sizeof(result->text),
				       "group %s: cannot start its loop: %s",
				       service->group_conf->name, err_text(result->res));
			(void)snprintf(result->remedy, sizeof(result->remedy),
				       "check io_uring and limits with holdfast doctor");
			return;
		}
	}
	move(service, SERVICE_STARTING, 0);
	loop_call(service->loop, begin_start, &call);
	if (call.res < 0) {
		move(service, SERVICE_STOPPED, call.res);
		result->res = call.res;
		(void)snprintf(result->text, sizeof(result->text), "group %s: %s",
			       service->group_conf->name, err_text(call.res));
		(void)snprintf(result->remedy, sizeof(result->remedy),
			       "lower memory in its section of %s", service->conf->file);
		return;
	}
	if (wait_while(service, SERVICE_STARTING, &result->res) == SERVICE_SERVING)
		return;
	if (result->res == 0)
		result->res = -EIO;
	why = err_text(result->res);
	/* Some details say the kernel's reason themselves. */
	named = result->res == -EWOULDBLOCK || strstr(service->error, why);
	(void)snprintf(result->text, sizeof(result->text), "group %s is not served: %s%s%s",
		       service->group_conf->name, service->error,
		       service->error[0] && !named ? ": " : "",
		       service->error[0] && named ? "" : why);
	(void)snprintf(result->remedy, sizeof(result->remedy),
		       "see holdfast status %s and the agent's log", service->group_conf->name);
}

void agent_service_adopt(struct agent_service *service, struct service_result *ret_result)
{
	uint64_t begin_ns = agent_service_now_ns();

	memset(ret_result, 0, sizeof(*ret_result));
	must(pthread_mutex_lock(&service->turn) == 0);
	adopt(service, ret_result);
	must(pthread_mutex_unlock(&service->turn) == 0);
	ret_result->took_ns = agent_service_now_ns() - begin_ns;
	if (ret_result->already)
		return;
	if (ret_result->res == 0)
		log_info("group is served", "group=%s socket=%s", service->group_conf->name,
			 service->socket_path);
	else if (ret_result->not_ours || ret_result->res == -ENOENT)
		log_info("group is not this agent's to serve", "group=%s reason=\"%s\"",
			 service->group_conf->name, ret_result->text);
	else
		log_error("group cannot be served", "group=%s reason=\"%s\"",
			  service->group_conf->name, ret_result->text);
}

void agent_service_release(struct agent_service *service, struct service_result *ret_result)
{
	uint64_t begin_ns = agent_service_now_ns();

	memset(ret_result, 0, sizeof(*ret_result));
	must(pthread_mutex_lock(&service->turn) == 0);
	ret_result->already = agent_service_state(service) == SERVICE_STOPPED;
	ret_result->res = stop_group(service);
	must(pthread_mutex_unlock(&service->turn) == 0);
	ret_result->took_ns = agent_service_now_ns() - begin_ns;
	if (ret_result->res < 0) {
		(void)snprintf(ret_result->text, sizeof(ret_result->text),
			       "group %s did not stop cleanly: %s", service->group_conf->name,
			       err_text(ret_result->res));
		(void)snprintf(ret_result->remedy, sizeof(ret_result->remedy),
			       "it recovers from its journal at the next start");
	} else if (!ret_result->already) {
		log_info("group released, volumes current", "group=%s", service->group_conf->name);
	}
}

struct mark_call {
	struct agent_service *service;
	const char *name;
};

static void begin_mark(void *arg, struct io_op *op)
{
	struct mark_call *call = arg;
	struct agent_service *service = call->service;

	if (service->group)
		agent_group_mark(service->group, call->name, op);
	else
		io_defer(loop_io(service->loop), op, -ESHUTDOWN);
}

int64_t agent_service_mark(struct agent_service *service, const char *name)
{
	struct mark_call call = { .service = service, .name = name };
	int64_t res = -ESHUTDOWN;

	/* One at a time, and not while the group comes or goes. */
	must(pthread_mutex_lock(&service->turn) == 0);
	if (agent_service_state(service) == SERVICE_SERVING)
		res = loop_submit(service->loop, begin_mark, &call);
	must(pthread_mutex_unlock(&service->turn) == 0);
	return res;
}

struct status_call {
	struct agent_service *service;
	struct status_group *status;
	bool filled;
};

static void fill_status(void *arg)
{
	struct status_call *call = arg;
	struct agent_service *service = call->service;
	struct status_group *status = call->status;

	if (!service->group)
		return;
	agent_group_status(service->group, status);
	if (status->detail[0] == '\0' && service->error[0]) {
		(void)snprintf(status->state, sizeof(status->state), "failed");
		(void)snprintf(status->detail, sizeof(status->detail), "%s", service->error);
	}
	call->filled = true;
}

bool agent_service_status(struct agent_service *service, struct status_group *ret_status,
			  char *error, size_t error_max)
{
	struct status_call call = { .service = service, .status = ret_status };
	struct service_result why = { .res = 0 };
	struct superblock *sb;
	struct loop *loop;
	bool serving;
	int res;

	/* The loop, once made, stays; its pointer is written under `turn` only before that. */
	must(pthread_mutex_lock(&service->lock) == 0);
	loop = service->state == SERVICE_STOPPED ? NULL : service->loop;
	must(pthread_mutex_unlock(&service->lock) == 0);
	if (loop)
		loop_call(loop, fill_status, &call);
	if (!call.filled) {
		sb = calloc(1, sizeof(*sb));
		res = sb ? peek_superblock(service->conf->state_dir, service->group_conf->name, sb)
			 : -ENOMEM;
		if (res == 0)
			peek_status(sb, service->conf->node, ret_status);
		else
			(void)is_ours(service, &why);
		free(sb);
		if (res != 0) {
			(void)snprintf(error, error_max, "%s; %s", why.text, why.remedy);
			return false;
		}
		ret_status->rpo_objective_ns = service->group_conf->rpo_objective_ns;
		ret_status->rto_objective_ns = service->group_conf->rto_objective_ns;
	}
	serving = call.filled && strcmp(ret_status->state, "serving") == 0;
	for (unsigned i = 0; i < ret_status->volume_count; i++) {
		struct status_volume *volume = &ret_status->volumes[i];

		for (unsigned j = 0; j < service->group_conf->volume_count; j++) {
			const struct conf_volume *conf = &service->group_conf->volumes[j];

			if (strcmp(conf->name, volume->name) != 0)
				continue;
			(void)snprintf(volume->path, sizeof(volume->path), "%s", conf->path);
			if (serving)
				(void)snprintf(volume->uri, sizeof(volume->uri),
					       "nbd+unix:///%s?socket=%s", conf->name,
					       service->socket_path);
		}
	}
	return true;
}

bool agent_service_alive(struct agent_service *service, unsigned ms)
{
	return agent_service_state(service) == SERVICE_STOPPED || loop_alive(service->loop, ms);
}

bool agent_service_limits(struct agent_service *service, unsigned volume,
			  struct export_limits *ret_limits)
{
	bool served;

	must(pthread_mutex_lock(&service->lock) == 0);
	served = service->nbd && service->served[volume];
	if (served)
		*ret_limits = service->limits[volume];
	must(pthread_mutex_unlock(&service->lock) == 0);
	return served;
}

int agent_service_give(struct agent_service *service, struct nbd_conn *conn)
{
	int res = -ESHUTDOWN;

	/* The server stays until its stop, which begins with taking it out of `nbd`. */
	must(pthread_mutex_lock(&service->lock) == 0);
	if (service->nbd) {
		nbd_conn_adopt(conn, loop_io(service->loop), service->nbd);
		res = 0;
	}
	must(pthread_mutex_unlock(&service->lock) == 0);
	return res;
}
