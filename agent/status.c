/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "agent/ship.h"
#include "core/conf/peek.h"

static const char *state_text(const struct agent_group *group)
{
	switch (group->state) {
	case AGENT_STARTING:
		return "starting";
	case AGENT_SETTLING:
		return "settling";
	case AGENT_HELD:
		return "held";
	case AGENT_SERVING:
		return "serving";
	case AGENT_STOPPING:
		return "stopping";
	case AGENT_STOPPED:
		return "stopped";
	case AGENT_FENCED:
		return "fenced";
	case AGENT_FAILED:
		return "failed";
	}
	must_not_reach();
}

static void fill_volumes(const struct agent_group *group, struct status_group *status)
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

/* Whose word the start waits for. */
static void fill_settling(const struct agent_group *group, struct status_group *s)
{
	const struct ship *ship;

	for (unsigned i = 0; i < group->ship_count; i++) {
		ship = group->ships[i];
		if (!ship->settled) {
			snprintf(s->detail, sizeof(s->detail),
				 "waiting for %.64s to say which epoch rules%s%.120s",
				 ship->conf->node, ship->error[0] ? ": " : "", ship->error);
			return;
		}
	}
}

static void fill_handover(const struct agent_group *group, struct status_group *s)
{
	static const char *const texts[] = {
		[HANDOVER_NEARING] = "it comes near",
		[HANDOVER_DRAINING] = "requests are held until it has everything",
		[HANDOVER_STORING] = "requests are held until it has everything",
		[HANDOVER_ASKED] = "it was asked to take over and has not answered; nothing is "
				   "served before it has",
		[HANDOVER_CLEARING] = "it did not take over",
	};

	if (group->handover.state != HANDOVER_NONE && group->handover.ship)
		snprintf(s->detail, sizeof(s->detail), "switchover to %.64s: %s",
			 group->handover.ship->conf->node, texts[group->handover.state]);
}

void agent_group_status(struct agent_group *group, struct status_group *ret_status)
{
	struct status_group *s = ret_status;
	const struct superblock *sb = &group->dir.sb;
	const struct journal *journal = &group->journal;

	memset(s, 0, sizeof(*s));
	snprintf(s->name, sizeof(s->name), "%s", group->conf->name);
	snprintf(s->node, sizeof(s->node), "%s", group->options.conf->node);
	snprintf(s->role, sizeof(s->role), "%s",
		 group->state == AGENT_FENCED			? "fenced"
		 : group->dir_open && sb->role == GROUP_STANDBY ? "standby"
								: "primary");
	snprintf(s->state, sizeof(s->state), "%s", state_text(group));
	snprintf(s->detail, sizeof(s->detail), "%s", group->detail);
	if (group->state == AGENT_SETTLING)
		fill_settling(group, s);
	if (!agent_is_out(group))
		fill_handover(group, s);
	if (group->state == AGENT_HELD) {
		snprintf(s->held, sizeof(s->held), "%s", group->held.text);
		snprintf(s->detail, sizeof(s->detail), "%s", group->held.text);
	}
	s->suspect = sb->flags & SUPERBLOCK_SUSPECT;
	uuid_format(&sb->group, s->uuid);
	s->epoch = sb->epoch;
	s->fenced_by_epoch = sb->fenced_by_epoch;
	snprintf(s->fenced_by, sizeof(s->fenced_by), "%s", sb->fenced_by);
	s->rpo_objective_ns = group->conf->rpo_objective_ns;
	s->rto_objective_ns = group->conf->rto_objective_ns;
	s->head_seq = group->head_seq;
	s->journal_full_ns = UINT64_MAX;
	s->head_bytes = group->head_bytes;
	s->applied_seq = group->applied_seq;
	s->applied_bytes = group->apply.written_bytes;
	s->writes = group->writes;
	s->written_bytes = group->written_bytes;
	s->reads = group->reads_done;
	s->read_bytes = group->read_bytes;
	s->flushes = group->flushes;
	s->segments = group->segments;
	s->segment_raw_bytes = group->raw_bytes;
	s->segment_stored_bytes = group->stored_bytes;
	s->checkpoints = group->checkpoints;
	s->stalls = group->stalls;
	s->stall_ns = group->stall_ns;
	s->errors = group->errors;
	s->write_set_bytes = group->ring.used_bytes;
	s->write_set_max_bytes = group->ring.size_bytes;
	if (group->journal_open) {
		s->durable_seq = journal->durable_seq;
		s->durable_bytes = journal_durable_bytes(journal);
		s->journal_size_bytes = journal->options.slot_bytes * journal->options.slots;
		s->journal_used_bytes = journal_used_bytes(journal);
		s->journal_oldest_seq = journal_oldest_seq(journal);
		s->journal_oldest_time_ns = journal_oldest_time_ns(journal);
	}
	syncmode_status(group, s);
	ladder_status(group, s);
	fill_volumes(group, s);
	if (group->volumes_open)
		(void)peek_lacking(group->conf, sb, s->lacking, sizeof(s->lacking));
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_status(group->ships[i], &s->peers[s->peer_count++]);
}
