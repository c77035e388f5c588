/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON documents of the daemons, as the verbs read them: a field that is missing or of another
 * kind reads as nothing. And one request with its errors told. One thread.
 */
#ifndef HOLDFAST_CLI_DOCUMENT_H
#define HOLDFAST_CLI_DOCUMENT_H

#include <jansson.h>
#include <stdint.h>

#include "cli/cli.h"
#include "core/base/units.h"

uint64_t doc_u64(const json_t *json, const char *key);
const char *doc_text(const json_t *json, const char *key); /* "" when it is none */
/* Seconds, for people; "unknown" when it is no number. */
const char *doc_duration(const json_t *json, const char *key, char text[UNITS_TEXT_BYTES]);

/*
 * POST /v1/groups/GROUP/WHAT to a daemon ("agent" or "engine"). EXIT_OK with the answer in
 * *ret_json, which the caller drops; or the exit code, after it complained. `body` is dropped.
 */
int doc_post(const struct cli *cli, const char *daemon, const char *group, const char *what,
	     json_t *body, unsigned timeout_ms, json_t **ret_json);
/* The group's status from a daemon, quietly; NULL when it does not say. The caller drops it. */
json_t *doc_group(const struct cli *cli, const char *daemon, const char *group);

/* An epoch as an option's argument; 0, or the exit code after it complained. */
int doc_epoch(const struct cli *cli, const char *verb, const char *text, uint64_t *ret_epoch);

#endif
