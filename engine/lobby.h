/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where primaries knock: accepts TCP, does TLS, reads HELLO, checks who may speak for the group
 * that it names, and moves stream and message to that group's loop.
 *
 * Before its HELLO is read a connection costs one guest of a fixed number and a fixed time. A group
 * that is not configured and one that the peer may not replicate are refused in the same words.
 *
 * Owner: control threads start and stop it; the rest happens on its own loop.
 */
#ifndef HOLDFAST_ENGINE_LOBBY_H
#define HOLDFAST_ENGINE_LOBBY_H

#include "engine/service.h"

struct engine_lobby;

/* 0, or a negative errno with the reason in `error`. */
int engine_lobby_start(const struct conf *conf, struct io_tls *tls, struct engine_service *services,
		       unsigned service_count, void (*broken)(const char *name, int res),
		       struct engine_lobby **ret_lobby, char *error, size_t error_max);
/* NULL is allowed; returns NULL. The services must still be there. */
struct engine_lobby *engine_lobby_stop(struct engine_lobby *lobby);
bool engine_lobby_alive(struct engine_lobby *lobby, unsigned ms);

#endif
