/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's control API (docs/reference.md): who asks what of which service.
 *
 * Handlers run on connection threads of core/conf/control.h and may block.
 */
#ifndef HOLDFAST_ENGINE_CONTROL_H
#define HOLDFAST_ENGINE_CONTROL_H

#include "core/conf/control.h"
#include "engine/service.h"

struct engine_control {
	const struct conf *conf;
	struct engine_service *services;
	unsigned service_count;
	struct control_server *server;
};

/* `control` stays where it is until control_server_free(control->server). */
int engine_control_start(struct engine_control *control, char *error, size_t error_max);

#endif
