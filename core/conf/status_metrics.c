/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/status_metrics.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/units.h"

enum side {
	PRIMARY = 1u << 0, /* role primary or fenced */
	STANDBY = 1u << 1,
	BOTH = PRIMARY | STANDBY,
};

enum unit {
	COUNT, /* as it is; UINT64_MAX = no sample */
	NS,    /* seconds; UINT64_MAX = infinite */
	WALL,  /* seconds since 1970; 0 = no sample */
	SET,   /* as seconds; 0 = no sample */
	FLAG,  /* a bool */
};

/* One family of one number of a structure. */
struct family {
	const char *name, *type, *help;
	unsigned sides;
	enum unit unit;
	size_t group_offset; /* in struct status_group, NONE when there is none */
	size_t peer_offset;  /* in struct status_peer: one sample for each peer of a primary */
};
#define NONE	 SIZE_MAX
#define GROUP(m) offsetof(struct status_group, m)
#define PEER(m)	 offsetof(struct status_peer, m)

static const struct family families[] = {
	{ "holdfast_epoch", "gauge", "Epoch of the group's history here.", BOTH, COUNT,
	  GROUP(epoch), NONE },
	{ "holdfast_head_seq", "gauge", "Last sequence number that was assigned or received.", BOTH,
	  COUNT, GROUP(head_seq), NONE },
	{ "holdfast_durable_seq", "gauge", "Last sequence number that is durable in this journal.",
	  BOTH, COUNT, GROUP(durable_seq), NONE },
	{ "holdfast_applied_seq", "gauge", "Last sequence number that is durable on these volumes.",
	  BOTH, COUNT, GROUP(applied_seq), NONE },
	{ "holdfast_peer_durable_seq", "gauge",
	  "Last sequence number that the standby holds durably.", PRIMARY, COUNT, NONE,
	  PEER(durable_seq) },
	{ "holdfast_peer_applied_seq", "gauge",
	  "Last sequence number that the standby has applied to its volumes.", PRIMARY, COUNT, NONE,
	  PEER(applied_seq) },
	{ "holdfast_rpo_seconds", "gauge",
	  "Age of the oldest write that the standby lacks at the position to which it can be "
	  "promoted; +Inf where that is not known.",
	  BOTH, NS, GROUP(lag.ns), PEER(lag.ns) },
	{ "holdfast_replication_lag_bytes", "gauge",
	  "Bytes of writes that the standby lacks at that position.", BOTH, COUNT, GROUP(lag.bytes),
	  PEER(lag.bytes) },
	{ "holdfast_replication_lag_writes", "gauge",
	  "Writes that the standby lacks at that position.", BOTH, COUNT, GROUP(lag.writes),
	  PEER(lag.writes) },
	{ "holdfast_rpo_objective_seconds", "gauge",
	  "Configured objective for holdfast_rpo_seconds.", BOTH, SET, GROUP(rpo_objective_ns),
	  NONE },
	{ "holdfast_rto_objective_seconds", "gauge", "Configured objective for a promotion.", BOTH,
	  SET, GROUP(rto_objective_ns), NONE },
	{ "holdfast_heard_timestamp_seconds", "gauge",
	  "When the standby last heard of its primary.", STANDBY, WALL, GROUP(heard_time_ns),
	  NONE },
	{ "holdfast_source_head_seq", "gauge",
	  "Last sequence number of the primary as the standby last heard it.", STANDBY, COUNT,
	  GROUP(source_head_seq), NONE },
	{ "holdfast_journal_size_bytes", "gauge", "Size of the journal.", BOTH, COUNT,
	  GROUP(journal_size_bytes), NONE },
	{ "holdfast_journal_used_bytes", "gauge", "Bytes of the journal that are still needed.",
	  BOTH, COUNT, GROUP(journal_used_bytes), NONE },
	{ "holdfast_journal_oldest_timestamp_seconds", "gauge",
	  "Time of the oldest record that the journal holds.", BOTH, WALL,
	  GROUP(journal_oldest_time_ns), NONE },
	{ "holdfast_journal_full_seconds", "gauge",
	  "Until records must be released into dirty maps, as things go.", PRIMARY, NS,
	  GROUP(journal_full_ns), NONE },
	{ "holdfast_journal_released_seq", "gauge",
	  "Highest sequence number that went from the journal into a dirty map.", PRIMARY, COUNT,
	  GROUP(released_seq), NONE },
	{ "holdfast_sync_losses_total", "counter",
	  "Times that acknowledgements went on without a standby although the mode is sync.",
	  PRIMARY, COUNT, GROUP(sync_losses), NONE },
	{ "holdfast_sync_lost_timestamp_seconds", "gauge",
	  "Since when acknowledgements go on without a standby.", PRIMARY, WALL,
	  GROUP(lost_since_ns), NONE },
	{ "holdfast_diverged", "gauge",
	  "1 if this copy holds what the ruling history does not and waits for the operator.", BOTH,
	  FLAG, GROUP(diverged), NONE },
	{ "holdfast_salvages", "gauge", "Salvages kept in the group directory.", BOTH, COUNT,
	  GROUP(salvages), NONE },
	{ "holdfast_kept_timestamp_seconds", "gauge",
	  "Time of the position that a resync keeps whole.", STANDBY, WALL, GROUP(kept_time_ns),
	  NONE },
	{ "holdfast_undo_bytes", "gauge", "Size of the undo log of a resync.", STANDBY, COUNT,
	  GROUP(undo_bytes), NONE },
	{ "holdfast_undo_full", "gauge", "1 if a resync waits for room in its undo log.", STANDBY,
	  FLAG, GROUP(undo_full), NONE },
	{ "holdfast_peer_in_sync", "gauge",
	  "1 if acknowledgements wait for the standby, in mode sync.", PRIMARY, FLAG, NONE,
	  PEER(in_sync) },
	{ "holdfast_dirty_bytes", "gauge", "Bytes in the standby's dirty map.", PRIMARY, COUNT,
	  NONE, PEER(dirty_bytes) },
	{ "holdfast_resync_sent_bytes", "gauge",
	  "Bytes that the present or last copy or resync has sent.", PRIMARY, COUNT, NONE,
	  PEER(resync_sent_bytes) },
	{ "holdfast_resync_compared_bytes", "gauge",
	  "Bytes that the present or last copy or resync found equal and did not send.", PRIMARY,
	  COUNT, NONE, PEER(resync_compared_bytes) },
	{ "holdfast_bandwidth_limit_bytes", "gauge",
	  "Bytes per second that may be sent to the standby now; 0 without a limit.", PRIMARY,
	  COUNT, NONE, PEER(bandwidth_bytes) },
	{ "holdfast_verify_active", "gauge", "1 while the standby is compared with this copy.",
	  PRIMARY, FLAG, NONE, PEER(verify.active) },
	{ "holdfast_verify_failed", "gauge", "1 if the last verification did not come to its end.",
	  PRIMARY, FLAG, NONE, PEER(verify.failed) },
	{ "holdfast_verify_differing_bytes", "gauge",
	  "Bytes of ranges that the present or last verification found to differ.", PRIMARY, COUNT,
	  NONE, PEER(verify.differing_bytes) },
	{ "holdfast_verify_repaired_bytes", "gauge", "Bytes of them that were sent again.", PRIMARY,
	  COUNT, NONE, PEER(verify.repaired_bytes) },
	{ "holdfast_known_differing_ranges", "gauge",
	  "Ranges in which the standby is known to differ: found by a verification, and neither "
	  "sent again nor found equal since.",
	  BOTH, COUNT, GROUP(differing_ranges), PEER(verify.known_ranges) },
	{ "holdfast_verified_seq", "gauge",
	  "Position of the last verification that found no difference.", BOTH, COUNT,
	  GROUP(verified_seq), PEER(verify.verified_seq) },
	{ "holdfast_verified_timestamp_seconds", "gauge",
	  "When the last verification that found no difference ended.", BOTH, WALL,
	  GROUP(verified_time_ns), PEER(verify.verified_time_ns) },
	{ "holdfast_write_set_bytes", "gauge", "Writes in memory that are not yet on the volumes.",
	  PRIMARY, COUNT, GROUP(write_set_bytes), NONE },
	{ "holdfast_write_set_limit_bytes", "gauge",
	  "Size of the write set at which writes are slowed down.", PRIMARY, COUNT,
	  GROUP(write_set_max_bytes), NONE },
	{ "holdfast_writes_total", "counter", "Writes accepted from clients.", PRIMARY, COUNT,
	  GROUP(writes), NONE },
	{ "holdfast_written_bytes_total", "counter", "Bytes accepted from clients.", PRIMARY, COUNT,
	  GROUP(written_bytes), NONE },
	{ "holdfast_reads_total", "counter", "Reads of clients.", PRIMARY, COUNT, GROUP(reads),
	  NONE },
	{ "holdfast_read_bytes_total", "counter", "Bytes read by clients.", PRIMARY, COUNT,
	  GROUP(read_bytes), NONE },
	{ "holdfast_flushes_total", "counter", "Flushes of clients.", PRIMARY, COUNT,
	  GROUP(flushes), NONE },
	{ "holdfast_segments_total", "counter", "Segments appended to the journal.", BOTH, COUNT,
	  GROUP(segments), NONE },
	{ "holdfast_segment_raw_bytes_total", "counter", "Bytes of segments before compression.",
	  BOTH, COUNT, GROUP(segment_raw_bytes), NONE },
	{ "holdfast_segment_stored_bytes_total", "counter", "Bytes of segments as stored.", BOTH,
	  COUNT, GROUP(segment_stored_bytes), NONE },
	{ "holdfast_applied_bytes_total", "counter", "Bytes written to the volumes.", BOTH, COUNT,
	  GROUP(applied_bytes), NONE },
	{ "holdfast_checkpoints_total", "counter", "Checkpoints taken.", BOTH, COUNT,
	  GROUP(checkpoints), NONE },
	{ "holdfast_stalls_total", "counter", "Times that writes were made to wait for memory.",
	  PRIMARY, COUNT, GROUP(stalls), NONE },
	{ "holdfast_stall_seconds_total", "counter", "Time that writes were made to wait.", PRIMARY,
	  NS, GROUP(stall_ns), NONE },
	{ "holdfast_io_errors_total", "counter", "Failed reads, writes and flushes.", BOTH, COUNT,
	  GROUP(errors), NONE },
	{ "holdfast_sent_bytes_total", "counter", "Bytes sent to the standby.", PRIMARY, COUNT,
	  NONE, PEER(sent_bytes) },
	{ "holdfast_sent_segments_total", "counter", "Segments sent to the standby.", PRIMARY,
	  COUNT, NONE, PEER(sent_segments) },
	{ "holdfast_stream_reconnects_total", "counter", "Times that the stream was set up again.",
	  PRIMARY, COUNT, NONE, PEER(reconnects) },
	{ "holdfast_received_bytes_total", "counter", "Bytes received from the primary.", STANDBY,
	  COUNT, GROUP(received_bytes), NONE },
	{ "holdfast_received_segments_total", "counter", "Segments received from the primary.",
	  STANDBY, COUNT, GROUP(received_segments), NONE },
	{ "holdfast_checksum_errors_total", "counter",
	  "Segments and frames refused because of their checksums.", STANDBY, COUNT,
	  GROUP(rejected_corrupt), NONE },
	{ "holdfast_epoch_rejects_total", "counter", "Streams refused because of a lower epoch.",
	  STANDBY, COUNT, GROUP(rejected_epoch), NONE },
};

