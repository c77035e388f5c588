/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may extend this copy, and from where: the checks of HELLO and START, and what is taken over
 * from them. Nothing here has effects but admit_adopt(), which changes the superblock in memory and
 * the open volumes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/group/openings.h"
#include "engine/internal.h"

/*
 * An epoch, a seq or a count of bytes that comes from a peer: from here a promote still counts on
 * without wrapping, for longer than anything lives.
 */
#define COUNT_MAX ((uint64_t)INT64_MAX)

__attribute__((format(printf, 5, 6))) static int refuse(const struct engine_group *group,
							struct refusal *ret,
							enum link_refuse_code code, uint64_t epoch,
							const char *format, ...)
{
	va_list args;

	ret->code = code;
	ret->epoch = epoch;
	snprintf(ret->node, sizeof(ret->node), "%s", group->options.conf->node);
	va_start(args, format);
	vsnprintf(ret->text, sizeof(ret->text), format, args);
	va_end(args);
	return 1;
}

uint64_t history_epoch_at(const struct history_entry *history, unsigned count, uint64_t seq)
{
	uint64_t epoch = 0;

	for (unsigned i = 0; i < count && history[i].first_seq <= seq; i++)
		epoch = history[i].epoch;
	return epoch;
}

/* ---- HELLO ------------------------------------------------------------------------------------
 */

static const struct superblock_volume *find_volume(const struct link_hello *hello, const char *name)
{
	for (uint32_t i = 0; i < hello->volume_count; i++)
		if (!strcmp(hello->volumes[i].name, name))
			return &hello->volumes[i];
	return NULL;
}

uint64_t admit_size(const struct link_hello *hello, const char *name)
{
	const struct superblock_volume *volume = find_volume(hello, name);

	return volume ? volume->size_bytes : 0;
}

static int admit_volumes(struct engine_group *group, const struct link_hello *hello,
			 struct refusal *ret)
{
	const struct superblock *sb = &group->dir.sb;
	bool fresh = uuid_is_zero(&sb->group);

	for (unsigned i = 0; i < group->volumes.count; i++) {
		const struct volume *volume = &group->volumes.list[i];
		const struct superblock_volume *theirs = find_volume(hello, volume->id.name);

		if (!theirs)
			return refuse(group, ret, LINK_REFUSE_VOLUMES, sb->epoch,
				      "the standby has a volume \"%s\" that the primary does not",
				      volume->id.name);
		if (!fresh &&
		    (theirs->id != volume->id.id || !uuid_equal(&theirs->uuid, &volume->id.uuid)))
			return refuse(group, ret, LINK_REFUSE_VOLUMES, sb->epoch,
				      "volume \"%s\" of the primary is another one than the "
				      "standby's of that name",
				      volume->id.name);
		/* A file that was taken over once grows by itself (resize.c). */
		if (theirs->size_bytes > volume->info.size_bytes &&
		    (fresh || volume->info.is_device))
			return refuse(group, ret, LINK_REFUSE_VOLUMES, sb->epoch,
				      "volume \"%s\" has %" PRIu64
				      " bytes at the primary and only %" PRIu64
				      " at the standby; enlarge it there",
				      volume->id.name, theirs->size_bytes, volume->info.size_bytes);
	}
	/* Names differ on either side, so equal counts make it one to one. */
	if (hello->volume_count != group->volumes.count)
		return refuse(group, ret, LINK_REFUSE_VOLUMES, sb->epoch,
			      "the primary has %" PRIu32
			      " volumes, the standby %u; init it anew with "
			      "all of them",
			      hello->volume_count, group->volumes.count);
	return 0;
}

/* What decides about the superblock that would come of it: outside input never reaches an
 * assertion. */
static bool hello_sound(const struct link_hello *hello)
{
	return !uuid_is_zero(&hello->group_uuid) && hello->epoch >= 1 &&
	       hello->epoch <= COUNT_MAX && hello->history_count >= 1 &&
	       history_valid(hello->history, hello->history_count) &&
	       hello->history[hello->history_count - 1].epoch <= hello->epoch;
}

/* Every record here that theirs does not have needs somebody's word before it is given up. */
static int admit_history(struct engine_group *group, const struct link_hello *hello,
			 struct refusal *ret)
{
	const struct superblock *sb = &group->dir.sb;
	uint64_t held_seq = group->journal.durable_seq, common_seq = rejoin_common(group, hello);

