/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "proto/nbd.h"

UNIT(request_header_is_the_bytes_of_the_protocol)
{
	static const uint8_t wire[NBD_REQUEST_BYTES] = {
		0x25, 0x60, 0x95, 0x13, 0x00, 0x11, 0x00, 0x06, 1,    2,    3, 4, 5,	6,
		7,    8,    0,	  0,	0,    0x12, 0x34, 0x56, 0x78, 0x9a, 0, 0, 0x10, 0x00,
	};
	uint8_t again[NBD_REQUEST_BYTES];
	struct rcursor in = rcursor_of(wire, sizeof(wire));
	struct wcursor out = wcursor_of(again, sizeof(again));
	struct nbd_request_header header;

	assert_true(nbd_request_header_get(&in, &header));
	assert_true(rcursor_done(&in));
	assert_int_equal(header.magic, NBD_MAGIC_REQUEST);
	assert_int_equal(header.flags, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_FAST_ZERO);
	assert_int_equal(header.command, NBD_CMD_WRITE_ZEROES);
	assert_true(header.cookie == 0x0102030405060708ull);
	assert_true(header.offset_bytes == 0x123456789aull);
	assert_int_equal(header.length_bytes, 4096);
	nbd_request_header_put(&out, &header);
	assert_true(wcursor_ok(&out) && wcursor_left(&out) == 0);
	assert_memory_equal(again, wire, sizeof(wire));
}

UNIT(short_headers_are_refused)
{
	static const uint8_t wire[NBD_REQUEST_BYTES] = { 0 };
	struct nbd_request_header request;
	struct nbd_option_header option;

	for (size_t length = 0; length < NBD_REQUEST_BYTES; length++) {
		struct rcursor in = rcursor_of(wire, length);

		assert_false(nbd_request_header_get(&in, &request));
	}
	for (size_t length = 0; length < NBD_OPTION_HEADER_BYTES; length++) {
		struct rcursor in = rcursor_of(wire, length);

		assert_false(nbd_option_header_get(&in, &option));
	}
}

UNIT(option_header_and_reply)
{
	static const uint8_t wire[] = { 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T',
					0,   0,	  0,   7,   0,	 0,   1,   2 };
	static const uint8_t reply[] = { 0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0,
					 0, 7, 0x80, 0,	   0, 6,    0,	  0,	0, 5 };
	uint8_t bytes[NBD_OPTION_REPLY_BYTES];
	struct rcursor in = rcursor_of(wire, sizeof(wire));
	struct wcursor out = wcursor_of(bytes, sizeof(bytes));
	struct nbd_option_header header;

	assert_true(nbd_option_header_get(&in, &header));
	assert_true(header.magic == NBD_MAGIC_OPTION);
	assert_int_equal(header.option, NBD_OPT_GO);
	assert_int_equal(header.length_bytes, 258);
	nbd_option_reply_put(&out, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, 5);
	assert_memory_equal(bytes, reply, sizeof(reply));
	out = wcursor_of(bytes, sizeof(bytes));
	nbd_option_header_put(&out, NBD_OPT_GO, 258);
	assert_memory_equal(bytes, wire, sizeof(wire));
}

UNIT(greeting_and_replies)
{
	static const uint8_t greeting[] = { 'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I',
					    'H', 'A', 'V', 'E', 'O', 'P', 'T', 0,   3 };
	static const uint8_t simple[] = { 0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28,
					  0,	0,    0,    0,	  0, 0, 0, 9 };
	static const uint8_t chunk[] = { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 0, 0,
					 0,    0,    0,	   0,	 0, 9, 0,    0, 0, 6 };
	uint8_t bytes[32];
	struct wcursor out = wcursor_of(bytes, sizeof(bytes));

	nbd_greeting_put(&out, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	assert_memory_equal(bytes, greeting, sizeof(greeting));
	out = wcursor_of(bytes, sizeof(bytes));
	nbd_simple_reply_put(&out, NBD_ENOSPC, 9);
	assert_memory_equal(bytes, simple, sizeof(simple));
	out = wcursor_of(bytes, sizeof(bytes));
	nbd_chunk_put(&out, NBD_CHUNK_FLAG_DONE, NBD_CHUNK_ERROR, 9, 6);
	assert_memory_equal(bytes, chunk, sizeof(chunk));
}

UNIT(strings_stay_inside)
{
	static const uint8_t wire[] = { 0, 0, 0, 3, 'a', 'b', 'c' };
	static const uint8_t wild[] = { 0xff, 0xff, 0xff, 0xff, 'a', 'b', 'c' };
	struct rcursor in = rcursor_of(wire, sizeof(wire));
	const char *text;
	uint32_t length;

	assert_true(nbd_string_get(&in, &text, &length));
	assert_int_equal(length, 3);
	assert_memory_equal(text, "abc", 3);
	in = rcursor_of(wire, sizeof(wire) - 1);
	assert_false(nbd_string_get(&in, &text, &length));
	in = rcursor_of(wild, sizeof(wild));
	assert_false(nbd_string_get(&in, &text, &length));
}

UNIT(errors_on_the_wire)
{
	assert_int_equal(nbd_error_from_errno(0), 0);
	assert_int_equal(nbd_error_from_errno(4096), 0);
	assert_int_equal(nbd_error_from_errno(-EROFS), 1);
	assert_int_equal(nbd_error_from_errno(-EIO), 5);
	assert_int_equal(nbd_error_from_errno(-EBADF), 5);
	assert_int_equal(nbd_error_from_errno(-ENOMEM), 12);
	assert_int_equal(nbd_error_from_errno(-EINVAL), 22);
	assert_int_equal(nbd_error_from_errno(-EDQUOT), 28);
	assert_int_equal(nbd_error_from_errno(-EOVERFLOW), 75);
	assert_int_equal(nbd_error_from_errno(-EOPNOTSUPP), 95);
	assert_int_equal(nbd_error_from_errno(-ESHUTDOWN), 108);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_header_is_the_bytes_of_the_protocol),
		cmocka_unit_test(short_headers_are_refused),
		cmocka_unit_test(option_header_and_reply),
		cmocka_unit_test(greeting_and_replies),
		cmocka_unit_test(strings_stay_inside),
		cmocka_unit_test(errors_on_the_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
