/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/lobby.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/base/units.h"

#define EXPORT_NAME_BYTES (GROUP_NAME_MAX + VOLUME_NAME_MAX + 2u)

/* What the lobby may know of an export on another loop: a copy. */
struct door {
	struct export export;
	char name[EXPORT_NAME_BYTES];
	struct agent_service *service;
	unsigned volume; /* of the configuration */
};

struct agent_lobby {
	const struct conf *conf;
	struct loop *loop;
	struct nbd_server *server;
	struct door *doors;
	unsigned door_count;
	struct log_limit limit;
	/* one synchronous call */
	const struct nbd_server_config *config;
	int res;
	struct io_op *stop_op;
};

static struct export *find_export(void *owner, const char *name, size_t name_length_bytes)
{
	struct agent_lobby *lobby = owner;

	for (unsigned i = 0; i < lobby->door_count; i++) {
		struct door *door = &lobby->doors[i];

		if (strlen(door->name) == name_length_bytes &&
		    memcmp(door->name, name, name_length_bytes) == 0)
			return agent_service_limits(door->service, door->volume,
						    &door->export.limits)
				       ? &door->export
				       : NULL;
	}
	return NULL;
}

static struct export *list_export(void *owner, size_t index)
{
	struct agent_lobby *lobby = owner;

	for (unsigned i = 0; i < lobby->door_count; i++) {
		struct door *door = &lobby->doors[i];

		if (agent_service_limits(door->service, door->volume, &door->export.limits) &&
		    index-- == 0)
			return &door->export;
	}
	return NULL;
}

static const struct door *door_of(const struct export *export)
{
	return (const struct door *)(const void *)((const char *)export -
						   offsetof(struct door, export));
}

static bool may_open(void *owner, const struct io_peer *peer, const struct export *export)
{
	(void)owner;
	return agent_service_client_allowed(door_of(export)->service->group_conf, peer);
}

static int hand_over(void *owner, struct nbd_conn *conn, struct export *export)
{
	(void)owner;
	return agent_service_give(door_of(export)->service, conn);
}

static void conn_ended(void *owner, const struct io_peer *peer, const struct export *export,
		       const char *reason)
{
	struct agent_lobby *lobby = owner;
	uint64_t suppressed;
	char quoted[256];

	(void)export;
	if (reason[0] && log_allowed(&lobby->limit, io_now(loop_io(lobby->loop)), &suppressed))
		log_info("nbd client was refused",
			 "client=%s identity=%s reason=%s suppressed=%llu", peer->address,
			 peer->identity[0] ? peer->identity : "-",
			 log_quote(reason, quoted, sizeof(quoted)), (unsigned long long)suppressed);
}

static const struct nbd_hooks lobby_hooks = {
	.find = find_export,
	.list = list_export,
	.may_open = may_open,
	.handover = hand_over,
	.ended = conn_ended,
};

static int make_doors(struct agent_lobby *lobby, struct agent_service *services, unsigned count)
{
	unsigned total = 0;

	for (unsigned i = 0; i < count; i++)
		total += services[i].group_conf->volume_count;
	lobby->doors = calloc(total ? total : 1, sizeof(*lobby->doors));
	if (!lobby->doors)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		const struct conf_group *group = services[i].group_conf;

		for (unsigned j = 0; j < group->volume_count; j++) {
			struct door *door = &lobby->doors[lobby->door_count++];

			(void)snprintf(door->name, sizeof(door->name), "%s/%s", group->name,
				       group->volumes[j].name);
			door->export.name = door->name;
			door->service = &services[i];
			door->volume = j;
		}
	}
	return 0;
}

static void begin(void *arg)
{
	struct agent_lobby *lobby = arg;

	lobby->res = nbd_server_new(loop_io(lobby->loop), lobby->config, &lobby->server);
}

static void server_stopped(void *arg)
{
	struct agent_lobby *lobby = arg;

	nbd_server_free(lobby->server);
	lobby->server = NULL;
	io_defer(loop_io(lobby->loop), lobby->stop_op, 0);
}

static void begin_stop(void *arg, struct io_op *op)
{
	struct agent_lobby *lobby = arg;

	lobby->stop_op = op;
	nbd_server_stop(lobby->server, server_stopped, lobby);
}

struct agent_lobby *agent_lobby_stop(struct agent_lobby *lobby)
{
	if (!lobby)
		return NULL;
	if (lobby->server)
		(void)loop_submit(lobby->loop, begin_stop, lobby);
	(void)loop_stop(lobby->loop);
	free(lobby->doors);
	free(lobby);
	return NULL;
}

int agent_lobby_start(const struct conf *conf, struct io_tls *tls, struct agent_service *services,
		      unsigned service_count, void (*broken)(const char *name, int res),
		      struct agent_lobby **ret_lobby, char *error, size_t error_max)
{
	const struct uring_config loop_config = { .name = "nbd-lobby" };
	struct agent_lobby *lobby = calloc(1, sizeof(*lobby));
	struct io_address address;
	const struct nbd_server_config config = {
		.listen = &address,
		.tls = conf->agent.nbd_tls_required ? NBD_TLS_REQUIRED : NBD_TLS_OFF,
		.tls_identity = conf->agent.nbd_tls_required ? tls : NULL,
		.hooks = &lobby_hooks,
		.owner = lobby,
		.connections_max = conf->agent.nbd_connections_max,
		.lobby = true,
	};
	int res = -ENOMEM;

	if (lobby) {
		lobby->conf = conf;
		lobby->config = &config;
		lobby->limit = (struct log_limit)LOG_LIMIT(10, 10 * NS_PER_S);
		res = make_doors(lobby, services, service_count);
	}
	if (res == 0)
		res = loop_start(&loop_config, broken, &lobby->loop);
	if (res < 0) {
		(void)snprintf(error, error_max, "cannot start the NBD lobby: %s", err_text(res));
		if (lobby)
			free(lobby->doors);
		free(lobby);
		return res;
	}
	(void)snprintf(address.text, sizeof(address.text), "%s", conf->agent.nbd_listen);
	loop_call(lobby->loop, begin, lobby);
	if (lobby->res < 0) {
		res = lobby->res;
		(void)snprintf(error, error_max,
			       "%s: cannot listen on nbd_listen = %s: %s; choose a free address",
			       conf->file, conf->agent.nbd_listen, err_text(res));
		agent_lobby_stop(lobby);
		return res;
	}
	*ret_lobby = lobby;
	return 0;
}

bool agent_lobby_alive(struct agent_lobby *lobby, unsigned ms)
{
	return !lobby || loop_alive(lobby->loop, ms);
}
