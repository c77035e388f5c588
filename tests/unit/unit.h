/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every unit test includes: cmocka with the headers it wants in front of it.
 */
#ifndef HOLDFAST_TESTS_UNIT_UNIT_H
#define HOLDFAST_TESTS_UNIT_UNIT_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

#include "core/base/macros.h"

/* A test function that needs no state. */
#define UNIT(name) static void name(void **unit_state __attribute__((unused)))

#endif
