/* SPDX-License-Identifier: Apache-2.0 */
/* One request: validated as a whole first, then executed; the first half has no effects. */
#include <errno.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/err.h"
#include "core/base/must.h"
#include "core/block/nbd_conn.h"

/* ---- validate ----------------------------------------------------------------------------------
 */

static unsigned allowed_flags(const struct nbd_conn *conn, uint16_t command)
{
	/* FUA goes with every command, also where it means nothing. */
	switch (command) {
	case NBD_CMD_READ:
		return NBD_CMD_FLAG_FUA | (conn->structured ? NBD_CMD_FLAG_DF : 0);
	case NBD_CMD_WRITE_ZEROES:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
	case NBD_CMD_BLOCK_STATUS:
		return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
	}
	return NBD_CMD_FLAG_FUA;
}

static bool modifies(uint16_t command)
{
	return command == NBD_CMD_WRITE || command == NBD_CMD_TRIM ||
	       command == NBD_CMD_WRITE_ZEROES;
}

static const char *check_range(const struct nbd_conn *conn, const struct nbd_slot *slot,
			       enum nbd_error *ret_error)
{
	uint64_t block_bytes = conn->export->limits.block_min_bytes;
	bool fills = slot->command == NBD_CMD_WRITE || slot->command == NBD_CMD_WRITE_ZEROES;

	*ret_error = NBD_EINVAL;
	if (slot->length_bytes == 0)
		return "the length is zero";
	if (!range_valid(slot->offset_bytes, slot->length_bytes, conn->size_bytes)) {
		if (fills)
			*ret_error = NBD_ENOSPC;
		return "the range goes past the end of the export";
	}
	if (!is_aligned(slot->offset_bytes, block_bytes) ||
	    !is_aligned(slot->length_bytes, block_bytes))
		return "offset or length is no multiple of the minimum block size";
	if ((slot->command == NBD_CMD_READ || slot->command == NBD_CMD_WRITE) &&
	    slot->length_bytes > conn->request_max_bytes)
		return "the request is larger than the maximum block size";
	*ret_error = NBD_OK;
	return NULL;
}

const char *nbd_request_check(const struct nbd_conn *conn, const struct nbd_slot *slot,
			      enum nbd_error *ret_error)
{
	const struct export_limits *limits = &conn->export->limits;

	if (conn->stopping) {
		*ret_error = NBD_ESHUTDOWN;
		return "the server is stopping";
	}
	*ret_error = NBD_EINVAL;
	if (slot->command > NBD_CMD_BLOCK_STATUS)
		return "this server does not know that command";
	if (slot->flags & ~allowed_flags(conn, slot->command))
		return "a flag that does not go with this command";
	if (modifies(slot->command) && limits->read_only) {
		*ret_error = NBD_EPERM;
		return "the export is read-only";
	}
	if (slot->command == NBD_CMD_FLUSH) {
		if (slot->offset_bytes != 0 || slot->length_bytes != 0)
			return "FLUSH takes neither offset nor length";
		*ret_error = NBD_OK;
		return NULL;
	}
	if (slot->command == NBD_CMD_BLOCK_STATUS && !conn->meta_allocation)
		return "no metadata context was negotiated";
	if ((slot->flags & NBD_CMD_FLAG_FAST_ZERO) && !limits->fast_zero) {
		*ret_error = NBD_ENOTSUP;
		return "zeroing is not faster than writing here";
	}
	return check_range(conn, slot, ret_error);
}

size_t nbd_request_buffer_bytes(const struct nbd_slot *slot)
{
	switch (slot->command) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
		return slot->length_bytes;
	case NBD_CMD_BLOCK_STATUS:
		return NBD_UNIT_BYTES;
	}
	return 0;
}

/* ---- execute -----------------------------------------------------------------------------------
 */

static enum export_op export_op(uint16_t command)
{
	switch (command) {
	case NBD_CMD_READ:
		return EXPORT_READ;
	case NBD_CMD_WRITE:
		return EXPORT_WRITE;
	case NBD_CMD_FLUSH:
		return EXPORT_FLUSH;
	case NBD_CMD_TRIM:
		return EXPORT_TRIM;
	case NBD_CMD_CACHE:
		return EXPORT_CACHE;
	case NBD_CMD_WRITE_ZEROES:
		return EXPORT_WRITE_ZEROES;
	}
	return EXPORT_MAP;
}

static void count(struct nbd_slot *slot, int64_t res)
{
	struct nbd_conn *conn = slot->conn;
	struct nbd_server *server = conn->server;
	const struct export_request *request = &slot->request;
	struct nbd_op_stats *stats = &server->stats.op[request->op];
	uint64_t latency_ns = sub_floor_u64(io_now(server->io), slot->start_ns);
	uint64_t latency_us = latency_ns / 1000;
	unsigned bucket = latency_us < 2 ? 0 : 63u - (unsigned)__builtin_clzll(latency_us);

	stats->ops++;
	stats->latency[bucket < NBD_LATENCY_BUCKETS ? bucket : NBD_LATENCY_BUCKETS - 1]++;
	if (res < 0)
		stats->errors++;
	else
		stats->bytes += slot->length_bytes;
	if (res == 0 && slot->command == NBD_CMD_READ)
		conn->read_bytes += slot->length_bytes;
	else if (res == 0 && slot->command == NBD_CMD_WRITE)
		conn->written_bytes += slot->length_bytes;
	if (server->hooks->observe) {
		struct nbd_observation observation = {
			.export = conn->export,
			.op = request->op,
			.length_bytes = slot->length_bytes,
			.latency_ns = latency_ns,
			.res = res < 0 ? res : 0,
		};

		server->hooks->observe(server->config.owner, &observation);
	}
}

