/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/adopt.h"

#include <errno.h>
#include <stdio.h>

#include "core/conf/control.h"

#define ADOPT_TIMEOUT_MS 300000u

int engine_adopt(const struct conf *conf, const char *group, json_t *into, char *error,
		 size_t error_max)
{
	struct control_reply reply = { .json = NULL };
	char socket_path[256], path[300];
	json_t *volumes, *nbd = json_array();
	int res;

	(void)snprintf(socket_path, sizeof(socket_path), "%s/agent.sock", conf->run_dir);
	(void)snprintf(path, sizeof(path), "/v1/groups/%s/adopt", group);
	res = control_call(socket_path, "POST", path, NULL, ADOPT_TIMEOUT_MS, &reply, error,
			   error_max);
	if (res == 0 && reply.status != 200) {
		const char *text = json_string_value(
			json_object_get(json_object_get(reply.json, "error"), "text"));

		(void)snprintf(error, error_max, "%s", text ? text : "the agent refused");
		res = -EIO;
	}
	volumes = json_object_get(reply.json, "volumes");
	for (size_t i = 0; i < json_array_size(volumes); i++) {
		json_t *volume = json_array_get(volumes, i);

		json_array_append_new(nbd, json_pack("{s:O, s:O, s:O}", "volume",
						     json_object_get(volume, "name"), "uri",
						     json_object_get(volume, "uri"), "size_bytes",
						     json_object_get(volume, "size_bytes")));
	}
	if (into) {
		json_object_set_new(into, "served", json_boolean(res == 0));
		json_object_set(into, "nbd", nbd);
	}
	json_decref(nbd);
	control_reply_free(&reply);
	return res;
}
