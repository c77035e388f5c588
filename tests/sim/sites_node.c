/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of the daemons: what starts, what restarts, what is known when they say so. See sites.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "core/base/macros.h"
#include "core/conf/conf.h"
#include "engine/engine.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"
#include "tests/sim/sites_internal.h"

#define LOOK_AGAIN_NS (500 * SIM_MS)

static struct superblock scratch;
static struct status_group status;

bool place_serving(const struct place *place)
{
	return place->agent && place->agent_up;
}

static const char *path_of(const struct place *place, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), SITES_STATE_DIR "/%s/%s", place->name, name);
	return path;
}

bool place_peek(struct place *place, struct superblock *ret_sb)
{
	static uint8_t file[SUPERBLOCK_FILE_BYTES];
	const char *path = path_of(place, "superblock");
	unsigned slot;

	if (sim_file_size(place->site->engine_node, path) < (int64_t)sizeof(file))
		return false;
	sim_file_peek(place->site->engine_node, path, 0, file, sizeof(file));
	return superblock_choose(file, ret_sb, &slot) == 0;
}

/* ---- content ----------------------------------------------------------------------------------
 */

static bool volumes_are(struct place *place, const struct branch *branch, uint64_t seq,
			unsigned *ret_volume, unsigned *ret_sector, uint64_t *ret_id)
{
	static uint8_t bytes[SITES_VOLUME_BYTES];

	for (unsigned v = 0; v < place->sites->volume_count; v++) {
		sim_file_peek(place->site->engine_node, place->agent_conf->volumes[v].path, 0,
			      bytes, sizeof(bytes));
		if (tree_equal(place->tree, branch, seq, v, bytes, ret_sector))
			continue;
		*ret_volume = v;
		*ret_id = tree_id_of(bytes + (size_t)*ret_sector * SIM_SECTOR_BYTES);
		return false;
	}
	return true;
}

struct branch *place_check_content(struct place *place, const struct superblock *sb, uint64_t seq,
				   const char *what)
{
	struct history_entry name = tree_epoch_at(sb->history, sb->history_count, seq);
	struct branch *branch = tree_named(place->tree, NULL, name, seq);
	struct branch *first = branch;
	unsigned volume = 0, sector = 0;
	uint64_t id = 0, expect = 0;

	if (!branch)
		sim_fail(place->sites->world,
			 "%s: %s/%s is at seq %llu of a history (epoch %llu from %llu) that nobody "
			 "has written",
			 what, place->site->name, place->name, (unsigned long long)seq,
			 (unsigned long long)name.epoch, (unsigned long long)name.first_seq);
	while (branch && !volumes_are(place, branch, seq, &volume, &sector, &id))
		branch = tree_named(place->tree, branch, name, seq);
	if (branch)
		return branch;
	(void)volumes_are(place, first, seq, &volume, &sector, &id);
	tree_range(place->tree, first, seq, volume, sector, 1, &expect);
	sim_fail(place->sites->world,
		 "%s: %s/%s: volume %u sector %u is not the content at seq %llu of epoch %llu: "
		 "write %llu expected, write %llu there",
		 what, place->site->name, place->name, volume, sector, (unsigned long long)seq,
		 (unsigned long long)first->epoch, (unsigned long long)expect,
		 (unsigned long long)id);
}

void place_discover(struct place *place)
{
	static struct superblock sb;
	struct history_entry last;
	struct branch *parent, *branch;

	if (!place_peek(place, &sb) || sb.role != GROUP_PRIMARY || !sb.history_count)
		return;
	last = sb.history[--sb.history_count];
	if (place->branch && place->branch->epoch == last.epoch &&
	    place->branch->first_seq == last.first_seq)
		return;
	/* One that was accepted while it serves has some of it in memory: its reads tell. */
	parent = place->agent_up && place->branch
			 ? place->branch
			 : place_check_content(place, &sb, last.first_seq - 1, "a new primary");
	for (const struct branch *other = place->tree->branches; other; other = other->next)
		if (other->epoch == last.epoch) {
			REACH(SITES_TWINS);
			break;
		}
	if (place->handed && last.first_seq - 1 < parent->acked)
		sim_fail(place->sites->world,
			 "%s/%s took over at seq %llu, but seq %llu was acknowledged",
			 place->site->name, place->name, (unsigned long long)last.first_seq - 1,
			 (unsigned long long)parent->acked);
	place->handed = place->agent_off = false;
	if (place->promise == parent && !place->restored && !place->promise_given_up &&
	    last.first_seq - 1 < place->promise_seq)
		sim_fail(place->sites->world,
			 "%s/%s became primary at seq %llu, but had acknowledged seq %llu",
			 place->site->name, place->name, (unsigned long long)last.first_seq - 1,
			 (unsigned long long)place->promise_seq);
	sim_note(place->sites->world, NULL, "%s/%s: epoch %llu from seq %llu", place->site->name,
		 place->name, (unsigned long long)last.epoch, (unsigned long long)last.first_seq);
	branch = tree_branch(place->tree, parent, last.epoch, last.first_seq, last.first_seq - 1,
			     place->site->index);
	place_check_salvage(place, branch); /* what it gave up since it was a primary */
	if (place->agent_up && place->branch == parent)
		sites_carry_over(place, branch);
	place->branch = branch;
	place->promise = NULL;
	place->promise_given_up = place->restored = place->power_lost = false;
}

