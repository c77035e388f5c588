/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/checked.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* Ascending, so that formatting can walk from the largest down. */
static const struct unit size_units[] = {
	{ "B", 1 },
	{ "KiB", KIB },
	{ "MiB", MIB },
	{ "GiB", GIB },
	{ "TiB", TIB },
	{ "PiB", UINT64_C(1) << 50 },
	{ "EiB", UINT64_C(1) << 60 },
};

static const struct unit duration_units[] = {
	{ "ns", 1 },	     { "us", NS_PER_US },    { "ms", NS_PER_MS },
	{ "s", NS_PER_S },   { "m", NS_PER_MINUTE }, { "h", NS_PER_HOUR },
	{ "d", NS_PER_DAY },
};

/* Reads digits; *ret_rest is what follows them. */
static int parse_digits(const char *text, uint64_t *ret_value, const char **ret_rest)
{
	uint64_t value = 0;
	int result = 0;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++) {
		if (!mul_u64(value, 10, &value) || !add_u64(value, (uint64_t)(*text - '0'), &value))
			result = -ERANGE;
	}
	*ret_rest = text;
	if (result == 0)
		*ret_value = value;
	return result;
}

static int parse_with_units(const char *text, const struct unit *units, size_t count,
			    bool unit_required, uint64_t *ret_value)
{
	uint64_t number = 0;
	uint64_t factor = 0;
	const char *rest;
	size_t i;
	int result;

	result = parse_digits(text, &number, &rest);
	if (result == -EINVAL)
		return result;
	for (i = 0; i < count; i++) {
		if (strcmp(rest, units[i].name) == 0)
			factor = units[i].factor;
	}
	if (*rest == '\0' && (!unit_required || (result == 0 && number == 0)))
		factor = 1;
	/* Nonsense behind the digits is nonsense, however long the digits are. */
	if (factor == 0)
		return -EINVAL;
	if (result < 0)
		return result;
	return mul_u64(number, factor, ret_value) ? 0 : -ERANGE;
}

int units_parse_u64(const char *text, uint64_t *ret_value)
{
	uint64_t value = 0;
	const char *rest;
	int result;

	result = parse_digits(text, &value, &rest);
	if (result == -EINVAL || *rest != '\0')
		return -EINVAL;
	if (result == 0)
		*ret_value = value;
	return result;
}

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse_with_units(text, size_units, array_len(size_units), false, ret_bytes);
}

int units_parse_duration(const char *text, uint64_t *ret_ns)
{
	return parse_with_units(text, duration_units, array_len(duration_units), true, ret_ns);
}

static const char *format_exact(uint64_t value, const struct unit *units, size_t count,
				char text[UNITS_TEXT_BYTES])
{
	size_t i = count;

	do {
		i--;
	} while (i > 0 && (value == 0 || value % units[i].factor != 0));
	(void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64 "%s", value / units[i].factor,
		       units[i].name);
	return text;
}

const char *units_format_size_exact(uint64_t bytes, char text[UNITS_TEXT_BYTES])
{
	return format_exact(bytes, size_units, array_len(size_units), text);
}

const char *units_format_duration_exact(uint64_t ns, char text[UNITS_TEXT_BYTES])
{
	return format_exact(ns, duration_units, array_len(duration_units), text);
}

/* `scale` times rest / factor, rounded down. 128 bits: rest may be close to 2^60. */
static unsigned fraction(uint64_t rest, uint64_t factor, unsigned scale)
{
	return (unsigned)((unsigned __int128)rest * scale / factor);
}

/* About three digits of value / factor, rounded down: what is nearly done is not done. */
static const char *format_three(uint64_t value, const struct unit *unit,
				char text[UNITS_TEXT_BYTES])
{
	uint64_t whole = value / unit->factor;
	uint64_t rest = value % unit->factor;

	if (unit->factor == 1 || whole >= 100)
		(void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64 " %s", whole, unit->name);
	else if (whole >= 10)
		(void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64 ".%u %s", whole,
			       fraction(rest, unit->factor, 10), unit->name);
	else
		(void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64 ".%02u %s", whole,
			       fraction(rest, unit->factor, 100), unit->name);
	return text;
}

static const struct unit *largest_unit(uint64_t value, const struct unit *units, size_t count)
{
	while (count > 1 && value < units[count - 1].factor)
		count--;
	return &units[count - 1];
}

const char *units_format_size(uint64_t bytes, char text[UNITS_TEXT_BYTES])
{
	return format_three(bytes, largest_unit(bytes, size_units, array_len(size_units)), text);
}

const char *units_format_duration(uint64_t ns, char text[UNITS_TEXT_BYTES])
{
	if (ns == 0) {
		(void)snprintf(text, UNITS_TEXT_BYTES, "0 s");
	} else if (ns < NS_PER_MINUTE) {
		/* ns, us, ms and s are the first four. */
		return format_three(ns, largest_unit(ns, duration_units, 4), text);
	} else if (ns < NS_PER_HOUR) {
		(void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64 "m %02" PRIu64 "s",
			       ns / NS_PER_MINUTE, ns % NS_PER_MINUTE / NS_PER_S);
	} else if (ns < NS_PER_DAY) {
		(void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64 "h %02" PRIu64 "m",
			       ns / NS_PER_HOUR, ns % NS_PER_HOUR / NS_PER_MINUTE);
	} else {
		(void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64 "d %02" PRIu64 "h",
			       ns / NS_PER_DAY, ns % NS_PER_DAY / NS_PER_HOUR);
	}
	return text;
}
