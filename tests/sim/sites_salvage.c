/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Salvage: what a copy gave up is kept aside, exactly (I7). Every record in a salvage file is what
 * its seq was on one branch, without gaps, up to the last seq of the file's name; and the last
 * record that the copy acknowledged as a primary, if the ruling history lacks it, is in one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "proto/segment.h"
#include "tests/sim/reach.h"
#include "tests/sim/sites.h"
#include "tests/sim/sites_internal.h"

struct looking {
	struct place *place;
	char folder[64];
	/* a seq of this branch must be there */
	const struct branch *branch;
	uint64_t seq;
	bool found;
};

static bool entry_is(const struct tree_entry *entry, const struct record *record,
		     const uint8_t *data)
{
	uint8_t expect[SIM_SECTOR_BYTES];

	if (record->type == RECORD_MARK)
		return entry->kind == TREE_MARK;
	if (entry->kind != (record->type == RECORD_WRITE ? TREE_WRITE : TREE_ZERO) ||
	    entry->volume != record->volume ||
	    entry->sector * (uint64_t)SIM_SECTOR_BYTES != record->offset_bytes ||
	    entry->count * SIM_SECTOR_BYTES != record->length_bytes)
		return false;
	for (unsigned i = 0; entry->kind == TREE_WRITE && i < entry->count; i++) {
		tree_fill(expect, entry->id, entry->volume, entry->sector + i);
		if (memcmp(expect, data + record->data_off + (size_t)i * SIM_SECTOR_BYTES,
			   SIM_SECTOR_BYTES) != 0)
			return false;
	}
	return true;
}

static bool segment_is(const struct branch *branch, const struct segment_header *header,
		       const uint8_t *table, const uint8_t *data)
{
	for (uint32_t i = 0; i < header->records; i++) {
		struct record record;

		if (record_decode(table + (size_t)i * RECORD_BYTES, header, &record) ||
		    !entry_is(tree_at(branch, header->first_seq + i), &record, data))
			return false;
	}
	return true;
}

static void check_file(struct looking *looking, const char *path, const char *name)
{
	struct place *place = looking->place;
	struct sim_world *world = place->sites->world;
	int64_t size = sim_file_size(place->site->engine_node, path);
	uint8_t *bytes = sim_alloc(world, (size_t)size + SEGMENT_TOTAL_MAX_BYTES);
	uint8_t *unpacked = sim_alloc(world, SEGMENT_DATA_MAX_BYTES);
	unsigned long long epoch = 0, first = 0, last = 0;
	uint64_t next = 0, at = 0;
	const struct branch *branch = NULL;

	if (sscanf(name, "%llu-%llu-%llu", &epoch, &first, &last) != 3)
		return; /* under its temporary name */
	sim_file_peek(place->site->engine_node, path, 0, bytes, (size_t)size);
	while (at < (uint64_t)size) {
		struct segment_header header;
		bool lz4;

		if (segment_header_decode(bytes + at, (size_t)size - at, &header))
			break;
		lz4 = header.flags & SEGMENT_LZ4;
		if (segment_unpack(bytes + at, &header, lz4 ? unpacked : NULL))
			sim_fail(world, "salvage %s: a segment does not unpack", path);
		if (next && header.first_seq != next)
			sim_fail(world, "salvage %s: seq %llu is missing", path,
				 (unsigned long long)next);
		for (branch = place->tree->branches; branch; branch = branch->next)
			if (branch->head >= segment_last_seq(&header) &&
			    segment_is(branch, &header, bytes + at + SEGMENT_HEADER_BYTES,
				       lz4 ? unpacked : bytes + at + header.data_off))
				break;
		if (!branch)
			sim_fail(world, "salvage %s: seq %llu to %llu are of no history", path,
				 (unsigned long long)header.first_seq,
				 (unsigned long long)segment_last_seq(&header));
		next = segment_last_seq(&header) + 1;
		looking->found |= looking->branch && header.first_seq <= looking->seq &&
				  looking->seq < next && looking->seq <= looking->branch->head &&
				  tree_entries_equal(tree_at(branch, looking->seq),
						     tree_at(looking->branch, looking->seq));
		at += header.total_bytes;
	}
	if (!branch || next != last + 1)
		return; /* cut short by a crash: another one has all of it */
	REACH(SITES_SALVAGED);
}

static void look(void *context, const char *path)
{
	struct looking *looking = context;
	size_t length = strlen(looking->folder);

	if (!strncmp(path, looking->folder, length))
		check_file(looking, path, path + length);
}

static bool look_for(struct place *place, const struct branch *branch, uint64_t seq)
{
	struct looking looking = { .place = place, .branch = branch, .seq = seq };

	snprintf(looking.folder, sizeof(looking.folder), SITES_STATE_DIR "/%s/salvage/",
		 place->name);
	sim_file_each(place->site->engine_node, look, &looking);
	return looking.found;
}

void place_check_salvage(struct place *place, const struct branch *ruling)
{
	const struct branch *given_up = place->branch;
	uint64_t least, common;

	if (!given_up || place->restored || given_up == ruling) {
		(void)look_for(place, NULL, 0);
		return;
	}
	least = place->power_lost ? given_up->durable : given_up->acked;
	common = tree_common(given_up, ruling);
	if (least <= common) {
		(void)look_for(place, NULL, 0);
	} else if (!look_for(place, given_up, least)) {
		sim_fail(
			place->sites->world,
			"%s/%s acknowledged seq %llu of epoch %llu, which parted at %llu: it is in "
			"no salvage",
			place->site->name, place->name, (unsigned long long)least,
			(unsigned long long)given_up->epoch, (unsigned long long)common);
	} else {
		REACH(SITES_SALVAGED_ACKED);
	}
}
