/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules for what people write into configurations and command lines: names, paths, addresses.
 * Each function is true when the text keeps its rule; else `reason` continues a sentence that began
 * with the text ("... has no port"). Pure, any thread.
 */
#ifndef HOLDFAST_CORE_CONF_CHECK_H
#define HOLDFAST_CORE_CONF_CHECK_H

#include <stdbool.h>

#define CHECK_TEXT_BYTES 128u
#define CHECK_NAME_RULE	 "use 1 to 63 of A-Z a-z 0-9 . _ -, not starting with . or -"

/* An identity: what a certificate's SAN can hold, a DNS name or a URI. */
bool check_node(const char *text, char reason[CHECK_TEXT_BYTES]);
/* Absolute, without . or .. or empty components, at most 255 bytes. */
bool check_path(const char *text, char reason[CHECK_TEXT_BYTES]);
/* HOST:PORT or [IPV6]:PORT, port 1 to 65535. */
bool check_address(const char *text, char reason[CHECK_TEXT_BYTES]);
/* Whether a valid address can be reached from this host only. */
bool check_is_loopback(const char *address);

#endif
