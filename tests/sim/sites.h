/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two or three sites in the simulator, each with agent and engine on one disk, one or two groups,
 * and an operator who makes every mistake that the product is there to survive.
 *
 * The reference model is a tree of histories for each group. A branch is what one primary wrote
 * under one epoch: it continues its parent's history behind `base_seq`, entry N of it is what the
 * client that got seq N asked for, and so the content at every position of every history is known.
 * Whatever a site holds or serves must be the content at one position of one branch.
 *
 * What is checked, when:
 *   a primary starts       nothing that was acknowledged (kill) or promised durable (power loss) is
 *                          missing, nothing was invented (I1, I2)
 *   a read                 some state between submit and completion, on that primary's branch (I19)
 *   a copy becomes primary its volumes are exactly the content at the promoted position of one
 *                          branch that its superblock names (I5, I8, I11), and that position is
 *                          not below what it had acknowledged to its primary (I4)
 *   a standby starts       it has what it had acknowledged (I4)
 *   a primary is fenced    a higher epoch exists; nothing is acknowledged any more (I6)
 *   at rest                a standby that says it is consistent holds the content at its position
 *                          (I3); in the end all sites are equal, byte for byte, and equal to the
 *                          ruling primary's branch at its head (I9, I20)
 */
#ifndef HOLDFAST_TESTS_SIM_SITES_H
#define HOLDFAST_TESTS_SIM_SITES_H

#include "core/block/export.h"
#include "proto/superblock.h"
#include "tests/sim/sim.h"

#define SITES_MAX	   3u
#define SITES_GROUPS_MAX   2u
#define SITES_VOLUMES_MAX  3u
#define SITES_VOLUME_BYTES (192u << 10)
#define SITES_SECTORS	   (SITES_VOLUME_BYTES / SIM_SECTOR_BYTES)
#define SITES_REQUESTS	   16u
#define SITES_WRITE_MAX	   96u /* sectors: one record, also in the smallest journal file */
#define SITES_BUF_SECTORS  SITES_SECTORS

struct conf;
struct conf_group;
struct agent_group;
struct engine_group;

/* ---- the tree (sites_tree.c) ------------------------------------------------------------------
 */

enum tree_kind {
	TREE_WRITE,
	TREE_ZERO,
	TREE_MARK,
};

struct tree_entry {
	uint8_t kind, volume;
	uint16_t sector, count;
	uint64_t id; /* what the sectors of a write contain; ids are never used twice */
};

struct branch {
	struct branch *next; /* of the tree, newest first */
	struct branch *parent;
	uint64_t epoch, first_seq; /* as histories name it */
	uint64_t base_seq;	   /* up to here it is its parent's */
	unsigned number, site;
	struct tree_entry *entries; /* [seq - base_seq - 1] */
	uint64_t room;
	uint64_t head;	  /* last seq submitted */
	uint64_t acked;	  /* acknowledged: survives a killed process */
	uint64_t durable; /* promised durable: survives a power loss */
	uint64_t pledged; /* promised durable to a client */
};

struct tree {
	struct sim_world *world;
	struct branch *branches;
	unsigned branch_count, volumes;
	uint64_t next_id, initial_id;
	uint64_t epoch_max; /* the highest that any promote can have made */
};

typedef uint64_t tree_ids[SITES_VOLUMES_MAX][SITES_SECTORS];

/* The group's first history: epoch 1. */
struct branch *tree_root(struct tree *tree, unsigned site);
/* What a primary writes from base_seq + 1 on. */
struct branch *tree_branch(struct tree *tree, struct branch *parent, uint64_t epoch,
			   uint64_t first_seq, uint64_t base_seq, unsigned site);
/* Appends; returns the seq. */
uint64_t tree_add(struct tree *tree, struct branch *branch, const struct tree_entry *entry);
const struct tree_entry *tree_at(const struct branch *branch, uint64_t seq);
/* What `count` sectors hold at seq. */
void tree_range(const struct tree *tree, const struct branch *branch, uint64_t seq, unsigned volume,
		unsigned sector, unsigned count, uint64_t *ids);
void tree_fill(uint8_t *sector_bytes, uint64_t id, unsigned volume, unsigned sector);
/* The writer of a sector's content, as it says itself. */
uint64_t tree_id_of(const uint8_t *sector_bytes);
/* Whether a whole volume is what the branch holds at seq. False: *ret_sector is the first other. */
bool tree_equal(const struct tree *tree, const struct branch *branch, uint64_t seq, unsigned volume,
		const uint8_t *bytes, unsigned *ret_sector);
