/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Return of a copy whose history has parted from the one that rules: an old primary, or a standby
 * that was ahead of the one that was promoted.
 *
 *   HELLO -> how far do both histories agree? -> as far as ours goes: no divergence, follow
 *                                             -> less: refused, until the operator's word
 *   with that word: salvage what is behind the common seq -> note its ranges -> WELCOME, RANGES
 *
 * Two writers of one epoch look the same by their histories. The primary sees it by the chain and
 * says so (REFUSE): then nothing is known to be common.
 *
 * Invariant V2: nothing of this copy is given up (START accepted) before the records behind the
 * common seq are durable in a salvage file, as far as the journal holds them. Invariant V5: where
 * it does not hold all of them, nothing is given up before the operator has said so with that in
 * mind: REJOIN_LOSS, which no configuration stands in for. Invariant V3: the ranges sent cover
 * everything that those records wrote; where that is not known, the chain value at the common seq
 * is not told, and the primary copies everything. Ranges that are too large cost time only. They
 * need not survive a crash: until START is stored the journal holds the records, and from then on
 * the primary's dirty map, which was durable before it sent START, has them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/base/log.h"
#include "core/group/openings.h"
#include "engine/internal.h"

#define RANGES_PER_FRAME (FRAME_CONTROL_MAX_BYTES / FRAME_RANGE_BYTES)
#define RANGES_MAX	 (16u * RANGES_PER_FRAME) /* they fit into an empty link */
#define RANGE_BYTES_MAX	 (1ull << 40)

uint64_t rejoin_common(const struct engine_group *group, const struct link_hello *hello)
{
	const struct superblock *sb = &group->dir.sb;

	if (group->rejoin.parted_epoch == hello->epoch &&
	    !strcmp(group->rejoin.parted_node, hello->node))
		return 0;
	return history_common(hello->history, hello->history_count, hello->head.seq, sb->history,
			      sb->history_count, group->journal.durable_seq);
}

bool rejoin_approved(const struct engine_group *group, const struct link_hello *hello)
{
	const struct superblock *sb = &group->dir.sb;

	/* A primary of our own epoch that lacks what we hold is older than us: nobody's word lets
	 * it overwrite that. */
	if (hello->epoch <= sb->epoch)
		return false;
	/* What no salvage can hold is given up by an explicit word only (V5). */
	if (!(sb->flags & SUPERBLOCK_REJOIN_LOSS) &&
	    rejoin_missing(group, rejoin_common(group, hello)))
		return false;
	return (sb->flags & SUPERBLOCK_REJOIN) || group->conf->rejoin_auto;
}

uint64_t rejoin_missing(const struct engine_group *group, uint64_t common_seq)
{
	const struct journal *journal = &group->journal;

	if (!group->journal_open || common_seq >= journal->durable_seq)
		return 0;
	return sub_floor_u64(min_u64(journal_oldest_seq(journal), journal->durable_seq + 1),
			     common_seq + 1);
}

static void remembered(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, rejoin.store_op);

	group->rejoin.storing = false;
	if (res < 0)
		standby_fail(group, (int)res, "the superblock cannot be written");
	standby_poke(group);
}

/* A higher epoch rules, and this copy does not follow it yet: whoever comes with a lower one is
 * told, and a promote here goes beyond it, also after a restart. */
static void remember_epoch(struct engine_group *group, const struct link_hello *hello)
{
	struct superblock *sb = &group->dir.sb;
	struct rejoin *rejoin = &group->rejoin;

	if (hello->epoch <= max_u64(sb->epoch, sb->fenced_by_epoch) || rejoin->storing ||
	    group->state != ENGINE_READY)
		return;
	sb->fenced_by_epoch = hello->epoch;
	memset(sb->fenced_by, 0, sizeof(sb->fenced_by));
	snprintf(sb->fenced_by, sizeof(sb->fenced_by), "%s", hello->node);
	rejoin->storing = true;
	rejoin->store_op.done = remembered;
	group_dir_store(&group->dir, &rejoin->store, &rejoin->store_op);
}

