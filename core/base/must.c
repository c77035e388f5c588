/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void must_failed(const char *expression, const char *file, int line, const char *function)
{
	char text[512];
	int length = snprintf(text, sizeof(text), "%s:%d: %s: must(%s) does not hold\n", file, line,
			      function, expression);

	if (length > 0) {
		/* Nothing can be done about a failed write here. */
		ssize_t ignored = write(STDERR_FILENO, text, strnlen(text, sizeof(text)));

		(void)ignored;
	}
	abort();
}
