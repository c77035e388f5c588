/* SPDX-License-Identifier: Apache-2.0 */
/* Crashes, pauses, clock jumps and cuts at the rates of the options. */
#include "core/base/macros.h"
#include "tests/sim/internal.h"
#include "tests/sim/reach.h"

#define WALL_JUMP_SECONDS_MAX (400ull * 86400)

enum harm {
	HARM_KILL,
	HARM_POWER,
	HARM_PAUSE,
	HARM_WALL_JUMP,
	HARM_CUT,
	HARM_CUT_ONE_WAY,
	HARM_RESET,
	HARM_COUNT,
};

struct doing {
	struct sim_world *world;
	uint64_t generation;
	enum harm harm;
	struct sim_node *node, *other;
};

static uint64_t rate_of(const struct sim_options *options, enum harm harm)
{
	switch (harm) {
	case HARM_KILL:
		return options->kill_every_ns;
	case HARM_POWER:
		return options->power_every_ns;
	case HARM_PAUSE:
		return options->pause_every_ns;
	case HARM_WALL_JUMP:
		return options->wall_jump_every_ns;
	case HARM_CUT:
		return options->cut_every_ns;
	case HARM_CUT_ONE_WAY:
		return options->cut_one_way_every_ns;
	case HARM_RESET:
		return options->reset_every_ns;
	case HARM_COUNT:
		break;
	}
	must_not_reach();
}

/* Mostly short, now and then long. */
static uint64_t duration(struct sim_world *world, uint64_t max_ns)
{
	return sim_between(world, 1, max_u64(max_ns >> sim_between(world, 0, 6), 1));
}

static struct doing *doing_new(const struct doing *like)
{
	struct doing *doing = sim_alloc(like->world, sizeof(*doing));

	*doing = *like;
	return doing;
}

static bool is_over(const struct doing *doing)
{
	return !doing->world->nemesis_on || doing->generation != doing->world->nemesis_generation;
}

static void restart_node(struct sim_world *world, struct sim_node *node)
{
	sim_node_restart(node);
	world->nemesis.restart(world->nemesis.context, node);
}

static void node_up_again(void *context)
{
	const struct doing *doing = context;

	if (!is_over(doing) && !doing->node->up)
		restart_node(doing->world, doing->node);
}

static void heal_cut(void *context)
{
	const struct doing *doing = context;

	if (is_over(doing))
		return;
	sim_cut(doing->node, doing->other, SIM_CUT_NONE);
	if (doing->harm == HARM_CUT)
		sim_cut(doing->other, doing->node, SIM_CUT_NONE);
}

static void crash(const struct doing *doing, enum sim_crash kind)
{
	struct sim_world *world = doing->world;
	const struct sim_nemesis *nemesis = &world->nemesis;

	if (!doing->node->up ||
	    (nemesis->may_crash && !nemesis->may_crash(nemesis->context, doing->node, kind)))
		return;
	if (kind == SIM_KILL)
		REACH(HARM_KILL);
	else
		REACH(HARM_POWER);
	sim_node_crash(doing->node, kind);
	for (unsigned i = 0; i < world->node_count; i++) {
		struct doing again = *doing;

		again.node = world->nodes[i];
		if (!again.node->up && again.node->host == doing->node->host)
			sim_after(world, duration(world, world->options.down_ns_max), node_up_again,
				  doing_new(&again));
	}
}

static void do_harm(const struct doing *doing)
{
	struct sim_world *world = doing->world;
	const struct sim_options *options = &world->options;
	enum sim_cut cut = sim_random(world) & 3 ? SIM_CUT_SILENT : SIM_CUT_RESET;

	switch (doing->harm) {
	case HARM_KILL:
		crash(doing, SIM_KILL);
		return;
	case HARM_POWER:
		crash(doing, SIM_POWER);
		return;
	case HARM_PAUSE:
		REACH(HARM_PAUSE);
		sim_node_pause(doing->node, duration(world, options->pause_ns_max));
		return;
	case HARM_WALL_JUMP:
		REACH(HARM_WALL_JUMP);
		sim_node_wall_jump(doing->node,
				   ((int64_t)sim_between(world, 0, 2 * WALL_JUMP_SECONDS_MAX) -
				    (int64_t)WALL_JUMP_SECONDS_MAX) /
					   (int64_t)(1ull << sim_between(world, 0, 24)) *
					   (int64_t)SIM_SECOND);
		return;
	case HARM_CUT:
		REACH(HARM_CUT);
		sim_cut(doing->other, doing->node, cut);
		sim_cut(doing->node, doing->other, cut);
		sim_after(world, duration(world, options->cut_ns_max), heal_cut, doing_new(doing));
		return;
	case HARM_CUT_ONE_WAY:
		REACH(HARM_CUT_ONE_WAY);
		sim_cut(doing->node, doing->other, SIM_CUT_SILENT);
		sim_after(world, duration(world, options->cut_ns_max), heal_cut, doing_new(doing));
		return;
	case HARM_RESET:
		REACH(HARM_RESET);
		sim_reset_streams(doing->node, doing->other);
		return;
	case HARM_COUNT:
		break;
	}
	must_not_reach();
}

static void harm_event(void *context)
{
	struct doing *doing = context;
	struct sim_world *world = doing->world;

	if (is_over(doing))
		return;
	doing->node = world->nodes[sim_between(world, 0, world->node_count - 1)];
	doing->other = world->nodes[sim_between(world, 0, world->node_count - 1)];
	do_harm(doing);
	sim_after(world, sim_between(world, 1, 2 * rate_of(&world->options, doing->harm)),
		  harm_event, doing);
}

void sim_nemesis_start(struct sim_world *world, const struct sim_nemesis *nemesis)
{
	must(nemesis->restart && !world->nemesis_on);
	world->nemesis = *nemesis;
	world->nemesis_on = true;
	world->nemesis_generation++;
	for (enum harm harm = 0; harm < HARM_COUNT; harm++) {
		const struct doing doing = { world, world->nemesis_generation, harm, NULL, NULL };
		uint64_t every_ns = rate_of(&world->options, harm);

		if (every_ns)
			sim_after(world, sim_between(world, 1, 2 * every_ns), harm_event,
				  doing_new(&doing));
	}
}

void sim_nemesis_stop(struct sim_world *world)
{
	world->nemesis_on = false;
	sim_heal_all(world);
	for (unsigned i = 0; i < world->node_count; i++) {
		struct sim_node *node = world->nodes[i];

		node->paused_until_ns = 0;
		if (!node->up)
			restart_node(world, node);
	}
}
