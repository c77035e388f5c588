/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/control_task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"
#include "core/conf/status_json.h"
#include "core/conf/status_metrics.h"
#include "engine/adopt.h"

static uint64_t wall_ns(void)
{
	struct timespec now;

	must(clock_gettime(CLOCK_REALTIME, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

struct engine_service *engine_control_service(struct engine_control *control, const char *group,
					      struct control_response *response)
{
	for (unsigned i = 0; i < control->service_count; i++) {
		if (strcmp(control->services[i].group_conf->name, group) == 0)
			return &control->services[i];
	}
	control_fail(response, EXIT_NOT_FOUND, "no-such-group",
		     "add it to the configuration and restart the engine", "group %s is not in %s",
		     group, control->conf->file);
	return NULL;
}

static void get_status(void *owner, const struct control_request *request,
		       struct control_response *response)
{
	struct engine_control *control = owner;
	struct status_group *status = calloc(1, sizeof(*status));
	json_t *groups;
	char error[1024];

	(void)request;
	response->json = status_document("engine", control->conf->node, wall_ns());
	groups = json_object_get(response->json, "groups");
	for (unsigned i = 0; status && i < control->service_count; i++) {
		if (engine_service_status(&control->services[i], status, error, sizeof(error)))
			json_array_append_new(groups, status_to_json(status));
	}
	free(status);
}

static void get_group(void *owner, const struct control_request *request,
		      struct control_response *response)
{
	struct engine_control *control = owner;
	struct engine_service *service = engine_control_service(control, request->group, response);
	struct status_group *status = service ? calloc(1, sizeof(*status)) : NULL;
	char error[1024];

	if (!status)
		return;
	if (engine_service_status(service, status, error, sizeof(error)))
		response->json = status_to_json(status);
	else
		control_fail(response, EXIT_NOT_FOUND, "no-group-directory",
			     "make the group with holdfast init", "%s", error);
	free(status);
}

/* ---- promote -----------------------------------------------------------------------------------
 */

static json_t *seconds(uint64_t ns)
{
	return ns == UINT64_MAX ? json_null() : json_real((double)ns / 1e9);
}

static json_t *known(uint64_t count)
{
	return count == UINT64_MAX ? json_null() : json_integer((json_int_t)count);
}

static const char *loss_text(enum engine_loss loss)
{
	switch (loss) {
	case ENGINE_LOSS_NONE:
		return "none";
	case ENGINE_LOSS_NONE_THEN:
		return "none-when-last-heard";
	case ENGINE_LOSS_UNKNOWN:
		return "unknown";
	}
	must_not_reach();
}

static json_t *describe(const struct engine_promote *promote, const char *group, bool already)
{
	char text[TIMEFMT_BYTES];
	json_t *json = json_object();

	json_object_set_new(json, "group", json_string(group));
	json_object_set_new(json, "result", json_string(already ? "already" : "promoted"));
	json_object_set_new(json, "epoch", json_integer((json_int_t)promote->epoch));
	json_object_set_new(json, "seq", json_integer((json_int_t)promote->seq));
	json_object_set_new(json, "position_time",
			    promote->position_time_ns
				    ? json_string(timefmt_ns(promote->position_time_ns, text))
				    : json_null());
	if (already)
		return json;
	json_object_set_new(json, "lost",
			    json_pack("{s:o, s:o, s:o}", "writes", known(promote->lost.writes),
				      "bytes", known(promote->lost.bytes), "seconds",
				      seconds(promote->lost.ns)));
	json_object_set_new(json, "differing_ranges",
			    json_integer((json_int_t)promote->differing_ranges));
	json_object_set_new(json, "acknowledged_lost", json_string(loss_text(promote->loss)));
	json_object_set_new(json, "heard_seconds_ago", seconds(promote->heard_ns_ago));
	json_object_set_new(json, "promote_seconds", seconds(promote->took_ns));
	return json;
}

/* A group that was promoted before: where its history turned is in its superblock. */
static void recall(const struct engine_control *control, const char *group,
		   struct engine_promote *promote)
{
	struct superblock *sb = calloc(1, sizeof(*sb));

	if (sb && peek_superblock(control->conf->state_dir, group, sb) == 0) {
		promote->epoch = sb->epoch;
		if (sb->history_count > 0)
			promote->seq = sb->history[sb->history_count - 1].first_seq - 1;
	}
	free(sb);
}

static void refuse_promote(const struct engine_promote *promote, const char *group,
			   struct control_response *response)
{
	enum exit_code code = EXIT_FAILED;
	const char *reason = err_name(promote->res), *remedy = "see holdfast status";
	char text[sizeof(promote->text)], *cut = NULL;

	switch (promote->res) {
	case -EAGAIN:
		code = EXIT_REFUSED;
		reason = "primary-alive";
		remedy = "stop the primary first, or repeat with --force if its writes may be lost";
		break;
	case -EUCLEAN:
		code = EXIT_REFUSED;
		reason = "never-consistent";
		remedy = "let the first copy finish; there is no position to recover to";
		break;
	case -ESTALE:
		code = EXIT_CONFLICT;
		reason = "epoch";
		remedy = "look at holdfast status, then repeat with the current epoch";
		break;
	case -EPERM:
		code = EXIT_REFUSED;
		reason = "fenced";
		break;
	case -EBUSY:
		code = EXIT_CONFLICT;
		reason = "busy";
		remedy = "wait for what is under way, then repeat";
		break;
	case -ENOENT:
		code = EXIT_NOT_FOUND;
		reason = "no-group-directory";
		remedy = "make the group with holdfast init";
		break;
	default:
		break;
	}
	(void)snprintf(text, sizeof(text), "%s",
		       promote->text[0] ? promote->text : err_text(promote->res));
	/* The state machine may know better what to do. */
	for (char *at = strstr(text, "; "); at; at = strstr(at + 1, "; "))
		cut = at;
	if (cut) {
		*cut = '\0';
		remedy = cut + 2;
	}
	control_fail(response, code, reason, remedy, "%s", text);
	json_object_set_new(response->json, "group", json_string(group));
}

/* Reads what was asked for. False after it answered. */
static bool read_promote(const struct control_request *request, struct engine_promote *promote,
			 struct control_response *response)
{
	const json_t *force = json_object_get(request->body, "force");
	const json_t *expect = json_object_get(request->body, "expect_epoch");

	if ((force && !json_is_boolean(force)) ||
	    (expect && (!json_is_integer(expect) || json_integer_value(expect) < 0))) {
		control_fail(response, EXIT_USAGE, "bad-request", "see docs/reference.md",
			     "force must be true or false, expect_epoch a number");
		return false;
	}
	promote->force = json_is_true(force);
	promote->has_expect_epoch = expect != NULL;
	promote->expect_epoch = expect ? (uint64_t)json_integer_value(expect) : 0;
	return true;
}

static void post_promote(void *owner, const struct control_request *request,
			 struct control_response *response)
{
	struct engine_control *control = owner;
	struct engine_service *service = engine_control_service(control, request->group, response);
	struct engine_promote promote = { .res = 0 };
	uint64_t begin_ns = engine_service_now_ns(), promoted_ns;
	char error[512];
	bool already;
	json_t *json;

	if (!service || !read_promote(request, &promote, response))
		return;
	engine_service_promote(service, &promote);
	already = promote.res == -EALREADY;
	if (promote.res != 0 && !already) {
		log_warning("promote refused", "group=%s reason=\"%s\"", request->group,
			    promote.text);
		refuse_promote(&promote, request->group, response);
		return;
	}
	promoted_ns = engine_service_now_ns();
	if (already)
		recall(control, request->group, &promote);
	else
		log_info("group promoted", "group=%s epoch=%llu seq=%llu", request->group,
			 (unsigned long long)promote.epoch, (unsigned long long)promote.seq);
	json = describe(&promote, request->group, already);
	if (engine_adopt(control->conf, request->group, json, error, sizeof(error)) < 0) {
		control_fail(response, EXIT_FAILED, "not-served",
			     "the role is safe: start or mend holdfast-agent, it serves the group; "
			     "or repeat holdfast promote",
			     "group %s is primary here under epoch %llu, but is not served: %s",
			     request->group, (unsigned long long)promote.epoch, error);
		json_object_set_new(response->json, "promote", json);
		return;
	}
	json_object_set_new(json, "adopt_seconds", seconds(engine_service_now_ns() - promoted_ns));
	json_object_set_new(json, "total_seconds", seconds(engine_service_now_ns() - begin_ns));
	response->json = json;
}

/* ---- observability -----------------------------------------------------------------------------
 */

static void get_metrics(void *owner, const struct control_request *request,
			struct control_response *response)
{
	struct engine_control *control = owner;
	struct status_group *all = calloc(control->service_count + 1, sizeof(*all));
	const struct status_group **list = calloc(control->service_count + 1, sizeof(*list));
	unsigned count = 0;
	char error[1024];

	(void)request;
	/* What no engine has open here is the agent's to export. */
	for (unsigned i = 0; all && list && i < control->service_count; i++) {
		if (engine_service_status(&control->services[i], &all[i], error, sizeof(error)) &&
		    status_is_follower(&all[i]))
			list[count++] = &all[i];
	}
	if (all && list)
		response->text = status_metrics("engine", control->conf->node, list, count);
	response->type = STATUS_METRICS_TYPE;
	free(all);
	free(list);
}

static void get_health(void *owner, const struct control_request *request,
		       struct control_response *response)
{
	struct engine_control *control = owner;
	int res;

	(void)request;
	for (unsigned i = 0; i < control->service_count; i++) {
		if (engine_service_state(&control->services[i], &res) == SERVICE_FAILED &&
		    res != -ENOENT) {
			control_fail(response, EXIT_UNREACHABLE, "failed",
				     "see holdfast status and the engine's log",
				     "group %s cannot be opened",
				     control->services[i].group_conf->name);
			return;
		}
	}
	response->text = strdup("ok\n");
}

static const struct control_route routes[] = {
	{ "GET", "/v1/status", get_status, false },
	{ "GET", "/v1/groups/{group}", get_group, false },
	{ "POST", "/v1/groups/{group}/promote", post_promote, false },
	{ "POST", "/v1/groups/{group}/demote", engine_control_demote, false },
	{ "POST", "/v1/groups/{group}/resync-drop-kept", engine_control_drop_kept, false },
	{ "GET", "/metrics", get_metrics, true },
	{ "GET", "/healthz", get_health, true },
};

int engine_control_start(struct engine_control *control, char *error, size_t error_max)
{
	static char path[256];
	const struct control_options options = {
		.socket_path = path,
		.tcp_listen = control->conf->engine.metrics_listen,
		.routes = routes,
		.route_count = array_len(routes),
		.owner = control,
	};

	(void)snprintf(path, sizeof(path), "%s/engine.sock", control->conf->run_dir);
	return control_server_new(&options, &control->server, error, error_max);
}
