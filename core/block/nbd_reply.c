/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies of all requests that finished in one turn leave together: headers gathered in conn->out,
 * data straight from the requests' buffers.
 */
#include <string.h>

#include "core/base/must.h"
#include "core/block/nbd_conn.h"

/* The longest head: an error chunk with its text. */
#define TEXT_MAX_BYTES 200u
#define HEAD_MAX_BYTES (NBD_CHUNK_BYTES + 6u + TEXT_MAX_BYTES)

void nbd_slot_release(struct nbd_slot *slot)
{
	struct nbd_conn *conn = slot->conn;

	nbd_server_put_buffer(conn->server, slot);
	must(conn->slots_used > 0);
	conn->slots_used--;
	slot->next = conn->slot_free;
	conn->slot_free = slot;
}

static void release_all(struct nbd_slot *slot)
{
	while (slot) {
		struct nbd_slot *next = slot->next;

		nbd_slot_release(slot);
		slot = next;
	}
}

void nbd_reply_drop(struct nbd_conn *conn)
{
	/* The first one may be half sent: then its buffer is with the stream until that is done. */
	if (conn->send_pending && conn->reply_head && conn->reply_head->head_sent) {
		release_all(conn->reply_head->next);
		conn->reply_head->next = NULL;
		conn->reply_tail = conn->reply_head;
		return;
	}
	release_all(conn->reply_head);
	conn->reply_head = NULL;
	conn->reply_tail = NULL;
}

/* ---- building ----------------------------------------------------------------------------------
 */

static void put_head(const struct nbd_slot *slot, bool structured, struct wcursor *out)
{
	if (!structured) {
		nbd_simple_reply_put(out, slot->error, slot->cookie);
	} else if (slot->error != NBD_OK) {
		size_t text_bytes = slot->text ? strnlen(slot->text, TEXT_MAX_BYTES) : 0;

		nbd_chunk_put(out, NBD_CHUNK_FLAG_DONE, NBD_CHUNK_ERROR, slot->cookie,
			      (uint32_t)(6 + text_bytes));
		wcursor_be32(out, slot->error);
		wcursor_be16(out, (uint16_t)text_bytes);
		wcursor_bytes(out, slot->text, text_bytes);
	} else if (slot->command == NBD_CMD_READ && slot->all_zero) {
		nbd_chunk_put(out, NBD_CHUNK_FLAG_DONE, NBD_CHUNK_OFFSET_HOLE, slot->cookie, 12);
		wcursor_be64(out, slot->offset_bytes);
		wcursor_be32(out, slot->length_bytes);
	} else if (slot->command == NBD_CMD_READ) {
		nbd_chunk_put(out, NBD_CHUNK_FLAG_DONE, NBD_CHUNK_OFFSET_DATA, slot->cookie,
			      8 + slot->length_bytes);
		wcursor_be64(out, slot->offset_bytes);
	} else if (slot->command == NBD_CMD_BLOCK_STATUS) {
		nbd_chunk_put(out, NBD_CHUNK_FLAG_DONE, NBD_CHUNK_BLOCK_STATUS, slot->cookie,
			      (uint32_t)(4 + slot->data_bytes));
		wcursor_be32(out, NBD_META_ALLOCATION);
	} else {
		/* Without payload the short form is allowed. */
		nbd_simple_reply_put(out, NBD_OK, slot->cookie);
	}
}

struct gather {
	struct iovec iov[IO_IOV_MAX];
	unsigned count;
	size_t data_bytes;
	struct wcursor heads;
};

static void gather_head(struct gather *gather, struct nbd_slot *slot)
{
	uint8_t *begin = gather->heads.pos;
	struct iovec *last = gather->count > 0 ? &gather->iov[gather->count - 1] : NULL;
	size_t length_bytes;

	put_head(slot, slot->conn->structured, &gather->heads);
	must(wcursor_ok(&gather->heads));
	slot->head_sent = true;
	length_bytes = (size_t)(gather->heads.pos - begin);
	/* Heads without data between them are one run of bytes. */
	if (last && (uint8_t *)last->iov_base + last->iov_len == begin) {
		last->iov_len += length_bytes;
		return;
	}
	gather->iov[gather->count].iov_base = begin;
	gather->iov[gather->count++].iov_len = length_bytes;
}

/* True when the whole reply is in. */
static bool gather_reply(struct gather *gather, struct nbd_slot *slot)
{
	size_t now;

	if (!slot->head_sent)
		gather_head(gather, slot);
	now = min_size(slot->data_bytes - slot->sent_bytes,
		       NBD_SEND_STEP_BYTES - gather->data_bytes);
	if (now > 0) {
		gather->iov[gather->count].iov_base = slot->buf + slot->sent_bytes;
		gather->iov[gather->count++].iov_len = now;
		gather->data_bytes += now;
		slot->sent_bytes += now;
	}
	return slot->sent_bytes == slot->data_bytes;
}

static bool has_room(const struct gather *gather)
{
	return gather->count + 2 <= IO_IOV_MAX && gather->data_bytes < NBD_SEND_STEP_BYTES &&
	       wcursor_left(&gather->heads) >= HEAD_MAX_BYTES;
}

/* ---- sending -----------------------------------------------------------------------------------
 */

static void flush_soon(struct nbd_conn *conn);

static void replies_sent(struct io_op *op, int64_t res)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, send_op);

	conn->send_pending = false;
	release_all(conn->sending);
	conn->sending = NULL;
	if (conn->phase == NBD_CLOSED)
		nbd_reply_drop(conn);
	if (!nbd_conn_leave(conn))
		return;
	if (res < 0) {
		nbd_conn_close(conn, "the client no longer takes replies");
		return;
	}
	conn->progress_ns = io_now(conn->io);
	if (conn->reply_head)
		flush_soon(conn);
	/* Reception may have stopped for want of a slot. */
	nbd_receive_run(conn);
	nbd_conn_check_ended(conn);
}

static void flush(struct nbd_conn *conn)
{
	struct gather gather = { .heads = wcursor_of(conn->out, NBD_OUT_BYTES) };
	struct nbd_slot **tail = &conn->sending;
	struct nbd_slot *slot;

	while ((slot = conn->reply_head) != NULL && has_room(&gather)) {
		if (!gather_reply(&gather, slot))
			break;
		conn->reply_head = slot->next;
		slot->next = NULL;
		*tail = slot;
		tail = &slot->next;
	}
	if (!conn->reply_head)
		conn->reply_tail = NULL;
	conn->send_pending = true;
	conn->pending++;
	conn->send_op.done = replies_sent;
	io_sendv(conn->stream, gather.iov, gather.count, &conn->send_op);
}

static void flush_due(struct io_op *op, int64_t res)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, flush_op);

	(void)res;
	conn->flush_pending = false;
	if (nbd_conn_leave(conn) && conn->reply_head && !conn->send_pending)
		flush(conn);
}

static void flush_soon(struct nbd_conn *conn)
{
	if (conn->flush_pending || conn->send_pending)
		return;
	conn->flush_pending = true;
	conn->pending++;
	conn->flush_op.done = flush_due;
	io_defer(conn->io, &conn->flush_op, 0);
}

void nbd_reply_queue(struct nbd_slot *slot)
{
	struct nbd_conn *conn = slot->conn;

	/* A write's data, or what a failed read left behind, is not needed for the reply. */
	if (slot->data_bytes == 0)
		nbd_server_put_buffer(conn->server, slot);
	slot->next = NULL;
	if (conn->reply_tail)
		conn->reply_tail->next = slot;
	else
		conn->reply_head = slot;
	conn->reply_tail = slot;
	flush_soon(conn);
}