void rejoin_note(struct engine_group *group, const struct link_hello *hello)
{
	struct rejoin *rejoin = &group->rejoin;
	uint64_t common_seq = rejoin_common(group, hello);

	if (common_seq == group->journal.durable_seq)
		return;
	if (rejoin->common_seq != common_seq)
		log_warning("this copy has diverged",
			    "group=%s primary=%s epoch=%" PRIu64 " common_seq=%" PRIu64
			    " seq=%" PRIu64,
			    group->conf->name, hello->node, hello->epoch, common_seq,
			    group->journal.durable_seq);
	rejoin->diverged = true;
	rejoin->common_seq = common_seq;
	rejoin->epoch = hello->epoch;
	snprintf(rejoin->node, sizeof(rejoin->node), "%s", hello->node);
	remember_epoch(group, hello);
}

bool rejoin_keeps_journal(const struct engine_group *group)
{
	return group->rejoin.diverged || group->dir.sb.role == GROUP_FENCED ||
	       (group->dir.sb.flags & SUPERBLOCK_REJOIN);
}

/* ---- preparing --------------------------------------------------------------------------------
 */

static void drop(struct engine_group *group)
{
	struct rejoin *rejoin = &group->rejoin;

	rejoin->salvage = salvage_free(rejoin->salvage);
	rejoin->ranges = dirty_free(rejoin->ranges);
	rejoin->state = REJOIN_IDLE;
}

void rejoin_session_over(struct engine_group *group)
{
	group->session.diverged = false;
	if (!salvage_busy(group->rejoin.salvage))
		drop(group);
}

void rejoin_over(struct engine_group *group)
{
	rejoin_session_over(group);
	group->rejoin.diverged = false;
	group->rejoin.common_seq = group->rejoin.parted_epoch = 0;
}

void rejoin_refused(struct engine_group *group, const uint8_t *body, uint32_t len)
{
	struct link_refuse refuse;

	if (link_refuse_unpack(body, len, &refuse) || refuse.code != LINK_REFUSE_DIVERGED) {
		session_error(group, "the primary sent a REFUSE that is not valid");
		return;
	}
	group->rejoin.parted_epoch = group->session.hello.epoch;
	snprintf(group->rejoin.parted_node, sizeof(group->rejoin.parted_node), "%s",
		 group->session.hello.node);
	rejoin_note(group, &group->session.hello);
	session_end(group, refuse.text);
}

bool rejoin_busy(const struct engine_group *group)
{
	return salvage_busy(group->rejoin.salvage) || group->rejoin.storing;
}

static void take_segment(void *owner, const struct segment_header *header, const uint8_t *table)
{
	struct engine_group *group = owner;
	struct rejoin *rejoin = &group->rejoin;

	for (uint32_t i = 0; i < header->records; i++) {
		const struct volume *volume;
		struct record record;

		if (record_decode(table + (size_t)i * RECORD_BYTES, header, &record)) {
			rejoin->everything = true;
			continue;
		}
		if (!record_has_range(&record))
			continue;
		volume = volumes_by_id(&group->volumes, record.volume);
		if (volume &&
		    range_valid(record.offset_bytes, record.length_bytes, volume->id.size_bytes))
			dirty_set(rejoin->ranges, record.volume, record.offset_bytes,
				  record.length_bytes);
		else
			rejoin->everything = true;
	}
}

static void salvaged(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, rejoin.op);
	struct rejoin *rejoin = &group->rejoin;
	const struct salvage_result *result = salvage_result(rejoin->salvage);

	rejoin->state = REJOIN_READY;
	rejoin->res = (int)res;
	rejoin->chain = result->chain;
	rejoin->everything |=
		result->missing > 0 || !result->chain || (group->dir.sb.flags & SUPERBLOCK_SYNCING);
	if (!res && result->name[0])
		log_warning("records of another history are kept aside",
			    "group=%s file=salvage/%s records=%" PRIu64 " bytes=%" PRIu64
			    " missing=%" PRIu64,
			    group->conf->name, result->name, result->records, result->bytes,
			    result->missing);
	else if (!res && result->missing)
		log_warning("records of another history are gone",
			    "group=%s first_seq=%" PRIu64 " missing=%" PRIu64, group->conf->name,
			    rejoin->common_seq + 1, result->missing);
	standby_poke(group);
}

