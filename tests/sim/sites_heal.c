/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator who settles things: one primary rules each group, everybody else follows it, and
 * then all sites are the same.
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

#define CONVERGE_NS (240 * SIM_SECOND)
#define STEP_NS	    (500 * SIM_MS)

static struct status_group status;

/* The higher the better; 0 = cannot rule. */
static uint64_t rank(struct place *place, const struct superblock *sb)
{
	bool consistent = sb->flags & SUPERBLOCK_EVER_CONSISTENT &&
			  (!(sb->flags & SUPERBLOCK_SYNCING) || sb->kept.undo_id);

	if (sb->role == GROUP_PRIMARY)
		return 4 * sb->epoch + 2 + (place->agent_up ? 1 : 0);
	/* A primary that was demoted was whole, whether it ever was a standby or not. */
	if (!consistent && (sb->role != GROUP_FENCED || sb->flags & SUPERBLOCK_SYNCING))
		return 0;
	return 4 * sb->epoch + (sb->role == GROUP_STANDBY ? 1 : 0);
}

struct place *sites_ruler(struct sites *sites, unsigned group)
{
	static struct superblock sb;
	struct place *best = NULL;
	uint64_t best_rank = 0;

	for (unsigned i = 0; i < sites->site_count; i++) {
		struct place *place = sites_place(sites, i, group);
		uint64_t its = place_peek(place, &sb) ? rank(place, &sb) : 0;

		if (its > best_rank) {
			best_rank = its;
			best = place;
		}
	}
	return best;
}

/* What this copy holds and the ruling history does not is given up. */
static void bring_back(struct place *ruler, struct place *place, const struct superblock *sb)
{
	static struct superblock ruling;

	if (!place_peek(ruler, &ruling))
		return;
	if (ruling.epoch <= sb->epoch || ruling.epoch < sb->fenced_by_epoch) {
		/* Nobody's word makes a copy follow one of its own epoch that has something else:
		 * the ruling primary takes a higher one. */
		ruler->agent_off = true;
		if (ruler->agent)
			place_stop_agent(ruler);
		else
			place_rejoin(ruler); /* and then it is promoted, by force */
		return;
	}
	place_rejoin(place);
}

static void settle_other(struct place *ruler, struct place *place)
{
	static struct superblock sb;

	if (place->initing || !place_peek(place, &sb))
		return;
	if (sb.role == GROUP_PRIMARY) {
		static struct superblock ruling;

		/* One of an older epoch learns by itself that it is none. */
		place->agent_off = place_peek(ruler, &ruling) && ruling.epoch <= sb.epoch;
		if (!place->agent_off)
			return;
		if (place->agent)
			place_stop_agent(place);
		else
			place_rejoin(place);
		return;
	}
	place->agent_off = false;
	if (place_refused_by(ruler, place->site))
		bring_back(ruler, place, &sb);
}

static bool group_converged(struct sites *sites, unsigned group)
{
	struct place *ruler = sites_ruler(sites, group);
	uint64_t head, durable_seq = 0;

	if (!ruler || !place_serving(ruler))
		return false;
	agent_group_status(ruler->agent, &status);
	head = status.head_seq;
	if (status.durable_seq != head || status.applied_seq != head)
		return false;
	for (unsigned i = 0; i < sites->site_count; i++) {
		struct place *place = sites_place(sites, i, group);

		if (place == ruler)
			continue;
		if (!place->engine_up || !place_streams_to(ruler, place->site, &durable_seq) ||
		    durable_seq != head)
			return false;
		engine_group_status(place->engine, &status);
		if (!status.consistent || status.syncing || status.durable_seq != head ||
		    status.applied_seq != head)
			return false;
	}
	return true;
}

