/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/pair.h"

#include <string.h>

#include "core/base/hash64.h"

void model_init(struct model *model, struct sim_world *world)
{
	model->world = world;
	model->history = sim_alloc(world, PAIR_HISTORY_MAX * sizeof(*model->history));
	model->next_id = 1;
}

static void put(uint64_t ids[PAIR_VOLUMES][PAIR_SECTORS], const struct entry *entry)
{
	for (unsigned i = 0; entry->kind != ENTRY_MARK && i < entry->count; i++)
		ids[entry->volume][entry->sector + i] = entry->kind == ENTRY_WRITE ? entry->id : 0;
}

void model_state(const struct model *model, uint64_t seq, uint64_t ids[PAIR_VOLUMES][PAIR_SECTORS])
{
	for (unsigned v = 0; v < PAIR_VOLUMES; v++)
		for (unsigned s = 0; s < PAIR_SECTORS; s++)
			ids[v][s] = model->initial_id;
	for (uint64_t n = 1; n <= seq; n++)
		put(ids, &model->history[n]);
}

uint64_t model_sector(const struct model *model, uint64_t seq, unsigned volume, unsigned sector)
{
	for (uint64_t n = seq; n > 0; n--) {
		const struct entry *entry = &model->history[n];

		if (entry->kind != ENTRY_MARK && entry->volume == volume &&
		    entry->sector <= sector && sector < entry->sector + entry->count)
			return entry->kind == ENTRY_WRITE ? entry->id : 0;
	}
	return model->initial_id;
}

void model_range(const struct model *model, uint64_t seq, unsigned volume, unsigned sector,
		 unsigned count, uint64_t *ids)
{
	bool found[PAIR_SECTORS] = { false };
	unsigned left = count;

	/* Backwards: what is read was mostly written not long ago. */
	for (uint64_t n = seq; n > 0 && left > 0; n--) {
		const struct entry *entry = &model->history[n];
		unsigned from = entry->sector > sector ? entry->sector - sector : 0;

		if (entry->kind == ENTRY_MARK || entry->volume != volume)
			continue;
		for (unsigned i = from; i < count && sector + i < entry->sector + entry->count;
		     i++) {
			if (found[i])
				continue;
			found[i] = true;
			left--;
			ids[i] = entry->kind == ENTRY_WRITE ? entry->id : 0;
		}
	}
	for (unsigned i = 0; i < count && left > 0; i++)
		if (!found[i])
			ids[i] = model->initial_id;
}

void model_fill(uint8_t *bytes, uint64_t id, unsigned volume, unsigned sector)
{
	uint64_t words[4] = { id, volume, sector, 0 };

	memset(bytes, 0, SIM_SECTOR_BYTES);
	if (!id)
		return;
	words[3] = hash64(id, words, 24);
	/* Half of the writes compress well. */
	for (unsigned at = 0; at < SIM_SECTOR_BYTES; at += sizeof(words)) {
		if (id & 1)
			words[3] = hash64(words[3], &at, sizeof(at));
		memcpy(bytes + at, words, sizeof(words));
	}
}

void model_compare(const struct model *model, uint64_t seq, unsigned volume, unsigned sector,
		   unsigned count, const uint8_t *bytes, const char *what)
{
	static uint64_t ids[PAIR_VOLUMES][PAIR_SECTORS];
	uint8_t expect[SIM_SECTOR_BYTES];

	model_state(model, seq, ids);
	for (unsigned i = 0; i < count; i++) {
		uint64_t id = ids[volume][sector + i], have;

		model_fill(expect, id, volume, sector + i);
		if (!memcmp(expect, bytes + (size_t)i * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES))
			continue;
		memcpy(&have, bytes + (size_t)i * SIM_SECTOR_BYTES, sizeof(have));
		sim_fail(model->world,
			 "%s: volume %u sector %u is not the state at seq %llu: write %llu "
			 "expected, "
			 "write %llu there",
			 what, volume, sector + i, (unsigned long long)seq, (unsigned long long)id,
			 (unsigned long long)have);
	}
}

void model_recovered(struct model *model, uint64_t head, bool power, const char *what)
{
	uint64_t least = power ? model->durable : model->acked;

	if (head < least)
		sim_fail(model->world, "%s: recovered to seq %llu, but seq %llu was %s", what,
			 (unsigned long long)head, (unsigned long long)least,
			 power ? "promised durable" : "acknowledged");
	if (head > model->head)
		sim_fail(model->world, "%s: recovered to seq %llu, but only %llu were written",
			 what, (unsigned long long)head, (unsigned long long)model->head);
	model->head = head;
	if (model->acked > head)
		model->acked = head;
}
