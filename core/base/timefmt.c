/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/timefmt.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/base/checked.h"
#include "core/base/units.h"

struct civil {
	unsigned year;	/* 1 and up */
	unsigned month; /* 1..12 */
	unsigned day;	/* 1..31 */
};

#define DAYS_PER_400_YEARS 146097u
/* Days from 0000-03-01 to 1970-01-01. */
#define DAYS_TO_1970 719468u

/*
 * Years are counted from March, so the leap day is the last day of a year; days of the months March
 * to February before month m are (153 * m + 2) / 5. (The 400-year cycle begins at 0000-03-01.)
 */
static uint64_t days_of(struct civil civil)
{
	uint64_t year = civil.year - (civil.month <= 2);
	uint64_t cycle = year / 400;
	uint64_t year_of_cycle = year % 400;
	uint64_t month = (civil.month + 9) % 12;
	uint64_t day_of_year = (153 * month + 2) / 5 + civil.day - 1;
	uint64_t day_of_cycle =
		year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;

	return cycle * DAYS_PER_400_YEARS + day_of_cycle;
}

static struct civil civil_of(uint64_t days)
{
	uint64_t cycle = days / DAYS_PER_400_YEARS;
	uint64_t day_of_cycle = days % DAYS_PER_400_YEARS;
	/* Take the leap days out: one per 1461 days, none per 36524, one per 146096. */
	uint64_t year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36524 -
				  day_of_cycle / 146096) /
				 365;
	uint64_t day_of_year =
		day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
	uint64_t month = (5 * day_of_year + 2) / 153;
	struct civil civil;

	civil.day = (unsigned)(day_of_year - (153 * month + 2) / 5 + 1);
	civil.month = (unsigned)(month < 10 ? month + 3 : month - 9);
	civil.year = (unsigned)(year_of_cycle + cycle * 400 + (civil.month <= 2));
	return civil;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
	static const unsigned char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap ? 1u : 0u);
}

static const char *format(uint64_t ns, int digits, uint64_t digit_ns, char text[TIMEFMT_BYTES])
{
	uint64_t seconds = ns / NS_PER_S;
	struct civil civil = civil_of(seconds / 86400 + DAYS_TO_1970);
	unsigned second = (unsigned)(seconds % 86400);

	/* The modulo tells the compiler what range the years of 64-bit nanoseconds have. */
	(void)snprintf(text, TIMEFMT_BYTES, "%04u-%02u-%02uT%02u:%02u:%02u.%0*uZ",
		       civil.year % 10000, civil.month % 100, civil.day % 100, second / 3600,
		       second / 60 % 60, second % 60, digits, (unsigned)(ns % NS_PER_S / digit_ns));
	return text;
}

const char *timefmt_ms(uint64_t ns, char text[TIMEFMT_BYTES])
{
	return format(ns, 3, NS_PER_MS, text);
}

const char *timefmt_ns(uint64_t ns, char text[TIMEFMT_BYTES])
{
	return format(ns, 9, 1, text);
}

/* Exactly `digits` digits, then `behind` (0: anything). Advances *text past both. */
static bool take_number(const char **text, unsigned digits, char behind, unsigned *ret_value)
{
	unsigned value = 0;

	for (; digits > 0; digits--, (*text)++) {
		if (**text < '0' || **text > '9')
			return false;
		value = value * 10 + (unsigned)(**text - '0');
	}
	if (behind) {
		if (**text != behind)
			return false;
		(*text)++;
	}
	*ret_value = value;
	return true;
}

/* ".5" and the like; no fraction is 0 ns. */
static bool take_fraction(const char **text, uint64_t *ret_ns)
{
	uint64_t scale = NS_PER_S;
	uint64_t ns = 0;

	if (**text == '.') {
		(*text)++;
		if (**text < '0' || **text > '9')
			return false;
		for (; **text >= '0' && **text <= '9'; (*text)++) {
			scale /= 10;
			if (scale == 0)
				return false;
			ns += (uint64_t)(**text - '0') * scale;
		}
	}
	*ret_ns = ns;
	return true;
}

/* "Z" or "+hh:mm", to the end of the text. */
static bool take_zone(const char *text, bool *ret_east, uint64_t *ret_seconds)
{
	unsigned hour;
	unsigned minute;

	*ret_east = *text == '+';
	*ret_seconds = 0;
	if ((text[0] == 'Z' || text[0] == 'z') && text[1] == '\0')
		return true;
	if (*text != '+' && *text != '-')
		return false;
	text++;
	if (!take_number(&text, 2, ':', &hour) || !take_number(&text, 2, 0, &minute) || *text)
		return false;
	*ret_seconds = hour * UINT64_C(3600) + minute * UINT64_C(60);
	return hour <= 23 && minute <= 59;
}

int timefmt_parse(const char *text, uint64_t *ret_ns)
{
	unsigned hour;
	unsigned minute;
	unsigned second;
	struct civil civil;
	uint64_t fraction_ns;
	uint64_t offset_seconds;
	uint64_t seconds;
	uint64_t ns;
	bool east;

	if (!take_number(&text, 4, '-', &civil.year) || !take_number(&text, 2, '-', &civil.month) ||
	    !take_number(&text, 2, 0, &civil.day))
		return -EINVAL;
	if (*text != 'T' && *text != 't' && *text != ' ')
		return -EINVAL;
	text++;
	if (!take_number(&text, 2, ':', &hour) || !take_number(&text, 2, ':', &minute) ||
	    !take_number(&text, 2, 0, &second) || !take_fraction(&text, &fraction_ns) ||
	    !take_zone(text, &east, &offset_seconds))
		return -EINVAL;
	if (civil.month < 1 || civil.month > 12 || civil.day < 1 ||
	    civil.day > days_in_month(civil.year, civil.month) || hour > 23 || minute > 59 ||
	    second > 60)
		return -EINVAL;
	/* January 1969 is far enough below 1970 for every offset. */
	if (civil.year < 1969)
		return -ERANGE;
	seconds = days_of(civil) * 86400 + hour * UINT64_C(3600) + minute * UINT64_C(60) + second;
	seconds = east ? seconds - offset_seconds : seconds + offset_seconds;
	if (!sub_u64(seconds, DAYS_TO_1970 * UINT64_C(86400), &seconds) ||
	    !mul_u64(seconds, NS_PER_S, &ns) || !add_u64(ns, fraction_ns, &ns))
		return -ERANGE;
	*ret_ns = ns;
	return 0;
}
