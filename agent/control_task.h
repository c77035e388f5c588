/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API's requests that change a group which the agent serves: each posts to the group's
 * loop and waits. Control threads.
 */
#ifndef HOLDFAST_AGENT_CONTROL_TASK_H
#define HOLDFAST_AGENT_CONTROL_TASK_H

#include "agent/control.h"

/* control.c: the group's service, or NULL after it answered. */
struct agent_service *agent_control_service(struct agent_control *control, const char *group,
					    struct control_response *response);

void agent_control_switchover(void *owner, const struct control_request *request,
			      struct control_response *response);
void agent_control_accept(void *owner, const struct control_request *request,
			  struct control_response *response);
void agent_control_resync(void *owner, const struct control_request *request,
			  struct control_response *response);
void agent_control_verify(void *owner, const struct control_request *request,
			  struct control_response *response);
void agent_control_volume(void *owner, const struct control_request *request,
			  struct control_response *response);

#endif
