/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD over TCP: accepts connections for every group, does TLS, and hands each to the loop of the
 * group whose volume it asks for as GROUP/VOLUME.
 *
 * Owner: control threads start and stop it; the rest happens on its own loop.
 */
#ifndef HOLDFAST_AGENT_LOBBY_H
#define HOLDFAST_AGENT_LOBBY_H

#include "agent/service.h"

struct agent_lobby;

/* 0, or a negative errno with the reason in `error`. */
int agent_lobby_start(const struct conf *conf, struct io_tls *tls, struct agent_service *services,
		      unsigned service_count, void (*broken)(const char *name, int res),
		      struct agent_lobby **ret_lobby, char *error, size_t error_max);
/* NULL is allowed; returns NULL. The services must still be there. */
struct agent_lobby *agent_lobby_stop(struct agent_lobby *lobby);
bool agent_lobby_alive(struct agent_lobby *lobby, unsigned ms);

#endif
