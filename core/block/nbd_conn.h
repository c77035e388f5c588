/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the NBD server: the server and its connections. For core/block/nbd_*.c only.
 *
 *   nbd_server.c     listening, limits, stopping, waiting for memory
 *   nbd_life.c       connections: from accept to the last callback, stopping, adoption
 *   nbd_options.c    the handshake: one option at a time, one reply at a time
 *   nbd_negotiate.c  the options themselves
 *   nbd_receive.c    requests: parse, get a buffer, take the payload
 *   nbd_request.c    one request: validate, hand to the export, finish
 *   nbd_reply.c      replies: what finished in one turn of the loop leaves in one send
 *
 * Life of a connection: every callback it waits for is counted in `pending`. nbd_conn_close()
 * closes the stream at once; the memory goes when the last callback came back (nbd_conn_leave()).
 */
#ifndef HOLDFAST_CORE_BLOCK_NBD_CONN_H
#define HOLDFAST_CORE_BLOCK_NBD_CONN_H

#include <stdatomic.h>

#include "core/base/cursor.h"
#include "core/base/list.h"
#include "core/block/nbd_buffers.h"
#include "core/block/nbd_server.h"
#include "proto/nbd.h"

#define NBD_EXPORT_NAME_MAX_BYTES 255u
#define NBD_REQUEST_MAX_BYTES	  (64u << 20)
/* Largest option that is looked into; longer ones are skipped, and above the second limit the
 * connection ends. */
#define NBD_OPTION_MAX_BYTES	  (16u << 10)
#define NBD_OPTION_SKIP_MAX_BYTES (1u << 20)
#define NBD_OPTIONS_IN_BYTES	  (NBD_OPTION_HEADER_BYTES + NBD_OPTION_MAX_BYTES)
#define NBD_OUT_BYTES		  (16u << 10)
#define NBD_IN_BYTES		  (128u << 10)
/* Payload still missing: from this size on it is received into the request's own buffer. */
#define NBD_DIRECT_MIN_BYTES (32u << 10)
/* Pieces of large transfers, so that a slow client is seen to move. */
#define NBD_RECV_STEP_BYTES (1u << 20)
#define NBD_SEND_STEP_BYTES (8u << 20)
/* Of the request buffers' size, beside them; see take_reserve(). */
#define NBD_RESERVE_SHARE	  8u
#define NBD_RESERVE_MIN_BYTES	  (8u << 20)
#define NBD_RESERVE_REQUEST_BYTES (256u << 10)
#define NBD_RESERVE_PER_CONN	  8u
#define NBD_EXTENTS_MAX		  (NBD_UNIT_BYTES / NBD_BLOCK_DESCRIPTOR_BYTES)
#define NBD_META_ALLOCATION	  1u /* id of base:allocation on every connection */

enum nbd_phase {
	NBD_GREETING,
	NBD_OPTIONS,
	NBD_STARTING_TLS,
	NBD_SERVING,
	NBD_MOVING, /* on its way to another server */
	NBD_CLOSED,
};

/* What follows when the handshake reply under way has been sent. */
enum nbd_then {
	NBD_THEN_OPTIONS,
	NBD_THEN_TLS,
	NBD_THEN_SERVE,
	NBD_THEN_CLOSE,
};

enum nbd_receive_state {
	NBD_RECEIVE_HEADER,
	NBD_RECEIVE_WAIT, /* the request in `receiving` waits for a buffer */
	NBD_RECEIVE_PAYLOAD,
	NBD_RECEIVE_SKIP, /* payload of a refused write */
};

/* One request, from its header to the end of its reply. */
struct nbd_slot {
	struct export_request request;
	struct nbd_conn *conn;
	struct nbd_slot *next; /* free list, reply queue, or replies being sent */
	uint64_t cookie;
	uint64_t start_ns;
	uint64_t offset_bytes;
	uint32_t length_bytes;
	uint16_t command;
	uint16_t flags;
	enum nbd_error error;
	const char *text; /* of the error; constant */
	uint8_t *buf;	  /* NULL: none */
	size_t buf_bytes;
	bool reserved;	   /* buf is out of the server's reserve */
	size_t data_bytes; /* of buf that go into the reply */
	size_t sent_bytes; /* of these, already handed to the stream */
	bool head_sent;
	bool all_zero;	     /* READ: answered with a hole */
	uint32_t extents;    /* BLOCK_STATUS: descriptors in buf */
	uint32_t last_bytes; /* length and state of the last one */
	uint32_t last_state;
	uint64_t mapped_bytes;
};

struct nbd_conn {
	struct nbd_server *server;
	struct io *io;
	struct io_stream *stream; /* NULL when closed */
	struct list link;	  /* server->conns */
	struct list wait_link;	  /* server->waiters */
	enum nbd_phase phase;
	unsigned pending;
	uint64_t connected_ns;
	uint64_t progress_ns; /* when the peer last took or gave bytes */

	/* Negotiated. */
	bool fixed_newstyle, no_zeroes, tls, structured, meta_allocation;
	char meta_name[NBD_EXPORT_NAME_MAX_BYTES + 1];
	struct export *export; /* attached when not NULL */
	uint32_t request_max_bytes;
	uint64_t size_bytes;

	/* What was received and not used yet: in[in_start, in_end). */
	struct io_op recv_op;
	bool recv_pending;
	uint8_t *in;
	size_t in_start, in_end, in_max;

	/* Handshake replies; later the headers of replies. */
	struct io_op send_op;
	bool send_pending;
	uint8_t *out;
	struct wcursor reply;
	enum nbd_then then;
	size_t skip_bytes; /* rest of an option that is not looked into */
	bool listing;	   /* OPT_LIST is being answered, from `list_index` on */
	size_t list_index;

