/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pair of sites in the simulator: the real agent and the real engine, a workload, and a model
 * that knows what every position of the history looks like.
 *
 * Every record of the history is one request of the workload, and requests get their seq in the
 * order in which they are submitted: so seq N is entry N of the model's history, and the state at N
 * is known exactly. After each crash the recovered head says which prefix survived; the model
 * checks that it was allowed to be cut there, compares the content byte for byte, and forgets the
 * rest.
 */
#ifndef HOLDFAST_TESTS_SIM_PAIR_H
#define HOLDFAST_TESTS_SIM_PAIR_H

#include "agent/agent.h"
#include "engine/engine.h"
#include "tests/sim/sim.h"

#define PAIR_VOLUMES 2u
/* Several dirty chunks and more than one copied extent each. */
#define PAIR_VOLUME_BYTES (320u << 10)
#define PAIR_SECTORS	  (PAIR_VOLUME_BYTES / SIM_SECTOR_BYTES)
#define PAIR_HISTORY_MAX  60000u
#define PAIR_REQUESTS	  24u /* in flight to one site */

enum entry_kind {
	ENTRY_WRITE,
	ENTRY_ZERO,
	ENTRY_MARK
};

struct entry {
	uint8_t kind, volume;
	uint16_t sector, count;
	uint64_t id; /* what the sectors of a write contain */
};

struct model {
	struct sim_world *world;
	struct entry *history; /* entry of seq N is history[N] */
	uint64_t head;	       /* last seq submitted */
	uint64_t acked;	       /* highest seq acknowledged: survives a killed process */
	uint64_t durable;      /* highest seq that was promised durable: survives a power loss */
	uint64_t next_id;
	uint64_t initial_id; /* content before any write */
};

void model_init(struct model *model, struct sim_world *world);
/* What a sector holds at seq; `id` 0 = zeroes. */
uint64_t model_sector(const struct model *model, uint64_t seq, unsigned volume, unsigned sector);
/* What `count` sectors hold at seq. */
void model_range(const struct model *model, uint64_t seq, unsigned volume, unsigned sector,
		 unsigned count, uint64_t *ids);
/* The whole state at seq: ids[volume][sector]. */
void model_state(const struct model *model, uint64_t seq, uint64_t ids[PAIR_VOLUMES][PAIR_SECTORS]);
void model_fill(uint8_t *sector_bytes, uint64_t id, unsigned volume, unsigned sector);
/* Whether `bytes` of a volume from `sector` on are the state at seq; explains in sim_fail when not.
 */
void model_compare(const struct model *model, uint64_t seq, unsigned volume, unsigned sector,
		   unsigned count, const uint8_t *bytes, const char *what);
/* A node came back with this head: was that allowed? The suffix is forgotten. */
void model_recovered(struct model *model, uint64_t head, bool power, const char *what);

/* What pair_look() saw when it last looked at this life of an agent, of an engine. */
struct seen {
	uint64_t generation, head_seq, released_seq, floor_seq;
	uint64_t memory_hits, disk_reads, stalls, rewrites, sync_losses, verified_seq, coalesced;
	bool known, lost, copying, needs_sync;
};

struct seen_engine {
	uint64_t disk_reads;
	bool failed;
};

struct site {
	struct pair *pair;
	const char *name;
	struct conf *conf;
	struct conf_group *conf_group, *engine_group;
	struct sim_node *agent_node, *engine_node;
	struct agent_group *agent;
	struct engine_group *engine;
	bool agent_up, engine_up; /* started and serving / ready */
	bool agent_wanted, engine_wanted;
	int agent_res;
	struct lobby *lobby;
	struct io_tls *agent_tls, *engine_tls;
	bool inited;
	unsigned agent_starts;
	bool held;
	bool fenced; /* and since when: from then on nothing is acknowledged */
	uint64_t fenced_ns;
	struct seen seen;
	struct seen_engine seen_engine;
};

struct request {
	struct export_request request;
	struct pair *pair;
	struct site *site;
	bool busy;
	uint64_t seq, covers, incarnation;
	unsigned volume, sector, count;
	uint64_t head_at_submit; /* acknowledged then */
	bool ghost;		 /* to a primary that does not know yet that it is none */
	uint8_t *buf;
	unsigned buf_sectors;
};

