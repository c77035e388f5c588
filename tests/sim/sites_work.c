/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clients: random writes, zeroes, flushes and reads against whatever serves, also where more
 * than one does.
 */
#include <errno.h>
#include <string.h>

#include "agent/agent.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"

static void check_read(struct sites_request *request)
{
	struct tree *tree = request->place->tree;
	struct branch *branch = request->branch;
	uint64_t before[SITES_SECTORS];
	uint8_t expect[SIM_SECTOR_BYTES];

	tree_range(tree, branch, request->head_at_submit, request->volume, request->sector,
		   request->count, before);
	for (unsigned i = 0; i < request->count; i++) {
		const uint8_t *bytes = request->buf + (size_t)i * SIM_SECTOR_BYTES;
		unsigned sector = request->sector + i;
		bool found = false;

		/* The state at any moment between submit and completion will do, sector by sector.
		 */
		for (uint64_t seq = request->head_at_submit; seq <= branch->head && !found; seq++) {
			const struct tree_entry *entry = seq ? tree_at(branch, seq) : NULL;
			uint64_t id = before[i];

			if (seq > request->head_at_submit) {
				if (entry->kind == TREE_MARK || entry->volume != request->volume ||
				    entry->sector > sector ||
				    entry->sector + entry->count <= sector)
					continue;
				id = entry->kind == TREE_WRITE ? entry->id : 0;
			}
			tree_fill(expect, id, request->volume, sector);
			found = !memcmp(expect, bytes, SIM_SECTOR_BYTES);
		}
		if (!found)
			sim_fail(request->sites->world,
				 "%s/%s: read of volume %u sector %u: write %llu is neither the "
				 "newest at seq %llu (%llu) nor one made meanwhile",
				 request->place->site->name, request->place->name, request->volume,
				 sector, (unsigned long long)tree_id_of(bytes),
				 (unsigned long long)request->head_at_submit,
				 (unsigned long long)before[i]);
	}
}

static void acknowledged(struct sites_request *request)
{
	struct branch *branch = request->branch;

	switch (request->request.op) {
	case EXPORT_WRITE:
	case EXPORT_TRIM:
	case EXPORT_WRITE_ZEROES:
		if (request->seq > branch->acked)
			branch->acked = request->seq;
		if ((request->sites->writethrough || (request->request.flags & EXPORT_FUA)) &&
		    request->seq > branch->pledged)
			branch->pledged = request->seq;
		break;
	case EXPORT_FLUSH:
		if (request->covers > branch->pledged)
			branch->pledged = request->covers;
		break;
	case EXPORT_READ:
		check_read(request);
		break;
	case EXPORT_CACHE:
	case EXPORT_MAP:
		return;
	}
	if (branch->pledged > branch->durable)
		branch->durable = branch->pledged;
	/* A promise is tested best at once. */
	if (request->sites->strike_ppm &&
	    sim_chance(request->sites->world, request->sites->strike_ppm))
		sites_strike(request->place);
}

static void request_done(struct export_request *export_request, int64_t res)
{
	struct sites_request *request = container_of(export_request, struct sites_request, request);
	struct place *place = request->place;
	struct sim_world *world = request->sites->world;

	sim_check(world, request->busy);
	request->busy = false;
	if (res >= 0 && place->fenced && sim_now(world) > place->fenced_ns)
		sim_fail(world, "%s/%s acknowledged a request after it was fenced",
			 place->site->name, place->name);
	if (request->incarnation != place->incarnation) {
		if (res >= 0) /* the group had said that it failed */
			sim_fail(world, "%s/%s acknowledged a request after it failed",
				 place->site->name, place->name);
		return;
	}
	if (res >= 0) {
		acknowledged(request);
		return;
	}
	/* Fenced, failed or stopping: no promise was made. */
	if (!request->sites->failing_ok && place->agent_up && res != -ESHUTDOWN)
		sim_fail(world, "%s/%s: a request failed: %s", place->site->name, place->name,
			 strerror((int)-res));
}

static struct sites_request *take(struct sites *sites, unsigned group)
{
	for (unsigned i = 0; i < SITES_REQUESTS; i++)
		if (!sites->requests[group][i].busy)
			return &sites->requests[group][i];
	return NULL;
}

static uint8_t *aligned_buffer(struct sim_world *world)
{
	uint8_t *bytes = sim_alloc(world, SITES_BUF_SECTORS * SIM_SECTOR_BYTES + 4096);

	return bytes + (4096 - (uintptr_t)bytes % 4096) % 4096;
}

static void enter(struct sites_request *request)
{
	struct tree *tree = request->place->tree;
	bool write = request->request.op == EXPORT_WRITE;
	struct tree_entry entry = { write ? TREE_WRITE : TREE_ZERO, (uint8_t)request->volume,
				    (uint16_t)request->sector, (uint16_t)request->count,
				    write ? tree->next_id++ : 0 };

	for (unsigned i = 0; write && i < request->count; i++)
		tree_fill(request->buf + (size_t)i * SIM_SECTOR_BYTES, entry.id, request->volume,
			  request->sector + i);
	request->seq = tree_add(tree, request->branch, &entry);
}

