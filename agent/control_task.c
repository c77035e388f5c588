/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/control_task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/units.h"
#include "core/conf/status_json.h"

#define HOLD_NS_DEFAULT (30 * NS_PER_S)
#define HOLD_S_MAX	3600.0

/* ---- what was asked ---------------------------------------------------------------------------
 */

/* A member that may be missing and else is of that type. */
struct member {
	const char *key;
	json_type type;
	const char *must_be;
};

static bool is_kind(const json_t *value, json_type type)
{
	if (type == JSON_TRUE)
		return json_is_boolean(value);
	if (type == JSON_REAL)
		return json_is_number(value) && json_number_value(value) > 0;
	if (type == JSON_INTEGER)
		return json_is_integer(value) && json_integer_value(value) >= 0;
	return json_typeof(value) == type;
}

/* False after it answered. */
static bool check(const struct control_request *request, const struct member *members,
		  struct control_response *response)
{
	for (; members->key; members++) {
		const json_t *value = json_object_get(request->body, members->key);

		if (!value || is_kind(value, members->type))
			continue;
		control_fail(response, EXIT_USAGE, "bad-request", "see docs/reference.md",
			     "%s must be %s", members->key, members->must_be);
		return false;
	}
	return true;
}

static const char *text_in(const struct control_request *request, const char *key)
{
	return json_string_value(json_object_get(request->body, key));
}

static bool flag_in(const struct control_request *request, const char *key)
{
	return json_is_true(json_object_get(request->body, key));
}

static uint64_t number_in(const struct control_request *request, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(request->body, key));

	return value > 0 ? (uint64_t)value : 0;
}

/* ---- what came of it --------------------------------------------------------------------------
 */

static const struct refusal {
	int res;
	enum exit_code code;
	const char *reason, *remedy;
} refusals[] = {
	{ -EAGAIN, EXIT_REFUSED, "not-ready", "see holdfast status, then repeat" },
	{ -EPERM, EXIT_REFUSED, "refused", "see holdfast status" },
	{ -ESTALE, EXIT_CONFLICT, "epoch",
	  "look at holdfast status, then repeat with the current epoch" },
	{ -EBUSY, EXIT_CONFLICT, "busy", "wait for what is under way, then repeat" },
	{ -EEXIST, EXIT_CONFLICT, "exists", "see holdfast status" },
	{ -EALREADY, EXIT_CONFLICT, "nothing-to-do", "see holdfast status" },
	{ -ESHUTDOWN, EXIT_CONFLICT, "not-served", "do it on the node that serves the group" },
	{ -ENOENT, EXIT_NOT_FOUND, "not-found", "see holdfast status" },
	{ -EINVAL, EXIT_USAGE, "bad-request", "see docs/reference.md" },
	{ -ETIMEDOUT, EXIT_FAILED, "given-up", "everything is as it was; see holdfast status" },
	{ -EINPROGRESS, EXIT_TIMEOUT, "outcome-unknown",
	  "writes wait until the standby has answered; see holdfast status on both nodes" },
};

static void refuse(const char *what, const char *group, int res, const char *why,
		   struct control_response *response)
{
	struct refusal refusal = { res, EXIT_FAILED, err_name(res), "see holdfast status" };
	char text[600], *cut = NULL;

	for (size_t i = 0; i < array_len(refusals); i++) {
		if (refusals[i].res == res)
			refusal = refusals[i];
	}
	(void)snprintf(text, sizeof(text), "%s", why[0] ? why : err_text(res));
	/* The state machine may know better what to do. */
	for (char *at = strstr(text, "; "); at; at = strstr(at + 1, "; "))
		cut = at;
	if (cut) {
		*cut = '\0';
		refusal.remedy = cut + 2;
	}
	log_warning("request refused", "request=%s group=%s reason=\"%s\"", what, group, text);
	control_fail(response, refusal.code, refusal.reason, refusal.remedy, "%s", text);
	json_object_set_new(response->json, "group", json_string(group));
}

static json_t *status_of(struct agent_service *service)
{
	struct status_group *status = calloc(1, sizeof(*status));
	char error[1024];
	json_t *json = NULL;

	if (status && agent_service_status(service, status, error, sizeof(error)))
		json = status_to_json(status);
	free(status);
	return json;
}

/* ---- switchover --------------------------------------------------------------------------------
 */

void agent_control_switchover(void *owner, const struct control_request *request,
			      struct control_response *response)
{
	static const struct member members[] = {
		{ "to", JSON_STRING, "the name of a node" },
		{ "timeout_seconds", JSON_REAL, "a number of seconds" },
		{ "expect_epoch", JSON_INTEGER, "a number" },
		{ NULL, JSON_NULL, NULL },
	};
	struct agent_service *service = agent_control_service(owner, request->group, response);
	const json_t *timeout = json_object_get(request->body, "timeout_seconds");
	struct agent_switchover call = {
		.node = text_in(request, "to"),
		.timeout_ns = HOLD_NS_DEFAULT,
		.has_expect_epoch = json_object_get(request->body, "expect_epoch") != NULL,
		.expect_epoch = number_in(request, "expect_epoch"),
	};

