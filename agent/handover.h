/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Switchover, the primary's side: hold new requests, drain, ask a standby to take the next epoch.
 *
 *   NEARING -> DRAINING -> STORING -> ASKED -> fenced (it took over) or CLEARING -> NONE
 *      |           |          `---------------------------------------^
 *      +-----------+--> NONE (given up: everything is as it was)
 *
 * Invariant H1: while it is not NONE or NEARING no request is begun and no record is made: what the
 * standby takes over is all that was ever acknowledged here.
 * Invariant H2: before it is asked, the superblock says so (HANDOVER), durably; from then on only
 * its own word decides, also across restarts: its answer (HANDED), a WELCOME of a later connection
 * (it acts on the question at once or never, so one that still follows this epoch will not act any
 * more), or a higher epoch from anybody. No time passes that would let this node serve again.
 * Invariant H3: the answer that nothing happened is recorded, durably, before requests go on.
 *
 * Loop thread.
 */
#ifndef HOLDFAST_AGENT_HANDOVER_H
#define HOLDFAST_AGENT_HANDOVER_H

#include "agent/agent.h"
#include "core/group/group_dir.h"
#include "proto/frame.h"

struct ship;

enum handover_state {
	HANDOVER_NONE = 0,
	HANDOVER_NEARING,  /* requests go on: checkpoint here, and the standby comes near */
	HANDOVER_DRAINING, /* requests are held: everything becomes durable and applied on both */
	HANDOVER_STORING,  /* H2 */
	HANDOVER_ASKED,
	HANDOVER_CLEARING, /* H3 */
};

struct handover {
	enum handover_state state;
	struct agent_switchover *user; /* NULL: nobody waits any more, or it began before a start */
	struct ship *ship;
	struct io_timer timer;
	struct io_op op;
	struct group_dir_store store;
	uint64_t near_seq; /* the head when it began */
	uint64_t begun_ns, held_since_ns, deadline_ns;
	bool sent, given_up; /* given_up: while STORING */
	bool taken;	     /* fenced by its answer */
	int res;	     /* what the user is told when it is over */
	char text[512];
};

/* Whether requests wait (H1). */
static inline bool handover_holds(const struct handover *handover)
{
	return handover->state >= HANDOVER_DRAINING;
}

struct agent_group;

/* At a start whose superblock says HANDOVER; false: that standby is not configured any more. */
bool handover_resume(struct agent_group *group);
/* Something it may wait for has moved. */
void handover_step(struct agent_group *group);
void handover_lost(struct agent_group *group, const struct ship *ship); /* the connection */
/* The standby still follows our epoch, in a new connection. */
void handover_welcomed(struct agent_group *group, const struct ship *ship);
/* FRAME_HANDED under our own epoch. 0 or -EPROTO. */
int handover_refused(struct agent_group *group, const struct ship *ship, const struct frame *frame,
		     const uint8_t *body);
/* The group is about to be fenced by what `node` said, or has failed. */
void handover_fenced(struct agent_group *group, uint64_t epoch, const char *node);
void handover_failed(struct agent_group *group, int res);
/* The group stops: what was not asked is given up. */
void handover_stop(struct agent_group *group);
/* Fenced, and the directory is let go of: the waiting user is told. */
void handover_over(struct agent_group *group);
/* Out of the superblock in memory; the caller stores it. */
void handover_forget(struct agent_group *group);
/* The operator's word, stored, takes the place of the standby's: requests go on. */
void handover_accepted(struct agent_group *group);

#endif