static bool is_zero(const uint8_t *data, size_t length_bytes)
{
	uint64_t head[8];

	/* Nearly all data that is not zero shows it in its first bytes. */
	if (length_bytes < sizeof(head))
		return false;
	memcpy(head, data, sizeof(head));
	if (head[0] | head[1] | head[2] | head[3] | head[4] | head[5] | head[6] | head[7])
		return false;
	return memcmp(data, data + sizeof(head), length_bytes - sizeof(head)) == 0;
}

static void finish(struct nbd_slot *slot, int64_t res)
{
	struct nbd_conn *conn = slot->conn;

	count(slot, res);
	conn->submitted--;
	if (conn->phase == NBD_CLOSED)
		nbd_slot_release(slot);
	if (!nbd_conn_leave(conn))
		return;
	slot->error = nbd_error_from_errno(res);
	slot->text = res < 0 ? err_text((int)res) : NULL;
	if (slot->error == NBD_OK && slot->command == NBD_CMD_READ) {
		slot->all_zero = conn->structured && is_zero(slot->buf, slot->length_bytes);
		slot->data_bytes = slot->all_zero ? 0 : slot->length_bytes;
	} else if (slot->error == NBD_OK && slot->command == NBD_CMD_BLOCK_STATUS) {
		slot->data_bytes = slot->extents * (size_t)NBD_BLOCK_DESCRIPTOR_BYTES;
	}
	nbd_reply_queue(slot);
}

static void request_done(struct export_request *request, int64_t res)
{
	finish(container_of(request, struct nbd_slot, request), res);
}

/* ---- BLOCK_STATUS: one MAP after the other until the range or the reply is full ----------------
 */

static void map_next(struct nbd_slot *slot)
{
	struct export_request *request = &slot->request;

	request->offset_bytes = slot->offset_bytes + slot->mapped_bytes;
	request->length_bytes = slot->length_bytes - slot->mapped_bytes;
	request->hole = false;
	slot->conn->export->ops->submit(slot->conn->export, request);
}

/* False when the reply has no room for another descriptor. */
static bool add_extent(struct nbd_slot *slot, uint32_t length_bytes, uint32_t state)
{
	struct wcursor out;
	uint8_t *place;

	if (slot->extents > 0 && slot->last_state == state) {
		slot->last_bytes += length_bytes;
	} else {
		if (slot->extents == NBD_EXTENTS_MAX)
			return false;
		slot->extents++;
		slot->last_bytes = length_bytes;
		slot->last_state = state;
	}
	place = slot->buf + (size_t)(slot->extents - 1) * NBD_BLOCK_DESCRIPTOR_BYTES;
	out = wcursor_of(place, NBD_BLOCK_DESCRIPTOR_BYTES);
	wcursor_be32(&out, slot->last_bytes);
	wcursor_be32(&out, slot->last_state);
	slot->mapped_bytes += length_bytes;
	return true;
}

static void map_done(struct export_request *request, int64_t res)
{
	struct nbd_slot *slot = container_of(request, struct nbd_slot, request);
	uint64_t left = slot->length_bytes - slot->mapped_bytes;

	if (res < 0) {
		/* What is known so far is an answer; the client asks again for the rest. */
		finish(slot, slot->extents > 0 ? 0 : res);
		return;
	}
	must(res > 0 && (uint64_t)res <= left);
	if (add_extent(slot, (uint32_t)res, request->hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0) &&
	    slot->mapped_bytes < slot->length_bytes && !(slot->flags & NBD_CMD_FLAG_REQ_ONE) &&
	    slot->conn->phase == NBD_SERVING)
		map_next(slot);
	else
		finish(slot, 0);
}

void nbd_request_submit(struct nbd_slot *slot)
{
	struct export_request *request = &slot->request;
	struct nbd_conn *conn = slot->conn;

	request->op = export_op(slot->command);
	request->flags = 0;
	if (slot->flags & NBD_CMD_FLAG_FUA)
		request->flags |= EXPORT_FUA;
	if (slot->flags & NBD_CMD_FLAG_NO_HOLE)
		request->flags |= EXPORT_NO_HOLE;
	if (slot->flags & NBD_CMD_FLAG_FAST_ZERO)
		request->flags |= EXPORT_FAST_ZERO;
	request->offset_bytes = slot->offset_bytes;
	request->length_bytes = slot->length_bytes;
	request->buf = slot->buf;
	conn->submitted++;
	conn->pending++;
	if (request->op == EXPORT_MAP) {
		request->done = map_done;
		map_next(slot);
		return;
	}
	request->done = request_done;
	conn->export->ops->submit(conn->export, request);
}
