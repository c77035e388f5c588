/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/nbd.h"

#include <errno.h>

bool nbd_option_header_get(struct rcursor *in, struct nbd_option_header *ret_header)
{
	ret_header->magic = rcursor_be64(in);
	ret_header->option = rcursor_be32(in);
	ret_header->length_bytes = rcursor_be32(in);
	return rcursor_ok(in);
}

bool nbd_request_header_get(struct rcursor *in, struct nbd_request_header *ret_header)
{
	ret_header->magic = rcursor_be32(in);
	ret_header->flags = rcursor_be16(in);
	ret_header->command = rcursor_be16(in);
	ret_header->cookie = rcursor_be64(in);
	ret_header->offset_bytes = rcursor_be64(in);
	ret_header->length_bytes = rcursor_be32(in);
	return rcursor_ok(in);
}

bool nbd_string_get(struct rcursor *in, const char **ret_text, uint32_t *ret_length_bytes)
{
	*ret_length_bytes = rcursor_be32(in);
	*ret_text = (const char *)rcursor_bytes(in, *ret_length_bytes);
	return rcursor_ok(in);
}

void nbd_greeting_put(struct wcursor *out, unsigned flags)
{
	wcursor_be64(out, NBD_MAGIC_GREETING);
	wcursor_be64(out, NBD_MAGIC_OPTION);
	wcursor_be16(out, (uint16_t)flags);
}

void nbd_option_reply_put(struct wcursor *out, uint32_t option, uint32_t type,
			  uint32_t length_bytes)
{
	wcursor_be64(out, NBD_MAGIC_OPTION_REPLY);
	wcursor_be32(out, option);
	wcursor_be32(out, type);
	wcursor_be32(out, length_bytes);
}

void nbd_simple_reply_put(struct wcursor *out, uint32_t error, uint64_t cookie)
{
	wcursor_be32(out, NBD_MAGIC_SIMPLE_REPLY);
	wcursor_be32(out, error);
	wcursor_be64(out, cookie);
}

void nbd_chunk_put(struct wcursor *out, unsigned flags, unsigned type, uint64_t cookie,
		   uint32_t length_bytes)
{
	wcursor_be32(out, NBD_MAGIC_CHUNK);
	wcursor_be16(out, (uint16_t)flags);
	wcursor_be16(out, (uint16_t)type);
	wcursor_be64(out, cookie);
	wcursor_be32(out, length_bytes);
}

void nbd_option_header_put(struct wcursor *out, uint32_t option, uint32_t length_bytes)
{
	wcursor_be64(out, NBD_MAGIC_OPTION);
	wcursor_be32(out, option);
	wcursor_be32(out, length_bytes);
}

void nbd_request_header_put(struct wcursor *out, const struct nbd_request_header *header)
{
	wcursor_be32(out, header->magic);
	wcursor_be16(out, header->flags);
	wcursor_be16(out, header->command);
	wcursor_be64(out, header->cookie);
	wcursor_be64(out, header->offset_bytes);
	wcursor_be32(out, header->length_bytes);
}

enum nbd_error nbd_error_from_errno(int64_t res)
{
	if (res >= 0)
		return NBD_OK;
	switch (-res) {
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case EOPNOTSUPP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	}
	return NBD_EIO;
}