static int begin(struct engine_group *group)
{
	struct rejoin *rejoin = &group->rejoin;
	struct salvage_options options = { .io = group->io,
					   .dir = group->dir.path,
					   .journal = &group->journal,
					   .segment = take_segment,
					   .owner = group };
	int r;

	r = salvage_new(&options, &rejoin->salvage);
	/* Only in memory: it never gets a file. */
	if (!r)
		r = dirty_new(group->io, group->dir.path, &group->dir.sb, &rejoin->ranges);
	if (r) {
		drop(group);
		return r;
	}
	rejoin->state = REJOIN_RUNNING;
	rejoin->everything = false;
	rejoin->first_seq = rejoin->common_seq + 1;
	rejoin->last_seq = group->journal.durable_seq;
	rejoin->op.done = salvaged;
	salvage_run(rejoin->salvage, rejoin->first_seq, rejoin->last_seq, &rejoin->op);
	return 0;
}

/* Its position says nothing about its content: it was rolled back or changed behind our back; or a
 * copy began under another primary, whose map says what is missing, and ours need not. */
static bool is_unknown(const struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;

	return (sb->flags & SUPERBLOCK_SELF_DIRTY) ||
	       ((sb->flags & SUPERBLOCK_SYNCING) && group->session.hello.epoch > sb->epoch);
}

int rejoin_prepare(struct engine_group *group, char *error, size_t error_max)
{
	struct rejoin *rejoin = &group->rejoin;
	int r = 0;

	if (rejoin->state == REJOIN_RUNNING)
		return REJOIN_E_WAIT;
	rejoin->diverged = false;
	rejoin_note(group, &group->session.hello);
	group->session.diverged = rejoin->diverged || is_unknown(group);
	if (!rejoin->diverged)
		return 0;
	if (rejoin->state == REJOIN_READY) {
		bool fits = !rejoin->res && rejoin->first_seq == rejoin->common_seq + 1 &&
			    rejoin->last_seq == group->journal.durable_seq;

		r = rejoin->res;
		if (fits)
			return 0;
		if (r)
			snprintf(error, error_max, "%s", salvage_error(rejoin->salvage));
		drop(group);
		if (r)
			return r;
	}
	r = begin(group);
	if (r)
		snprintf(error, error_max, "no memory for bringing this copy back");
	return r ? r : REJOIN_E_WAIT;
}

/* ---- telling ----------------------------------------------------------------------------------
 */

/* The next range of a volume; what lies less than `gap` apart is one. */
static bool next_range(const struct dirty_map *map, unsigned volume_id, uint64_t from, uint64_t gap,
		       uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t off, len;

	if (!dirty_next(map, volume_id, from, RANGE_BYTES_MAX, ret_off, ret_len))
		return false;
	while (*ret_len < RANGE_BYTES_MAX &&
	       dirty_next(map, volume_id, *ret_off + *ret_len, RANGE_BYTES_MAX - *ret_len, &off,
			  &len) &&
	       off - (*ret_off + *ret_len) < gap)
		*ret_len = off + len - *ret_off;
	return true;
}

/* Calls for each range; returns how many. */
static uint64_t each_range(struct engine_group *group, uint64_t gap,
			   bool (*visit)(struct engine_group *group, unsigned volume_id,
					 uint64_t off, uint64_t len))
{
	uint64_t count = 0;

	for (unsigned i = 0; i < group->volumes.count; i++) {
		unsigned id = group->volumes.list[i].id.id;
		/* What lies behind the primary's size goes with the history in which it grew. */
		uint64_t size = admit_size(&group->session.hello, group->volumes.list[i].id.name);
		uint64_t from = 0, off, len;

		for (; next_range(group->rejoin.ranges, id, from, gap, &off, &len) && off < size;
		     from = off + len) {
			len = min_u64(len, size - off);
			count++;
			if (visit && !visit(group, id, off, len))
				return count;
		}
	}
	return count;
}

