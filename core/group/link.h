/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A replication link: frames over a stream, both directions, with bounded buffers.
 *
 * Sending copies into the link's out buffer (so that a stalled peer never pins a segment in memory)
 * and gathers what one turn produced into one send. Receiving delivers whole frames; the body of a
 * frame lands where the owner wants it (`place`), or in the link's own control buffer.
 *
 * Owner: the loop of the stream; callbacks never come from inside a call. After link_close() no
 * callback comes, but for `released`. Memory: out_bytes and about 330 KiB, taken by link_new().
 */
#ifndef HOLDFAST_CORE_GROUP_LINK_H
#define HOLDFAST_CORE_GROUP_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/io/io.h"
#include "proto/frame.h"

struct link;

struct link_events {
	void *owner;
	/* A valid header of a SEGMENT or SYNC_DATA frame arrived: where shall body_bytes go? NULL:
	 * nowhere yet; the link stops reading until link_resume(). Control bodies do not ask. The
	 * place is the link's until `frame`, `ended` or link_close() (but see `released`). */
	uint8_t *(*place)(void *owner, const struct frame *frame);
	/* A whole frame; `body` is the place, or the link's buffer (valid during the call). Body
	 * CRC is verified where the frame has one. Returning non-zero (negative errno) ends the
	 * link with that error. */
	int (*frame)(void *owner, const struct frame *frame, const uint8_t *body);
	/* There is room in the out buffer again after link_send() said -EAGAIN. */
	void (*writable)(void *owner);
	/* The link ended by itself: peer closed (0), or error. `text` says why. The owner calls
	 * link_close(). What the peer sent before it closed has been delivered. */
	void (*ended)(void *owner, int res, const char *text);
	/*
	 * May be NULL: then bodies come through the link's buffer and are copied, and a place is
	 * the owner's again as soon as the link ended or is closed. Otherwise they are received
	 * straight into their place, so the place of a body that was under way when the link ended
	 * or was closed (or finished) is written to until this call, the only one to come after
	 * link_close() and link_free(). link_places() says whether it will come.
	 */
	void (*released)(void *owner);
};

/* `out_bytes`: at least 2 x (FRAME_BYTES + SEGMENT_TOTAL_MAX_BYTES). -ENOMEM. */
int link_new(struct io *io, size_t out_bytes, const struct link_events *events,
	     struct link **ret_link);
/* Closes and frees (memory goes when pending operations are done). NULL is allowed; returns NULL.
 */
struct link *link_free(struct link *link);
/* Takes over a stream with no operation pending; a former one is closed first. Frames may be queued
 * at once, also while the former stream's operations are still pending. */
void link_start(struct link *link, struct io_stream *stream);
/* Closes the stream; the link can be started again with a new one. No callback comes for the old
 * one. */
void link_close(struct link *link);
/* Started, not ended, closed or finishing. */
bool link_is_open(const struct link *link);
/* link_finish() has its frame still to bring over: closing now would lose it. */
bool link_is_finishing(const struct link *link);
/* A receive into a place is pending: after link_close(), `released` follows. */
bool link_places(const struct link *link);
/* Queues a frame (body_crc is filled in here where the type has one). 0; -EAGAIN no room
 * (writable() follows); -ENOTCONN. A frame is queued whole or not at all. */
int link_send(struct link *link, struct frame *frame, const void *body);
size_t link_room(const struct link *link);
/* There was less room than `bytes`: writable() follows once there is, as after link_send(). */
void link_want(struct link *link, size_t bytes);
/* Bytes queued and not yet with the transport. */
size_t link_queued(const struct link *link);
/* place() said NULL: ask again. */
void link_resume(struct link *link);
/* io_now() of the last byte received; 0 = nothing since start. */
uint64_t link_heard_ns(const struct link *link);
/* Bytes with the transport, bytes received; since link_new(). */
uint64_t link_sent_bytes(const struct link *link);
uint64_t link_received_bytes(const struct link *link);
/*
 * Sends a control frame behind what is queued, then closes, when the peer closed or after 1 s:
 * closing at once, with bytes of the peer unread, would reset the connection and could take the
 * frame with it. For REFUSE and BYE. The link counts as closed from now; no callback comes.
 */
void link_finish(struct link *link, struct frame *frame, const void *body);

#endif
