/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/control_task.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"

static const struct refusal {
	int res;
	enum exit_code code;
	const char *reason;
} refusals[] = {
	{ -EPERM, EXIT_REFUSED, "refused" },	  { -EAGAIN, EXIT_REFUSED, "not-ready" },
	{ -ESTALE, EXIT_CONFLICT, "epoch" },	  { -EBUSY, EXIT_CONFLICT, "busy" },
	{ -ENOENT, EXIT_NOT_FOUND, "not-found" }, { -EINVAL, EXIT_USAGE, "bad-request" },
};

static void refuse(const char *what, const struct engine_task *task, const char *group,
		   struct control_response *response)
{
	struct refusal refusal = { task->res, EXIT_FAILED, err_name(task->res) };
	const char *remedy = "see holdfast status";
	char text[sizeof(task->text)], *cut;

	for (size_t i = 0; i < array_len(refusals); i++) {
		if (refusals[i].res == task->res)
			refusal = refusals[i];
	}
	(void)snprintf(text, sizeof(text), "%s", task->text[0] ? task->text : err_text(task->res));
	cut = strstr(text, "; ");
	if (cut) {
		*cut = '\0';
		remedy = cut + 2;
	}
	log_warning("request refused", "request=%s group=%s reason=\"%s\"", what, group, text);
	control_fail(response, refusal.code, refusal.reason, remedy, "%s", text);
	json_object_set_new(response->json, "group", json_string(group));
}

/* False after it answered. */
static bool read_epoch(const struct control_request *request, struct engine_task *task,
		       struct control_response *response)
{
	const json_t *expect = json_object_get(request->body, "expect_epoch");

	if (expect && (!json_is_integer(expect) || json_integer_value(expect) < 0)) {
		control_fail(response, EXIT_USAGE, "bad-request", "see docs/reference.md",
			     "expect_epoch must be a number");
		return false;
	}
	task->has_expect_epoch = expect != NULL;
	task->expect_epoch = expect ? (uint64_t)json_integer_value(expect) : 0;
	return true;
}

/* `done` is the word for what has happened. */
static void run(struct engine_control *control, const struct control_request *request,
		struct engine_task *task, const char *what, const char *done,
		struct control_response *response)
{
	struct engine_service *service = engine_control_service(control, request->group, response);

	if (!service || !read_epoch(request, task, response))
		return;
	engine_service_task(service, task);
	if (task->res != 0 && task->res != -EALREADY) {
		refuse(what, task, request->group, response);
		return;
	}
	response->json = json_pack("{s:s, s:s, s:I, s:I, s:s}", "group", request->group, "result",
				   task->res ? "already" : done, "epoch", (json_int_t)task->epoch,
				   "seq", (json_int_t)task->seq, "text", task->text);
}

void engine_control_demote(void *owner, const struct control_request *request,
			   struct control_response *response)
{
	const json_t *without = json_object_get(request->body, "without_salvage");
	struct engine_task task = { .kind = ENGINE_REJOIN,
				    .without_salvage = json_is_true(without) };

	if (without && !json_is_boolean(without)) {
		control_fail(response, EXIT_USAGE, "bad-request", "see docs/reference.md",
			     "without_salvage must be true or false");
		return;
	}
	run(owner, request, &task, "demote", "demoted", response);
}

void engine_control_drop_kept(void *owner, const struct control_request *request,
			      struct control_response *response)
{
	struct engine_task task = { .kind = ENGINE_DROP_KEPT };

	run(owner, request, &task, "resync-drop-kept", "dropped", response);
}
