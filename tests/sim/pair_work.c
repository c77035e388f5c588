/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clients: random writes, zeroes, flushes and reads against whatever serves now.
 */
#include <errno.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/pair.h"

#define PAIR_GHOSTS 8u
#define BUF_SECTORS 32u

/* What a former primary never answers does not keep the new one from work. */
static struct request *request_take(struct pair *pair, const struct site *site)
{
	if (work_waiting(pair, site) >= PAIR_REQUESTS)
		return NULL;
	for (unsigned i = 0; i < array_len(pair->requests); i++)
		if (!pair->requests[i].busy)
			return &pair->requests[i];
	return NULL;
}

static void check_read(struct pair *pair, struct request *request)
{
	uint64_t before[PAIR_SECTORS];
	struct model *model = &pair->model;
	uint8_t expect[SIM_SECTOR_BYTES];

	model_range(model, request->head_at_submit, request->volume, request->sector,
		    request->count, before);
	for (unsigned i = 0; i < request->count; i++) {
		unsigned sector = request->sector + i;
		bool found = false;

		/* The state at any moment between submit and completion will do, sector by sector.
		 */
		for (uint64_t seq = request->head_at_submit; seq <= model->head && !found; seq++) {
			const struct entry *entry = &model->history[seq];
			uint64_t id;

			if (seq > request->head_at_submit &&
			    (entry->kind == ENTRY_MARK || entry->volume != request->volume ||
			     entry->sector > sector || entry->sector + entry->count <= sector))
				continue;
			if (seq == request->head_at_submit)
				id = before[i];
			else
				id = entry->kind == ENTRY_WRITE ? entry->id : 0;
			model_fill(expect, id, request->volume, sector);
			found = !memcmp(expect, request->buf + (size_t)i * SIM_SECTOR_BYTES,
					SIM_SECTOR_BYTES);
		}
		if (!found) {
			uint64_t have;

			memcpy(&have, request->buf + (size_t)i * SIM_SECTOR_BYTES, sizeof(have));
			sim_fail(pair->world,
				 "read of volume %u sector %u: write %llu is neither the newest at "
				 "seq %llu (%llu) nor one made meanwhile",
				 request->volume, sector, (unsigned long long)have,
				 (unsigned long long)request->head_at_submit,
				 (unsigned long long)model_sector(model, request->head_at_submit,
								  request->volume, sector));
		}
	}
	pair->reads_checked++;
}

static void request_done(struct export_request *export_request, int64_t res)
{
	struct request *request = container_of(export_request, struct request, request);
	struct pair *pair = request->pair;
	struct model *model = &pair->model;

	sim_check(pair->world, request->busy);
	request->busy = false;
	pair->requests_done++;
	if (request->site->fenced && res >= 0 && sim_now(pair->world) > request->site->fenced_ns)
		sim_fail(pair->world, "a request was acknowledged by a fenced primary");
	if (request->ghost && pair->sync_freeze && res >= 0)
		sim_fail(pair->world, "a former primary acknowledged a write without its standby");
	if (request->ghost)
		return;
	if (request->site == pair->primary && request->incarnation != pair->incarnation) {
		if (res >= 0) /* the group had said that it failed */
			sim_fail(pair->world, "a request was acknowledged after the group failed");
		return;
	}
	if (res < 0) {
		/* Fenced, failed or stopping: no promise was made. */
		if (request->site == pair->primary && !pair->failing_ok &&
		    request->site->agent_up && res != -ESHUTDOWN)
			sim_fail(pair->world, "a request failed: %s", strerror((int)-res));
		return;
	}
	if (request->site != pair->primary)
		return; /* an old primary that does not know yet: its history is its own */
	switch (request->request.op) {
	case EXPORT_WRITE:
	case EXPORT_TRIM:
	case EXPORT_WRITE_ZEROES:
		if (request->seq > model->acked)
			model->acked = request->seq;
		if ((pair->writethrough || (request->request.flags & EXPORT_FUA)) &&
		    request->seq > model->durable)
			model->durable = request->seq;
		if ((pair->writethrough || (request->request.flags & EXPORT_FUA)) &&
		    request->seq > pair->pledged)
			pair->pledged = request->seq;
		break;
	case EXPORT_FLUSH:
		if (request->covers > model->durable)
			model->durable = request->covers;
		if (request->covers > pair->pledged)
			pair->pledged = request->covers;
		break;
	case EXPORT_READ:
		check_read(pair, request);
		break;
	case EXPORT_CACHE:
	case EXPORT_MAP:
		return;
	}
	/* A promise is tested best at once. */
	if (pair->strike_ppm && sim_chance(pair->world, pair->strike_ppm))
		pair->strike(pair, sim_chance(pair->world, 600000) ? SIM_POWER : SIM_KILL);
}

