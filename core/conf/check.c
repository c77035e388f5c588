/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/check.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/base/units.h"
#include "proto/superblock.h"

#define PATH_MAX_BYTES 255u

static bool no(char reason[CHECK_TEXT_BYTES], const char *text)
{
	(void)snprintf(reason, CHECK_TEXT_BYTES, "%s", text);
	return false;
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool check_node(const char *text, char reason[CHECK_TEXT_BYTES])
{
	const char *extra = strstr(text, "://") ? "._-:/@%~" : "._-";

	if (text[0] == '\0')
		return no(reason, "is empty");
	if (strlen(text) > NODE_NAME_MAX)
		return no(reason, "is longer than 127 bytes");
	for (const char *c = text; *c; c++) {
		if (!is_alnum(*c) && !strchr(extra, *c))
			return no(reason, "is neither a DNS name nor a URI");
	}
	if (!is_alnum(text[0]))
		return no(reason, "does not start with a letter or a digit");
	return true;
}

bool check_path(const char *text, char reason[CHECK_TEXT_BYTES])
{
	const char *at = text;

	if (text[0] != '/')
		return no(reason, "is not absolute");
	if (strlen(text) > PATH_MAX_BYTES)
		return no(reason, "is longer than 255 bytes");
	while (*at == '/') {
		size_t length_bytes = strcspn(++at, "/");

		if (length_bytes == 0)
			return no(reason, "has an empty component");
		if ((length_bytes == 1 && at[0] == '.') ||
		    (length_bytes == 2 && at[0] == '.' && at[1] == '.'))
			return no(reason, "has a . or .. component");
		at += length_bytes;
	}
	return true;
}

/* The host's part, without brackets, and the port. */
static bool split(const char *text, char host[256], uint64_t *ret_port, char *reason)
{
	const char *colon = strrchr(text, ':');
	size_t length_bytes;

	if (!colon || colon[1] == '\0')
		return no(reason, "has no port");
	if (units_parse_u64(colon + 1, ret_port) != 0 || *ret_port < 1 || *ret_port > 65535)
		return no(reason, "has a port that is not 1 to 65535");
	length_bytes = (size_t)(colon - text);
	if (length_bytes == 0)
		return no(reason, "has no host");
	if (text[0] == '[') {
		if (length_bytes < 3 || text[length_bytes - 1] != ']')
			return no(reason, "has an unclosed [");
		text++;
		length_bytes -= 2;
	} else if (memchr(text, ':', length_bytes)) {
		return no(reason, "has an IPv6 address without [ ]");
	}
	if (length_bytes > 253)
		return no(reason, "has too long a host");
	memcpy(host, text, length_bytes);
	host[length_bytes] = '\0';
	return true;
}

bool check_address(const char *text, char reason[CHECK_TEXT_BYTES])
{
	struct in6_addr v6;
	char host[256];
	uint64_t port;

	if (!split(text, host, &port, reason))
		return false;
	if (text[0] == '[')
		return inet_pton(AF_INET6, host, &v6) == 1 ||
		       no(reason, "has something else than an IPv6 address in [ ]");
	for (const char *c = host; *c; c++) {
		if (!is_alnum(*c) && !strchr("._-", *c))
			return no(reason, "has a host that is neither a name nor an address");
	}
	return true;
}

bool check_is_loopback(const char *address)
{
	char reason[CHECK_TEXT_BYTES], host[256];
	struct in6_addr v6;
	uint8_t v4[4];
	uint64_t port;

	if (!split(address, host, &port, reason))
		return false;
	if (address[0] == '[')
		return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
	if (inet_pton(AF_INET, host, v4) == 1)
		return v4[0] == 127;
	return strcmp(host, "localhost") == 0;
}