/* The epoch under which a history wrote seq; 0, 0 for none. */
struct history_entry tree_epoch_at(const struct history_entry *history, unsigned count,
				   uint64_t seq);
/* The next branch behind `after` (NULL: the first) that histories name so, and that reaches seq. */
struct branch *tree_named(const struct tree *tree, const struct branch *after,
			  struct history_entry name, uint64_t seq);
bool tree_entries_equal(const struct tree_entry *a, const struct tree_entry *b);
/* The last seq up to which two histories are one. */
uint64_t tree_common(const struct branch *a, const struct branch *b);
bool tree_has_twins(const struct tree *tree, uint64_t epoch);

/* ---- sites (sites_node.c) ---------------------------------------------------------------------
 */

struct sites;
struct sites_site;

/* What sites_look saw when it last looked at this life of an agent towards one standby. */
struct sites_seen {
	uint64_t generation, stale_generation;
	bool copying;
};

/* One group at one site. */
struct place {
	struct sites *sites;
	struct sites_site *site;
	struct tree *tree;
	unsigned group; /* index */
	const char *name;
	struct conf_group *agent_conf, *engine_conf;

	struct agent_group *agent;
	bool agent_up, agent_stopping, agent_off; /* off: the operator has stopped it */
	int agent_res;
	bool fenced; /* and since when: from then on nothing is acknowledged */
	uint64_t fenced_ns;
	uint64_t incarnation;  /* grows when the agent dies or fails */
	struct branch *branch; /* what it writes, or wrote last, as a primary */
	bool power_lost, restored;
	uint64_t restored_least;

	struct engine_group *engine;
	bool engine_up, engine_elsewhere, engine_stopping, initing;
	bool init_cut; /* an init was cut short, or failed: it is simply run again */
	bool at_rest; /* the engine stopped cleanly, to be looked at: not started again by itself */
	bool promoting, tasking, handed;
	int rejoin_res;
	uint64_t engine_began_ns;

	/* what it has acknowledged to the primary that wrote `promise` */
	struct branch *promise;
	uint64_t promise_seq;
	bool promise_given_up; /* it may have gone back to an earlier position on purpose */
	struct sites_seen seen[SITES_MAX];
};

struct sites_site {
	struct sites *sites;
	unsigned index;
	const char *name;
	struct conf *conf;
	struct sim_node *agent_node, *engine_node;
	struct io_tls *agent_tls, *engine_tls;
	struct sites_lobby *lobby;
	struct place places[SITES_GROUPS_MAX];
	/* an earlier image of its disk, and what was true then */
	struct sim_disk_copy *image;
	struct {
		struct branch *branch;
		uint64_t least, epoch;
		bool good;
	} imaged[SITES_GROUPS_MAX];
};

struct sites_request {
	struct export_request request;
	struct sites *sites;
	struct place *place;
	struct branch *branch;
	bool busy;
	uint64_t seq, covers, incarnation, head_at_submit;
	unsigned volume, sector, count;
	uint8_t *buf;
};

struct sites {
	struct sim_world *world;
	struct sites_site sites[SITES_MAX];
	unsigned site_count, group_count, volume_count;
	struct tree trees[SITES_GROUPS_MAX];
	struct sites_request requests[SITES_GROUPS_MAX][SITES_REQUESTS];
	bool working, writethrough;
	bool sync, rejoin_auto; /* as configured */
	bool failing_ok; /* disk errors are injected: a group may fail, and is started again */
	bool quiet;	 /* healing: the operator makes no mistakes any more */
	bool careless;	 /* he loses directories and puts old disks back */
	uint64_t slot_bytes;
	uint32_t slots;
	unsigned pace_us, admin_ms;
	uint64_t strike_ppm; /* of acknowledgements: the primary crashes right behind it */
	uint64_t ask_ns;
	bool dead;    /* what is being lost was crashed already: not to be looked at */
	void *script; /* of sites_enum.c */
};

/* Sites, disks, configuration; nothing runs. */
struct sites *sites_new(struct sim_world *world, unsigned site_count, unsigned group_count,
			unsigned volume_count, uint32_t slots);
