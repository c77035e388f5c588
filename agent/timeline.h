/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is what a standby holds of this primary's own timeline? Epochs and seqs do not say so: a primary
 * that went on from an older image of itself, or two standbys that were promoted apart from each
 * other, write other content under the same ones.
 *
 * Proven is what the standby had acknowledged to this copy, what our journal still holds with the
 * same chain value, and what was written by the opening that wrote it here (core/group/openings.h).
 *
 * Invariant T1: a standby is sent nothing, and nothing of it is given up, before the seq at which
 * its journal ends (of one that has given up its own history: the common one) is proven to be ours.
 * One that is not is parted: it is told (REFUSE), a primary that starts is held, one that serves
 * goes on and says so until the operator accepts or the standby is promoted.
 *
 * Loop thread.
 */
#ifndef HOLDFAST_AGENT_TIMELINE_H
#define HOLDFAST_AGENT_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

struct ship;
struct link_refuse;

enum timeline {
	TIMELINE_OURS,
	TIMELINE_OTHER,
	TIMELINE_UNKNOWN, /* only the chain value can tell, if our journal reaches back to it */
};

enum parted {
	PARTED_NOT,
	PARTED_STANDBY, /* it holds what our history does not */
	PARTED_RIVAL,	/* it is primary under our epoch */
};

/* Of the seq that WELCOME's writer belongs to. */
enum timeline timeline_of(const struct ship *ship, uint64_t seq);
/* What the standby holds up to its end is not ours, or cannot be proven to be: it is told, the
 * connection is over. */
void timeline_parted(struct ship *ship, const char *text);
/* A REFUSE under our own epoch. */
void timeline_refused(struct ship *ship, const struct link_refuse *refuse);
/* Its end is ours, or nothing is known of it any more. */
void timeline_joined(struct ship *ship);

#endif
