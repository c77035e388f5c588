/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/control_task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/conf/status_json.h"
#include "core/conf/status_metrics.h"

static uint64_t wall_ns(void)
{
	struct timespec now;

	must(clock_gettime(CLOCK_REALTIME, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

struct agent_service *agent_control_service(struct agent_control *control, const char *group,
					    struct control_response *response)
{
	for (unsigned i = 0; i < control->service_count; i++) {
		if (strcmp(control->services[i].group_conf->name, group) == 0)
			return &control->services[i];
	}
	control_fail(response, EXIT_NOT_FOUND, "no-such-group",
		     "add it to the configuration and restart the agent", "group %s is not in %s",
		     group, control->conf->file);
	return NULL;
}

static void get_status(void *owner, const struct control_request *request,
		       struct control_response *response)
{
	struct agent_control *control = owner;
	struct status_group *status = calloc(1, sizeof(*status));
	json_t *groups;
	char error[1024];

	(void)request;
	response->json = status_document("agent", control->conf->node, wall_ns());
	groups = json_object_get(response->json, "groups");
	for (unsigned i = 0; status && i < control->service_count; i++) {
		if (agent_service_status(&control->services[i], status, error, sizeof(error)))
			json_array_append_new(groups, status_to_json(status));
	}
	free(status);
}

static void get_group(void *owner, const struct control_request *request,
		      struct control_response *response)
{
	struct agent_control *control = owner;
	struct agent_service *service = agent_control_service(control, request->group, response);
	struct status_group *status = service ? calloc(1, sizeof(*status)) : NULL;
	char error[1024];

	if (!status)
		return;
	if (agent_service_status(service, status, error, sizeof(error)))
		response->json = status_to_json(status);
	else
		control_fail(response, EXIT_NOT_FOUND, "no-group-directory",
			     "make the group with holdfast init", "%s", error);
	free(status);
}

static void fail_with(const struct service_result *result, struct control_response *response)
{
	enum exit_code code = EXIT_FAILED;
	const char *reason = err_name(result->res);

	if (result->res == -ENOENT) {
		code = EXIT_NOT_FOUND;
		reason = "no-group-directory";
	} else if (result->res == -ESTALE) {
		code = EXIT_CONFLICT;
		reason = "not-primary";
	} else if (result->res == -EPERM) {
		code = EXIT_REFUSED;
		reason = "held";
	} else if (result->res == -EWOULDBLOCK || result->res == -EBUSY) {
		code = EXIT_CONFLICT;
		reason = "owned-elsewhere";
	}
	control_fail(response, code, reason, result->remedy, "%s", result->text);
}

static void post_adopt(void *owner, const struct control_request *request,
		       struct control_response *response)
{
	struct agent_control *control = owner;
	struct agent_service *service = agent_control_service(control, request->group, response);
	struct status_group *status;
	struct service_result result;
	char error[1024];

	if (!service)
		return;
	agent_service_adopt(service, &result);
	if (result.res != 0) {
		fail_with(&result, response);
		return;
	}
	status = calloc(1, sizeof(*status));
	if (status && agent_service_status(service, status, error, sizeof(error))) {
		response->json = status_to_json(status);
		json_object_set_new(response->json, "already", json_boolean(result.already));
		json_object_set_new(response->json, "took_seconds",
				    json_real((double)result.took_ns / 1e9));
	} else {
		control_fail(response, EXIT_FAILED, "gone", "look at holdfast status",
			     "group %s was served, and is no more", request->group);
	}
	free(status);
}

static void post_release(void *owner, const struct control_request *request,
			 struct control_response *response)
{
	struct agent_control *control = owner;
	struct agent_service *service = agent_control_service(control, request->group, response);
	struct service_result result;

	if (!service)
		return;
	agent_service_release(service, &result);
	if (result.res != 0)
		fail_with(&result, response);
	else
		response->json = json_pack("{s:s, s:s, s:b, s:f}", "group", request->group, "state",
					   "stopped", "already", (int)result.already,
					   "took_seconds", (double)result.took_ns / 1e9);
}

static void post_mark(void *owner, const struct control_request *request,
		      struct control_response *response)
{
	struct agent_control *control = owner;
	struct agent_service *service = agent_control_service(control, request->group, response);
	const char *name = json_string_value(json_object_get(request->body, "name"));
	int64_t res;

	if (!service)
		return;
	if (!name || name[0] == '\0' || strlen(name) > 255) {
		control_fail(response, EXIT_USAGE, "bad-name", "give it a name of 1 to 255 bytes",
			     "a mark needs a name");
		return;
	}
	res = agent_service_mark(service, name);
	if (res == -ESHUTDOWN)
		control_fail(response, EXIT_CONFLICT, "not-served",
			     "set the mark on the node that serves the group",
			     "group %s is not served here", request->group);
	else if (res < 0)
		control_fail(response, EXIT_FAILED, err_name((int)res), "try again",
			     "mark %s in group %s: %s", name, request->group, err_text((int)res));
	else
		response->json = json_pack("{s:s, s:s, s:I}", "group", request->group, "mark", name,
					   "seq", (json_int_t)res);
}

/* A group is the agent's while it is primary here, or fenced and not let go of yet; everything else
 * is the engine's to export. */
static bool exported(const struct status_group *status)
{
	return strcmp(status->role, "primary") == 0 ||
	       (strcmp(status->role, "fenced") == 0 && strcmp(status->state, "stopped") != 0);
}

static void get_metrics(void *owner, const struct control_request *request,
			struct control_response *response)
{
	struct agent_control *control = owner;
	struct status_group *all = calloc(control->service_count + 1, sizeof(*all));
	const struct status_group **list = calloc(control->service_count + 1, sizeof(*list));
	unsigned count = 0;
	char error[1024];

	(void)request;
	for (unsigned i = 0; all && list && i < control->service_count; i++) {
		if (agent_service_status(&control->services[i], &all[i], error, sizeof(error)) &&
		    exported(&all[i]))
			list[count++] = &all[i];
	}
	if (all && list)
		response->text = status_metrics("agent", control->conf->node, list, count);
	response->type = STATUS_METRICS_TYPE;
	free(all);
	free(list);
}

static void get_health(void *owner, const struct control_request *request,
		       struct control_response *response)
{
	struct agent_control *control = owner;

	(void)request;
	for (unsigned i = 0; i < control->service_count; i++) {
		if (agent_service_state(&control->services[i]) == SERVICE_FAILED) {
			control_fail(response, EXIT_UNREACHABLE, "failed",
				     "see holdfast status and the agent's log",
				     "group %s is not served",
				     control->services[i].group_conf->name);
			return;
		}
	}
	response->text = strdup("ok\n");
}

static const struct control_route routes[] = {
	{ "GET", "/v1/status", get_status, false },
	{ "GET", "/v1/groups/{group}", get_group, false },
	{ "POST", "/v1/groups/{group}/adopt", post_adopt, false },
	{ "POST", "/v1/groups/{group}/release", post_release, false },
	{ "POST", "/v1/groups/{group}/mark", post_mark, false },
	{ "POST", "/v1/groups/{group}/switchover", agent_control_switchover, false },
	{ "POST", "/v1/groups/{group}/accept", agent_control_accept, false },
	{ "POST", "/v1/groups/{group}/resync", agent_control_resync, false },
	{ "POST", "/v1/groups/{group}/verify", agent_control_verify, false },
	{ "POST", "/v1/groups/{group}/volume", agent_control_volume, false },
	{ "GET", "/metrics", get_metrics, true },
	{ "GET", "/healthz", get_health, true },
};

int agent_control_start(struct agent_control *control, char *error, size_t error_max)
{
	static char path[SERVICE_PATH_MAX];
	const struct control_options options = {
		.socket_path = path,
		.tcp_listen = control->conf->agent.metrics_listen,
		.routes = routes,
		.route_count = array_len(routes),
		.owner = control,
	};

	(void)snprintf(path, sizeof(path), "%s/agent.sock", control->conf->run_dir);
	return control_server_new(&options, &control->server, error, error_max);
}
