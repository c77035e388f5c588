/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/err.h"

#include <stddef.h>
#include <string.h>

static int errno_of(int err)
{
	/* -INT_MIN does not exist; INT_MIN has no name either. */
	return err < -4095 ? 4096 : err < 0 ? -err : err;
}

const char *err_name(int err)
{
	const char *name = strerrorname_np(errno_of(err));

	return name ? name : "EUNKNOWN";
}

const char *err_text(int err)
{
	const char *text = strerrordesc_np(errno_of(err));

	return text ? text : "Unknown error";
}
