/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of histories: see sites.h. */
#include <string.h>

#include "core/base/hash64.h"
#include "core/base/macros.h"
#include "tests/sim/sites.h"

struct branch *tree_branch(struct tree *tree, struct branch *parent, uint64_t epoch,
			   uint64_t first_seq, uint64_t base_seq, unsigned site)
{
	struct branch *branch = sim_alloc(tree->world, sizeof(*branch));

	branch->parent = parent;
	branch->epoch = epoch;
	branch->first_seq = first_seq;
	branch->base_seq = branch->head = branch->acked = branch->durable = base_seq;
	branch->site = site;
	branch->number = tree->branch_count++;
	branch->next = tree->branches;
	tree->branches = branch;
	tree->epoch_max = max_u64(tree->epoch_max, epoch);
	return branch;
}

struct branch *tree_root(struct tree *tree, unsigned site)
{
	tree->next_id = 1;
	return tree_branch(tree, NULL, 1, 1, 0, site);
}

uint64_t tree_add(struct tree *tree, struct branch *branch, const struct tree_entry *entry)
{
	uint64_t at = branch->head - branch->base_seq;

	if (at == branch->room) {
		uint64_t room = max_u64(2 * branch->room, 256);
		struct tree_entry *entries = sim_alloc(tree->world, room * sizeof(*entries));

		if (at)
			memcpy(entries, branch->entries, at * sizeof(*entries));
		branch->entries = entries;
		branch->room = room;
	}
	branch->entries[at] = *entry;
	return ++branch->head;
}

/* The branch that has the entry of seq. */
static const struct branch *owner_of(const struct branch *branch, uint64_t seq)
{
	while (branch->parent && seq <= branch->base_seq)
		branch = branch->parent;
	return branch;
}

const struct tree_entry *tree_at(const struct branch *branch, uint64_t seq)
{
	branch = owner_of(branch, seq);
	return &branch->entries[seq - branch->base_seq - 1];
}

void tree_range(const struct tree *tree, const struct branch *branch, uint64_t seq, unsigned volume,
		unsigned sector, unsigned count, uint64_t *ids)
{
	bool found[SITES_SECTORS] = { false };
	unsigned left = count;

	/* Backwards: what is read was mostly written not long ago. */
	for (uint64_t n = seq; n > 0 && left > 0; n--) {
		const struct tree_entry *entry;
		unsigned from;

		branch = owner_of(branch, n);
		entry = &branch->entries[n - branch->base_seq - 1];
		from = entry->sector > sector ? entry->sector - sector : 0;
		if (entry->kind == TREE_MARK || entry->volume != volume)
			continue;
		for (unsigned i = from; i < count && sector + i < entry->sector + entry->count;
		     i++) {
			if (found[i])
				continue;
			found[i] = true;
			left--;
			ids[i] = entry->kind == TREE_WRITE ? entry->id : 0;
		}
	}
	for (unsigned i = 0; i < count && left > 0; i++)
		if (!found[i])
			ids[i] = tree->initial_id;
}

void tree_fill(uint8_t *bytes, uint64_t id, unsigned volume, unsigned sector)
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

uint64_t tree_id_of(const uint8_t *sector_bytes)
{
	uint64_t id;

	memcpy(&id, sector_bytes, sizeof(id));
	return id;
}

bool tree_equal(const struct tree *tree, const struct branch *branch, uint64_t seq, unsigned volume,
		const uint8_t *bytes, unsigned *ret_sector)
{
	uint64_t ids[SITES_SECTORS];
	uint8_t expect[SIM_SECTOR_BYTES];

	tree_range(tree, branch, seq, volume, 0, SITES_SECTORS, ids);
	for (unsigned i = 0; i < SITES_SECTORS; i++) {
		tree_fill(expect, ids[i], volume, i);
		*ret_sector = i;
		if (memcmp(expect, bytes + (size_t)i * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES) != 0)
			return false;
	}
	return true;
}

struct history_entry tree_epoch_at(const struct history_entry *history, unsigned count,
				   uint64_t seq)
{
	struct history_entry name = { 0, 0 };

	for (unsigned i = 0; i < count && history[i].first_seq <= seq + 1; i++)
		name = history[i];
	return name;
}

struct branch *tree_named(const struct tree *tree, const struct branch *after,
			  struct history_entry name, uint64_t seq)
{
	struct branch *branch = after ? after->next : tree->branches;

	while (branch && (branch->epoch != name.epoch || branch->first_seq != name.first_seq ||
			  branch->head < seq))
		branch = branch->next;
	return branch;
}

bool tree_has_twins(const struct tree *tree, uint64_t epoch)
{
	unsigned count = 0;

	for (const struct branch *branch = tree->branches; branch; branch = branch->next)
		count += branch->epoch == epoch;
	return count > 1;
}

bool tree_entries_equal(const struct tree_entry *a, const struct tree_entry *b)
{
	return a->kind == b->kind && a->volume == b->volume && a->sector == b->sector &&
	       a->count == b->count && a->id == b->id;
}

/* The last seq that both histories have from the same branch. */
uint64_t tree_common(const struct branch *a, const struct branch *b)
{
	uint64_t a_seq = a->head;

	for (; a; a_seq = min_u64(a_seq, a->base_seq), a = a->parent) {
		uint64_t b_seq = b->head;

		for (const struct branch *own = b; own;
		     b_seq = min_u64(b_seq, own->base_seq), own = own->parent)
			if (own == a)
				return min_u64(a_seq, b_seq);
	}
	return 0;
}
