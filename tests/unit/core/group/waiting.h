/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of group parts share: waiting for one operation in a simulated world, and a group
 * made in it. Header only.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_GROUP_WAITING_H
#define HOLDFAST_TESTS_UNIT_CORE_GROUP_WAITING_H

#include "core/group/group_dir.h"
#include "core/group/init.h"
#include "tests/sim/sim.h"
#include "tests/unit/unit.h"

struct waiting {
	struct io_op op;
	bool done;
	int64_t res;
};

static inline void waiting_done(struct io_op *op, int64_t res)
{
	struct waiting *waiting = container_of(op, struct waiting, op);

	must(!waiting->done);
	waiting->done = true;
	waiting->res = res;
}

/* Ready for a new operation; returns it. */
static inline struct io_op *waiting_op(struct waiting *waiting)
{
	memset(waiting, 0, sizeof(*waiting));
	waiting->op.done = waiting_done;
	return &waiting->op;
}

static inline bool waiting_is_done(void *context)
{
	return ((struct waiting *)context)->done;
}

/* Steps the world until the operation is done; its result. */
static inline int64_t waiting_for(struct sim_world *world, struct waiting *waiting)
{
	if (!sim_run_until(world, waiting_is_done, waiting, 60 * SIM_SECOND))
		sim_fail(world, "an operation did not complete within a minute");
	return waiting->res;
}

#define WAITING_STATE_DIR   "/state"
#define WAITING_GROUP	    "db"
#define WAITING_FILE_BYTES  (2u << 20)
#define WAITING_FILES	    3u
#define WAITING_VOLUME_SIZE (8u << 20)

/* Two volumes of WAITING_VOLUME_SIZE on the node's disk. */
static inline void waiting_make_volumes(struct sim_node *node)
{
	sim_file_make(node, "/vol/data", WAITING_VOLUME_SIZE + 100, false, true);
	sim_file_make(node, "/vol/log", WAITING_VOLUME_SIZE, true, false);
}

static const struct group_init_volume waiting_volumes[2] = { { "data", "/vol/data" },
							     { "log", "/vol/log" } };

/* A group_init of that group; the caller may change it before it runs. */
static inline void waiting_init(struct group_init *init, struct sim_node *node,
				struct superblock *sb)
{
	*init = (struct group_init){
		.io = sim_node_io(node),
		.state_dir = WAITING_STATE_DIR,
		.group = WAITING_GROUP,
		.role = GROUP_PRIMARY,
		.journal_file_bytes = WAITING_FILE_BYTES,
		.journal_files = WAITING_FILES,
		.volumes = waiting_volumes,
		.volume_count = 2,
		.sb = sb,
	};
}

/* Volumes and group, made. */
static inline void waiting_make_group(struct sim_world *world, struct sim_node *node,
				      struct superblock *sb)
{
	static struct group_init init;
	struct waiting waiting;

	waiting_make_volumes(node);
	waiting_init(&init, node, sb);
	group_init_run(&init, waiting_op(&waiting));
	if (waiting_for(world, &waiting) != 0)
		sim_fail(world, "init: %s", init.error);
}

/* Runs `body` in a calm world with one node. */
struct waiting_world {
	struct sim_world *world;
	struct sim_node *node;
	struct io *io;
	void *context;
};

static inline void waiting_calm(uint64_t seed, void (*body)(struct sim_world *world, void *context),
				struct waiting_world *ret, void *context)
{
	struct sim_options options;
	bool held;

	sim_options_calm(&options);
	ret->world = sim_new(seed, &options);
	ret->node = sim_node_new(ret->world, "a");
	ret->io = sim_node_io(ret->node);
	ret->context = context;
	held = sim_run(ret->world, body, ret);
	sim_free(ret->world);
	assert_true(held);
}

#endif