void rejoin_welcome(struct engine_group *group, struct link_welcome *welcome)
{
	struct rejoin *rejoin = &group->rejoin;
	uint64_t count;

	if (!group->session.diverged)
		return;
	welcome->diverged = true;
	welcome->common_seq = rejoin->diverged ? rejoin->common_seq : group->journal.durable_seq;
	if (welcome->common_seq != group->journal.durable_seq)
		welcome->writer = welcome->common_seq <= group->applied_seq
					  ? openings_at(&group->dir.sb, welcome->common_seq)
					  : 0;
	rejoin->gap = 0;
	rejoin->left = 0;
	/* Rolled back, it lacks what the primary counts as copied: nobody knows which ranges. */
	if (!rejoin->diverged || rejoin->everything || is_unknown(group))
		return;
	welcome->common_chain = rejoin->chain;
	while ((count = each_range(group, rejoin->gap, NULL)) > RANGES_MAX)
		rejoin->gap = rejoin->gap ? 2 * rejoin->gap : 1u << 20;
	rejoin->left = count;
	welcome->ranges = div_round_up(count, RANGES_PER_FRAME);
}

static bool send_range(struct engine_group *group, unsigned volume_id, uint64_t off, uint64_t len)
{
	struct rejoin *rejoin = &group->rejoin;
	uint8_t *entry = group->control + (size_t)rejoin->held * FRAME_RANGE_BYTES;
	struct frame frame = { .type = FRAME_RANGES, .epoch = group->dir.sb.epoch };

	le64_put(entry, off);
	le32_put(entry + 8, (uint32_t)(len / 512));
	le16_put(entry + 12, (uint16_t)volume_id);
	le16_put(entry + 14, 0);
	rejoin->left--;
	if (++rejoin->held < RANGES_PER_FRAME && rejoin->left)
		return true;
	frame.body_bytes = rejoin->held * FRAME_RANGE_BYTES;
	frame.seq = rejoin->left == 0;
	rejoin->held = 0;
	return !link_send(group->link, &frame, group->control);
}

void rejoin_send_ranges(struct engine_group *group)
{
	struct rejoin *rejoin = &group->rejoin;

	if (!group->session.diverged)
		return;
	rejoin->held = 0;
	if (rejoin->left)
		(void)each_range(group, rejoin->gap, send_range);
	if (rejoin->left)
		session_error(group, "the link has no room for the ranges that differ");
}

/* ---- the operator's word ----------------------------------------------------------------------
 */

void rejoin_task(struct engine_group *group)
{
	struct superblock *sb = &group->dir.sb;

	if (sb->role == GROUP_STANDBY && !group->rejoin.diverged) {
		task_finish(group, -EALREADY,
			    "the copy here is a standby, and no primary has come that lacks what "
			    "it holds: there is nothing to give up");
		return;
	}
	if (sb->role == GROUP_STANDBY && group->rejoin.epoch == sb->epoch) {
		task_finish(group, -EPERM,
			    "the primary is of the same epoch and older than this standby; promote "
			    "the standby, or accept the primary's state there first");
		return;
	}
	if (!group->task->without_salvage && group->rejoin.diverged &&
	    rejoin_missing(group, group->rejoin.common_seq)) {
		uint64_t common_seq = group->rejoin.common_seq,
			 missing = rejoin_missing(group, common_seq);

		task_finish(
			group, -EPERM,
			"of the writes %" PRIu64 " to %" PRIu64
			" that the ruling history does not have, the journal here no longer "
			"holds %" PRIu64 " to %" PRIu64
			": their content is on the volumes only and cannot become salvage; copy "
			"the volumes first if it is wanted, then repeat with --without-salvage",
			common_seq + 1, group->journal.durable_seq, common_seq + 1,
			common_seq + missing);
		return;
	}
	sb->flags |= SUPERBLOCK_REJOIN;
	if (group->task->without_salvage)
		sb->flags |= SUPERBLOCK_REJOIN_LOSS;
	task_store(group, "rejoin agreed");
}
