/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator as seeds have him: in a hurry, and not always at the right site. Everything that he
 * does here the product must survive; what it refuses is no failure.
 */
#include <errno.h>
#include <string.h>

#include "agent/agent.h"
#include "core/base/macros.h"
#include "core/conf/conf.h"
#include "engine/engine.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"
#include "tests/sim/sites_internal.h"

/* ---- promote ----------------------------------------------------------------------------------
 */

struct promoting {
	struct engine_promote promote;
	struct place *place;
	bool kept;
	uint64_t kept_seq;
};

/* Right behind it: what it said is on the disk. */
static void after_promote(struct place *place)
{
	struct sim_world *world = place->sites->world;
	struct sites_site *site = place->site;

	if (sim_chance(world, 200000)) {
		REACH(SITES_PROMOTED_THEN_POWER);
		sites_crash_soon(site, SIM_POWER);
		return;
	}
	place_stop_engine(place);
	if (sim_chance(world, 700000))
		place_start_agent(place);
}

static void promoted(struct engine_promote *promote)
{
	struct promoting *promoting = container_of(promote, struct promoting, promote);
	struct place *place = promoting->place;

	place->promoting = false;
	sim_note(place->sites->world, place->site->engine_node,
		 "promote of %s: %d epoch %llu seq %llu %.80s", place->name, promote->res,
		 (unsigned long long)promote->epoch, (unsigned long long)promote->seq,
		 promote->text);
	if (promote->res == -EUCLEAN)
		REACH(SITES_PROMOTE_REFUSED);
	if (promote->res == -EAGAIN)
		REACH(SITES_PROMOTE_ALIVE);
	if (promote->res)
		return;
	REACH(SITES_PROMOTED);
	if (promoting->kept && promote->seq == promoting->kept_seq)
		REACH(SITES_PROMOTED_KEPT);
	else if (place->promise_given_up)
		place->promise_given_up = false; /* it went on to the copy's end after all */
	place_discover(place);
	if (promote->loss == ENGINE_LOSS_NONE) {
		REACH(SITES_LOSS_NONE);
		if (place->branch->parent->pledged > promote->seq)
			sim_fail(
				place->sites->world,
				"promoted at seq %llu with nothing lost, but clients were promised "
				"%llu",
				(unsigned long long)promote->seq,
				(unsigned long long)place->branch->parent->pledged);
	}
	after_promote(place);
}

void place_promote(struct place *place, bool force)
{
	static struct superblock sb;
	struct promoting *promoting;

	if (!place->engine || place->engine_stopping || place->promoting || place->at_rest ||
	    !place_peek(place, &sb))
		return;
	promoting = sim_alloc(place->sites->world, sizeof(*promoting));
	promoting->place = place;
	promoting->promote.force = force;
	promoting->promote.done = promoted;
	if (sb.role == GROUP_STANDBY && sb.flags & SUPERBLOCK_SYNCING && sb.kept.undo_id) {
		place_disown(place); /* what is acknowledged in a copy is no position yet */
		promoting->kept = place->promise_given_up = true;
		promoting->kept_seq = sb.kept.seq;
	}
	place->promoting = true;
	place->tree->epoch_max =
		max_u64(place->tree->epoch_max, max_u64(sb.epoch, sb.fenced_by_epoch) + 1);
	engine_group_promote(place->engine, &promoting->promote);
}

/* ---- disks and directories --------------------------------------------------------------------
 */

/* A copy that could be promoted, or is a primary's. */
static bool is_good(const struct superblock *sb)
{
	if (sb->role == GROUP_PRIMARY)
		return true;
	return (sb->role == GROUP_STANDBY || sb->role == GROUP_FENCED) &&
	       sb->flags & SUPERBLOCK_EVER_CONSISTENT &&
	       (!(sb->flags & SUPERBLOCK_SYNCING) || sb->kept.undo_id);
}

/* Whether the group outlives the loss of what it has at `site`: somebody else has a good copy under
 * the highest epoch that the rest (and an image of this site) know. */
static bool can_lose(struct place *lost, bool image_good, uint64_t image_epoch)
{
	static struct superblock sb;
	uint64_t epoch_max = image_epoch;
	bool good = image_good;

	for (unsigned i = 0; i < lost->sites->site_count; i++) {
		struct place *place = sites_place(lost->sites, i, lost->group);

		if (place == lost || !place_peek(place, &sb))
			continue;
		if (sb.epoch > epoch_max) {
			epoch_max = sb.epoch;
			good = false;
		}
		good |= sb.epoch == epoch_max && is_good(&sb);
	}
	return good;
}