struct pair {
	struct sim_world *world;
	struct model model;
	struct site sites[2];
	struct site *primary; /* whose history the model follows */
	struct request requests[2 * PAIR_REQUESTS];
	bool working; /* the workload submits */
	bool writethrough;
	bool sync_freeze; /* nothing is promised without the standby */
	bool unreadable;  /* reads of a standby's volume may fail: then they differ */
	bool kept;	  /* a promote was begun in the middle of a copy */
	uint64_t kept_seq;
	uint64_t pledged;   /* highest seq that a client was promised as durable, in this epoch */
	bool promote_begun; /* a promote that was killed may have been far enough */
	bool links_up;	    /* no cut, no fault: who asks gets an answer */
	uint64_t slot_bytes;
	uint64_t incarnation; /* grows at every crash of the primary's agent */
	bool power_lost;      /* since the agent last served */
	uint64_t promised; /* highest durable seq that the standby ever acknowledged to its primary
			    */
	uint64_t epoch;
	uint64_t requests_done, reads_checked, crashes, promotes, fenced;
	uint64_t ask_ns, sampled_ns;
	unsigned pace_us, focus; /* the volume that most of the work goes to now */
	uint64_t strike_ppm;	 /* of acknowledgements: the primary crashes right behind it */
	void (*strike)(struct pair *pair, enum sim_crash kind);
	void *script;	 /* of pair_enum.c */
	bool held_ok;	 /* a primary may find that it is older than its standby */
	bool failing_ok; /* disk errors are being injected: a group may fail and is started again */
};

/* pair.c */
struct pair *pair_new(struct sim_world *world, uint64_t slot_bytes, uint32_t slots);
/* Makes the group directories and starts primary (site 0) and standby (site 1). */
void pair_up(struct pair *pair);
void site_start_agent(struct site *site);
void site_start_engine(struct site *site);
/* The node died: forget its objects. */
void site_lost_agent(struct site *site, enum sim_crash kind);
void site_lost_engine(struct site *site);
bool pair_agent_serving(const struct pair *pair);
/* Standby holds and has applied everything that the primary has, and is consistent. */
bool pair_in_sync(const struct pair *pair);
/* Byte-compares what the agent serves with the model at its head. Drives the world. */
void pair_check_served(struct pair *pair, const char *what);
/* Byte-compares the standby's volume files with the model at seq. */
void pair_check_volumes(struct pair *pair, struct site *site, uint64_t seq, const char *what);
/* Promotes site 1 - primary's counterpart; returns the result, drives the world. */
int pair_promote(struct pair *pair, struct site *site, bool force, struct engine_promote *ret);

/* pair_reach.c: counts what was come across; fails when a bound does not hold. */
void pair_look(struct pair *pair);
void pair_look_engine(struct site *site); /* pair_reach_engine.c */
/* Whether the site's agent is copying volumes to a standby. */
bool pair_copying(const struct site *site);
/* Whether the site's engine has received what it has not applied. */
bool pair_behind(const struct site *site);
/* Whether records that the journal had written are to be written again after a failure. */
bool pair_disk_dropped(const struct site *site);

/* Notes what the standby has promised to hold durably so far. */
void pair_sample(struct pair *pair);
/* Drives the world until both are equal and at rest; fails with the whole state when that never
 * comes. */
void pair_converge(struct pair *pair);
/* Promotes site 1 and lets its agent take over; checks the position. Drives the world. */
void pair_fail_over(struct pair *pair);

/* pair_work.c */
void work_start(struct pair *pair);
void work_stop(struct pair *pair); /* no new requests */
bool work_idle(const struct pair *pair);
/* One request of a kind now; returns it or NULL when none is free. */
struct request *work_write(struct pair *pair, unsigned volume, unsigned sector, unsigned count,
			   unsigned flags);
struct request *work_zero(struct pair *pair, unsigned volume, unsigned sector, unsigned count,
			  bool trim);
struct request *work_flush(struct pair *pair);
struct request *work_read(struct pair *pair, unsigned volume, unsigned sector, unsigned count);
void work_forget(struct pair *pair); /* the agent died: outstanding requests have no answer */
/* The same for requests to a site that is not the primary any more. */
void work_forget_site(struct pair *pair, const struct site *site);
/* A write to a former primary, as a client would that nobody told. */
void work_ghost(struct pair *pair, struct site *site);
/* Requests to that site that have no answer yet. */
unsigned work_waiting(const struct pair *pair, const struct site *site);

/* What holdfast-sim runs of it. */
extern const struct sim_scenario pair_scenario, pair_scripts, pair_diverge;

#endif
