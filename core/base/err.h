/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The error model: a function returns 0 on success, a negative errno that its caller forwards, or a
 * positive enumerated condition (named in the function's header) that its caller must handle.
 * Results for the caller go through `ret_x` parameters, written only on success.
 *
 * Any thread; the texts are constants.
 */
#ifndef HOLDFAST_CORE_BASE_ERR_H
#define HOLDFAST_CORE_BASE_ERR_H

#include <errno.h>

/* The symbol of an errno, positive or negative: "ENOSPC". "EUNKNOWN" when it has none. */
const char *err_name(int err);

/* What it means, for people: "No space left on device". */
const char *err_text(int err);

#endif
