/* SPDX-License-Identifier: Apache-2.0 */
#include <confuse.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/conf/builder.h"
#include "core/conf/check.h"

char *builder_copy(struct builder *builder, const char *text)
{
	char *result = strdup(text);

	if (!result)
		builder->no_memory = true;
	return result;
}

void *builder_array(struct builder *builder, unsigned count, size_t size)
{
	void *result = calloc(count ? count : 1, size);

	if (!result)
		builder->no_memory = true;
	return result;
}

const struct conf_leaf *builder_leaf_at(cfg_t *section, const char *name, unsigned index)
{
	cfg_opt_t *opt = section ? cfg_getopt(section, name) : NULL;

	return opt && index < opt->nvalues ? opt->values[index]->ptr : NULL;
}

const struct conf_leaf *builder_leaf(cfg_t *section, const char *name)
{
	return builder_leaf_at(section, name, 0);
}

uint64_t builder_size(struct builder *builder, cfg_t *section, const struct builder_bounds *bounds)
{
	const struct conf_leaf *leaf = builder_leaf(section, bounds->name);
	char low[UNITS_TEXT_BYTES], high[UNITS_TEXT_BYTES];
	uint64_t value;

	if (!leaf)
		return bounds->preset;
	if (units_parse_size(leaf->text, &value) != 0) {
		conf_errors_add(builder->errors, leaf->line,
				"write a whole number with B, KiB, MiB, GiB or TiB, like 64MiB",
				"%s = \"%s\" is not a size", bounds->name, leaf->text);
		return bounds->preset;
	}
	if ((value < bounds->low || value > bounds->high) && !(value == 0 && bounds->zero_too)) {
		conf_errors_add(builder->errors, leaf->line, "choose a value between the two",
				"%s = %s is outside %s to %s%s", bounds->name, leaf->text,
				units_format_size_exact(bounds->low, low),
				units_format_size_exact(bounds->high, high),
				bounds->zero_too ? " (or 0)" : "");
		return bounds->preset;
	}
	return value;
}

uint64_t builder_duration(struct builder *builder, cfg_t *section,
			  const struct builder_bounds *bounds)
{
	const struct conf_leaf *leaf = builder_leaf(section, bounds->name);
	char low[UNITS_TEXT_BYTES], high[UNITS_TEXT_BYTES];
	uint64_t value;

	if (!leaf)
		return bounds->preset;
	if (units_parse_duration(leaf->text, &value) != 0) {
		conf_errors_add(builder->errors, leaf->line,
				"write a whole number with us, ms, s, m, h or d, like 250ms",
				"%s = \"%s\" is not a duration", bounds->name, leaf->text);
		return bounds->preset;
	}
	if ((value < bounds->low || value > bounds->high) && !(value == 0 && bounds->zero_too)) {
		conf_errors_add(builder->errors, leaf->line, "choose a value between the two",
				"%s = %s is outside %s to %s%s", bounds->name, leaf->text,
				units_format_duration_exact(bounds->low, low),
				units_format_duration_exact(bounds->high, high),
				bounds->zero_too ? " (or 0)" : "");
		return bounds->preset;
	}
	return value;
}

uint64_t builder_number(struct builder *builder, cfg_t *section,
			const struct builder_bounds *bounds)
{
	const struct conf_leaf *leaf = builder_leaf(section, bounds->name);
	uint64_t value;

	if (!leaf)
		return bounds->preset;
	if (units_parse_u64(leaf->text, &value) == 0 && value >= bounds->low &&
	    value <= bounds->high)
		return value;
	conf_errors_add(builder->errors, leaf->line, "write a whole number of them",
			"%s = \"%s\" is outside %" PRIu64 " to %" PRIu64, bounds->name, leaf->text,
			bounds->low, bounds->high);
	return bounds->preset;
}

unsigned builder_word(struct builder *builder, cfg_t *section, const char *name,
		      const char *const *words, unsigned preset)
{
	const struct conf_leaf *leaf = builder_leaf(section, name);
	char known[128] = "";
	size_t used = 0;

	if (!leaf)
		return preset;
	for (unsigned i = 0; words[i]; i++) {
		if (strcmp(leaf->text, words[i]) == 0)
			return i;
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
					 i ? ", " : "choose one of ", words[i]);
		must(used < sizeof(known));
	}
	conf_errors_add(builder->errors, leaf->line, known, "%s = \"%s\" is unknown", name,
			leaf->text);
	return preset;
}

char *builder_path(struct builder *builder, cfg_t *section, const char *name, const char *preset)
{
	const struct conf_leaf *leaf = builder_leaf(section, name);
	char reason[CHECK_TEXT_BYTES];

	if (!leaf)
		return preset ? builder_copy(builder, preset) : NULL;
	if (!check_path(leaf->text, reason)) {
		conf_errors_add(builder->errors, leaf->line, "write the absolute path",
				"%s = \"%s\" %s", name, leaf->text, reason);
		return preset ? builder_copy(builder, preset) : NULL;
	}
	return builder_copy(builder, leaf->text);
}

char *builder_address(struct builder *builder, cfg_t *section, const char *name)
{
	const struct conf_leaf *leaf = builder_leaf(section, name);
	char reason[CHECK_TEXT_BYTES];

	if (!leaf)
		return NULL;
	if (!check_address(leaf->text, reason)) {
		conf_errors_add(builder->errors, leaf->line,
				"write HOST:PORT or [IPV6]:PORT, like \"10.0.0.2:7400\"",
				"%s = \"%s\" %s", name, leaf->text, reason);
		return NULL;
	}
	return builder_copy(builder, leaf->text);
}
