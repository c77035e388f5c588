/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/peek.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/macros.h"
#include "core/base/uuid.h"

/* The owner may be writing: a slot that is torn now is whole a moment later. */
#define TRIES 4

static int read_whole(int fd, uint8_t *bytes, size_t length_bytes)
{
	size_t done = 0;

	while (done < length_bytes) {
		ssize_t n = pread(fd, bytes + done, length_bytes - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return SUPERBLOCK_E_NONE_VALID;
		done += (size_t)n;
	}
	return 0;
}

int peek_superblock(const char *state_dir, const char *group, struct superblock *ret_sb)
{
	uint8_t *bytes;
	char path[1024];
	unsigned slot;
	int fd, res = 0;

	if (!group_name_valid(group))
		return -ENOENT;
	if ((size_t)snprintf(path, sizeof(path), "%s/%s/superblock", state_dir, group) >=
	    sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	bytes = malloc(SUPERBLOCK_FILE_BYTES);
	if (!bytes)
		res = -ENOMEM;
	for (int i = 0; bytes && i < TRIES; i++) {
		res = read_whole(fd, bytes, SUPERBLOCK_FILE_BYTES);
		if (res == 0)
			res = superblock_choose(bytes, ret_sb, &slot);
		if (res != SUPERBLOCK_E_NONE_VALID)
			break;
	}
	free(bytes);
	(void)close(fd);
	return res;
}

const char *peek_role(const struct superblock *sb)
{
	switch ((enum group_role)sb->role) {
	case GROUP_PRIMARY:
		return "primary";
	case GROUP_STANDBY:
		return "standby";
	case GROUP_FENCED:
		return "fenced";
	}
	return "unknown";
}

/* Why it would not be served, as far as the superblock tells. */
static void peek_held(const struct superblock *sb, struct status_group *status)
{
	if (sb->flags & SUPERBLOCK_HELD)
		(void)snprintf(
			status->held, sizeof(status->held),
			"held since something was found at a start: start holdfast-agent, it "
			"says what; holdfast accept %s goes on in spite of it",
			sb->name);
	if (sb->flags & SUPERBLOCK_HANDOVER)
		(void)snprintf(status->detail, sizeof(status->detail),
			       "%s was asked to take over at seq %llu and has not answered: not "
			       "served before it has",
			       sb->handover_node, (unsigned long long)sb->handover_seq);
}

/* The position that a standby keeps while it is being copied to. */
static void peek_kept(const struct superblock *sb, struct status_group *status)
{
	status->kept = sb->kept.undo_id != 0;
	status->kept_seq = sb->kept.seq;
	status->kept_time_ns = sb->kept.time_ns;
	status->undo_bytes = sb->kept.undo_bytes;
	status->verified_seq = sb->verified_seq;
	status->verified_time_ns = sb->verified_time_ns;
	status->differing_ranges = sb->differing_ranges;
}

/* Nobody runs who would know: at least this much, and for how long is unknown. Not even that much
 * where a copy is under way or histories have parted. */
static void peek_lag(const struct superblock *sb, struct status_group *status)
{
	status->lag = (struct status_lag)STATUS_LAG_UNKNOWN;
	if ((sb->flags & SUPERBLOCK_SYNCING) || sb->role == GROUP_FENCED || !sb->heard_time_ns ||
	    sb->fenced_by_epoch > sb->epoch)
		return;
	status->lag.writes = sub_floor_u64(sb->heard_head_seq, sb->durable_seq);
	status->lag.bytes =
		status->lag.writes ? sub_floor_u64(sb->heard_head_bytes, sb->applied_bytes) : 0;
}

void peek_status(const struct superblock *sb, const char *node, struct status_group *ret_status)
{
	struct status_group *status = ret_status;

	memset(status, 0, sizeof(*status));
	(void)snprintf(status->name, sizeof(status->name), "%s", sb->name);
	(void)uuid_format(&sb->group, status->uuid);
	(void)snprintf(status->node, sizeof(status->node), "%s", node);
	(void)snprintf(status->role, sizeof(status->role), "%s", peek_role(sb));
	(void)snprintf(status->state, sizeof(status->state), "stopped");
	status->epoch = sb->epoch;
	status->fenced_by_epoch = sb->fenced_by_epoch;
	(void)snprintf(status->fenced_by, sizeof(status->fenced_by), "%s", sb->fenced_by);
	if (sb->role == GROUP_FENCED)
		(void)snprintf(status->detail, sizeof(status->detail), "fenced by epoch %llu of %s",
			       (unsigned long long)sb->fenced_by_epoch, sb->fenced_by);
	status->head_seq = sb->durable_seq;
	status->durable_seq = sb->durable_seq;
	status->applied_seq = sb->applied_seq;
	status->journal_size_bytes = sb->slot_bytes * sb->slots;
	status->ever_consistent = (sb->flags & SUPERBLOCK_EVER_CONSISTENT) != 0;
	status->syncing = (sb->flags & SUPERBLOCK_SYNCING) != 0;
	status->suspect = (sb->flags & SUPERBLOCK_SUSPECT) != 0;
	status->consistent = status->ever_consistent && !status->syncing && !status->suspect;
	status->source_head_seq = sb->heard_head_seq;
	status->source_head_bytes = sb->heard_head_bytes;
	status->heard_time_ns = sb->heard_time_ns;
	status->heard_ns_ago = UINT64_MAX;
	status->journal_full_ns = UINT64_MAX;
	peek_lag(sb, status);
	peek_held(sb, status);
	peek_kept(sb, status);
	for (uint32_t i = 0; i < sb->volume_count && i < STATUS_VOLUMES_MAX; i++) {
		struct status_volume *volume = &status->volumes[status->volume_count++];

		(void)snprintf(volume->name, sizeof(volume->name), "%s", sb->volumes[i].name);
		volume->size_bytes = sb->volumes[i].size_bytes;
	}
}

static bool has_volume(const struct superblock *sb, const char *name)
{
	for (uint32_t i = 0; i < sb->volume_count; i++) {
		if (strcmp(sb->volumes[i].name, name) == 0)
			return true;
	}
	return false;
}

const char *peek_lacking(const struct conf_group *conf, const struct superblock *sb, char *text,
			 size_t text_max)
{
	size_t at = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < conf->volume_count; i++) {
		const char *name = conf->volumes[i].name;

		/* Names have at most 63 bytes; what does not fit as a whole is left out. */
		if (has_volume(sb, name) || at + strlen(name) + 3 > text_max)
			continue;
		at += (size_t)snprintf(text + at, text_max - at, "%s%s", at ? ", " : "", name);
	}
	return text;
}