/* Makes the group directories, and starts everything: site 0 is primary of every group. */
void sites_up(struct sites *sites);
/* The processes of a node run again. */
void sites_node_started(struct sites *sites, struct sim_node *node);
/* It is about to crash: what its processes held is gone. */
void sites_node_lost(struct sites *sites, struct sim_node *node, enum sim_crash kind);
void site_crash(struct sites_site *site, struct sim_node *node, enum sim_crash kind);
void site_power_off(struct sites_site *site);
void site_power_on(struct sites_site *site);
struct sites_site *sites_of(struct sites *sites, const struct sim_node *node, bool *ret_agent);

/* The superblock as the disk has it now. False: there is none that can be read. */
bool place_peek(struct place *place, struct superblock *ret_sb);
/* Starts what should run and does not. */
void place_tick(struct place *place);
void place_start_agent(struct place *place);
void place_stop_agent(struct place *place);
void place_start_engine(struct place *place);
void place_stop_engine(struct place *place);
/* Nothing of the group's agent or engine runs on this site, and its folder is empty. */
void place_lose_state(struct place *place);
/* The disk says primary: finds the branch that it writes from now on, and checks the content. */
void place_discover(struct place *place);
/* Its volume files are the content at seq of one of the branches that the history names; fails when
 * not. */
struct branch *place_check_content(struct place *place, const struct superblock *sb, uint64_t seq,
				   const char *what);
bool place_serving(const struct place *place);
struct place *sites_place(struct sites *sites, unsigned site, unsigned group);
/* Every place, in turn. */
#define sites_each_place(sites, place)                                                             \
	for (unsigned place##_i = 0;                                                               \
	     place##_i < (sites)->site_count * (sites)->group_count &&                             \
	     ((place) = sites_place(sites, place##_i / (sites)->group_count,                       \
				    place##_i % (sites)->group_count));                            \
	     place##_i++)

/* ---- sites_lobby.c: the door of a standby ------------------------------------------------------
 */
void sites_lobby_open(struct sites_site *site);

/* ---- sites_look.c, sites_look_engine.c: what daemons have come across ---------------------------
 */
void sites_look(struct sites *sites);
void sites_look_engine(struct place *place);
/* Records that the journal had written are to be written again after a failure. */
bool place_disk_dropped(const struct place *place);
/* Its standby at `site`: streaming, not copying, and how far. */
bool place_streams_to(const struct place *place, const struct sites_site *site,
		      uint64_t *ret_durable);

/* It has lost what it had: what its primaries still believe of it is no promise any more. */
void place_disown(struct place *place);
/* The standby there says that it cannot follow. */
bool place_refused_by(const struct place *place, const struct sites_site *site);
/* A record of any size would find room at once. */
bool place_has_room(const struct place *place);
/* A mark has become a record, and is not durable yet. */
bool place_is_marking(const struct place *place);

/* ---- sites_work.c: the clients ------------------------------------------------------------------
 */
void sites_work_start(struct sites *sites);
void sites_work_stop(struct sites *sites);
bool sites_work_idle(const struct sites *sites);
struct sites_request *sites_submit(struct place *place, enum export_op op, unsigned volume,
				   unsigned sector, unsigned count, unsigned flags);
/* The agent is gone: outstanding requests have no answer. */
void sites_forget(struct place *place);
void sites_carry_over(struct place *place, struct branch *branch);
unsigned place_waiting(const struct place *place);
/* Right behind an acknowledgement. */
void sites_strike(struct place *place);
void sites_crash_soon(struct sites_site *site, enum sim_crash kind);

/* ---- sites_admin.c: the operator ----------------------------------------------------------------
 */
void sites_operator_start(struct sites *sites);
void sites_operator_stop(struct sites *sites);
void place_promote(struct place *place, bool force);
/* sites_tasks.c */
void place_switchover(struct place *place, struct sites_site *to);
void place_rejoin(struct place *place);
void place_resync(struct place *place, const struct sites_site *to, bool everything, bool compare);
void place_verify(struct place *place, bool repair);
void place_accept(struct place *place);
/* sites_salvage.c: what its salvage files hold, and whether what it gave up for `ruling` is there
 */
void place_check_salvage(struct place *place, const struct branch *ruling);
/* Everything settled, equal, at rest. Drives the world; fails when that never comes. */
void sites_heal(struct sites *sites);
/* Compares every byte of every site. */
void sites_audit(struct sites *sites);

extern const struct sim_scenario sites_scenario, sites_scripts;

#endif
