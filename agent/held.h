/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group that is not served because of what was found: a standby of the same epoch has more than
 * this primary, or other content at the same seq (this copy is older than its standby, or another
 * one); another node is primary under the same epoch; a volume was written to behind the agent's
 * back; a standby that was asked to take over is not there to say whether it did.
 *
 * Invariant A1: a group that is held is not served, and no standby is changed by it, until the
 * operator accepts, or a higher epoch fences it. HELD in the superblock keeps it so across
 * restarts. (A standby that was asked to take over may still say that it did not: then it is served
 * by itself.)
 * Invariant A2: what is accepted begins a new epoch behind our end, two above the old one: above
 * that of a standby that is promoted, or took over, at the same time. Whoever holds something else
 * behind our end has parted from the ruling history, and keeps it until its own operator decides.
 * A primary that serves while a standby of it has parted (timeline.h), or another node is primary
 * under its epoch, can be accepted as well. Invariant A3: nothing is written from when its end is
 * taken for the new epoch's beginning until the superblock says so.
 *
 * Loop thread.
 */
#ifndef HOLDFAST_AGENT_HELD_H
#define HOLDFAST_AGENT_HELD_H

#include "agent/agent.h"
#include "core/group/group_dir.h"

struct agent_group;
struct ship;
struct link_refuse;

struct held {
	char text[STATUS_TEXT_MAX]; /* what was found, and what to do; "" = nothing */
	bool changed;		    /* a volume was written to behind the agent's back */
	bool noted;		    /* and that is in the superblock, or on its way */
	struct agent_task *task;    /* AGENT_ACCEPT */
	bool draining; /* it serves: requests wait until what was written is durable, and the new
			  epoch with it */
	uint64_t deadline_ns;
	struct io_timer timer;
	unsigned next_ship;
	struct io_op op, accept_op;
	struct group_dir_store store, accept_store;
};

/* From SETTLING into HELD, durably; in any state but these two it does nothing. */
__attribute__((format(printf, 2, 3))) void held_enter(struct agent_group *group, const char *format,
						      ...);
/* A standby has not answered whether it took over: not served, and still asked. */
void held_wait(struct agent_group *group);
/* From here on what is written belongs to an opening of its own; the caller stores it (O1). */
void held_new_writer(struct agent_group *group);
/* At the end of recovery: what was found by then, now or at an earlier start. */
void held_start(struct agent_group *group);
/* True when a WELCOME shows that this primary is older than its standby: the group is held. */
bool held_by_welcome(struct ship *ship);
/* The same of a REFUSE under our own epoch. */
void held_by_refusal(struct ship *ship, const struct link_refuse *refuse);
/* The standby has other content where the histories agree. */
void held_by_chain(struct ship *ship);
/* AGENT_ACCEPT; calls task->done. */
void held_accept(struct agent_group *group, struct agent_task *task);
/* Fenced, failed or stopped while it was being accepted. */
void held_over(struct agent_group *group);

/*
 * suspect.c: a suspect copy was promoted by force: no standby holds what is here.
 *
 * Invariant A3: it stops to be suspect in a store behind those that mark every standby: all of it
 * is compared or copied. No standby is talked to before.
 *
 * True when that is to be done; recover_marked() follows.
 */
bool suspect_mark(struct agent_group *group);

#endif