struct sites_request *sites_submit(struct place *place, enum export_op op, unsigned volume,
				   unsigned sector, unsigned count, unsigned flags)
{
	struct sites_request *request = take(place->sites, place->group);
	struct export *export =
		place_serving(place) ? agent_group_export_at(place->agent, volume) : NULL;

	if (!request || !export)
		return NULL;
	request->sites = place->sites;
	request->place = place;
	request->branch = place->branch;
	request->busy = true;
	request->incarnation = place->incarnation;
	request->volume = volume;
	request->sector = sector;
	request->count = count;
	request->head_at_submit = request->covers = place->branch->acked;
	if (!request->buf)
		request->buf = aligned_buffer(place->sites->world);
	memset(&request->request, 0, sizeof(request->request));
	request->request.done = request_done;
	request->request.op = op;
	request->request.flags = flags;
	request->request.offset_bytes = (uint64_t)sector * SIM_SECTOR_BYTES;
	request->request.length_bytes = (uint64_t)count * SIM_SECTOR_BYTES;
	request->request.buf = request->buf;
	if (op == EXPORT_WRITE || op == EXPORT_TRIM || op == EXPORT_WRITE_ZEROES)
		enter(request);
	export->ops->submit(export, &request->request);
	return request;
}

/* The dead process may still have had the buffer in a write: leave it alone, take a new one. */
void sites_forget(struct place *place)
{
	for (unsigned i = 0; i < SITES_REQUESTS; i++) {
		struct sites_request *request = &place->sites->requests[place->group][i];

		if (!request->busy || request->place != place)
			continue;
		request->busy = false;
		request->buf = NULL;
	}
}

/* A primary goes on under another epoch: what was held until then becomes part of that. */
void sites_carry_over(struct place *place, struct branch *branch)
{
	struct branch *before = place->branch;

	for (uint64_t seq = branch->base_seq + 1; seq <= before->head; seq++)
		tree_add(place->tree, branch, tree_at(before, seq));
	before->head = branch->base_seq;
	for (unsigned i = 0; i < SITES_REQUESTS; i++) {
		struct sites_request *request = &place->sites->requests[place->group][i];

		if (request->busy && request->place == place)
			request->branch = branch;
	}
}

unsigned place_waiting(const struct place *place)
{
	unsigned count = 0;

	for (unsigned i = 0; i < SITES_REQUESTS; i++) {
		const struct sites_request *request = &place->sites->requests[place->group][i];

		count += request->busy && request->place == place;
	}
	return count;
}

/* The newest primary mostly; now and then one that ought to be none. */
static struct place *pick(struct sites *sites, unsigned group)
{
	struct place *best = NULL;

	for (unsigned i = 0; i < sites->site_count; i++) {
		struct place *place = sites_place(sites, i, group);

		if (!place_serving(place))
			continue;
		if (!best) {
			best = place;
			continue;
		}
		REACH(SITES_TWO_SERVE);
		if (sim_chance(sites->world, 300000) !=
		    (place->branch->number > best->branch->number))
			best = place;
	}
	return best;
}

static void one_of_work(struct sites *sites, unsigned group)
{
	struct sim_world *world = sites->world;
	struct place *place = pick(sites, group);
	unsigned volume = (unsigned)sim_between(world, 0, sites->volume_count - 1);
	unsigned count = sim_chance(world, 700000)  ? 8
			 : sim_chance(world, 50000) ? SITES_WRITE_MAX
						    : (unsigned)sim_between(world, 1, 32);
	/* A hot corner: overwrites and overlaps are what breaks. */
	unsigned range = sim_chance(world, 600000) ? 40 : SITES_SECTORS;
	unsigned sector = (unsigned)sim_between(world, 0, range - 1);
	uint64_t kind = sim_between(world, 0, 99);

	if (!place || place_waiting(place) > SITES_REQUESTS / 2)
		return;
	if (sector + count > SITES_SECTORS)
		count = SITES_SECTORS - sector;
	if (kind < 65)
		sites_submit(place, EXPORT_WRITE, volume, sector, count,
			     sim_chance(world, 50000) ? EXPORT_FUA : 0);
	else if (kind < 72)
		sites_submit(place, sim_chance(world, 500000) ? EXPORT_TRIM : EXPORT_WRITE_ZEROES,
			     volume, sector, count, 0);
	else if (kind < 80)
		sites_submit(place, EXPORT_FLUSH, 0, 0, 0, 0);
	else
		sites_submit(place, EXPORT_READ, volume, sector, count, 0);
}

static void tick(void *context)
{
	struct sites *sites = context;
	struct sim_world *world = sites->world;
	uint64_t left = sim_chance(world, 100000) ? sim_between(world, 2, 8) : 1, pause_ns = 0;

	if (!sites->working)
		return;
	while (left--)
		one_of_work(sites, (unsigned)sim_between(world, 0, sites->group_count - 1));
	if (sim_chance(world, 10000)) /* a burst is over: flushes and checkpoints catch up */
		pause_ns = sim_between(world, 0, 400) * SIM_MS;
	sim_after(world, pause_ns + sim_between(world, 0, 2 * sites->pace_us) * SIM_US, tick,
		  sites);
}

void sites_work_start(struct sites *sites)
{
	if (sites->working)
		return;
	sites->working = true;
	sim_after(sites->world, 0, tick, sites);
}

void sites_work_stop(struct sites *sites)
{
	sites->working = false;
}

bool sites_work_idle(const struct sites *sites)
{
	for (unsigned g = 0; g < sites->group_count; g++)
		for (unsigned i = 0; i < SITES_REQUESTS; i++)
			if (sites->requests[g][i].busy)
				return false;
	return true;
}
