/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the operator asks of the daemons besides promote: switchover, demote, resync, verify,
 * accept. What is refused is no failure; what is answered must be true.
 */
#include <errno.h>
#include <string.h>

#include "agent/agent.h"
#include "core/base/macros.h"
#include "engine/engine.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"
#include "tests/sim/sites_internal.h"

/* ---- switchover -------------------------------------------------------------------------------
 */

struct switching {
	struct agent_switchover switchover;
	struct place *place;
	struct branch *branch;
};

static void switched(struct agent_switchover *switchover)
{
	struct switching *switching = container_of(switchover, struct switching, switchover);
	struct place *place = switching->place;
	struct sim_world *world = place->sites->world;

	sim_note(world, place->site->agent_node, "switchover of %s: %d %.80s", place->name,
		 switchover->res, switchover->text);
	if (switchover->res == -EINPROGRESS)
		REACH(SITES_SWITCHOVER_UNKNOWN);
	if (switchover->res)
		return;
	REACH(SITES_SWITCHED);
	if (switchover->seq < switching->branch->acked)
		sim_fail(world, "%s/%s was handed over at seq %llu, but seq %llu was acknowledged",
			 place->site->name, place->name, (unsigned long long)switchover->seq,
			 (unsigned long long)switching->branch->acked);
}

void place_switchover(struct place *place, struct sites_site *to)
{
	struct sim_world *world = place->sites->world;
	struct switching *switching;

	if (!place_serving(place) || to == place->site)
		return;
	switching = sim_alloc(world, sizeof(*switching));
	switching->place = place;
	switching->branch = place->branch;
	switching->switchover.node = to->name;
	switching->switchover.timeout_ns = sim_between(world, 20, 2000) * SIM_MS;
	switching->switchover.done = switched;
	place->tree->epoch_max = max_u64(place->tree->epoch_max, place->branch->epoch + 1);
	agent_group_switchover(place->agent, &switching->switchover);
}

/* ---- demote -----------------------------------------------------------------------------------
 */

struct rejoining {
	struct engine_task task;
	struct place *place;
	uint64_t incarnation;
};

static void rejoined(struct engine_task *task)
{
	struct rejoining *rejoining = container_of(task, struct rejoining, task);
	struct place *place = rejoining->place;

	sim_note(place->sites->world, place->site->engine_node, "demote of %s: %d %.100s",
		 place->name, task->res, task->text);
	place->tasking = false;
	place->rejoin_res = task->res;
	if (task->res == 0)
		REACH(SITES_REJOINED);
	if (task->res == -EPERM)
		REACH(SITES_REJOIN_REFUSED);
}

void place_rejoin(struct place *place)
{
	struct rejoining *rejoining;

	if (!place->engine || place->engine_stopping || place->at_rest || place->tasking)
		return;
	rejoining = sim_alloc(place->sites->world, sizeof(*rejoining));
	rejoining->place = place;
	rejoining->task.kind = ENGINE_REJOIN;
	/* Refused without it, and then asked again. */
	rejoining->task.without_salvage = sim_chance(place->sites->world, 700000);
	rejoining->task.done = rejoined;
	place->tasking = true;
	engine_group_task(place->engine, &rejoining->task);
}

/* ---- the primary's tasks ----------------------------------------------------------------------
 */

struct asking {
	struct agent_task task;
	struct place *place;
};

static void answered(struct agent_task *task)
{
	struct asking *asking = container_of(task, struct asking, task);
	struct place *place = asking->place;

	sim_note(place->sites->world, place->site->agent_node, "task %u of %s: %d %.80s",
		 task->kind, place->name, task->res, task->text);
	if (task->res == 0 && task->kind == AGENT_RESYNC)
		REACH(SITES_RESYNC_ASKED);
	if (task->res == 0 && task->kind == AGENT_ACCEPT) {
		REACH(SITES_ACCEPTED);
		place_discover(place);
	}
}

static void ask(struct place *place, const struct agent_task *task)
{
	struct asking *asking;

	if (!place->agent || place->agent_stopping)
		return;
	asking = sim_alloc(place->sites->world, sizeof(*asking));
	asking->place = place;
	asking->task = *task;
	asking->task.done = answered;
	agent_group_task(place->agent, &asking->task);
}

void place_resync(struct place *place, const struct sites_site *to, bool everything, bool compare)
{
	ask(place, &(struct agent_task){ .kind = AGENT_RESYNC,
					 .node = to ? to->name : NULL,
					 .everything = everything,
					 .compare = compare });
}

void place_verify(struct place *place, bool repair)
{
	ask(place, &(struct agent_task){ .kind = AGENT_VERIFY, .repair = repair });
}

void place_accept(struct place *place)
{
	place->tree->epoch_max =
		max_u64(place->tree->epoch_max, place->branch ? place->branch->epoch + 2 : 0);
	ask(place, &(struct agent_task){ .kind = AGENT_ACCEPT });
}
