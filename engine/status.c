/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "core/conf/peek.h"
#include "engine/internal.h"

static const char *role_text(const struct engine_group *group)
{
	bool fenced = group->dir_open && group->dir.sb.role == GROUP_FENCED;

	switch (group->state == ENGINE_FOREIGN || fenced ? group->dir.sb.role : GROUP_STANDBY) {
	case GROUP_PRIMARY:
		return "primary";
	case GROUP_FENCED:
		return "fenced";
	default:
		return "standby";
	}
}

static const char *state_text(const struct engine_group *group)
{
	switch (group->state) {
	case ENGINE_STARTING:
		return group->fail_res ? "failed" : "starting";
	case ENGINE_READY:
		if (!session_connected(group))
			return "waiting";
		return group->dir.sb.flags & SUPERBLOCK_SYNCING ? "syncing" : "receiving";
	case ENGINE_PROMOTING:
		return "promoting";
	case ENGINE_STOPPING:
		return "stopping";
	case ENGINE_STOPPED:
		return "stopped";
	case ENGINE_FOREIGN:
		return "released";
	case ENGINE_FAILED:
		return "failed";
	}
	must_not_reach();
}

static void fill_volumes(const struct engine_group *group, struct status_group *status)
{
	for (unsigned i = 0; group->volumes_open && i < group->volumes.count; i++) {
		struct status_volume *to = &status->volumes[status->volume_count++];
		const struct volume *volume = &group->volumes.list[i];

		snprintf(to->name, sizeof(to->name), "%s", volume->id.name);
		snprintf(to->path, sizeof(to->path), "%.*s", (int)sizeof(to->path) - 1,
			 volume->path);
		to->size_bytes = volume->id.size_bytes;
	}
}

static void fill_journal(const struct engine_group *group, struct status_group *s)
{
	const struct journal *journal = &group->journal;

	if (!group->journal_open)
		return;
	s->head_seq = journal->appended_seq;
	s->head_bytes = journal->head.bytes;
	s->durable_seq = journal->durable_seq;
	s->durable_bytes = group->durable_bytes;
	s->applied_seq = group->applied_seq;
	s->journal_size_bytes = journal->options.slot_bytes * journal->options.slots;
	s->journal_used_bytes = journal_used_bytes(journal);
	s->journal_oldest_seq = journal_oldest_seq(journal);
	s->journal_oldest_time_ns = journal_oldest_time_ns(journal);
	if (s->syncing)
		heard_lag_kept(group, &s->lag);
	else
		heard_lag(group, journal->durable_seq, group->durable_bytes, group->durable_time_ns,
			  &s->lag);
}

static void fill_source(struct engine_group *group, struct status_group *s)
{
	snprintf(s->source, sizeof(s->source), "%s", group->source);
	s->connected = session_connected(group);
	s->source_head_seq = group->heard.head_seq;
	s->source_head_bytes = group->heard.head_bytes;
	s->heard_ns_ago = heard_ago_ns(group);
	if (s->heard_ns_ago != UINT64_MAX)
		s->heard_time_ns = sub_floor_u64(io_wall(group->io), s->heard_ns_ago);
	copy_status(group, &s->sync);
}

void engine_group_status(struct engine_group *group, struct status_group *ret_status)
{
	struct status_group *s = ret_status;
	const struct superblock *sb = &group->dir.sb;

	memset(s, 0, sizeof(*s));
	snprintf(s->name, sizeof(s->name), "%s", group->conf->name);
	snprintf(s->node, sizeof(s->node), "%s", group->options.conf->node);
	snprintf(s->role, sizeof(s->role), "%s", role_text(group));
	snprintf(s->state, sizeof(s->state), "%s", state_text(group));
	snprintf(s->detail, sizeof(s->detail), "%s", group->detail);
	uuid_format(&sb->group, s->uuid);
	s->epoch = sb->epoch;
	s->fenced_by_epoch = sb->fenced_by_epoch;
	snprintf(s->fenced_by, sizeof(s->fenced_by), "%s", sb->fenced_by);
	s->rpo_objective_ns = group->conf->rpo_objective_ns;
	s->rto_objective_ns = group->conf->rto_objective_ns;
	s->syncing = sb->flags & SUPERBLOCK_SYNCING;
	s->ever_consistent = sb->flags & SUPERBLOCK_EVER_CONSISTENT;
	s->consistent = s->ever_consistent && !s->syncing && !(sb->flags & SUPERBLOCK_SUSPECT);
	kept_status(group, s);
	s->suspect = sb->flags & SUPERBLOCK_SUSPECT;
	s->diverged = group->rejoin.diverged;
	s->common_seq = group->rejoin.common_seq;
	s->salvage_missing = s->diverged ? rejoin_missing(group, s->common_seq) : 0;
	s->lag = (struct status_lag)STATUS_LAG_UNKNOWN;
	s->journal_full_ns = UINT64_MAX;
	s->verified_seq = sb->verified_seq;
	s->verified_time_ns = sb->verified_time_ns;
	s->differing_ranges = sb->differing_ranges;
	fill_journal(group, s);
	fill_source(group, s);
	s->writes = group->writes;
	s->written_bytes = group->written_bytes;
	s->segments = group->received_segments;
	s->segment_raw_bytes = group->raw_bytes;
	s->segment_stored_bytes = group->stored_bytes;
	s->applied_bytes = group->apply.written_bytes;
	s->checkpoints = group->checkpoints;
	s->errors = group->errors;
	s->received_segments = group->received_segments;
	s->received_bytes = group->received_bytes;
	s->rejected_epoch = group->rejected_epoch;
	s->rejected_corrupt = group->rejected_corrupt;
	s->write_set_bytes = group->ring.used_bytes;
	s->write_set_max_bytes = group->ring.size_bytes;
	fill_volumes(group, s);
	if (group->volumes_open)
		(void)peek_lacking(group->conf, sb, s->lacking, sizeof(s->lacking));
}
