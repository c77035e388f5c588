/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's control API (docs/reference.md): who asks what of which service.
 *
 * Handlers run on connection threads of core/conf/control.h and may block.
 */
#ifndef HOLDFAST_AGENT_CONTROL_H
#define HOLDFAST_AGENT_CONTROL_H

#include "agent/service.h"
#include "core/conf/control.h"

struct agent_control {
	const struct conf *conf;
	struct agent_service *services;
	unsigned service_count;
	struct control_server *server;
};

/* `control` stays where it is until control_server_free(control->server). */
int agent_control_start(struct agent_control *control, char *error, size_t error_max);

#endif
