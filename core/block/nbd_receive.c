/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests come in as many at a time as one receive brings. The small payloads of writes are copied
 * from there to their own aligned buffers, the large ones are received into them.
 */
#include <string.h>

#include "core/base/must.h"
#include "core/block/nbd_conn.h"

static void receive_more(struct nbd_conn *conn);

static size_t received(const struct nbd_conn *conn)
{
	return conn->in_end - conn->in_start;
}

static struct nbd_slot *slot_take(struct nbd_conn *conn, const struct nbd_request_header *header)
{
	struct nbd_slot *slot = conn->slot_free;

	conn->slot_free = slot->next;
	conn->slots_used++;
	conn->requests++;
	slot->next = NULL;
	slot->cookie = header->cookie;
	slot->start_ns = conn->progress_ns;
	slot->offset_bytes = header->offset_bytes;
	slot->length_bytes = header->length_bytes;
	slot->command = header->command;
	slot->flags = header->flags;
	slot->error = NBD_OK;
	slot->text = NULL;
	slot->buf = NULL;
	slot->buf_bytes = 0;
	slot->reserved = false;
	slot->data_bytes = 0;
	slot->sent_bytes = 0;
	slot->head_sent = false;
	slot->all_zero = false;
	slot->extents = 0;
	slot->last_bytes = 0;
	slot->last_state = 0;
	slot->mapped_bytes = 0;
	return slot;
}

/* The request in reception has all it needs. */
static void launch(struct nbd_conn *conn)
{
	struct nbd_slot *slot = conn->receiving;

	conn->receiving = NULL;
	conn->receive_state = NBD_RECEIVE_HEADER;
	if (slot->error == NBD_OK && conn->stopping) {
		slot->error = NBD_ESHUTDOWN;
		slot->text = "the server is stopping";
	}
	if (slot->error != NBD_OK)
		nbd_reply_queue(slot);
	else
		nbd_request_submit(slot);
}

/* With a buffer, or without need of one, or refused: what comes next on the wire? */
static void expect_payload(struct nbd_conn *conn)
{
	struct nbd_slot *slot = conn->receiving;

	if (slot->command != NBD_CMD_WRITE || slot->length_bytes == 0) {
		launch(conn);
		return;
	}
	conn->payload_bytes = slot->length_bytes;
	conn->receive_state = slot->error == NBD_OK ? NBD_RECEIVE_PAYLOAD : NBD_RECEIVE_SKIP;
}

/* Takes one header. False when nothing more can be done now. */
static bool header_run(struct nbd_conn *conn)
{
	struct rcursor in = rcursor_of(conn->in + conn->in_start, received(conn));
	struct nbd_request_header header;
	struct nbd_slot *slot;

	if (!conn->slot_free)
		return false; /* the next reply that leaves goes on here */
	if (!nbd_request_header_get(&in, &header)) {
		receive_more(conn);
		return false;
	}
	if (header.magic != NBD_MAGIC_REQUEST) {
		nbd_conn_close(conn, "sent something that is no NBD request");
		return false;
	}
	conn->in_start += NBD_REQUEST_BYTES;
	if (header.command == NBD_CMD_DISC) {
		conn->ending = true;
		nbd_conn_check_ended(conn);
		return false;
	}
	slot = slot_take(conn, &header);
	conn->receiving = slot;
	slot->text = nbd_request_check(conn, slot, &slot->error);
	if (slot->error == NBD_OK) {
		slot->buf_bytes = nbd_request_buffer_bytes(slot);
		if (slot->buf_bytes > 0 && !nbd_server_get_buffer(conn->server, slot)) {
			conn->receive_state = NBD_RECEIVE_WAIT;
			return false;
		}
	}
	expect_payload(conn);
	return true;
}