	struct io_op step_op; /* TLS, adoption */
	struct io_timer deadline;
	uint64_t deadline_ns; /* of the handshake, absolute */
	bool timed;

	/* Serving. */
	struct nbd_slot *slots;
	struct nbd_slot *slot_free;
	unsigned slots_used;
	unsigned reserved;  /* of them, with a buffer out of the reserve */
	unsigned submitted; /* in the export */
	enum nbd_receive_state receive_state;
	struct nbd_slot *receiving;
	uint32_t payload_bytes; /* still missing of the payload, or to be skipped */
	bool recv_direct;	/* the pending receive goes into receiving->buf */
	bool ending;		/* nothing more is read: answer, then close */
	bool stopping;		/* further requests get NBD_ESHUTDOWN */
	struct nbd_slot *reply_head, *reply_tail; /* finished, not yet in a send */
	struct nbd_slot *sending;		  /* whole replies in the pending send */
	struct io_op flush_op;
	bool flush_pending;
	struct io_op reap_op;
	uint64_t requests, read_bytes, written_bytes;
};

struct nbd_server {
	struct io *io;
	struct nbd_server_config config;
	const struct nbd_hooks *hooks;
	struct io_address address;
	struct io_listener *listener;
	struct io_stream *accepted;
	struct io_op accept_op;
	bool accept_pending;
	struct io_timer accept_again;
	struct list conns;
	atomic_uint adopting; /* connections posted to this server, not yet here */
	struct nbd_buffers buffers, reserve;
	struct list waiters; /* connections whose request waits for a buffer, oldest first */
	struct io_op wake_op;
	bool wake_pending;
	struct io_timer stall;
	bool stopping, stop_pending;
	struct io_op stop_op;
	void (*stop_done)(void *arg);
	void *stop_arg;
	struct nbd_stats stats;
};

/* nbd_life.c */

/* NULL: out of memory, the stream is still the caller's. */
struct nbd_conn *nbd_conn_new(struct nbd_server *server, struct io_stream *stream);
/* It belongs to the server from now on, and the time for its handshake runs. */
void nbd_conn_enter(struct nbd_conn *conn, struct nbd_server *server);
/* Ends a connection now; the reason is for people, "" for a client that left in good order. Legal
 * anywhere: the connection's memory stays until a later turn. */
void nbd_conn_close(struct nbd_conn *conn, const char *reason);
/* First thing in every callback of a connection: false when it is closed (and perhaps freed). */
bool nbd_conn_leave(struct nbd_conn *conn);
/* No more requests are taken; closes when the last reply is out. */
void nbd_conn_stop(struct nbd_conn *conn);
/* Closes a connection that is ending and has nothing left to do. */
void nbd_conn_check_ended(struct nbd_conn *conn);
/* After GO: slots and the large receive buffer. 0 or -ENOMEM; undone by the close. */
int nbd_conn_prepare_serving(struct nbd_conn *conn);

/* nbd_server.c */

/* Reports the end of a stop once nothing is left. */
void nbd_server_check_stopped(struct nbd_server *server);
/* The connection no longer waits for a buffer, if it did. */
void nbd_server_stop_waiting(struct nbd_conn *conn);
/* Buffers that came back may serve who waits. */
void nbd_server_put_buffer(struct nbd_server *server, struct nbd_slot *slot);
/* Gets slot->buf of slot->buf_bytes, or queues the connection and returns false. */
bool nbd_server_get_buffer(struct nbd_server *server, struct nbd_slot *slot);

/* nbd_options.c */
void nbd_options_start(struct nbd_conn *conn); /* sends the greeting */
void nbd_options_run(struct nbd_conn *conn);

/* nbd_negotiate.c */

/* What became of an option. */
enum nbd_outcome {
	NBD_OPTION_DONE,  /* answered in conn->reply: take it off, send */
	NBD_OPTION_AGAIN, /* partly answered: send, then call again */
	NBD_OPTION_GONE,  /* the connection is closed or has moved: do not touch it */
};

enum nbd_outcome nbd_option_handle(struct nbd_conn *conn, uint32_t option, struct rcursor data);
/* An option too long to be looked into: answered at once, its data skipped as it comes. */
enum nbd_outcome nbd_option_skip(struct nbd_conn *conn, const struct nbd_option_header *header);

/* nbd_receive.c */
void nbd_receive_run(struct nbd_conn *conn);
/* The buffer that `receiving` waited for is there (or the wait is over because of stopping). */
void nbd_receive_resume(struct nbd_conn *conn);

/* nbd_request.c */

/* What is wrong with a request: NULL and NBD_OK, or a constant text and the error to answer. */
const char *nbd_request_check(const struct nbd_conn *conn, const struct nbd_slot *slot,
			      enum nbd_error *ret_error);
/* How large a buffer a valid request needs; 0 = none. */
size_t nbd_request_buffer_bytes(const struct nbd_slot *slot);
/* Hands a valid request with its buffer to the export. */
void nbd_request_submit(struct nbd_slot *slot);

/* nbd_reply.c */

/* Queues the reply of a finished request (slot->error says which). */
void nbd_reply_queue(struct nbd_slot *slot);
/* Frees every queued reply of a closed connection. */
void nbd_reply_drop(struct nbd_conn *conn);
/* Gives slot and buffer back. */
void nbd_slot_release(struct nbd_slot *slot);

static inline const struct io_peer *conn_peer(const struct nbd_conn *conn)
{
	return io_stream_peer(conn->stream);
}

#endif
