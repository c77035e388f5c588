/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times as people and programs exchange them: RFC 3339, in UTC on the way out. Times are
 * nanoseconds since 1970-01-01T00:00:00Z, up to 2554. Pure: no clock, no time zone, any thread.
 */
#ifndef HOLDFAST_CORE_BASE_TIMEFMT_H
#define HOLDFAST_CORE_BASE_TIMEFMT_H

#include <stdint.h>

#include "core/base/macros.h"

#define TIMEFMT_BYTES 31u /* "2026-05-04T10:20:30.123456789Z" and the terminator */

/* Cut, not rounded, to milliseconds or whole. Each returns `text`. */
const char *timefmt_ms(uint64_t ns, char text[TIMEFMT_BYTES]);
const char *timefmt_ns(uint64_t ns, char text[TIMEFMT_BYTES]);

/*
 * "2026-05-04T10:20:30Z", with up to nine digits of a second, and Z or an offset like +02:00.
 * -EINVAL for anything else and for dates that do not exist (a leap second counts as the next
 * second), -ERANGE outside 1970 to 2554.
 */
__must_check int timefmt_parse(const char *text, uint64_t *ret_ns);

#endif