	if (common_seq == held_seq || rejoin_approved(group, hello))
		return 0;
	if (group->rejoin.parted_epoch == hello->epoch && hello->epoch > sb->epoch)
		return refuse(group, ret, LINK_REFUSE_DIVERGED, sb->epoch,
			      "the copy here has diverged: its writes up to %" PRIu64
			      " are not those of the primary's history; holdfast demote %s here "
			      "keeps them as salvage and lets it follow",
			      held_seq, group->conf->name);
	if (hello->epoch == sb->epoch)
		return refuse(group, ret, LINK_REFUSE_DIVERGED, sb->epoch,
			      "the standby holds writes up to %" PRIu64
			      " that the primary's history (up to %" PRIu64
			      ") does not have: the primary is older than its standby; promote the "
			      "standby, or accept the primary's state there",
			      held_seq, hello->head.seq);
	if (rejoin_missing(group, common_seq))
		return refuse(
			group, ret, LINK_REFUSE_DIVERGED, sb->epoch,
			"the copy here holds writes %" PRIu64 " to %" PRIu64
			" that the primary's history does not have; the first %" PRIu64
			" are not in its journal any more and cannot become salvage: copy its "
			"volumes if they are wanted, then holdfast demote %s "
			"--without-salvage here",
			common_seq + 1, held_seq, rejoin_missing(group, common_seq),
			group->conf->name);
	return refuse(group, ret, LINK_REFUSE_DIVERGED, sb->epoch,
		      "the copy here holds writes %" PRIu64 " to %" PRIu64
		      " that the primary's history does not have; holdfast demote %s here keeps "
		      "them as salvage and lets it follow",
		      common_seq + 1, held_seq, group->conf->name);
}

/* Below it nobody may write here. */
static uint64_t ruling_epoch(const struct superblock *sb)
{
	return max_u64(sb->epoch, sb->fenced_by_epoch);
}

int admit_hello(struct engine_group *group, const struct link_hello *hello, struct refusal *ret)
{
	const struct superblock *sb = &group->dir.sb;
	int r;

	if (hello->protocol_min > PROTOCOL_VERSION || hello->protocol_max < PROTOCOL_VERSION ||
	    hello->features_required)
		return refuse(group, ret, LINK_REFUSE_VERSION, sb->epoch,
			      "the standby speaks protocol version %u without further features; "
			      "bring both sides to the same release",
			      PROTOCOL_VERSION);
	if (!hello_sound(hello))
		return refuse(group, ret, LINK_REFUSE_ERROR, sb->epoch,
			      "the primary's history of epochs contradicts itself");
	if (!uuid_is_zero(&sb->group) && !uuid_equal(&sb->group, &hello->group_uuid))
		return refuse(
			group, ret, LINK_REFUSE_WRONG_GROUP, sb->epoch,
			"the standby's group of this name is another one (other uuid); init it "
			"anew if it shall follow this primary");
	if (hello->epoch < ruling_epoch(sb)) {
		group->rejected_epoch++;
		return refuse(group, ret, LINK_REFUSE_STALE_EPOCH, ruling_epoch(sb),
			      "epoch %" PRIu64 " rules; yours is %" PRIu64
			      ": you are no longer the primary",
			      ruling_epoch(sb), hello->epoch);
	}
	if (sb->role == GROUP_FENCED && hello->epoch == sb->epoch)
		return refuse(group, ret, LINK_REFUSE_NOT_STANDBY, sb->epoch,
			      "the copy here was itself the primary of epoch %" PRIu64
			      "; it follows a higher one only",
			      sb->epoch);
	r = admit_volumes(group, hello, ret);
	if (r)
		return r;
	return admit_history(group, hello, ret);
}

void admit_foreign(struct engine_group *group, const struct link_hello *hello, struct refusal *ret)
{
	const struct superblock *sb = &group->dir.sb;

	if (sb->role == GROUP_FENCED) {
		bool stale = hello->epoch < sb->fenced_by_epoch;

		refuse(group, ret, stale ? LINK_REFUSE_STALE_EPOCH : LINK_REFUSE_NOT_STANDBY,
		       stale ? sb->fenced_by_epoch : sb->epoch,
		       "the copy here was a primary and is fenced: epoch %" PRIu64
		       " rules at %s; it must be brought back as a standby first",
		       sb->fenced_by_epoch, sb->fenced_by[0] ? sb->fenced_by : "another node");
		if (stale)
			group->rejected_epoch++;
	} else if (hello->epoch < sb->epoch) {
		group->rejected_epoch++;
		refuse(group, ret, LINK_REFUSE_STALE_EPOCH, sb->epoch,
		       "this node is the primary under epoch %" PRIu64 "; yours is %" PRIu64
		       ": you are no longer the primary",
		       sb->epoch, hello->epoch);
	} else {
		refuse(group, ret, LINK_REFUSE_NOT_STANDBY, sb->epoch,
		       "this node is the primary of the group under epoch %" PRIu64, sb->epoch);
	}
}

