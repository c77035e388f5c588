/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers with units, as people write and read them. Pure, any thread.
 *
 * Sizes: B KiB MiB GiB TiB PiB EiB, a plain number is bytes. Durations: ns us ms s m h d, a unit is
 * required except for 0. Whole numbers only, no sign, no space, nothing behind: -EINVAL otherwise,
 * -ERANGE when the value does not fit.
 */
#ifndef HOLDFAST_CORE_BASE_UNITS_H
#define HOLDFAST_CORE_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/macros.h"

#define KIB	      (UINT64_C(1) << 10)
#define MIB	      (UINT64_C(1) << 20)
#define GIB	      (UINT64_C(1) << 30)
#define TIB	      (UINT64_C(1) << 40)

#define NS_PER_US     UINT64_C(1000)
#define NS_PER_MS     UINT64_C(1000000)
#define NS_PER_S      UINT64_C(1000000000)
#define NS_PER_MINUTE (60 * NS_PER_S)
#define NS_PER_HOUR   (60 * NS_PER_MINUTE)
#define NS_PER_DAY    (24 * NS_PER_HOUR)

/* Longest text below, with the terminator. */
#define UNITS_TEXT_BYTES 32u

/* Decimal digits only. */
__must_check int units_parse_u64(const char *text, uint64_t *ret_value);
__must_check int units_parse_size(const char *text, uint64_t *ret_bytes);
__must_check int units_parse_duration(const char *text, uint64_t *ret_ns);

/* In the largest unit that divides it, so that parsing gives the same number: "4GiB", "1500ms". */
const char *units_format_size_exact(uint64_t bytes, char text[UNITS_TEXT_BYTES]);
const char *units_format_duration_exact(uint64_t ns, char text[UNITS_TEXT_BYTES]);

/* For people, about three digits: "1.46 GiB", "12.3 ms", "4m 05s", "2d 03h". Returns `text`. */
const char *units_format_size(uint64_t bytes, char text[UNITS_TEXT_BYTES]);
const char *units_format_duration(uint64_t ns, char text[UNITS_TEXT_BYTES]);

#endif
