/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void conf_errors_add(struct conf_errors *errors, unsigned line, const char *remedy,
		     const char *format, ...)
{
	struct conf_error *entry;
	va_list args;
	size_t used;
	int n;

	if (errors->count == CONF_ERRORS_MAX) {
		errors->dropped++;
		return;
	}
	entry = &errors->entries[errors->count];
	entry->line = line;
	entry->order = errors->count++;
	va_start(args, format);
	n = vsnprintf(entry->text, sizeof(entry->text), format, args);
	va_end(args);
	used = n < 0 ? 0 : (size_t)n;
	if (used >= sizeof(entry->text))
		used = sizeof(entry->text) - 1;
	(void)snprintf(entry->text + used, sizeof(entry->text) - used, "; %s", remedy);
	/* Values of the file stand in the text: nothing of them may steer a terminal. */
	for (char *c = entry->text; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
}

static int by_line(const void *a, const void *b)
{
	const struct conf_error *one = a, *two = b;

	if (one->line != two->line)
		return one->line < two->line ? -1 : 1;
	return one->order < two->order ? -1 : one->order > two->order;
}

void conf_errors_print(struct conf_errors *errors, char *out, size_t out_max)
{
	size_t used = 0;
	int n;

	if (out_max == 0)
		return;
	out[0] = '\0';
	qsort(errors->entries, errors->count, sizeof(errors->entries[0]), by_line);
	for (unsigned i = 0; i < errors->count; i++) {
		const struct conf_error *entry = &errors->entries[i];

		if (entry->line)
			n = snprintf(out + used, out_max - used, "%s%s:%u: %s", i ? "\n" : "",
				     errors->file, entry->line, entry->text);
		else
			n = snprintf(out + used, out_max - used, "%s%s: %s", i ? "\n" : "",
				     errors->file, entry->text);
		if (n < 0 || (size_t)n >= out_max - used) {
			/* The first line is better cut than absent. */
			if (i > 0)
				out[used] = '\0';
			return;
		}
		used += (size_t)n;
	}
	if (errors->dropped) {
		n = snprintf(out + used, out_max - used, "\n%s: %u more errors; mend these first",
			     errors->file, errors->dropped);
		if (n < 0 || (size_t)n >= out_max - used)
			out[used] = '\0';
	}
}
