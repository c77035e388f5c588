/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/uuid.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

struct uuid uuid_from_random(const uint8_t random[UUID_BYTES])
{
	struct uuid uuid;

	memcpy(uuid.bytes, random, UUID_BYTES);
	uuid.bytes[6] = (uint8_t)((uuid.bytes[6] & 0x0f) | 0x40);
	uuid.bytes[8] = (uint8_t)((uuid.bytes[8] & 0x3f) | 0x80);
	return uuid;
}

struct uuid uuid_from_random_u64(uint64_t a, uint64_t b)
{
	uint8_t random[UUID_BYTES];
	unsigned i;

	for (i = 0; i < 8; i++) {
		random[i] = (uint8_t)(a >> (8 * i));
		random[8 + i] = (uint8_t)(b >> (8 * i));
	}
	return uuid_from_random(random);
}

/* Whether the text has a dash in front of byte i. */
static bool dash_before(unsigned i)
{
	return i == 4 || i == 6 || i == 8 || i == 10;
}

const char *uuid_format(const struct uuid *uuid, char text[UUID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	char *out = text;
	unsigned i;

	for (i = 0; i < UUID_BYTES; i++) {
		if (dash_before(i))
			*out++ = '-';
		*out++ = digits[uuid->bytes[i] >> 4];
		*out++ = digits[uuid->bytes[i] & 15];
	}
	*out = '\0';
	return text;
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int uuid_parse(const char *text, struct uuid *ret_uuid)
{
	struct uuid uuid;
	unsigned i;

	for (i = 0; i < UUID_BYTES; i++) {
		int high;
		int low;

		if (dash_before(i) && *text++ != '-')
			return -EINVAL;
		/* A terminator is no digit, so nothing behind it is read. */
		high = digit_value(*text);
		if (high < 0)
			return -EINVAL;
		low = digit_value(*++text);
		if (low < 0)
			return -EINVAL;
		text++;
		uuid.bytes[i] = (uint8_t)(high << 4 | low);
	}
	if (*text != '\0')
		return -EINVAL;
	*ret_uuid = uuid;
	return 0;
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->bytes, b->bytes, UUID_BYTES) == 0;
}

bool uuid_is_zero(const struct uuid *uuid)
{
	static const struct uuid zero;

	return uuid_equal(uuid, &zero);
}