static void power_on(void *context)
{
	site_power_on(context);
}

static void back_after(struct sites_site *site, uint64_t most_ns)
{
	struct sim_world *world = site->sites->world;

	sim_after(world, sim_between(world, 0, most_ns), power_on, site);
}

static void lose_state(struct place *place)
{
	struct sites_site *site = place->site;

	if (!can_lose(place, false, 0))
		return;
	REACH(SITES_STATE_LOST);
	sim_note(place->sites->world, NULL, "%s/%s loses its directory", site->name, place->name);
	site_power_off(site);
	place_lose_state(place);
	back_after(site, SIM_SECOND);
}

void site_take_image(struct sites_site *site)
{
	static struct superblock sb;

	for (unsigned i = 0; i < site->sites->group_count; i++)
		if (!place_peek(&site->places[i], &sb))
			return;
	for (unsigned i = 0; i < site->sites->group_count; i++) {
		struct place *place = &site->places[i];

		(void)place_peek(place, &sb);
		site->imaged[i].good = is_good(&sb);
		site->imaged[i].epoch = sb.epoch;
		site->imaged[i].branch = place->branch;
		site->imaged[i].least = place->restored ? place->restored_least
					: place->branch ? place->branch->durable
							: 0;
	}
	site->image = sim_disk_save(site->engine_node);
	sim_note(site->sites->world, NULL, "image of %s", site->name);
}

void site_restore_image(struct sites_site *site)
{
	if (!site->image)
		return;
	REACH(SITES_RESTORED);
	sim_note(site->sites->world, NULL, "%s goes back to an older image", site->name);
	site_power_off(site);
	sim_disk_restore(site->engine_node, site->image);
	for (unsigned i = 0; i < site->sites->group_count; i++) {
		struct place *place = &site->places[i];

		place->branch = site->imaged[i].branch;
		place->restored = place->branch != NULL;
		place->restored_least = site->imaged[i].least;
		place->power_lost = false;
		place_disown(place);
	}
}

static void restore_image(struct sites_site *site)
{
	if (!site->image)
		return;
	for (unsigned i = 0; i < site->sites->group_count; i++)
		if (!can_lose(&site->places[i], site->imaged[i].good, site->imaged[i].epoch))
			return;
	site_restore_image(site);
	back_after(site, SIM_SECOND);
}

static void space_back(void *context)
{
	sim_disk_set_free(((struct sites_site *)context)->engine_node, UINT64_MAX);
}

static void fill_disk(struct sites_site *site)
{
	struct sim_world *world = site->sites->world;

	if (!site->sites->failing_ok)
		return;
	REACH(SITES_DISK_FULL);
	sim_disk_set_free(site->engine_node, sim_between(world, 0, 64) << 10);
	sim_after(world, sim_between(world, 10, 500) * SIM_MS, space_back, site);
}

/* ---- links ------------------------------------------------------------------------------------
 */

static void heal_links(void *context)
{
	sim_heal_all(((struct sites *)context)->world);
}

/* One site alone, a ring of one-way links, or all apart. */
static void partition(struct sites *sites)
{
	struct sim_world *world = sites->world;
	unsigned shape = (unsigned)sim_between(world, 0, 2);
	unsigned alone = (unsigned)sim_between(world, 0, sites->site_count - 1);
	enum sim_cut cut = sim_chance(world, 500000) ? SIM_CUT_SILENT : SIM_CUT_RESET;

	REACH(SITES_PARTITION);
	for (unsigned i = 0; i < sites->site_count; i++)
		for (unsigned j = 0; j < sites->site_count; j++) {
			bool ring = j == (i + 1) % sites->site_count;

			if (i == j || (shape == 0 && i != alone && j != alone) ||
			    (shape == 1 && !ring))
				continue;
			sim_cut(sites->sites[i].engine_node, sites->sites[j].engine_node,
				shape == 1 ? SIM_CUT_SILENT : cut);
		}
	sim_after(world, sim_between(world, 100, 3000) * SIM_MS, heal_links, sites);
}

/* ---- what is done when ------------------------------------------------------------------------
 */

struct marking {
	struct io_op op;
	struct place *place;
	uint64_t seq;
};

static void marked(struct io_op *op, int64_t res)
{
	struct marking *marking = container_of(op, struct marking, op);

	if (res >= 0 && (uint64_t)res != marking->seq)
		sim_fail(marking->place->sites->world, "a mark got seq %lld, not %llu",
			 (long long)res, (unsigned long long)marking->seq);
	if (res >= 0)
		REACH(SITES_MARKED);
}