/* ---- START ------------------------------------------------------------------------------------
 */

const char *admit_start(const struct engine_group *group, const struct link_start *start)
{
	const struct superblock *sb = &group->dir.sb;
	bool fresh = uuid_is_zero(&sb->group);
	bool consistent =
		(sb->flags & SUPERBLOCK_EVER_CONSISTENT) && !(sb->flags & SUPERBLOCK_SYNCING);
	uint64_t received_seq = group->journal.appended_seq;

	if (start->from_seq < 1 || start->from_seq > COUNT_MAX || start->base.bytes > COUNT_MAX)
		return "START names a position that cannot be";
	if (group->session.diverged && !start->reset)
		return "START continues a history that was given up here";
	if (!start->sync && (start->reset || !consistent))
		return "the copy here is not whole, so the stream must begin with a copy of the "
		       "volumes";
	if (!start->reset && start->from_seq != received_seq + 1)
		return "START does not continue what the standby holds";
	if (start->reset && start->base.seq != start->from_seq - 1)
		return "START names two different beginnings";
	if (start->reset && start->base.seq < received_seq && !group->session.diverged)
		return "START would go back behind what the standby holds";
	if (fresh && !start->reset && start->from_seq != 1)
		return "START does not say where the stream begins";
	return NULL;
}

/* The primary's id, uuid and size of each volume are the group's. */
static void adopt_volumes(struct engine_group *group, const struct link_hello *hello, bool fresh)
{
	struct superblock *sb = &group->dir.sb;

	for (uint32_t i = 0; i < sb->volume_count; i++) {
		struct superblock_volume *ours = &sb->volumes[i];
		const struct superblock_volume *theirs = find_volume(hello, ours->name);

		must(theirs); /* admit_hello() saw it */
		ours->id = theirs->id;
		ours->uuid = theirs->uuid;
		/* It may have grown in a history that is given up now: the position that a copy
		 * keeps has it that large, until the copy ends (Z4). */
		ours->size_bytes = fresh || !sb->kept.undo_id
					   ? theirs->size_bytes
					   : max_u64(ours->size_bytes, theirs->size_bytes);
		group->grow.theirs[i] = theirs->size_bytes;
		group->volumes.list[i].id = *ours;
		group->grow.ready[i] = 0;
	}
}

void admit_adopt(struct engine_group *group)
{
	const struct link_hello *hello = &group->session.hello;
	const struct link_start *start = &group->session.start;
	struct superblock *sb = &group->dir.sb;
	struct journal_position base = { .seq = start->from_seq,
					 .chain = start->base.chain,
					 .bytes = start->base.bytes };

	sb->fenced_by_epoch = 0;
	memset(sb->fenced_by, 0, sizeof(sb->fenced_by));
	if (sb->role == GROUP_FENCED) {
		sb->role = GROUP_STANDBY;
		memset(sb->peers, 0, sizeof(sb->peers));
		sb->peer_count = 0;
	}
	adopt_volumes(group, hello, uuid_is_zero(&sb->group));
	sb->group = hello->group_uuid;
	sb->epoch = hello->epoch;
	sb->history_count = hello->history_count;
	memset(sb->history, 0, sizeof(sb->history));
	memcpy(sb->history, hello->history, hello->history_count * sizeof(sb->history[0]));
	sb->flags &= ~(uint32_t)(SUPERBLOCK_CLEAN | SUPERBLOCK_REJOIN | SUPERBLOCK_REJOIN_LOSS |
				 SUPERBLOCK_HANDOVER | SUPERBLOCK_HELD);
	memset(sb->handover_node, 0, sizeof(sb->handover_node));
	sb->handover_seq = 0;
	memset(sb->stamps, 0, sizeof(sb->stamps));
	sb->durable_seq = group->journal.durable_seq;
	sb->durable_time_ns = group->durable_time_ns;
	if (start->sync) {
		sb->flags |= SUPERBLOCK_SYNCING;
		sb->copy_id = start->copy_id;
		sb->sync_end_seq = UINT64_MAX;
	}
	if (start->reset) {
		/* Consistent are the volumes, or the position that is kept: here neither. */
		if (!sb->kept.undo_id)
			sb->flags &= ~(uint32_t)SUPERBLOCK_EVER_CONSISTENT;
		sb->flags &= ~(uint32_t)SUPERBLOCK_SELF_DIRTY;
		group_dir_set_applied(&group->dir, &base);
		sb->durable_seq = start->from_seq - 1;
		sb->durable_time_ns = 0;
		openings_begin(sb, start->writer, start->base.seq);
		group->last_writer = start->writer;
	}
}
