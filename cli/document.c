/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/document.h"

#include <stdio.h>

#define STATUS_TIMEOUT_MS 10000u

uint64_t doc_u64(const json_t *json, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(json, key));

	return value > 0 ? (uint64_t)value : 0;
}

const char *doc_text(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

const char *doc_duration(const json_t *json, const char *key, char text[UNITS_TEXT_BYTES])
{
	const json_t *value = json_object_get(json, key);

	if (!json_is_number(value))
		return "unknown";
	return units_format_duration((uint64_t)(json_number_value(value) * 1e9 + 0.5), text);
}

int doc_post(const struct cli *cli, const char *daemon, const char *group, const char *what,
	     json_t *body, unsigned timeout_ms, json_t **ret_json)
{
	struct control_reply reply = { .json = NULL };
	char path[300], error[512];
	int res;

	(void)snprintf(path, sizeof(path), "/v1/groups/%s/%s", group, what);
	res = cli_call(cli, daemon, "POST", path, body, timeout_ms, &reply, error, sizeof(error));
	json_decref(body);
	if (res < 0)
		return cli_fail_call(cli, res, error);
	if (reply.status != 200)
		return cli_fail_reply(cli, &reply);
	*ret_json = json_incref(reply.json);
	control_reply_free(&reply);
	return EXIT_OK;
}

json_t *doc_group(const struct cli *cli, const char *daemon, const char *group)
{
	struct control_reply reply = { .json = NULL };
	char path[300], error[512];
	json_t *json = NULL;

	(void)snprintf(path, sizeof(path), "/v1/groups/%s", group);
	if (cli_call(cli, daemon, "GET", path, NULL, STATUS_TIMEOUT_MS, &reply, error,
		     sizeof(error)) == 0 &&
	    reply.status == 200)
		json = json_incref(reply.json);
	control_reply_free(&reply);
	return json;
}

int doc_epoch(const struct cli *cli, const char *verb, const char *text, uint64_t *ret_epoch)
{
	if (units_parse_u64(text, ret_epoch) == 0 && *ret_epoch <= INT64_MAX)
		return EXIT_OK;
	return cli_fail(cli, EXIT_USAGE, "usage", "write the epoch that status shows",
			"%s: '%s' is no epoch", verb, text);
}
