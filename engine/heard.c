/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of the primary, and from it how far this copy is behind. A report ages: what was
 * not heard since may have been written, so the lag in time keeps growing until something is heard
 * again.
 *
 * Invariant T1: a lag is told only from the position to which a promote would go, and only when
 * that position lies on the history that was reported: seqs of two histories are never subtracted.
 * Everything else is not known, which is never nothing.
 */
#include <stdio.h>

#include "core/base/checked.h"
#include "core/group/group_dir.h"
#include "engine/internal.h"

void heard_begin(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;

	group->heard = (struct heard){
		.ever = sb->heard_time_ns != 0,
		.wall_ns = sb->heard_time_ns,
		.head_seq = sb->heard_head_seq,
		.head_bytes = sb->heard_head_bytes,
	};
	group->stored_heard_ns = sb->heard_time_ns;
	/* Who it is, as long as nobody has said so: the only one that may be. */
	if (!group->source[0] && group->conf->peer_count == 1)
		snprintf(group->source, sizeof(group->source), "%s", group->conf->peers[0].node);
}

static void report(struct engine_group *group)
{
	group->heard.ever = group->heard.live = true;
	group->heard.at_ns = io_now(group->io);
	group->heard.wall_ns = io_wall(group->io);
}

void heard_hello(struct engine_group *group, const struct link_hello *hello)
{
	struct heard *heard = &group->heard;

	report(group);
	/* Its first heartbeat says what holds. */
	heard->mode = hello->mode == LINK_ASYNC ? LINK_ASYNC : LINK_SYNC_LOST;
	/* HELLO has only the durable head: what was heard of the same primary before may be more.
	 */
	if (hello->epoch == group->dir.sb.epoch && heard->head_seq > hello->head.seq)
		return;
	heard->head_seq = hello->head.seq;
	heard->head_bytes = max_u64(heard->head_bytes, hello->head.bytes);
	heard->behind_known = false;
}

void heard_beat(struct engine_group *group, const struct link_heartbeat *beat)
{
	struct heard *heard = &group->heard;

	report(group);
	heard->head_seq = beat->head.seq;
	heard->head_bytes = beat->head.bytes;
	heard->behind_known = true;
	heard->behind_ns = beat->behind_ns;
	heard->mode = beat->mode;
}

uint64_t heard_ago_ns(const struct engine_group *group)
{
	const struct heard *heard = &group->heard;
	uint64_t any_ns = max_u64(heard->any_ns, heard->live ? heard->at_ns : 0);

	if (session_connected(group))
		any_ns = max_u64(any_ns, link_heard_ns(group->link));
	if (any_ns)
		return sub_floor_u64(io_now(group->io), any_ns);
	return heard->ever ? sub_floor_u64(io_wall(group->io), heard->wall_ns) : UINT64_MAX;
}

/* Age of the last report. */
static uint64_t report_ago_ns(const struct engine_group *group)
{
	if (group->heard.live)
		return sub_floor_u64(io_now(group->io), group->heard.at_ns);
	return sub_floor_u64(io_wall(group->io), group->heard.wall_ns);
}

bool heard_parted(const struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;

	return sb->role == GROUP_FENCED || sb->fenced_by_epoch > sb->epoch ||
	       group->rejoin.diverged;
}

/* The kept position may be of a history that this copy is about to give up. */
static bool kept_is_ours(const struct superblock *sb)
{
	const struct superblock_kept *kept = &sb->kept;

	return history_common(sb->history, sb->history_count, UINT64_MAX, kept->history,
			      kept->history_count, kept->seq) == kept->seq;
}

void heard_lag_kept(const struct engine_group *group, struct status_lag *lag)
{
	const struct superblock_kept *kept = &group->dir.sb.kept;

	*lag = (struct status_lag)STATUS_LAG_UNKNOWN;
	if (kept->undo_id && kept_is_ours(&group->dir.sb))
		heard_lag(group, kept->seq, kept->bytes, kept->time_ns, lag);
}

void heard_lag(const struct engine_group *group, uint64_t seq, uint64_t bytes, uint64_t time_ns,
	       struct status_lag *lag)
{
	const struct heard *heard = &group->heard;

	*lag = (struct status_lag)STATUS_LAG_UNKNOWN;
	if (!heard->ever || heard_parted(group))
		return;
	lag->writes = sub_floor_u64(heard->head_seq, seq);
	lag->bytes = lag->writes ? sub_floor_u64(heard->head_bytes, bytes) : 0;
	lag->ns = report_ago_ns(group);
	if (!lag->writes)
		return; /* all that was reported is here */
	if (heard->behind_known)
		/* What it says of itself may be anything, UINT64_MAX means unknown here. */
		lag->ns = add_u64(lag->ns, heard->behind_ns, &lag->ns) ? lag->ns : UINT64_MAX;
	else if (time_ns) /* what is missing is not older than the last write that is here */
		lag->ns = max_u64(lag->ns, sub_floor_u64(io_wall(group->io), time_ns));
}
