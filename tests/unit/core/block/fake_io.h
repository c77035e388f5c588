/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A very small struct io for the tests of the block front ends: memory, timers on a clock that the
 * test moves, deferred work, and byte streams whose far end is the test. No files.
 *
 * It is stricter than a real back end: completions read the caller's buffers as late as possible,
 * receives deliver random amounts, and every rule of io.h about operations is asserted.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_BLOCK_FAKE_IO_H
#define HOLDFAST_TESTS_UNIT_CORE_BLOCK_FAKE_IO_H

#include "core/io/io.h"

struct fake_bytes {
	uint8_t *data;
	size_t start, end, max;
};

struct fake_io {
	struct io io;
	uint64_t now_ns;
	uint64_t seed;
	struct io_op *ready_head, *ready_tail;
	struct io_op *deferred_head, *deferred_tail;
	struct io_timer *timers[256];
	unsigned timer_count;
	uint64_t timer_order;
	long allocations; /* not yet freed */
	bool fail_alloc;
	struct fake_stream *streams; /* every stream ever made here */
	struct fake_listener *listener;
};

struct fake_listener {
	struct io *io;
	struct io_op *accept_op;
	struct io_stream **ret_stream;
	struct fake_stream *queue[128];
	unsigned queue_count;
	bool closed;
};

struct fake_stream {
	struct io *io;
	struct fake_stream *next;
	struct io_peer peer;
	char error[128];
	struct fake_bytes in;  /* to the server */
	struct fake_bytes out; /* from the server */
	bool in_ended;	       /* the test closed its sending side */
	bool reset;	       /* the far end is gone: both directions fail */
	bool closed;	       /* the server closed it */
	bool send_blocked;     /* the test takes no bytes */
	bool whole;	       /* receives deliver all there is */
	struct io_op *recv_op;
	uint8_t *recv_buf;
	size_t recv_min, recv_max;
	struct io_op *send_op;
	struct iovec send_iov[IO_IOV_MAX];
	unsigned send_count;
	struct io_op *tls_op;
	int tls_result; /* what start_tls completes with */
	bool tls;
	unsigned sends;
};

void fake_io_init(struct fake_io *fake, uint64_t seed);
/* Frees the streams; fails the test when the code under test leaked or left a timer running. */
void fake_io_done(struct fake_io *fake);
/* Delivers completions until nothing is left to do. */
void fake_run(struct fake_io *fake);
/* The same over several loops of one process. */
void fake_run_all(struct fake_io **fakes, unsigned count);
/* Moves the clock, firing timers on the way. */
void fake_advance(struct fake_io *fake, uint64_t delay_ns);
uint64_t fake_random(struct fake_io *fake);

/* A client connects to the (one) listener. */
struct fake_stream *fake_connect(struct fake_io *fake);
void fake_send(struct fake_stream *stream, const void *data, size_t length_bytes);
/* How many bytes the server has sent that were not taken. */
size_t fake_received(const struct fake_stream *stream);
void fake_take(struct fake_stream *stream, void *data, size_t length_bytes);
void fake_end(struct fake_stream *stream);   /* no more bytes from the client */
void fake_reset(struct fake_stream *stream); /* the connection breaks */
void fake_unblock(struct fake_stream *stream);

#endif