/* ---- agent ------------------------------------------------------------------------------------
 */

static void check_fenced(struct place *place, struct agent_group *group)
{
	agent_group_status(group, &status);
	place->fenced = true;
	place->fenced_ns = sim_now(place->sites->world);
	if (place->tree->epoch_max <= status.epoch)
		sim_fail(place->sites->world,
			 "%s/%s of epoch %llu was fenced, and there is none higher: %s",
			 place->site->name, place->name, (unsigned long long)status.epoch,
			 status.detail);
}

/* The primary has found its end: was it allowed to be there? */
static void recovered(struct place *place, uint64_t head)
{
	struct branch *branch = place->branch;
	uint64_t least = place->restored     ? place->restored_least
			 : place->power_lost ? branch->durable
					     : branch->acked;

	sim_note(place->sites->world, place->site->agent_node, "%s recovered to seq %llu of %llu",
		 place->name, (unsigned long long)head, (unsigned long long)branch->head);
	if (head < least)
		sim_fail(place->sites->world, "%s/%s recovered to seq %llu, but seq %llu was %s",
			 place->site->name, place->name, (unsigned long long)head,
			 (unsigned long long)least,
			 place->power_lost ? "promised durable" : "acknowledged");
	if (head > branch->head)
		sim_fail(place->sites->world,
			 "%s/%s recovered to seq %llu, but only %llu were written",
			 place->site->name, place->name, (unsigned long long)head,
			 (unsigned long long)branch->head);
	if (place->restored && head < branch->head) {
		/* Others may have what was there once: from here on it is another history, under
		 * the same name. */
		REACH(SITES_FORKED);
		place->branch = tree_branch(place->tree, branch, branch->epoch, branch->first_seq,
					    head, place->site->index);
	}
	branch = place->branch;
	branch->head = branch->acked = branch->durable = head;
	branch->pledged = min_u64(branch->pledged, head);
	place->power_lost = place->restored = false;
}

static void agent_started(void *owner, struct agent_group *group, int res)
{
	struct place *place = owner;
	struct sites *sites = place->sites;

	place->agent_res = res;
	sim_note(sites->world, place->site->agent_node, "agent of %s started: %d", place->name,
		 res);
	if (res == 0) {
		place_discover(place);
		agent_group_status(group, &status);
		recovered(place, status.head_seq);
		place->agent_up = !place->agent_stopping;
		return;
	}
	if (res == -ESTALE) {
		check_fenced(place, group);
		REACH(SITES_FENCED_STARTING);
		return; /* it lets go by itself */
	}
	if (res == -EPERM) {
		REACH(SITES_HELD);
		return; /* until somebody accepts, or another one rules */
	}
	if (!sites->failing_ok && res != -EWOULDBLOCK && res != -ECANCELED) {
		agent_group_status(group, &status);
		sim_fail(sites->world, "the agent of %s/%s cannot start: %d %s", place->site->name,
			 place->name, res, status.detail);
	}
	/* A disk that fails a flush now may drop what a killed process had written. */
	place->power_lost = true;
	place_stop_agent(place);
}

static void agent_gone(void *owner, struct agent_group *group, int res)
{
	struct place *place = owner;

	if (res == 0 && place->branch && !place->power_lost)
		place->branch->durable =
			place->branch->acked; /* a clean stop leaves nothing open */
	agent_group_free(group);
	place->agent = NULL;
	place->agent_up = place->agent_stopping = false;
}

/* Fenced: the engine may have the directory. */
static void agent_released(void *owner, struct agent_group *group)
{
	struct place *place = owner;

	agent_group_free(group);
	place->agent = NULL;
	place->agent_up = place->agent_stopping = false;
}

