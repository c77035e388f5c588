/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bandwidth that a standby may take: all bytes queued for it, whatever they are, against a
 * limit that depends on the time of day (UTC).
 *
 * A debt that shrinks with time: a frame may go while the debt is worth no more than
 * BANDWIDTH_BURST_NS, and then counts in full. Invariant P1: in any span of t seconds no more is
 * queued than limit * (t + BANDWIDTH_BURST_NS) and one frame. Invariant P2: who stays below the
 * limit is never delayed, whatever the size of a frame.
 *
 * Bytes, and nanoseconds of io_now() where not said otherwise. No I/O. Loop thread.
 */
#ifndef HOLDFAST_AGENT_BANDWIDTH_H
#define HOLDFAST_AGENT_BANDWIDTH_H

#include "core/conf/conf.h"

#define BANDWIDTH_BURST_NS 125000000ull

struct bandwidth {
	uint64_t clear_ns;    /* when the debt is over */
	double owed_bytes;    /* less than a nanosecond's worth, not in it yet */
	uint64_t rate_bytes;  /* under which it was made */
	uint64_t total_bytes; /* counted until now */
	/* what was sent per second, over the last span of a second or more */
	uint64_t span_ns, span_bytes, sent_bytes, sent_rate_bytes;
};

/* The limit in force at a time of the wall clock, per second; 0 = none. */
uint64_t bandwidth_limit(const struct conf_peer *peer, uint64_t wall_ns);
/* `total_bytes` have been queued since the beginning; less than before: what was queued then went
 * with its connection. */
void bandwidth_count(struct bandwidth *bandwidth, uint64_t total_bytes, uint64_t rate_bytes,
		     uint64_t now_ns);
/* 0: a frame may go now; else how long it has to wait. */
uint64_t bandwidth_wait_ns(struct bandwidth *bandwidth, uint64_t rate_bytes, uint64_t now_ns);
/* Bytes per second that went out lately. */
uint64_t bandwidth_sent_rate(struct bandwidth *bandwidth, uint64_t now_ns);

#endif