struct out {
	FILE *file;
	const char *node;
};

static void put_label(struct out *out, const char *name, const char *value, bool first)
{
	(void)fprintf(out->file, "%s%s=\"", first ? "{" : ",", name);
	for (const char *c = value; *c; c++) {
		if (*c == '\\' || *c == '"')
			(void)fprintf(out->file, "\\%c", *c);
		else if (*c == '\n')
			(void)fputs("\\n", out->file);
		else
			(void)fputc(*c, out->file);
	}
	(void)fputc('"', out->file);
}

static void put_head(struct out *out, const char *name, const char *type, const char *help)
{
	(void)fprintf(out->file, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Name and labels of a sample; `key` is a further label, or NULL. The value follows. */
static void put_series(struct out *out, const char *name, const struct status_group *group,
		       const char *key, const char *value)
{
	(void)fputs(name, out->file);
	put_label(out, "group", group->name, true);
	put_label(out, "node", out->node, false);
	if (key)
		put_label(out, key, value, false);
	(void)fputs("} ", out->file);
}

static void put_number(struct out *out, enum unit unit, uint64_t value)
{
	if (unit == COUNT || unit == FLAG)
		(void)fprintf(out->file, "%" PRIu64 "\n", value);
	else if (value == UINT64_MAX)
		(void)fputs("+Inf\n", out->file);
	else
		(void)fprintf(out->file, "%" PRIu64 ".%09" PRIu64 "\n", value / NS_PER_S,
			      value % NS_PER_S);
}

bool status_is_follower(const struct status_group *status)
{
	static const char *const states[] = { "waiting", "receiving", "syncing", "promoting" };

	if (strcmp(status->role, "standby") == 0)
		return true;
	/* The agent's states of a fenced copy are others. */
	for (size_t i = 0; strcmp(status->role, "fenced") == 0 && i < array_len(states); i++) {
		if (strcmp(status->state, states[i]) == 0)
			return true;
	}
	return false;
}

static unsigned side_of(const struct status_group *group)
{
	return status_is_follower(group) ? STANDBY : PRIMARY;
}

static uint64_t load(const void *base, enum unit unit, size_t offset)
{
	uint64_t value;
	bool flag;

	if (unit == FLAG) {
		memcpy(&flag, (const char *)base + offset, sizeof(flag));
		return flag;
	}
	memcpy(&value, (const char *)base + offset, sizeof(value));
	return value;
}

/* One sample; none where the number is not known. `peer` NULL: the family is not of links. */
static void put_sample(struct out *out, const struct family *family,
		       const struct status_group *group, const char *peer, uint64_t value)
{
	if (value == 0 && (family->unit == WALL || family->unit == SET))
		return;
	if (value == UINT64_MAX && family->unit == COUNT)
		return;
	put_series(out, family->name, group, peer ? "peer" : NULL, peer);
	put_number(out, family->unit, value);
}

/* A link's numbers: one sample for each standby of a primary, one for the primary of a standby. */
static void put_family_of(struct out *out, const struct family *family,
			  const struct status_group *group)
{
	bool linked = family->peer_offset != NONE;

	if (!(family->sides & side_of(group)))
		return;
	if (linked && side_of(group) == PRIMARY) {
		for (unsigned i = 0; i < group->peer_count; i++)
			put_sample(out, family, group, group->peers[i].node,
				   load(&group->peers[i], family->unit, family->peer_offset));
		return;
	}
	put_sample(out, family, group, linked ? group->source : NULL,
		   load(group, family->unit, family->group_offset));
}

bool status_differs(const struct status_group *status)
{
	if (side_of(status) == STANDBY)
		return status->differing_ranges > 0;
	for (unsigned i = 0; i < status->peer_count; i++) {
		if (status->peers[i].verify.known_ranges)
			return true;
	}
	return false;
}

bool status_is_protected(const struct status_group *status)
{
	/* A lag that is not known meets no objective, not even none. */
	uint64_t objective_ns =
		status->rpo_objective_ns ? status->rpo_objective_ns : UINT64_MAX - 1;

	if (status->diverged || status->suspect || status->held[0] ||
	    strcmp(status->role, "fenced") == 0)
		return false;
	/* While it is copied to, promote goes to the position that it keeps. */
	if (side_of(status) == STANDBY)
		return ((status->consistent && !status->syncing) || status->kept) &&
		       !status->differing_ranges && strcmp(status->state, "failed") != 0 &&
		       status->lag.ns <= objective_ns;
	if (strcmp(status->role, "primary") != 0)
		return false;
	for (unsigned i = 0; i < status->peer_count; i++) {
		const struct status_peer *peer = &status->peers[i];

		if (peer->connected && !peer->needs_sync && !peer->sync.active &&
		    !peer->verify.known_ranges && peer->lag.ns <= objective_ns)
			return true;
	}
	return false;
}

/* An enumeration as 0/1 samples, one for each value that it can have. */
static void put_enum(struct out *out, const char *name, const char *key,
		     const struct status_group *group, const char *const *values, const char *is)
{
	bool known = false;

	for (; *values; values++) {
		put_series(out, name, group, key, *values);
		(void)fprintf(out->file, "%d\n", strcmp(*values, is) == 0);
		known = known || strcmp(*values, is) == 0;
	}
	if (!known && is[0]) {
		put_series(out, name, group, key, is);
		(void)fputs("1\n", out->file);
	}
}

static void put_enums(struct out *out, const struct status_group *const *groups, unsigned count)
{
	static const char *const roles[] = { "primary", "standby", "fenced", NULL };
	static const char *const primary[] = { "starting", "settling", "serving", "stopping",
					       "stopped",  "failed",   "fenced",  NULL };
	static const char *const standby[] = { "waiting",   "receiving", "syncing",
					       "promoting", "failed",	 NULL };

	put_head(out, "holdfast_role", "gauge", "1 for the role that the group has here.");
	for (unsigned i = 0; i < count; i++)
		put_enum(out, "holdfast_role", "role", groups[i], roles, groups[i]->role);
	put_head(out, "holdfast_state", "gauge", "1 for the state that the group is in.");
	for (unsigned i = 0; i < count; i++)
		put_enum(out, "holdfast_state", "state", groups[i],
			 side_of(groups[i]) == STANDBY ? standby : primary, groups[i]->state);
}

/* How acknowledgements go in mode sync; a group in mode async has none of it. */
static void put_sync_state(struct out *out, const struct status_group *const *groups,
			   unsigned count)
{
	static const char *const states[] = { "in-sync", "waiting", "lost", "frozen", NULL };

	put_head(out, "holdfast_sync_state", "gauge",
		 "1 for the state that a group in mode sync is in.");
	for (unsigned i = 0; i < count; i++) {
		if (side_of(groups[i]) == PRIMARY && groups[i]->mode[0] &&
		    strcmp(groups[i]->mode, "async") != 0)
			put_enum(out, "holdfast_sync_state", "state", groups[i], states,
				 groups[i]->mode_state);
	}
}

static void put_flags(struct out *out, const struct status_group *const *groups, unsigned count)
{
	put_head(out, "holdfast_protected", "gauge",
		 "1 if a standby could be promoted within its objective now.");
	for (unsigned i = 0; i < count; i++) {
		put_series(out, "holdfast_protected", groups[i], NULL, NULL);
		(void)fprintf(out->file, "%d\n", status_is_protected(groups[i]));
	}
	put_head(out, "holdfast_held", "gauge",
		 "1 if the primary is not served before the operator accepts what was found.");
	for (unsigned i = 0; i < count; i++) {
		if (side_of(groups[i]) != PRIMARY)
			continue;
		put_series(out, "holdfast_held", groups[i], NULL, NULL);
		(void)fprintf(out->file, "%d\n", groups[i]->held[0] != '\0');
	}
	put_head(out, "holdfast_parted", "gauge",
		 "1 if a standby holds what the primary's history does not, or another node is "
		 "primary under the same epoch.");
	for (unsigned i = 0; i < count; i++) {
		bool parted = false;

		if (side_of(groups[i]) != PRIMARY)
			continue;
		for (unsigned k = 0; k < groups[i]->peer_count; k++)
			parted |= groups[i]->peers[k].parted[0] != '\0';
		put_series(out, "holdfast_parted", groups[i], NULL, NULL);
		(void)fprintf(out->file, "%d\n", parted);
	}
	put_head(out, "holdfast_kept", "gauge",
		 "1 if the standby is being copied to and keeps its last consistent position.");
	for (unsigned i = 0; i < count; i++) {
		if (side_of(groups[i]) != STANDBY)
			continue;
		put_series(out, "holdfast_kept", groups[i], NULL, NULL);
		(void)fprintf(out->file, "%d\n", groups[i]->kept);
	}
	put_head(out, "holdfast_consistent", "gauge",
		 "1 if the standby's volumes are equal to one position of the history.");
	for (unsigned i = 0; i < count; i++) {
		if (side_of(groups[i]) != STANDBY)
			continue;
		put_series(out, "holdfast_consistent", groups[i], NULL, NULL);
		(void)fprintf(out->file, "%d\n", groups[i]->consistent);
	}
	put_head(out, "holdfast_replication_connected", "gauge", "1 if the stream is up.");
	for (unsigned i = 0; i < count; i++) {
		const struct status_group *group = groups[i];

		if (side_of(group) == STANDBY) {
			put_series(out, "holdfast_replication_connected", group, "peer",
				   group->source);
			(void)fprintf(out->file, "%d\n", group->connected);
		}
		for (unsigned j = 0; side_of(group) == PRIMARY && j < group->peer_count; j++) {
			put_series(out, "holdfast_replication_connected", group, "peer",
				   group->peers[j].node);
			(void)fprintf(out->file, "%d\n", group->peers[j].connected);
		}
	}
}

static uint64_t remaining(const struct status_sync *sync)
{
	return sync->active ? sub_floor_u64(sync->total_bytes, sync->done_bytes) : 0;
}

static void put_resync(struct out *out, const struct status_group *const *groups, unsigned count)
{
	const char *name = "holdfast_resync_remaining_bytes";

	put_head(out, name, "gauge", "Bytes that a copy or resync has still to move.");
	for (unsigned i = 0; i < count; i++) {
		const struct status_group *group = groups[i];

		if (side_of(group) == STANDBY) {
			put_series(out, name, group, "peer", group->source);
			put_number(out, COUNT, remaining(&group->sync));
		}
		for (unsigned j = 0; side_of(group) == PRIMARY && j < group->peer_count; j++) {
			put_series(out, name, group, "peer", group->peers[j].node);
			put_number(out, COUNT, remaining(&group->peers[j].sync));
		}
	}
	put_head(out, "holdfast_rollback_remaining_bytes", "gauge",
		 "Bytes to write back until the volumes are at the kept position.");
	for (unsigned i = 0; i < count; i++) {
		if (side_of(groups[i]) != STANDBY)
			continue;
		put_series(out, "holdfast_rollback_remaining_bytes", groups[i], NULL, NULL);
		put_number(out, COUNT,
			   sub_floor_u64(groups[i]->rollback_total_bytes,
					 groups[i]->rollback_done_bytes));
	}
	put_head(out, "holdfast_volume_size_bytes", "gauge", "Size of a volume.");
	for (unsigned i = 0; i < count; i++) {
		for (unsigned j = 0; j < groups[i]->volume_count; j++) {
			put_series(out, "holdfast_volume_size_bytes", groups[i], "volume",
				   groups[i]->volumes[j].name);
			put_number(out, COUNT, groups[i]->volumes[j].size_bytes);
		}
	}
}

char *status_metrics(const char *daemon, const char *node, const struct status_group *const *groups,
		     unsigned group_count)
{
	struct out out = { .node = node };
	char *text = NULL;
	size_t length_bytes = 0;

	out.file = open_memstream(&text, &length_bytes);
	if (!out.file)
		return NULL;
	put_head(&out, "holdfast_build_info", "gauge", "1, with the version in a label.");
	(void)fprintf(out.file, "holdfast_build_info{version=\"%s\",daemon=\"%s\"} 1\n",
		      HOLDFAST_VERSION, daemon);
	put_head(&out, "holdfast_up", "gauge", "1 while the daemon answers.");
	(void)fprintf(out.file, "holdfast_up{daemon=\"%s\"", daemon);
	put_label(&out, "node", node, false);
	(void)fputs("} 1\n", out.file);
	put_enums(&out, groups, group_count);
	put_sync_state(&out, groups, group_count);
	put_flags(&out, groups, group_count);
	for (size_t i = 0; i < array_len(families); i++) {
		put_head(&out, families[i].name, families[i].type, families[i].help);
		for (unsigned j = 0; j < group_count; j++)
			put_family_of(&out, &families[i], groups[j]);
	}
	put_resync(&out, groups, group_count);
	if (fclose(out.file) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