	if (!service || !check(request, members, response))
		return;
	if (timeout && json_number_value(timeout) > HOLD_S_MAX) {
		control_fail(response, EXIT_USAGE, "bad-request", "at most an hour",
			     "timeout_seconds is too long");
		return;
	}
	if (timeout)
		call.timeout_ns = (uint64_t)(json_number_value(timeout) * 1e9);
	agent_service_switchover(service, &call);
	if (call.res != 0) {
		refuse("switchover", request->group, call.res, call.text, response);
		return;
	}
	log_info("group handed over", "group=%s to=%s epoch=%" PRIu64 " seq=%" PRIu64,
		 request->group, call.to, call.epoch, call.seq);
	response->json =
		json_pack("{s:s, s:s, s:s, s:I, s:I, s:f, s:f}", "group", request->group, "result",
			  "switched", "to", call.to, "epoch", (json_int_t)call.epoch, "seq",
			  (json_int_t)call.seq, "held_seconds", (double)call.held_ns / 1e9,
			  "took_seconds", (double)call.took_ns / 1e9);
}

/* ---- accept ------------------------------------------------------------------------------------
 */

void agent_control_accept(void *owner, const struct control_request *request,
			  struct control_response *response)
{
	static const struct member members[] = {
		{ "expect_epoch", JSON_INTEGER, "a number" },
		{ NULL, JSON_NULL, NULL },
	};
	struct agent_service *service = agent_control_service(owner, request->group, response);
	struct agent_task task = {
		.kind = AGENT_ACCEPT,
		.has_expect_epoch = json_object_get(request->body, "expect_epoch") != NULL,
		.expect_epoch = number_in(request, "expect_epoch"),
	};

	if (!service || !check(request, members, response))
		return;
	if (!task.has_expect_epoch) {
		control_fail(response, EXIT_USAGE, "bad-request",
			     "give the epoch that holdfast status shows",
			     "expect_epoch is missing");
		return;
	}
	agent_service_task(service, &task);
	if (task.res != 0) {
		refuse("accept", request->group, task.res, task.text, response);
		return;
	}
	log_warning("group goes on in spite of what held it", "group=%s", request->group);
	response->json = status_of(service);
}

/* ---- resync, verify ----------------------------------------------------------------------------
 */

static void begin(struct agent_service *service, const char *what, const char *group,
		  struct agent_task *task, struct control_response *response)
{
	agent_service_task(service, task);
	if (task->res != 0) {
		/* Both mean that there is nothing to do: no difference known, none to stop. */
		refuse(what, group, task->res == -EINVAL ? -EALREADY : task->res, task->text,
		       response);
		return;
	}
	log_info("request accepted", "request=%s group=%s to=%s", what, group,
		 task->node ? task->node : "all");
	response->json =
		json_pack("{s:s, s:b}", "group", group, "begun", task->kind != AGENT_VERIFY_STOP);
}

void agent_control_resync(void *owner, const struct control_request *request,
			  struct control_response *response)
{
	static const struct member members[] = {
		{ "to", JSON_STRING, "the name of a node" },
		{ "everything", JSON_TRUE, "true or false" },
		{ "compare", JSON_TRUE, "true or false" },
		{ NULL, JSON_NULL, NULL },
	};
	struct agent_service *service = agent_control_service(owner, request->group, response);
	struct agent_task task = {
		.kind = AGENT_RESYNC,
		.node = text_in(request, "to"),
		.everything = flag_in(request, "everything"),
		.compare = flag_in(request, "compare"),
	};

	if (service && check(request, members, response))
		begin(service, "resync", request->group, &task, response);
}

void agent_control_verify(void *owner, const struct control_request *request,
			  struct control_response *response)
{
	static const struct member members[] = {
		{ "to", JSON_STRING, "the name of a node" },
		{ "repair", JSON_TRUE, "true or false" },
		{ "stop", JSON_TRUE, "true or false" },
		{ "rate_bytes", JSON_INTEGER, "a number of bytes" },
		{ NULL, JSON_NULL, NULL },
	};
	struct agent_service *service = agent_control_service(owner, request->group, response);
	struct agent_task task = {
		.kind = flag_in(request, "stop") ? AGENT_VERIFY_STOP : AGENT_VERIFY,
		.node = text_in(request, "to"),
		.repair = flag_in(request, "repair"),
		.rate_bytes = number_in(request, "rate_bytes"),
	};

	if (service && check(request, members, response))
		begin(service, "verify", request->group, &task, response);
}

/* ---- volumes -----------------------------------------------------------------------------------
 */

void agent_control_volume(void *owner, const struct control_request *request,
			  struct control_response *response)
{
	static const struct member members[] = {
		{ "action", JSON_STRING, "resize" },
		{ "volume", JSON_STRING, "the name of a volume" },
		{ NULL, JSON_NULL, NULL },
	};
	struct agent_service *service = agent_control_service(owner, request->group, response);
	const char *action = text_in(request, "action");
	struct agent_task task = { .kind = AGENT_VOLUME_RESIZE,
				   .volume = text_in(request, "volume") };
	json_t *status, *volumes;

	if (!service || !check(request, members, response))
		return;
	if (!task.volume || !action || strcmp(action, "resize") != 0) {
		control_fail(response, EXIT_USAGE, "bad-request", "see docs/reference.md",
			     "action must be resize, with a volume");
		return;
	}
	agent_service_task(service, &task);
	if (task.res != 0) {
		refuse("volume", request->group, task.res, task.text, response);
		return;
	}
	response->json = json_pack("{s:s, s:s, s:I}", "group", request->group, "volume",
				   task.volume, "seq", (json_int_t)task.seq);
	status = status_of(service);
	volumes = json_object_get(status, "volumes");
	for (size_t i = 0; i < json_array_size(volumes); i++) {
		json_t *volume = json_array_get(volumes, i);
		const char *name = json_string_value(json_object_get(volume, "name"));

		if (name && strcmp(name, task.volume) == 0)
			json_object_set(response->json, "size_bytes",
					json_object_get(volume, "size_bytes"));
	}
	json_decref(status);
}
