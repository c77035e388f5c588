/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct status_group as a JSON object and back; the document that both daemons answer with and
 * that
 * `-o json` prints. Its description is in docs/reference.md; fields are only ever added.
 *
 * Durations are numbers of seconds, sizes numbers of bytes, times RFC 3339 in UTC; what is not
 * known is null. Pure, any thread. Objects are new references.
 */
#ifndef HOLDFAST_CORE_CONF_STATUS_JSON_H
#define HOLDFAST_CORE_CONF_STATUS_JSON_H

#include <jansson.h>

#include "core/conf/status.h"

#define STATUS_SCHEMA "holdfast.status/1"

/* NULL when out of memory. */
json_t *status_to_json(const struct status_group *status);
/* Missing fields stay zero, unknown ones are passed over: another version may have written it. 0,
 * or -EPROTO when it is not a status at all. */
int status_from_json(const json_t *json, struct status_group *ret_status);

/* The frame around groups: {schema, daemon, version, node, time, groups: []}. */
json_t *status_document(const char *daemon, const char *node, uint64_t wall_ns);

#endif
