/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a primary remembers of its standbys, at a start: those that are configured, and those that
 * were.
 *
 * Invariant E1: what is due to a standby is never forgotten. One that leaves the configuration
 * keeps its entry, with everything due and no dirty map; one that has none is owed everything,
 * unless this is the first opening since the epoch began: then nothing has happened that its
 * position does not say. Only when there is no room are entries dropped, oldest first.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/ship.h"

/* A node's name may be a URI: what is no letter, digit, dot or hyphen becomes %XX. */
int ship_dirty_path(const struct agent_group *group, const char *node, char path[GROUP_PATH_MAX])
{
	int at = snprintf(path, GROUP_PATH_MAX, "%s/dirty.", group->dir.path);

	for (; *node && at < (int)GROUP_PATH_MAX - 4; node++) {
		unsigned char c = (unsigned char)*node;
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			     (c >= '0' && c <= '9') || c == '.' || c == '-';

		at += snprintf(path + at, GROUP_PATH_MAX - (size_t)at, plain ? "%c" : "%%%02X", c);
	}
	return *node ? -ENAMETOOLONG : 0;
}

static void remove_map(struct agent_group *group, const char *node)
{
	struct dirty_map *map = NULL;
	char path[GROUP_PATH_MAX];

	if (ship_dirty_path(group, node, path) || dirty_new(group->io, path, &group->dir.sb, &map))
		return;
	(void)dirty_remove(map);
	dirty_free(map);
}

static void owe_everything(struct agent_group *group, struct superblock_peer *peer)
{
	peer->needs_sync = peer->needs_compare = true;
	peer->released_seq = max_u64(peer->released_seq, group->journal.durable_seq);
	remove_map(group, peer->node);
}

static bool is_standby(const struct agent_group *group, const char *node)
{
	for (unsigned i = 0; i < group->conf->peer_count; i++)
		if (group->conf->peers[i].role != CONF_PEER_SOURCE &&
		    !strcmp(group->conf->peers[i].node, node))
			return true;
	return false;
}

static bool has_entry(const struct superblock *sb, const char *node)
{
	for (uint32_t i = 0; i < sb->peer_count; i++)
		if (!strcmp(sb->peers[i].node, node))
			return true;
	return false;
}

static void drop_one(struct agent_group *group)
{
	struct superblock *sb = &group->dir.sb;
	uint32_t i = 0;

	while (i < sb->peer_count && is_standby(group, sb->peers[i].node))
		i++;
	if (i == sb->peer_count)
		return;
	memmove(&sb->peers[i], &sb->peers[i + 1], (--sb->peer_count - i) * sizeof(sb->peers[0]));
	memset(&sb->peers[sb->peer_count], 0, sizeof(sb->peers[0]));
}

/* No opening has written, or could have, since the epoch began. */
static bool is_first_opening(const struct superblock *sb)
{
	uint64_t begin = sb->history_count ? sb->history[sb->history_count - 1].first_seq : 1;

	return !sb->opening_count || sb->openings[sb->opening_count - 1].first_seq < begin;
}

void peers_prepare(struct agent_group *group)
{
	struct superblock *sb = &group->dir.sb;
	bool first = is_first_opening(sb) && !sb->peer_count;

	for (uint32_t i = 0; i < sb->peer_count; i++)
		if (!is_standby(group, sb->peers[i].node))
			owe_everything(group, &sb->peers[i]);
	for (unsigned i = 0; i < group->conf->peer_count; i++) {
		const struct conf_peer *conf = &group->conf->peers[i];
		struct superblock_peer *peer;

		if (conf->role == CONF_PEER_SOURCE || has_entry(sb, conf->node))
			continue;
		if (sb->peer_count == GROUP_PEERS_MAX)
			drop_one(group);
		peer = group_dir_peer(&group->dir, conf->node);
		if (peer && !first)
			owe_everything(group, peer);
	}
}
