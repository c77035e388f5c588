/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API's requests that change a standby, beside promote: each posts to the group's loop
 * and waits. Control threads.
 */
#ifndef HOLDFAST_ENGINE_CONTROL_TASK_H
#define HOLDFAST_ENGINE_CONTROL_TASK_H

#include "engine/control.h"

/* control.c: the group's service, or NULL after it answered. */
struct engine_service *engine_control_service(struct engine_control *control, const char *group,
					      struct control_response *response);

void engine_control_demote(void *owner, const struct control_request *request,
			   struct control_response *response);
void engine_control_drop_kept(void *owner, const struct control_request *request,
			      struct control_response *response);

#endif