/* Takes what is there of a payload. False when more must come first. */
static bool payload_run(struct nbd_conn *conn)
{
	struct nbd_slot *slot = conn->receiving;
	uint32_t now = (uint32_t)min_size(conn->payload_bytes, received(conn));

	if (now > 0 && conn->receive_state == NBD_RECEIVE_PAYLOAD)
		memcpy(slot->buf + (slot->length_bytes - conn->payload_bytes),
		       conn->in + conn->in_start, now);
	conn->in_start += now;
	conn->payload_bytes -= now;
	if (conn->payload_bytes > 0) {
		receive_more(conn);
		return false;
	}
	launch(conn);
	return true;
}

void nbd_receive_run(struct nbd_conn *conn)
{
	bool more = true;

	if (conn->recv_pending)
		return;
	while (more && conn->phase == NBD_SERVING && !conn->ending) {
		switch (conn->receive_state) {
		case NBD_RECEIVE_HEADER:
			more = header_run(conn);
			break;
		case NBD_RECEIVE_WAIT:
			more = false;
			break;
		case NBD_RECEIVE_PAYLOAD:
		case NBD_RECEIVE_SKIP:
			more = payload_run(conn);
			break;
		}
	}
}

void nbd_receive_resume(struct nbd_conn *conn)
{
	struct nbd_slot *slot = conn->receiving;

	must(conn->receive_state == NBD_RECEIVE_WAIT && slot);
	if (!slot->buf) {
		slot->error = NBD_ESHUTDOWN;
		slot->text = "the server is stopping";
	}
	conn->progress_ns = io_now(conn->io);
	expect_payload(conn);
	nbd_receive_run(conn);
}

static void receive_ended(struct nbd_conn *conn, int64_t res)
{
	bool clean = conn->receive_state == NBD_RECEIVE_HEADER && received(conn) == 0;

	if (res < 0 || !clean) {
		nbd_conn_close(conn, res < 0 ? "the connection broke"
					     : "the client left in the middle of a request");
		return;
	}
	/* It may still read: answer what is in flight. */
	conn->ending = true;
	nbd_conn_check_ended(conn);
}

static void received_some(struct io_op *op, int64_t res)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, recv_op);
	bool direct = conn->recv_direct;

	conn->recv_pending = false;
	conn->recv_direct = false;
	/* Closed meanwhile: the buffer that was being filled is ours again. */
	if (conn->phase == NBD_CLOSED && direct) {
		nbd_slot_release(conn->receiving);
		conn->receiving = NULL;
	}
	if (!nbd_conn_leave(conn))
		return;
	if (res <= 0) {
		receive_ended(conn, res);
		return;
	}
	conn->progress_ns = io_now(conn->io);
	if (direct) {
		must(res <= conn->payload_bytes);
		conn->payload_bytes -= (uint32_t)res;
	} else {
		conn->in_end += (size_t)res;
		must(conn->in_end <= conn->in_max);
	}
	nbd_receive_run(conn);
}

static void receive_more(struct nbd_conn *conn)
{
	struct nbd_slot *slot = conn->receiving;
	size_t min = 1;

	conn->pending++;
	conn->recv_pending = true;
	conn->recv_op.done = received_some;
	if (conn->receive_state == NBD_RECEIVE_PAYLOAD &&
	    conn->payload_bytes >= NBD_DIRECT_MIN_BYTES) {
		conn->recv_direct = true;
		io_recv(conn->stream, slot->buf + (slot->length_bytes - conn->payload_bytes),
			min_size(conn->payload_bytes, NBD_RECV_STEP_BYTES), conn->payload_bytes,
			&conn->recv_op);
		return;
	}
	/* At most a part of one header is left in front. */
	if (conn->in_start > 0) {
		memmove(conn->in, conn->in + conn->in_start, received(conn));
		conn->in_end -= conn->in_start;
		conn->in_start = 0;
	}
	if (conn->receive_state == NBD_RECEIVE_HEADER)
		min = NBD_REQUEST_BYTES - received(conn);
	else
		min = min_size(conn->payload_bytes, NBD_DIRECT_MIN_BYTES);
	io_recv(conn->stream, conn->in + conn->in_end, min, conn->in_max - conn->in_end,
		&conn->recv_op);
}
