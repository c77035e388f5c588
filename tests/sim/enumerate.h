/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Without chance: a short script is run once to count its events and disk operations, then again
 * with a crash after each event (of each kind, with every subset of the sectors in doubt, or
 * samples where there are many), with each disk operation failing (once, and from then on), and
 * with each allocation failing. A case has a name, by which it can be run alone.
 *
 * Owner: one thread. Each case is a fresh world with the same seed and no other faults.
 */
#ifndef HOLDFAST_TESTS_SIM_ENUMERATE_H
#define HOLDFAST_TESTS_SIM_ENUMERATE_H

#include "tests/sim/sim.h"

struct sim_enum_script {
	const char *name;
	/* Adapts the calm options, for example socket sizes. May be NULL. */
	void (*prepare)(struct sim_options *options);
	/* Builds nodes (those that may crash first) and starts the script; sim_set_user(). When it
	 * steps the world to prepare, it calls sim_enum_begin() where the script proper begins. */
	void (*start)(struct sim_world *world);
	/* Polled after each event: the script has come to its end, or has failed in an orderly way.
	 */
	bool (*done)(struct sim_world *world);
	/* The node has crashed. With this function the run goes on to done(); without, the check is
	 * next. It may restart the node. */
	void (*crashed)(struct sim_world *world, struct sim_node *node);
	/* The faults are over: restarts what is down, lets it recover, and calls sim_fail() when a
	 * promise is broken. May step the world. */
	void (*check)(struct sim_world *world);
	unsigned targets;    /* nodes 0 .. targets-1 crash, 0 = 1 */
	bool no_fail_allocs; /* start() is not written for allocations that fail */
	uint64_t limit_ns;   /* done() must hold by then, 0 = 120 s */
};

struct sim_enum_options {
	uint64_t seed;
	uint64_t cases_max;	     /* per script: crash points and failing operations are
				      each thinned out beyond. 0 = all */
	unsigned subset_sectors_max; /* all subsets up to so many sectors, 0 = 6 */
	unsigned samples;	     /* otherwise so many, 0 = 6 */
	const char *script;	     /* only the script with this name; NULL = all */
	const char *only;	     /* one case, by its name; NULL = all */
	unsigned shard, shards;	     /* every shards-th case, from shard; 0, 0 = all */
	bool trace;
	FILE *report;	      /* of failures; NULL = none */
	unsigned reports_max; /* full reports, 0 = 3; one line for each later failure */
};

struct sim_enum_result {
	uint64_t cases, failures;
	uint64_t events, disk_ops, allocs; /* of the undisturbed runs */
	uint64_t points_skipped;	   /* crash points left out by cases_max */
	uint64_t simulated_events;
};

/* What happens before is preparation: no crash, no fault. */
void sim_enum_begin(struct sim_world *world);

/* Adds to *result. */
void sim_enumerate(const struct sim_enum_script *script, const struct sim_enum_options *options,
		   struct sim_enum_result *result);

#endif
