/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites before anything runs: hosts, disks, configuration, group directories.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/conf/conf.h"
#include "core/group/init.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"
#include "tests/sim/sites_internal.h"

#define PORT	    "7400"
#define START_LIMIT (120 * SIM_SECOND)

static const char *const site_names[SITES_MAX] = { "alpha", "beta", "gamma" };
static const char *const agent_names[SITES_MAX] = { "alpha-agent", "beta-agent", "gamma-agent" };

struct place *sites_place(struct sites *sites, unsigned site, unsigned group)
{
	return &sites->sites[site].places[group];
}

static char *numbered(struct sim_world *world, const char *name, unsigned number)
{
	char *bytes = sim_alloc(world, 64);

	snprintf(bytes, 64, "%s%u", name, number);
	return bytes;
}

static void make_volumes(struct sites *sites, struct conf_group *group, unsigned index)
{
	group->volumes = sim_alloc(sites->world, sites->volume_count * sizeof(*group->volumes));
	group->volume_count = sites->volume_count;
	for (unsigned v = 0; v < sites->volume_count; v++) {
		group->volumes[v].name = numbered(sites->world, "v", v);
		group->volumes[v].path = numbered(sites->world, index ? "/vol/b" : "/vol/a", v);
	}
}

static void make_peers(struct sites *sites, struct sites_site *site, struct conf_group *group)
{
	struct sim_world *world = sites->world;

	group->peers = sim_alloc(world, SITES_MAX * sizeof(*group->peers));
	for (unsigned i = 0; i < sites->site_count; i++) {
		struct conf_peer *peer = &group->peers[group->peer_count];
		char *address = sim_alloc(world, 64);

		if (i == site->index)
			continue;
		snprintf(address, 64, "%s:" PORT, site_names[i]);
		peer->node = (char *)(uintptr_t)site_names[i];
		peer->address = address;
		peer->window_bytes = sim_chance(world, 500000) ? 64 << 10 : 1 << 20;
		group->peer_count++;
	}
}

static void make_group(struct sites *sites, struct sites_site *site, unsigned index)
{
	struct sim_world *world = sites->world;
	struct place *place = &site->places[index];
	struct conf_group *group = &site->conf->groups[index];

	place->sites = sites;
	place->site = site;
	place->tree = &sites->trees[index];
	place->group = index;
	group->name = numbered(world, "g", index);
	group->cache = sites->writethrough ? CONF_WRITETHROUGH : CONF_WRITEBACK;
	/* Little memory: requests wait for room. */
	group->memory_bytes = sim_chance(world, 300000) ? 400u << 10 : 1u << 20;
	group->checkpoint_interval_ns = sim_between(world, 50, 2000) * SIM_MS;
	group->flush_interval_ns = sim_between(world, 2, 50) * SIM_MS;
	group->settle_timeout_ns = SIM_SECOND;
	group->heartbeat_interval_ns = 200 * SIM_MS;
	group->peer_timeout_ns = 2 * SIM_SECOND;
	group->journal_file_bytes = sites->slot_bytes;
	group->journal_size_bytes = sites->slot_bytes * sites->slots;
	if (sites->sync) {
		group->mode = sim_chance(world, 500000) ? CONF_SYNC_ONE : CONF_SYNC_ALL;
		group->on_sync_loss =
			sim_chance(world, 500000) ? CONF_LOSS_ASYNC : CONF_LOSS_FREEZE;
		group->sync_timeout_ns = sim_between(world, 50, 1000) * SIM_MS;
	}
	group->rejoin_auto = sites->rejoin_auto;
	make_volumes(sites, group, index);
	make_peers(sites, site, group);
	place->agent_conf = group;
	place->name = group->name;
	place->engine_conf = sim_alloc(world, sizeof(*group));
	*place->engine_conf = *group;
	place->engine_conf->memory_bytes = 5u << 20; /* the largest segment must fit */
	for (unsigned v = 0; v < sites->volume_count; v++)
		sim_file_make(site->engine_node, group->volumes[v].path, SITES_VOLUME_BYTES, false,
			      sim_chance(world, 600000));
}

static void make_site(struct sites *sites, unsigned index)
{
	struct sim_world *world = sites->world;
	struct sites_site *site = &sites->sites[index];

	site->sites = sites;
	site->index = index;
	site->name = site_names[index];
	site->engine_node = sim_node_new(world, site->name);
	site->agent_node = sim_node_beside(site->engine_node, agent_names[index]);
	site->agent_tls = sim_tls(site->agent_node, site->name, "ca");
	site->engine_tls = sim_tls(site->engine_node, site->name, "ca");
	site->conf = sim_alloc(world, sizeof(*site->conf));
	site->conf->node = (char *)(uintptr_t)site->name;
	site->conf->state_dir = (char *)(uintptr_t)SITES_STATE_DIR;
	site->conf->groups = sim_alloc(world, SITES_GROUPS_MAX * sizeof(*site->conf->groups));
	site->conf->group_count = sites->group_count;
	for (unsigned i = 0; i < sites->group_count; i++)
		make_group(sites, site, i);
}

