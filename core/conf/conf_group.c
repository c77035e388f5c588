/* SPDX-License-Identifier: Apache-2.0 */
#include <confuse.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/units.h"
#include "core/conf/builder.h"
#include "core/conf/check.h"
#include "proto/superblock.h"

static void build_volume(struct builder *builder, const struct conf_group *group, cfg_t *section,
			 struct conf_volume *volume)
{
	unsigned line = conf_text_open_line(builder->text, (unsigned)section->line, 2);

	volume->name = builder_copy(builder, cfg_title(section));
	if (!group_name_valid(cfg_title(section)))
		conf_errors_add(builder->errors, line, CHECK_NAME_RULE,
				"volume name \"%s\" is not valid", cfg_title(section));
	volume->path = builder_path(builder, section, "path", NULL);
	if (!builder_leaf(section, "path"))
		conf_errors_add(
			builder->errors, line, "add path = \"/dev/...\" or the path of a file",
			"volume '%s' of group '%s' has no path", cfg_title(section), group->name);
}

static void build_clients(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	unsigned count = cfg_size(section, "nbd_clients");
	char reason[CHECK_TEXT_BYTES];

	group->nbd_clients = builder_array(builder, count, sizeof(*group->nbd_clients));
	for (unsigned i = 0; group->nbd_clients && i < count; i++) {
		const struct conf_leaf *leaf = builder_leaf_at(section, "nbd_clients", i);

		if (!check_node(leaf->text, reason))
			conf_errors_add(builder->errors, leaf->line,
					"write the identity of the client's certificate",
					"NBD client \"%s\" %s", leaf->text, reason);
		group->nbd_clients[group->nbd_client_count++] = builder_copy(builder, leaf->text);
	}
}

static void build_timings(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	static const struct builder_bounds retention = { "journal_retention", 0, NS_PER_S,
							 365 * NS_PER_DAY, true };
	static const struct builder_bounds checkpoint = { "checkpoint_interval", NS_PER_S,
							  10 * NS_PER_MS, NS_PER_HOUR, false };
	static const struct builder_bounds flush = { "flush_interval", 5 * NS_PER_MS,
						     100 * NS_PER_US, 10 * NS_PER_S, false };
	static const struct builder_bounds settle = { "settle_timeout", 2 * NS_PER_S,
						      10 * NS_PER_MS, 5 * NS_PER_MINUTE, true };
	static const struct builder_bounds heartbeat = { "heartbeat", 500 * NS_PER_MS,
							 10 * NS_PER_MS, NS_PER_MINUTE, false };
	static const struct builder_bounds timeout = { "peer_timeout", 5 * NS_PER_S, 50 * NS_PER_MS,
						       10 * NS_PER_MINUTE, false };
	static const struct builder_bounds rpo = { "rpo_objective", 0, NS_PER_MS, 30 * NS_PER_DAY,
						   true };
	static const struct builder_bounds rto = { "rto_objective", 0, NS_PER_MS, 30 * NS_PER_DAY,
						   true };
	const struct conf_leaf *leaf;
	char text[UNITS_TEXT_BYTES];

	group->journal_retention_ns = builder_duration(builder, section, &retention);
	group->checkpoint_interval_ns = builder_duration(builder, section, &checkpoint);
	group->flush_interval_ns = builder_duration(builder, section, &flush);
	group->settle_timeout_ns = builder_duration(builder, section, &settle);
	group->heartbeat_interval_ns = builder_duration(builder, section, &heartbeat);
	group->peer_timeout_ns = builder_duration(builder, section, &timeout);
	group->rpo_objective_ns = builder_duration(builder, section, &rpo);
	group->rto_objective_ns = builder_duration(builder, section, &rto);
	if (group->peer_timeout_ns < 3 * group->heartbeat_interval_ns) {
		leaf = builder_leaf(section, "peer_timeout");
		leaf = leaf ? leaf : builder_leaf(section, "heartbeat");
		conf_errors_add(builder->errors, leaf ? leaf->line : group->line,
				"make peer_timeout at least three heartbeats",
				"peer_timeout would cut links that merely lost a heartbeat of %s",
				units_format_duration_exact(group->heartbeat_interval_ns, text));
	}
}

static void build_sizes(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	static const struct builder_bounds whole = { "journal_size", GIB, 16 * MIB, 64 * TIB,
						     false };
	static const struct builder_bounds one = { "journal_file_size", 64 * MIB, 4 * MIB, 4 * GIB,
						   false };
	static const struct builder_bounds memory = { "memory", 64 * MIB, 16 * MIB, TIB, false };
	const struct conf_leaf *leaf = builder_leaf(section, "journal_file_size");
	char text[UNITS_TEXT_BYTES];
	unsigned line;

	group->journal_size_bytes = builder_size(builder, section, &whole);
	group->journal_file_bytes = builder_size(builder, section, &one);
	group->memory_bytes = builder_size(builder, section, &memory);
	line = leaf ? leaf->line : group->line;
	leaf = builder_leaf(section, "journal_size");
	if (group->journal_file_bytes % 4096 != 0)
		conf_errors_add(builder->errors, line, "make it a multiple of 4KiB",
				"journal_file_size is not a multiple of 4096 bytes");
	else if (group->journal_size_bytes % group->journal_file_bytes != 0)
		conf_errors_add(builder->errors, leaf ? leaf->line : line, "change one of the two",
				"journal_size is not a multiple of journal_file_size = %s",
				units_format_size_exact(group->journal_file_bytes, text));
	else if (group->journal_size_bytes / group->journal_file_bytes < 4)
		conf_errors_add(builder->errors, leaf ? leaf->line : line,
				"raise journal_size or lower journal_file_size (at least 4 files)",
				"journal_size holds fewer than 4 files of %s",
				units_format_size_exact(group->journal_file_bytes, text));
	if (group->memory_bytes > group->journal_size_bytes) {
		const struct conf_leaf *set = builder_leaf(section, "memory");

		conf_errors_add(builder->errors,
				set    ? set->line
				: leaf ? leaf->line
				       : group->line,
				"lower memory or raise journal_size",
				"memory is larger than the journal of %s that it is backed by",
				units_format_size_exact(group->journal_size_bytes, text));
	}
}

