/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring back end of struct io: one ring, one thread.
 *
 * Owner: the thread that calls uring_run(). uring_new() may be called elsewhere, before the thread
 * starts: the ring itself is made inside uring_run()'s thread (IORING_SETUP_SINGLE_ISSUER).
 */
#ifndef HOLDFAST_CORE_IO_URING_H
#define HOLDFAST_CORE_IO_URING_H

#include "core/io/io.h"

struct uring_config {
	unsigned entries; /* submission queue entries, 0 = default */
	unsigned workers; /* threads for io_work and blocking file calls, shared per loop, 0 =
			     default */
	const char *name; /* thread and log name */
};

/* What the running kernel offers and what the loop uses of it. Printed by `holdfast doctor`. */
struct uring_features {
	bool available;	     /* io_uring_setup works here */
	int available_errno; /* why not */
	bool defer_taskrun, single_issuer, coop_taskrun;
	bool registered_buffers, registered_files, multishot_accept, msg_ring, send_zc;
	char kernel[64];
};

/* 0, or a negative errno. The loop runs nothing before uring_run(). */
int uring_new(const struct uring_config *config, struct io **ret_io);
/* Runs callbacks until uring_stop(). Returns 0, or the errno that broke the ring. */
int uring_run(struct io *io);
/* From any thread or callback: uring_run() returns after the current turn. */
void uring_stop(struct io *io);
/* After uring_run() returned: frees everything; operations still in flight are cancelled and
 * dropped without callback. */
void uring_free(struct io *io);
/* Probes, never assumes from a version. Safe from any thread, makes and drops a ring of its own. */
void uring_probe(struct uring_features *ret_features);

/* Which port a TCP listener got, for listeners on port 0. 0 for unix sockets. */
int uring_listener_port(struct io_listener *listener);

struct uring_stats {
	uint64_t turns, submits, completions, fixed_buffer_ops, work_items;
};
/* On the loop's thread, or when it does not run. */
void uring_stats(struct io *io, struct uring_stats *ret_stats);

#endif