static uint8_t *aligned_buffer(struct sim_world *world, unsigned sectors)
{
	uint8_t *bytes = sim_alloc(world, (size_t)sectors * SIM_SECTOR_BYTES + 4096);

	return bytes + (4096 - (uintptr_t)bytes % 4096) % 4096;
}

static struct request *prepare(struct pair *pair, struct site *site, enum export_op op,
			       unsigned volume, unsigned sector, unsigned count, unsigned flags)
{
	struct request *request = request_take(pair, site);
	struct export *export = site->agent_up ? agent_group_export_at(site->agent, volume) : NULL;

	if (!request || !export)
		return NULL;
	request->pair = pair;
	request->site = site;
	request->busy = true;
	request->ghost = false;
	request->incarnation = pair->incarnation;
	request->volume = volume;
	request->sector = sector;
	request->count = count;
	request->head_at_submit = pair->model.acked;
	request->covers = pair->model.acked;
	if (!request->buf || request->buf_sectors < count) {
		request->buf_sectors = count > BUF_SECTORS ? count : BUF_SECTORS;
		request->buf = aligned_buffer(pair->world, request->buf_sectors);
	}
	memset(&request->request, 0, sizeof(request->request));
	request->request.done = request_done;
	request->request.op = op;
	request->request.flags = flags;
	request->request.offset_bytes = (uint64_t)sector * SIM_SECTOR_BYTES;
	request->request.length_bytes = (uint64_t)count * SIM_SECTOR_BYTES;
	request->request.buf = request->buf;
	return request;
}

static struct request *submit(struct pair *pair, enum export_op op, unsigned volume,
			      unsigned sector, unsigned count, unsigned flags)
{
	return prepare(pair, pair->primary, op, volume, sector, count, flags);
}

static void go(struct pair *pair, struct request *request)
{
	struct export *export = agent_group_export_at(request->site->agent, request->volume);

	(void)pair;
	export->ops->submit(export, &request->request);
}

static void enter(struct pair *pair, struct request *request, enum entry_kind kind, uint64_t id)
{
	struct model *model = &pair->model;

	sim_check(pair->world, model->head + 1 < PAIR_HISTORY_MAX);
	request->seq = ++model->head;
	model->history[request->seq] =
		(struct entry){ (uint8_t)kind, (uint8_t)request->volume, (uint16_t)request->sector,
				(uint16_t)request->count, id };
}

struct request *work_write(struct pair *pair, unsigned volume, unsigned sector, unsigned count,
			   unsigned flags)
{
	struct request *request = submit(pair, EXPORT_WRITE, volume, sector, count, flags);
	uint64_t id = pair->model.next_id;

	if (!request)
		return NULL;
	pair->model.next_id++;
	for (unsigned i = 0; i < count; i++)
		model_fill(request->buf + (size_t)i * SIM_SECTOR_BYTES, id, volume, sector + i);
	enter(pair, request, ENTRY_WRITE, id);
	go(pair, request);
	return request;
}

struct request *work_zero(struct pair *pair, unsigned volume, unsigned sector, unsigned count,
			  bool trim)
{
	struct request *request =
		submit(pair, trim ? EXPORT_TRIM : EXPORT_WRITE_ZEROES, volume, sector, count, 0);

	if (!request)
		return NULL;
	enter(pair, request, ENTRY_ZERO, 0);
	go(pair, request);
	return request;
}

