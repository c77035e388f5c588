/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a status says beyond its line in the table: what is wrong and what to do about it, first and
 * each with a `!` in front; then what goes on by itself. One thread; prints to a stream.
 */
#ifndef HOLDFAST_CLI_STATUS_NOTES_H
#define HOLDFAST_CLI_STATUS_NOTES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/conf/status.h"

/* `all`: also what is well: verified positions, rates. `wall_ns` is now. */
void status_notes(FILE *out, const struct status_group *status, bool all, uint64_t wall_ns);
/* "1.2 GiB of 3 GiB (40%), 20 MiB/s, 1m 30s left". */
#define STATUS_PROGRESS_BYTES 160u
const char *status_progress_text(uint64_t done_bytes, uint64_t total_bytes, uint64_t rate_bytes,
				 uint64_t left_ns, char text[STATUS_PROGRESS_BYTES]);

#endif