struct sites *sites_new(struct sim_world *world, unsigned site_count, unsigned group_count,
			unsigned volume_count, uint32_t slots)
{
	struct sites *sites = sim_alloc(world, sizeof(*sites));

	log_set_level(LOG_LEVEL_ERROR);
	sites->world = world;
	sites->site_count = site_count;
	sites->group_count = group_count;
	sites->volume_count = volume_count;
	sites->slot_bytes = 96u << 10;
	sites->slots = slots;
	sites->writethrough = sim_chance(world, 400000);
	sites->sync = sim_chance(world, 200000);
	sites->rejoin_auto = sim_chance(world, 200000);
	sites->pace_us = (unsigned)sim_between(world, 200, sim_chance(world, 300000) ? 400 : 4000);
	sim_set_user(world, sites);
	for (unsigned i = 0; i < group_count; i++) {
		sites->trees[i].world = world;
		sites->trees[i].volumes = volume_count;
	}
	for (unsigned i = 0; i < site_count; i++)
		make_site(sites, i);
	return sites;
}

/* ---- group directories ------------------------------------------------------------------------
 */

struct making {
	struct io_op op;
	struct group_init init;
	struct superblock sb;
	struct group_init_volume volumes[SITES_VOLUMES_MAX];
	struct place *place;
	void (*done)(struct place *place, int res);
};

static void made(struct io_op *op, int64_t res)
{
	struct making *making = container_of(op, struct making, op);
	struct place *place = making->place;

	place->initing = false;
	if (res == -EEXIST) /* the one that was cut short had come to its end */
		res = 0;
	place->init_cut = res != 0;
	if (res && res != -EWOULDBLOCK && !place->sites->failing_ok)
		sim_fail(place->sites->world, "init of %s: %s", place->site->name,
			 making->init.error);
	if (making->done)
		making->done(place, (int)res);
}

void place_init(struct place *place, enum group_role role, void (*done)(struct place *, int))
{
	struct making *making = sim_alloc(place->sites->world, sizeof(*making));

	making->place = place;
	making->done = done;
	making->op.done = made;
	for (unsigned v = 0; v < place->sites->volume_count; v++)
		making->volumes[v] =
			(struct group_init_volume){ place->agent_conf->volumes[v].name,
						    place->agent_conf->volumes[v].path };
	making->init = (struct group_init){
		.io = sim_node_io(place->site->engine_node),
		.state_dir = SITES_STATE_DIR,
		.group = place->agent_conf->name,
		.role = role,
		.journal_file_bytes = place->sites->slot_bytes,
		.journal_files = place->sites->slots,
		.volumes = making->volumes,
		.volume_count = place->sites->volume_count,
		.sb = &making->sb,
	};
	place->initing = true;
	group_init_run(&making->init, &making->op);
}

/* The primary's volumes hold data before replication begins. */
static void fill_volumes(struct place *place)
{
	struct tree *tree = place->tree;
	uint8_t sector[SIM_SECTOR_BYTES];

	tree->initial_id = tree->next_id++;
	for (unsigned v = 0; v < place->sites->volume_count; v++)
		for (unsigned s = 0; s < SITES_SECTORS; s++) {
			tree_fill(sector, tree->initial_id, v, s);
			sim_file_poke(place->site->engine_node, place->agent_conf->volumes[v].path,
				      (uint64_t)s * SIM_SECTOR_BYTES, sector, sizeof(sector));
		}
}

/* A new standby's volumes need not be empty. */
static void soil_volumes(struct place *place)
{
	uint8_t bytes[SIM_SECTOR_BYTES * 8];

	memset(bytes, 0x6b, sizeof(bytes));
	for (unsigned v = 0; v < place->sites->volume_count; v++)
		sim_file_poke(place->site->engine_node, place->agent_conf->volumes[v].path,
			      sim_between(place->sites->world, 0, SITES_SECTORS - 8) *
				      SIM_SECTOR_BYTES,
			      bytes, sizeof(bytes));
}

static bool all_made(void *context)
{
	struct sites *sites = context;
	struct place *place;

	sites_each_place(sites, place) if (place->initing) return false;
	return true;
}

static bool all_serving(void *context)
{
	struct sites *sites = context;

	for (unsigned i = 0; i < sites->group_count; i++)
		if (!sites_place(sites, i % sites->site_count, i)->agent_up)
			return false;
	return true;
}

static void tick(void *context)
{
	struct sites *sites = context;
	struct place *place;

	sites_each_place(sites, place) place_tick(place);
	sites_look(sites);
	sim_after(sites->world, 50 * SIM_MS, tick, sites);
}

void sites_up(struct sites *sites)
{
	struct sim_world *world = sites->world;
	struct sim_options saved = *sim_options(world);
	bool failing_ok = sites->failing_ok;
	struct place *place;

	/* Setting up is not what is tested here. */
	sites->failing_ok = false;
	sim_options_heal(sim_options(world));
	sites_each_place(sites, place)
	{
		bool primary = place->group % sites->site_count == place->site->index;

		place_init(place, primary ? GROUP_PRIMARY : GROUP_STANDBY, NULL);
		if (primary)
			place->branch = tree_root(place->tree, place->site->index);
	}
	sim_check(world, sim_run_until(world, all_made, sites, START_LIMIT));
	sites_each_place(sites, place)
	{
		if (place->branch && sim_chance(world, 500000))
			fill_volumes(place);
		else if (!place->branch && sim_chance(world, 300000))
			soil_volumes(place);
	}
	for (unsigned i = 0; i < sites->site_count; i++) {
		sites_node_started(sites, sites->sites[i].engine_node);
		sites_node_started(sites, sites->sites[i].agent_node);
	}
	tick(sites);
	sim_check(world, sim_run_until(world, all_serving, sites, START_LIMIT));
	*sim_options(world) = saved;
	sites->failing_ok = failing_ok;
}