static void agent_failed(void *owner, struct agent_group *group, int res)
{
	struct place *place = owner;

	sim_note(place->sites->world, place->site->agent_node, "agent of %s failed: %d",
		 place->name, res);
	place->agent_up = false;
	place->agent_res = res;
	if (res == -ESTALE) {
		check_fenced(place, group);
		REACH(SITES_FENCED_SERVING);
	} else if (!place->sites->failing_ok) {
		agent_group_status(group, &status);
		sim_fail(place->sites->world, "the agent of %s/%s failed: %s", place->site->name,
			 place->name, status.detail);
	}
	place->incarnation++;
	place->power_lost = true;
	if (res != -ESTALE)
		place_stop_agent(place);
}

void place_start_agent(struct place *place)
{
	struct agent_options options = {
		.io = sim_node_io(place->site->agent_node),
		.conf = place->site->conf,
		.group = place->agent_conf,
		.tls = place->site->agent_tls,
		.events = { place, agent_started, agent_failed, agent_gone, agent_released },
	};

	if (place->agent || place->initing || !sim_node_is_up(place->site->agent_node) ||
	    !place_peek(place, &scratch) || scratch.role != GROUP_PRIMARY)
		return;
	place_discover(place);
	place->agent_up = place->agent_stopping = false;
	place->fenced = false;
	place->incarnation++;
	memset(place->seen, 0, sizeof(place->seen));
	sim_check(place->sites->world, agent_group_new(&options, &place->agent) == 0);
	agent_group_start(place->agent);
}

void place_stop_agent(struct place *place)
{
	if (!place->agent || place->agent_stopping)
		return;
	place->agent_stopping = true;
	place->agent_up = false;
	agent_group_stop(place->agent);
}

static void agent_lost(struct place *place, enum sim_crash kind)
{
	/* What was acknowledged as written, a disk that failed has dropped, and only this process
	 * still had. */
	if (kind == SIM_POWER)
		place->power_lost = true; /* also when a killed agent had left it to the kernel */
	else if (place->agent && !place->sites->dead)
		place->power_lost |= place_disk_dropped(place);
	place->incarnation++;
	place->agent = NULL;
	place->agent_up = place->agent_stopping = false;
	sites_forget(place);
}

/* ---- engine -----------------------------------------------------------------------------------
 */

/* What the standby has acknowledged as durable it has, whatever happened to it (I4). */
static void check_promise(struct place *place)
{
	const struct branch *promise = place->promise;

	engine_group_status(place->engine, &status);
	if (!promise || place->promise_given_up || status.epoch != promise->epoch ||
	    tree_has_twins(place->tree, promise->epoch))
		return;
	if (status.durable_seq < place->promise_seq)
		sim_fail(place->sites->world,
			 "%s/%s came back with seq %llu, but had acknowledged seq %llu",
			 place->site->name, place->name, (unsigned long long)status.durable_seq,
			 (unsigned long long)place->promise_seq);
}

static void engine_started(void *owner, struct engine_group *group, int res)
{
	struct place *place = owner;

	(void)group;
	sim_note(place->sites->world, place->site->engine_node, "engine of %s started: %d",
		 place->name, res);
	place->engine_up = res == 0;
	place->engine_elsewhere = res == 1;
	if (res == 0)
		check_promise(place);
	if (res < 0 && res != -EWOULDBLOCK && !place->sites->failing_ok)
		sim_fail(place->sites->world, "the engine of %s/%s cannot start: %d",
			 place->site->name, place->name, res);
}

/* The primary has handed it over: the agent may have it. */
static void engine_handed(void *owner, struct engine_group *group, uint64_t epoch)
{
	struct place *place = owner;

	(void)group;
	sim_note(place->sites->world, place->site->engine_node, "%s is handed over, epoch %llu",
		 place->name, (unsigned long long)epoch);
	REACH(SITES_HANDED);
	place->handed = true;
	place_discover(place);
	place_stop_engine(place);
	if (sim_chance(place->sites->world, 700000))
		place_start_agent(place);
}

static void engine_gone(void *owner, struct engine_group *group, int res)
{
	struct place *place = owner;

	engine_group_free(group);
	if (place->at_rest && res == 0 && place_peek(place, &scratch) &&
	    scratch.role == GROUP_STANDBY && scratch.flags & SUPERBLOCK_EVER_CONSISTENT &&
	    !(scratch.flags & SUPERBLOCK_SYNCING)) {
		REACH(SITES_RESTED);
		place_check_content(place, &scratch, scratch.applied_seq, "a standby at rest");
	}
	place->at_rest = false;
	place->engine = NULL;
	place->engine_up = place->engine_elsewhere = place->engine_stopping = false;
}

