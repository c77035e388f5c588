/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Promote: cut the history at what was received, and make this copy the primary's.
 *
 *   end the session -> everything received is durable -> applied -> flushed
 *                   -> (the volumes are being copied to) back to the kept position, rollback.c
 *   -> one store of the superblock: role, epoch, history -> close, unlock -> the agent may adopt it
 *
 * Invariant M1: before that store the group is a standby, after it a primary; a crash anywhere
 * leaves one or the other, and promote can be run again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/units.h"
#include "engine/internal.h"

static void answer(struct io_timer *timer)
{
	struct engine_group *group = container_of(timer, struct engine_group, promote_timer);
	struct engine_promote *promote = group->promote;

	group->promote = NULL;
	group->promote_over = false;
	promote->done(promote);
}

/* The answer comes in a later turn: its receiver may do anything with the group. */
static void finish(struct engine_group *group, int res)
{
	group->promote->res = res;
	group->promote_over = true;
	group->promote_timer.fire = answer;
	io_timer_start(group->io, &group->promote_timer, 0);
}

void promote_finish(struct engine_group *group, int res, const char *format, ...)
{
	va_list args;

	if (!group->promote || group->promote_over)
		return;
	va_start(args, format);
	vsnprintf(group->promote->text, sizeof(group->promote->text), format, args);
	va_end(args);
	finish(group, res);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void fill_primary(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	struct engine_promote *promote = group->promote;

	promote->epoch = sb->epoch;
	promote->seq = sb->history_count ? sb->history[sb->history_count - 1].first_seq - 1 : 0;
}

void promote_foreign(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;

	if (sb->role == GROUP_FENCED) {
		promote_finish(group, -EPERM,
			       "the copy here was a primary and is fenced: epoch %" PRIu64
			       " rules at %s; its agent still has the directory: repeat in a "
			       "moment",
			       sb->fenced_by_epoch,
			       sb->fenced_by[0] ? sb->fenced_by : "another node");
		return;
	}
	fill_primary(group);
	promote_finish(group, -EALREADY, "the group is primary here already, under epoch %" PRIu64,
		       sb->epoch);
}

/* Of a copy that is consistent as it is: what was reported to it is true of all that it has
 * received.
 */
static enum engine_loss loss_by_mode(const struct engine_group *group)
{
	switch (group->heard.mode) {
	case LINK_SYNC_HELD:
		return ENGINE_LOSS_NONE;
	case LINK_SYNC_ALL:
		return ENGINE_LOSS_NONE_THEN;
	default:
		return ENGINE_LOSS_UNKNOWN;
	}
}

/* Without --force nobody is made primary against one that is known to rule elsewhere, or that was
 * met and lacks what is here: it may be serving. False when it was refused. */
static bool may_rule(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	const char *source = group->source[0] ? group->source : "another node";

	if (sb->role == GROUP_FENCED)
		promote_finish(group, -EPERM,
			       "the copy here was a primary and is fenced: epoch %" PRIu64
			       " rules at %s; bring it back with holdfast demote %s, or use "
			       "--force to make it primary against that one",
			       sb->fenced_by_epoch,
			       sb->fenced_by[0] ? sb->fenced_by : "another node",
			       group->conf->name);
	else if (sb->fenced_by_epoch > sb->epoch)
		promote_finish(group, -EPERM,
			       "epoch %" PRIu64 " rules at %s, and this copy of epoch %" PRIu64
			       " does not follow it; let it follow with holdfast demote %s, or "
			       "use --force to make it primary against that one",
			       sb->fenced_by_epoch, sb->fenced_by[0] ? sb->fenced_by : source,
			       sb->epoch, group->conf->name);
	else if (group->rejoin.diverged)
		promote_finish(group, -EPERM,
			       "%s was met as the primary of epoch %" PRIu64
			       ", lacks the writes here behind seq %" PRIu64
			       ", and may be serving; see that it is stopped or held, then use "
			       "--force to go on with what is here",
			       group->rejoin.node, group->rejoin.epoch, group->rejoin.common_seq);
	return !group->promote_over;
}

/* True when it was refused. */
static bool refused(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	struct engine_promote *promote = group->promote;

	promote->epoch = sb->epoch;
	promote->seq = group->journal.appended_seq;
	promote->heard_ns_ago = heard_ago_ns(group);
	if (promote->has_expect_epoch && promote->expect_epoch != sb->epoch) {
		promote_finish(group, -ESTALE,
			       "the current epoch is %" PRIu64 ", not %" PRIu64
			       ": somebody has promoted since, or it is another group; look at "
			       "holdfast status and repeat with the epoch shown there",
			       sb->epoch, promote->expect_epoch);
	} else if (!promote->force && !may_rule(group)) {
		return true;
	} else if ((sb->flags & SUPERBLOCK_SYNCING) && !sb->kept.undo_id) {
		promote_finish(group, -EUCLEAN,
			       "the volumes are being copied and are not consistent until that is "
			       "done; let the copy from %s finish",
			       group->source[0] ? group->source : "the primary");
	} else if (!(sb->flags & SUPERBLOCK_EVER_CONSISTENT)) {
		promote_finish(group, -EUCLEAN,
			       "this standby has never held a consistent copy; connect it to its "
			       "primary and let the first copy finish");
	} else if ((sb->flags & SUPERBLOCK_SUSPECT) && !promote->force) {
		promote_finish(group, -EPERM,
			       "a volume here was changed behind the engine's back: its content is "
			       "not known to be what was replicated; let a primary copy or compare "
			       "all of it, or use --force to make it primary as it is");
	} else if (!promote->force && session_alive(group)) {
		promote_finish(group, -EAGAIN,
			       "the primary %s is alive and connected (epoch %" PRIu64
			       "); stop it first, or use --force to take over from it",
			       group->source, sb->epoch);
	}
	return group->promote_over;
}

/* ---- the way ----------------------------------------------------------------------------------
 */

static void promoted(struct engine_group *group)
{
	struct engine_promote *promote = group->promote;
	const struct superblock *sb = &group->dir.sb;
	char lost[32] = "unknown";

	promote->epoch = sb->epoch;
	promote->seq = sb->applied_seq;
	promote->took_ns = io_now(group->io) - group->promote_since_ns;
	promote->text[0] = 0;
	if (promote->lost.writes != UINT64_MAX)
		snprintf(lost, sizeof(lost), "%" PRIu64, promote->lost.writes);
	log_info("promoted", "group=%s epoch=%" PRIu64 " seq=%" PRIu64 " lost_writes=%s",
		 group->conf->name, promote->epoch, promote->seq, lost);
	take_over_stored(group);
	standby_close(group);
	finish(group, 0);
	standby_foreign(group);
}

static void store_done(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	group->op_busy = false;
	if (res < 0)
		standby_fail(
			group, (int)res,
			"the superblock cannot be written, so it is not known whether the promote "
			"took effect");
	else
		standby_poke(group);
}

/* `known_epoch`: of a primary that was met and is not followed. */
static void add_epoch(struct superblock *sb, uint64_t known_epoch, uint64_t last_seq)
{
	/* Epochs that the old primary's history had begun behind our end were never ours. */
	while (sb->history_count && sb->history[sb->history_count - 1].first_seq > last_seq + 1)
		sb->history_count--;
	if (sb->history_count == HISTORY_MAX) {
		memmove(sb->history, sb->history + 1, (HISTORY_MAX - 1) * sizeof(sb->history[0]));
		sb->history_count--;
	}
	sb->epoch = max_u64(max_u64(sb->epoch, sb->fenced_by_epoch), known_epoch) + 1;
	sb->fenced_by_epoch = 0;
	memset(sb->fenced_by, 0, sizeof(sb->fenced_by));
	sb->history[sb->history_count++] = (struct history_entry){ sb->epoch, last_seq + 1 };
	for (unsigned i = sb->history_count; i < HISTORY_MAX; i++)
		sb->history[i] = (struct history_entry){ 0 };
}

static void flush_done(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	struct superblock *sb = &group->dir.sb;

	if (res < 0 || group->state != ENGINE_PROMOTING) {
		group->op_busy = false;
		if (res < 0)
			standby_fail(group, (int)res, "a volume failed to flush");
		return;
	}
	group_dir_set_applied(&group->dir, &group->applied_at);
	sb->durable_seq = group->applied_seq;
	sb->durable_time_ns = 0; /* a primary does not keep it up */
	add_epoch(sb, group->rejoin.diverged ? group->rejoin.epoch : 0, group->applied_seq);
	sb->role = GROUP_PRIMARY;
	/* Forced: no standby holds what is here; the agent marks them all. */
	sb->flags =
		SUPERBLOCK_CLEAN | SUPERBLOCK_EVER_CONSISTENT | (sb->flags & SUPERBLOCK_SUSPECT);
	sb->sync_end_seq = 0;
	memset(sb->stamps, 0, sizeof(sb->stamps)); /* of an older clean stop as primary */
	sb->promoted_time_ns = io_wall(group->io);
	sb->differing_ranges = 0; /* the old primary's content is what differs now */
	memset(sb->peers, 0, sizeof(sb->peers));
	sb->peer_count = 0;
	group->state_op.done = store_done;
	group_dir_store(&group->dir, &group->state_store, &group->state_op);
}

/* Where the history is cut, and what that is known to lose. */
static void fill_position(struct engine_group *group)
{
	struct engine_promote *promote = group->promote;
	const struct journal *journal = &group->journal;
	const struct superblock_kept *kept = &group->dir.sb.kept;
	const struct segment *last = segring_find(&group->ring, journal->appended_seq);

	if (group->rollback.wanted) {
		promote->position_time_ns = kept->time_ns;
		heard_lag_kept(group, &promote->lost);
		promote->loss = ENGINE_LOSS_UNKNOWN;
		return;
	}
	promote->position_time_ns = last ? last->header.last_time_ns : group->durable_time_ns;
	heard_lag(group, journal->appended_seq, journal->head.bytes, promote->position_time_ns,
		  &promote->lost);
	promote->differing_ranges = group->dir.sb.differing_ranges;
	promote->loss = heard_parted(group) ? ENGINE_LOSS_UNKNOWN : loss_by_mode(group);
}

/* The volumes are being copied to: first to the position that was kept. What was received since is
 * given up with the copy. */
static void roll_back(struct engine_group *group)
{
	if (!(group->dir.sb.flags & SUPERBLOCK_SYNCING)) { /* the copy has come to its end */
		group->rollback.wanted = group->hold = false;
		fill_position(group);
		standby_poke(group);
		return;
	}
	group->hold = true;
	kept_look(group);
	if (group->journal.durable_seq == group->journal.appended_seq &&
	    journal_is_quiet(&group->journal) && applier_idle(group) && !group->receiving &&
	    !rejoin_busy(group) && !group->task_storing && !group->dir.storing)
		rollback_begin(group);
}

void promote_step(struct engine_group *group)
{
	const struct journal *journal = &group->journal;

	if (group->op_busy)
		return;
	if (group->dir.sb.role == GROUP_PRIMARY) { /* stored */
		if (standby_quiet(group))
			promoted(group);
		return;
	}
	if (group->rollback.wanted) {
		roll_back(group);
		return;
	}
	if (journal->durable_seq < journal->appended_seq ||
	    group->applied_seq < journal->appended_seq) {
		applier_kick(group);
		return;
	}
	group->hold = true;
	if (!applier_idle(group))
		return;
	group->op_busy = true;
	group->state_op.done = flush_done;
	volumes_flush(&group->volumes, &group->state_op);
}

void promote_begin(struct engine_group *group)
{
	const struct journal *journal = &group->journal;

	if (refused(group))
		return;
	group->promote_since_ns = io_now(group->io);
	group->rollback.wanted = group->dir.sb.flags & SUPERBLOCK_SYNCING;
	fill_position(group);
	group->state = ENGINE_PROMOTING;
	log_info("promote begins",
		 "group=%s received_seq=%" PRIu64 " applied_seq=%" PRIu64 " kept_seq=%" PRIu64,
		 group->conf->name, journal->appended_seq, group->applied_seq,
		 group->dir.sb.kept.seq);
	session_end(group, "this standby is being promoted");
	applier_kick(group);
	standby_poke(group);
}

void promote_hand_over(struct engine_group *group, struct engine_promote *promote)
{
	const struct journal *journal = &group->journal;
	const struct segment *last = segring_find(&group->ring, journal->appended_seq);

	must(!group->promote && group->state == ENGINE_READY);
	group->promote = promote;
	group->promote_since_ns = io_now(group->io);
	promote->position_time_ns = last ? last->header.last_time_ns : group->durable_time_ns;
	group->state = ENGINE_PROMOTING;
	promote_step(group);
	standby_poke(group);
}

void engine_group_promote(struct engine_group *group, struct engine_promote *promote)
{
	promote->text[0] = 0;
	promote->epoch = promote->seq = promote->position_time_ns = promote->took_ns = 0;
	promote->differing_ranges = 0;
	promote->lost = (struct status_lag)STATUS_LAG_UNKNOWN;
	promote->loss = ENGINE_LOSS_UNKNOWN;
	promote->heard_ns_ago = UINT64_MAX;
	if (group->promote) {
		promote->res = -EBUSY;
		snprintf(promote->text, sizeof(promote->text), "a promote is under way");
		promote->done(promote);
		return;
	}
	group->promote = promote;
	switch (group->state) {
	case ENGINE_READY:
		promote_begin(group);
		break;
	case ENGINE_STARTING: /* goes on when it is ready */
		break;
	case ENGINE_FOREIGN:
		open_peek(group);
		break;
	case ENGINE_FAILED: /* what failed may be over: tried at once, and that answers */
		group->retry_at_ns = io_now(group->io);
		standby_poke(group);
		break;
	case ENGINE_PROMOTING:
	case ENGINE_STOPPING:
	case ENGINE_STOPPED:
		promote_finish(group, -ESHUTDOWN, "the engine stops");
		break;
	}
}