static void describe(struct place *place, char *text, size_t max)
{
	static struct superblock sb;
	size_t at = 0;

	memset(&sb, 0, sizeof(sb));
	place_peek(place, &sb);
	at += (size_t)snprintf(text, max, " | %s/%s role %u flags %x epoch %llu", place->site->name,
			       place->name, sb.role, sb.flags, (unsigned long long)sb.epoch);
	if (place->agent) {
		agent_group_status(place->agent, &status);
		at += (size_t)snprintf(text + at, max - at, " agent %s (%.60s) %llu/%llu/%llu",
				       status.state, status.detail,
				       (unsigned long long)status.head_seq,
				       (unsigned long long)status.durable_seq,
				       (unsigned long long)status.applied_seq);
		for (unsigned i = 0; i < status.peer_count && at < max - 200; i++)
			at += (size_t)snprintf(text + at, max - at, " [%s %s (%.90s) %llu sync %d]",
					       status.peers[i].node, status.peers[i].state,
					       status.peers[i].error,
					       (unsigned long long)status.peers[i].durable_seq,
					       status.peers[i].sync.active);
	}
	if (place->engine && at < max - 200) {
		engine_group_status(place->engine, &status);
		snprintf(text + at, max - at,
			 " engine %s (%.90s) %llu/%llu syncing %d consistent %d", status.state,
			 status.detail, (unsigned long long)status.durable_seq,
			 (unsigned long long)status.applied_seq, status.syncing, status.consistent);
	}
}

__attribute__((noreturn)) static void fail_described(struct sites *sites)
{
	static char text[8192];
	size_t at = 0;
	struct place *place;

	for (unsigned i = 0; i < sites->group_count; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at,
				       sites_ruler(sites, i) ? "" : " g%u has nobody who can rule",
				       i);
	sites_each_place(sites, place)
	{
		if (at + 800 >= sizeof(text) || group_converged(sites, place->group))
			continue;
		describe(place, text + at, sizeof(text) - at);
		at += strlen(text + at);
	}
	sim_fail(sites->world, "does not converge (requests idle %d)%s", sites_work_idle(sites),
		 text);
}

/* Nobody else rules: what is here counts. */
static void accept_held(struct place *place)
{
	if (!place->agent || place->agent_up)
		return;
	agent_group_status(place->agent, &status);
	if (strcmp(status.state, "held") == 0)
		place_accept(place);
}

static void settle(struct sites *sites, unsigned group)
{
	static struct superblock sb;
	struct place *ruler = sites_ruler(sites, group);

	if (!ruler)
		fail_described(sites);
	if (!place_peek(ruler, &sb))
		return;
	accept_held(ruler);
	if (sb.role != GROUP_PRIMARY) {
		place_promote(ruler, true);
		return;
	}
	if (ruler->agent_off && ruler->agent == NULL && !ruler->tasking &&
	    ruler->engine) { /* it is on the way to a higher epoch */
		place_rejoin(ruler);
		return;
	}
	for (unsigned i = 0; i < sites->site_count; i++)
		if (i != ruler->site->index)
			settle_other(ruler, sites_place(sites, i, group));
}

bool sites_converged(void *context)
{
	struct sites *sites = context;

	if (sim_now(sites->world) < sites->ask_ns)
		return false;
	sites->ask_ns = sim_now(sites->world) + 5 * SIM_MS;
	if (!sites_work_idle(sites))
		return false;
	for (unsigned g = 0; g < sites->group_count; g++)
		if (!group_converged(sites, g))
			return false;
	return true;
}

void sites_heal(struct sites *sites)
{
	uint64_t end_ns = sim_now(sites->world) + CONVERGE_NS;

	while (!sim_run_until(sites->world, sites_converged, sites, STEP_NS)) {
		if (sim_now(sites->world) > end_ns)
			fail_described(sites);
		for (unsigned g = 0; g < sites->group_count; g++)
			settle(sites, g);
	}
}

/* Every site holds what the ruling primary has written, up to its head, and nothing else. */
void sites_audit(struct sites *sites)
{
	static struct superblock sb;
	static uint8_t bytes[SITES_VOLUME_BYTES];
	struct place *place;

	sites_each_place(sites, place)
	{
		struct place *ruler = sites_ruler(sites, place->group);
		const struct branch *branch = ruler->branch;

		if (!place_peek(place, &sb))
			sim_fail(sites->world, "%s/%s has no superblock", place->site->name,
				 place->name);
		for (unsigned v = 0; v < sites->volume_count; v++) {
			unsigned sector;

			sim_file_peek(place->site->engine_node, place->agent_conf->volumes[v].path,
				      0, bytes, sizeof(bytes));
			if (!tree_equal(place->tree, branch, branch->head, v, bytes, &sector))
				sim_fail(sites->world,
					 "in the end %s/%s differs from the ruling primary %s: "
					 "volume %u sector %u is write %llu",
					 place->site->name, place->name, ruler->site->name, v,
					 sector,
					 (unsigned long long)tree_id_of(
						 bytes + (size_t)sector * SIM_SECTOR_BYTES));
		}
	}
}