struct request *work_flush(struct pair *pair)
{
	struct request *request = submit(pair, EXPORT_FLUSH, 0, 0, 0, 0);

	if (request)
		go(pair, request);
	return request;
}

struct request *work_read(struct pair *pair, unsigned volume, unsigned sector, unsigned count)
{
	struct request *request = submit(pair, EXPORT_READ, volume, sector, count, 0);

	if (request)
		go(pair, request);
	return request;
}

/* The dead process may still have had the buffer in a write: leave it alone, take a new one. */
void work_forget_site(struct pair *pair, const struct site *site)
{
	for (unsigned i = 0; i < array_len(pair->requests); i++) {
		struct request *request = &pair->requests[i];

		if (!request->busy || request->site != site)
			continue;
		request->busy = false;
		request->buf = NULL;
	}
}

void work_forget(struct pair *pair)
{
	work_forget_site(pair, pair->primary);
	pair->incarnation++;
}

unsigned work_waiting(const struct pair *pair, const struct site *site)
{
	unsigned count = 0;

	for (unsigned i = 0; i < array_len(pair->requests); i++)
		count += pair->requests[i].busy && pair->requests[i].site == site;
	return count;
}

void work_ghost(struct pair *pair, struct site *site)
{
	struct request *request;

	sim_check(pair->world, site != pair->primary);
	if (work_waiting(pair, site) >= PAIR_GHOSTS)
		return;
	request = prepare(pair, site, EXPORT_WRITE, 0, (unsigned)sim_between(pair->world, 0, 99), 8,
			  EXPORT_FUA);
	if (!request)
		return;
	request->ghost = true;
	memset(request->buf, 0x67, 8 * SIM_SECTOR_BYTES);
	go(pair, request);
}

static void one_of_work(struct pair *pair)
{
	struct sim_world *world = pair->world;
	unsigned volume = sim_chance(world, 300000) ? 1 - pair->focus : pair->focus;
	unsigned count = sim_chance(world, 700000)  ? 8
			 : sim_chance(world, 50000) ? 128
						    : (unsigned)sim_between(world, 1, 32);
	/* A hot corner: overwrites and overlaps are what breaks. */
	unsigned range = sim_chance(world, 600000) ? 40 : PAIR_SECTORS;
	unsigned sector = (unsigned)sim_between(world, 0, range - 1);
	uint64_t kind = sim_between(world, 0, 99);

	if (sector + count > PAIR_SECTORS)
		count = PAIR_SECTORS - sector;
	if (pair->model.head + PAIR_REQUESTS > PAIR_HISTORY_MAX - 1000)
		kind = 99; /* long enough: only look */
	if (kind < 65)
		work_write(pair, volume, sector, count, sim_chance(world, 50000) ? EXPORT_FUA : 0);
	else if (kind < 72)
		work_zero(pair, volume, sector, count, sim_chance(world, 500000));
	else if (kind < 80)
		work_flush(pair);
	else
		work_read(pair, volume, sector, count);
}

static void tick(void *context)
{
	struct pair *pair = context;
	struct sim_world *world = pair->world;
	uint64_t left = sim_chance(world, 100000) ? sim_between(world, 2, 12) : 1, pause_ns = 0;

	if (!pair->working)
		return;
	while (left--)
		one_of_work(pair);
	if (sim_chance(world, 10000)) /* a burst is over: flushes and checkpoints catch up */
		pause_ns = sim_between(world, 0, 400) * SIM_MS;
	if (sim_chance(world, 10000))
		pair->focus = 1 - pair->focus;
	sim_after(world, pause_ns + sim_between(world, 0, 2 * pair->pace_us) * SIM_US, tick, pair);
}

void work_start(struct pair *pair)
{
	if (pair->working)
		return;
	pair->working = true;
	sim_after(pair->world, 0, tick, pair);
}

void work_stop(struct pair *pair)
{
	pair->working = false;
}

bool work_idle(const struct pair *pair)
{
	for (unsigned i = 0; i < array_len(pair->requests); i++)
		if (pair->requests[i].busy && pair->requests[i].site == pair->primary)
			return false;
	return true;
}