/* How far a standby is waited for, and how a copy goes on after a resync or a divergence. */
static void build_mode(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	static const char *const modes[] = { "async", "sync", "sync-all", NULL };
	static const char *const losses[] = { "async", "freeze", NULL };
	static const char *const rejoins[] = { "manual", "auto", NULL };
	static const struct builder_bounds timeout = { "sync_timeout", 5 * NS_PER_S, 10 * NS_PER_MS,
						       10 * NS_PER_MINUTE, false };
	static const struct builder_bounds undo = { "undo_limit", 0, 64 * MIB, 64 * TIB, true };
	static const struct builder_bounds interval = { "verify_interval", 0, NS_PER_S,
							365 * NS_PER_DAY, true };
	static const struct builder_bounds rate = { "verify_rate", 32 * MIB, 64 * KIB, TIB, false };

	group->mode = (enum conf_mode)builder_word(builder, section, "mode", modes, CONF_ASYNC);
	group->on_sync_loss = (enum conf_sync_loss)builder_word(builder, section, "on_sync_loss",
								losses, CONF_LOSS_ASYNC);
	group->sync_timeout_ns = builder_duration(builder, section, &timeout);
	group->undo_limit_bytes = builder_size(builder, section, &undo);
	group->rejoin_auto = builder_word(builder, section, "rejoin", rejoins, 0) == 1;
	group->verify_interval_ns = builder_duration(builder, section, &interval);
	group->verify_rate_bytes = builder_size(builder, section, &rate);
}

/* What a group's options promise of its peers. */
static void check_peers(struct builder *builder, cfg_t *section, const struct conf_group *group)
{
	const struct conf_leaf *mode = builder_leaf(section, "mode");
	char text[UNITS_TEXT_BYTES];
	unsigned standbys = 0;

	for (unsigned i = 0; i < group->peer_count; i++) {
		const struct conf_leaf *leaf =
			builder_leaf(cfg_getnsec(section, "peer", i), "coalesce");

		standbys += group->peers[i].role != CONF_PEER_SOURCE;
		if (leaf && group->peers[i].coalesce_bytes >= group->journal_size_bytes)
			conf_errors_add(builder->errors, leaf->line,
					"make it smaller than journal_size, or 0",
					"coalesce = %s is never reached: the journal has %s",
					leaf->text,
					units_format_size_exact(group->journal_size_bytes, text));
	}
	if (mode && group->mode != CONF_ASYNC && standbys == 0)
		conf_errors_add(builder->errors, mode->line,
				"add a peer whose role is both or standby, or set mode = async",
				"mode = %s waits for a standby, and group '%s' has none",
				mode->text, group->name);
}

void builder_group(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	static const char *const caches[] = { "writeback", "writethrough", NULL };
	unsigned volumes = cfg_size(section, "volume"), peers = cfg_size(section, "peer");

	group->line = conf_text_open_line(builder->text, (unsigned)section->line, 1);
	group->name = builder_copy(builder, cfg_title(section));
	if (!group_name_valid(cfg_title(section)))
		conf_errors_add(builder->errors, group->line, CHECK_NAME_RULE,
				"group name \"%s\" is not valid", cfg_title(section));
	group->cache = builder_word(builder, section, "cache", caches, 0) == 0 ? CONF_WRITEBACK
									       : CONF_WRITETHROUGH;
	build_sizes(builder, section, group);
	build_timings(builder, section, group);
	build_mode(builder, section, group);
	build_clients(builder, section, group);
	if (volumes == 0)
		conf_errors_add(builder->errors, group->line,
				"add volume \"NAME\" { path = \"...\" }",
				"group '%s' has no volume", cfg_title(section));
	if (volumes > GROUP_VOLUMES_MAX)
		conf_errors_add(builder->errors, group->line, "split the group",
				"group '%s' has %u volumes, %u are possible", cfg_title(section),
				volumes, GROUP_VOLUMES_MAX);
	if (peers > GROUP_PEERS_MAX)
		conf_errors_add(builder->errors, group->line, "remove some",
				"group '%s' has %u peers, %u are possible", cfg_title(section),
				peers, GROUP_PEERS_MAX);
	group->volumes = builder_array(builder, volumes, sizeof(*group->volumes));
	group->peers = builder_array(builder, peers, sizeof(*group->peers));
	for (unsigned i = 0; group->volumes && i < volumes; i++)
		build_volume(builder, group, cfg_getnsec(section, "volume", i),
			     &group->volumes[group->volume_count++]);
	for (unsigned i = 0; group->peers && i < peers; i++)
		builder_peer(builder, group, cfg_getnsec(section, "peer", i),
			     &group->peers[group->peer_count++]);
	check_peers(builder, section, group);
}

void builder_group_free(struct conf_group *group)
{
	for (unsigned i = 0; i < group->volume_count; i++) {
		free(group->volumes[i].name);
		free(group->volumes[i].path);
	}
	for (unsigned i = 0; i < group->peer_count; i++) {
		free(group->peers[i].node);
		free(group->peers[i].address);
	}
	for (unsigned i = 0; i < group->nbd_client_count; i++)
		free(group->nbd_clients[i]);
	free(group->volumes);
	free(group->peers);
	free(group->nbd_clients);
	free(group->name);
}