/* When nothing waits, so that its seq is known. */
static void mark(struct place *place)
{
	const struct tree_entry entry = { .kind = TREE_MARK };
	struct marking *marking;

	if (!place_serving(place) || place_waiting(place))
		return;
	marking = sim_alloc(place->sites->world, sizeof(*marking));
	marking->place = place;
	marking->op.done = marked;
	if (!place_has_room(place))
		return;
	agent_group_mark(place->agent, "m", &marking->op);
	if (place_is_marking(place)) /* else it was refused, and is no record */
		marking->seq = tree_add(place->tree, place->branch, &entry);
}

static void agent_on(void *context)
{
	((struct place *)context)->agent_off = false;
}

static void restart_agent(struct place *place)
{
	struct sim_world *world = place->sites->world;

	if (!place->agent)
		return;
	place->agent_off = true;
	place_stop_agent(place);
	sim_after(world, sim_between(world, 0, 1000) * SIM_MS, agent_on, place);
}

static void look_at_rest(struct place *place)
{
	if (!place->engine_up || place->promoting || place->engine_stopping)
		return;
	place->at_rest = true;
	place_stop_engine(place);
}

static void conflict(struct sites *sites, struct place *place)
{
	struct place *other =
		sites_place(sites, (place->site->index + 1) % sites->site_count, place->group);

	partition(sites);
	place_promote(place, true);
	place_promote(other, true);
}

/* Stops the agent and gives the primary's place up, be it the ruling one. */
static void demote(struct place *place)
{
	if (place->agent && sim_chance(place->sites->world, 500000))
		restart_agent(place);
	else
		place_rejoin(place);
}

static void partition_now(void *context)
{
	struct sites *sites = context;

	if (!sites->quiet)
		partition(sites);
}

/* What is asked of the daemons. */
static void one_task(struct sites *sites, struct place *place)
{
	struct sim_world *world = sites->world;
	struct sites_site *other = &sites->sites[sim_between(world, 0, sites->site_count - 1)];

	switch (sim_between(world, 15, 23)) {
	case 15:
	case 16:
	case 17:
	case 18:
		place_switchover(place, other);
		if (sim_chance(world, 300000)) /* when it is asked, or has answered */
			sim_after(world, sim_between(world, 0, 60) * SIM_MS, partition_now, sites);
		break;
	case 19:
		place_rejoin(place);
		break;
	case 20:
		place_accept(place);
		break;
	case 21:
		demote(place);
		break;
	case 22:
		place_resync(place, sim_chance(world, 500000) ? other : NULL,
			     sim_chance(world, 500000), sim_chance(world, 500000));
		break;
	case 23:
		place_verify(place, sim_chance(world, 300000));
		break;
	default:
		break;
	}
}

static void one_thing(struct sites *sites)
{
	struct sim_world *world = sites->world;
	struct place *place =
		sites_place(sites, (unsigned)sim_between(world, 0, sites->site_count - 1),
			    (unsigned)sim_between(world, 0, sites->group_count - 1));

	switch (sim_between(world, 0, 24)) {
	case 0:
	case 1:
	case 2:
		place_promote(place, false);
		break;
	case 3:
	case 4:
		place_promote(place, true);
		break;
	case 5:
		conflict(sites, place);
		break;
	case 6:
	case 7:
		partition(sites);
		break;
	case 8:
		restart_agent(place);
		break;
	case 9:
	case 10:
		look_at_rest(place);
		break;
	case 11:
		site_take_image(place->site);
		break;
	case 12:
		if (sites->careless)
			restore_image(place->site);
		break;
	case 13:
		if (sites->careless)
			lose_state(place);
		break;
	case 14:
		fill_disk(place->site);
		break;
	case 15:
		mark(place);
		break;
	default:
		one_task(sites, place);
		break;
	}
}

static void tick(void *context)
{
	struct sites *sites = context;

	if (sites->quiet)
		return;
	one_thing(sites);
	sim_after(sites->world, sim_between(sites->world, 1, 2 * sites->admin_ms) * SIM_MS, tick,
		  sites);
}

void sites_operator_start(struct sites *sites)
{
	sites->quiet = false;
	sim_after(sites->world, sim_between(sites->world, 1, 2 * sites->admin_ms) * SIM_MS, tick,
		  sites);
}

void sites_operator_stop(struct sites *sites)
{
	struct place *place;

	sites->quiet = true;
	sites_each_place(sites, place) place->agent_off = false;
	for (unsigned i = 0; i < sites->site_count; i++) {
		sim_disk_set_free(sites->sites[i].engine_node, UINT64_MAX);
		site_power_on(&sites->sites[i]);
	}
}