void place_start_engine(struct place *place)
{
	struct engine_options options = {
		.io = sim_node_io(place->site->engine_node),
		.conf = place->site->conf,
		.group = place->engine_conf,
		.events = { place, engine_started, engine_gone, engine_handed },
	};

	if (place->engine || place->initing || place->at_rest ||
	    !sim_node_is_up(place->site->engine_node))
		return;
	if (place->init_cut ||
	    sim_file_size(place->site->engine_node, path_of(place, "superblock")) < 0) {
		place_init(place, GROUP_STANDBY, NULL); /* the next tick starts it */
		return;
	}
	place->engine_up = place->engine_elsewhere = false;
	place->engine_began_ns = sim_now(place->sites->world);
	sim_check(place->sites->world, engine_group_new(&options, &place->engine) == 0);
	engine_group_start(place->engine);
}

void place_stop_engine(struct place *place)
{
	if (!place->engine || place->engine_stopping)
		return;
	place->engine_stopping = true;
	place->engine_up = false;
	engine_group_stop(place->engine);
}

static void engine_lost(struct place *place)
{
	place->engine = NULL;
	place->engine_up = place->engine_elsewhere = place->engine_stopping = false;
	place->init_cut |= place->initing;
	place->initing = place->promoting = place->tasking = place->at_rest = false;
}

/* As engine/main.c looks after groups that were not its own, and an operator after the rest. */
void place_tick(struct place *place)
{
	bool later = sim_now(place->sites->world) >= place->engine_began_ns + LOOK_AGAIN_NS;

	if (!place->agent && !place->agent_off)
		place_start_agent(place);
	if (!place->engine)
		place_start_engine(place);
	else if (place->engine_elsewhere && !place->agent && !place->promoting && later &&
		 place_peek(place, &scratch) && scratch.role != GROUP_PRIMARY)
		place_stop_engine(place);
}

/* ---- nodes ------------------------------------------------------------------------------------
 */

struct sites_site *sites_of(struct sites *sites, const struct sim_node *node, bool *ret_agent)
{
	for (unsigned i = 0; i < sites->site_count; i++) {
		*ret_agent = sites->sites[i].agent_node == node;
		if (*ret_agent || sites->sites[i].engine_node == node)
			return &sites->sites[i];
	}
	return NULL;
}

void sites_node_started(struct sites *sites, struct sim_node *node)
{
	bool agent = false;
	struct sites_site *site = sites_of(sites, node, &agent);

	if (!agent)
		sites_lobby_open(site);
	for (unsigned i = 0; i < sites->group_count; i++) {
		if (agent && !site->places[i].agent_off)
			place_start_agent(&site->places[i]);
		else if (!agent)
			place_start_engine(&site->places[i]);
	}
}

void sites_node_lost(struct sites *sites, struct sim_node *node, enum sim_crash kind)
{
	bool agent = false;
	struct sites_site *site = sites_of(sites, node, &agent);

	for (unsigned i = 0; i < sites->group_count; i++) {
		if (agent || kind == SIM_POWER)
			agent_lost(&site->places[i], kind);
		if (!agent || kind == SIM_POWER)
			engine_lost(&site->places[i]);
	}
}

void site_crash(struct sites_site *site, struct sim_node *node, enum sim_crash kind)
{
	if (!sim_node_is_up(node) && kind == SIM_KILL)
		return;
	sites_node_lost(site->sites, node, kind);
	sim_node_crash(node, kind);
}

void site_power_off(struct sites_site *site)
{
	site_crash(site, site->engine_node, SIM_POWER);
}

void site_power_on(struct sites_site *site)
{
	struct sim_node *nodes[] = { site->engine_node, site->agent_node };

	for (unsigned i = 0; i < 2; i++) {
		if (sim_node_is_up(nodes[i]))
			continue;
		sim_node_restart(nodes[i]);
		sites_node_started(site->sites, nodes[i]);
	}
}

void place_lose_state(struct place *place)
{
	char folder[64];

	snprintf(folder, sizeof(folder), SITES_STATE_DIR "/%s/", place->name);
	sim_disk_lose(place->site->engine_node, folder);
	place_disown(place);
	place->branch = NULL;
	place->restored = place->power_lost = false;
}
