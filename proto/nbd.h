/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD protocol (fixed newstyle): constants, and codecs of its fixed headers.
 *
 * Source of every number: the protocol document of the NetworkBlockDevice project, doc/proto.md.
 * All integers on the wire are big-endian. Pure code: no I/O, no state, any thread.
 */
#ifndef HOLDFAST_PROTO_NBD_H
#define HOLDFAST_PROTO_NBD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/cursor.h"

#define NBD_MAGIC_GREETING     0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_MAGIC_OPTION       0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_MAGIC_OPTION_REPLY 0x0003e889045565a9ull
#define NBD_MAGIC_REQUEST      0x25609513u
#define NBD_MAGIC_SIMPLE_REPLY 0x67446698u
#define NBD_MAGIC_CHUNK	       0x668e33efu

/* Handshake flags, server's and client's. */
#define NBD_FLAG_FIXED_NEWSTYLE	  (1u << 0)
#define NBD_FLAG_NO_ZEROES	  (1u << 1)
#define NBD_CLIENT_FIXED_NEWSTYLE (1u << 0)
#define NBD_CLIENT_NO_ZEROES	  (1u << 1)

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ACK		    1u
#define NBD_REP_SERVER		    2u
#define NBD_REP_INFO		    3u
#define NBD_REP_META_CONTEXT	    4u
#define NBD_REP_ERROR_BIT	    (1u << 31)
#define NBD_REP_ERR_UNSUP	    (NBD_REP_ERROR_BIT | 1u)
#define NBD_REP_ERR_POLICY	    (NBD_REP_ERROR_BIT | 2u)
#define NBD_REP_ERR_INVALID	    (NBD_REP_ERROR_BIT | 3u)
#define NBD_REP_ERR_PLATFORM	    (NBD_REP_ERROR_BIT | 4u)
#define NBD_REP_ERR_TLS_REQD	    (NBD_REP_ERROR_BIT | 5u)
#define NBD_REP_ERR_UNKNOWN	    (NBD_REP_ERROR_BIT | 6u)
#define NBD_REP_ERR_SHUTDOWN	    (NBD_REP_ERROR_BIT | 7u)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_ERROR_BIT | 8u)
#define NBD_REP_ERR_TOO_BIG	    (NBD_REP_ERROR_BIT | 9u)

#define NBD_INFO_EXPORT		    0u
#define NBD_INFO_NAME		    1u
#define NBD_INFO_DESCRIPTION	    2u
#define NBD_INFO_BLOCK_SIZE	    3u

/* Transmission flags of an export. */
#define NBD_EXPORT_HAS_FLAGS	     (1u << 0)
#define NBD_EXPORT_READ_ONLY	     (1u << 1)
#define NBD_EXPORT_SEND_FLUSH	     (1u << 2)
#define NBD_EXPORT_SEND_FUA	     (1u << 3)
#define NBD_EXPORT_SEND_TRIM	     (1u << 5)
#define NBD_EXPORT_SEND_WRITE_ZEROES (1u << 6)
#define NBD_EXPORT_SEND_DF	     (1u << 7)
#define NBD_EXPORT_MULTI_CONN	     (1u << 8)
#define NBD_EXPORT_SEND_CACHE	     (1u << 10)
#define NBD_EXPORT_SEND_FAST_ZERO    (1u << 11)

enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

#define NBD_CMD_FLAG_FUA       (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE   (1u << 1)
#define NBD_CMD_FLAG_DF	       (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE   (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO (1u << 4)

/* Structured reply chunks. */
#define NBD_CHUNK_FLAG_DONE    (1u << 0)
#define NBD_CHUNK_NONE	       0u
#define NBD_CHUNK_OFFSET_DATA  1u
#define NBD_CHUNK_OFFSET_HOLE  2u
#define NBD_CHUNK_BLOCK_STATUS 5u
#define NBD_CHUNK_ERROR	       ((1u << 15) | 1u)

/* base:allocation */
#define NBD_STATE_HOLE (1u << 0)
#define NBD_STATE_ZERO (1u << 1)

/* Errors on the wire. They look like Linux errno values and are not: these never change. */
enum nbd_error {
	NBD_OK = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

#define NBD_NAME_MAX_BYTES	     4096u /* of any string in the protocol */
#define NBD_GREETING_BYTES	     18u
#define NBD_CLIENT_FLAGS_BYTES	     4u
#define NBD_OPTION_HEADER_BYTES	     16u
#define NBD_OPTION_REPLY_BYTES	     20u
#define NBD_REQUEST_BYTES	     28u
#define NBD_SIMPLE_REPLY_BYTES	     16u
#define NBD_CHUNK_BYTES		     20u
#define NBD_EXPORT_NAME_REPLY_ZEROES 124u
#define NBD_BLOCK_DESCRIPTOR_BYTES   8u

struct nbd_option_header {
	uint64_t magic;
	uint32_t option;
	uint32_t length_bytes;
};

struct nbd_request_header {
	uint32_t magic;
	uint16_t flags;
	uint16_t command;
	uint64_t cookie; /* opaque: goes back as it came */
	uint64_t offset_bytes;
	uint32_t length_bytes;
};

/* Decoders read exactly the fixed bytes; false when the cursor holds fewer. Magics are returned,
 * not judged. */
bool nbd_option_header_get(struct rcursor *in, struct nbd_option_header *ret_header);
bool nbd_request_header_get(struct rcursor *in, struct nbd_request_header *ret_header);
/* A u32 length and that many bytes, as NBD sends strings. *ret_text points into the cursor's buffer
 * and is not NUL-terminated. False when the cursor holds fewer bytes. */
bool nbd_string_get(struct rcursor *in, const char **ret_text, uint32_t *ret_length_bytes);

/* Encoders; a full cursor is reported by the cursor itself. */
void nbd_greeting_put(struct wcursor *out, unsigned flags);
void nbd_option_reply_put(struct wcursor *out, uint32_t option, uint32_t type,
			  uint32_t length_bytes);
void nbd_simple_reply_put(struct wcursor *out, uint32_t error, uint64_t cookie);
void nbd_chunk_put(struct wcursor *out, unsigned flags, unsigned type, uint64_t cookie,
		   uint32_t length_bytes);
/* Both halves of a request and an option, for clients (tests). */
void nbd_option_header_put(struct wcursor *out, uint32_t option, uint32_t length_bytes);
void nbd_request_header_put(struct wcursor *out, const struct nbd_request_header *header);

/* The wire's error for a negative errno, or NBD_OK for 0 and more. */
enum nbd_error nbd_error_from_errno(int64_t res);

#endif
