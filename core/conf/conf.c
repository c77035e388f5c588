/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/conf.h"

#include <confuse.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/conf/check.h"
#include "core/conf/internal.h"
#include "proto/superblock.h"

#define STATE_DIR_DEFAULT "/var/lib/holdfast"
#define RUN_DIR_DEFAULT	  "/run/holdfast"

struct builder {
	struct conf *conf;
	struct conf_text *text;
	struct conf_errors *errors;
	bool no_memory;
};

static char *copy(struct builder *builder, const char *text)
{
	char *result = strdup(text);

	if (!result)
		builder->no_memory = true;
	return result;
}

static void *array(struct builder *builder, unsigned count, size_t size)
{
	void *result = calloc(count ? count : 1, size);

	if (!result)
		builder->no_memory = true;
	return result;
}

static const struct conf_leaf *leaf_at(cfg_t *section, const char *name, unsigned index)
{
	cfg_opt_t *opt = section ? cfg_getopt(section, name) : NULL;

	return opt && index < opt->nvalues ? opt->values[index]->ptr : NULL;
}

static const struct conf_leaf *leaf_of(cfg_t *section, const char *name)
{
	return leaf_at(section, name, 0);
}

struct bounds {
	const char *name;
	uint64_t preset, low, high;
	bool zero_too; /* 0 is allowed besides */
};

static uint64_t get_size(struct builder *builder, cfg_t *section, const struct bounds *bounds)
{
	const struct conf_leaf *leaf = leaf_of(section, bounds->name);
	char low[UNITS_TEXT_BYTES], high[UNITS_TEXT_BYTES];
	uint64_t value;

	if (!leaf)
		return bounds->preset;
	if (units_parse_size(leaf->text, &value) != 0) {
		conf_errors_add(builder->errors, leaf->line,
				"write a whole number with B, KiB, MiB, GiB or TiB, like 64MiB",
				"%s = \"%s\" is not a size", bounds->name, leaf->text);
		return bounds->preset;
	}
	if ((value < bounds->low || value > bounds->high) && !(value == 0 && bounds->zero_too)) {
		conf_errors_add(builder->errors, leaf->line, "choose a value between the two",
				"%s = %s is outside %s to %s%s", bounds->name, leaf->text,
				units_format_size_exact(bounds->low, low),
				units_format_size_exact(bounds->high, high),
				bounds->zero_too ? " (or 0)" : "");
		return bounds->preset;
	}
	return value;
}

static uint64_t get_duration(struct builder *builder, cfg_t *section, const struct bounds *bounds)
{
	const struct conf_leaf *leaf = leaf_of(section, bounds->name);
	char low[UNITS_TEXT_BYTES], high[UNITS_TEXT_BYTES];
	uint64_t value;

	if (!leaf)
		return bounds->preset;
	if (units_parse_duration(leaf->text, &value) != 0) {
		conf_errors_add(builder->errors, leaf->line,
				"write a whole number with us, ms, s, m, h or d, like 250ms",
				"%s = \"%s\" is not a duration", bounds->name, leaf->text);
		return bounds->preset;
	}
	if ((value < bounds->low || value > bounds->high) && !(value == 0 && bounds->zero_too)) {
		conf_errors_add(builder->errors, leaf->line, "choose a value between the two",
				"%s = %s is outside %s to %s%s", bounds->name, leaf->text,
				units_format_duration_exact(bounds->low, low),
				units_format_duration_exact(bounds->high, high),
				bounds->zero_too ? " (or 0)" : "");
		return bounds->preset;
	}
	return value;
}

/* A word out of `words` (NULL-terminated); its index, or `preset`. */
static unsigned get_word(struct builder *builder, cfg_t *section, const char *name,
			 const char *const *words, unsigned preset)
{
	const struct conf_leaf *leaf = leaf_of(section, name);
	char known[128] = "";
	size_t used = 0;

	if (!leaf)
		return preset;
	for (unsigned i = 0; words[i]; i++) {
		if (strcmp(leaf->text, words[i]) == 0)
			return i;
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
					 i ? ", " : "choose one of ", words[i]);
		must(used < sizeof(known));
	}
	conf_errors_add(builder->errors, leaf->line, known, "%s = \"%s\" is unknown", name,
			leaf->text);
	return preset;
}

static char *get_path(struct builder *builder, cfg_t *section, const char *name, const char *preset)
{
	const struct conf_leaf *leaf = leaf_of(section, name);
	char reason[CHECK_TEXT_BYTES];

	if (!leaf)
		return preset ? copy(builder, preset) : NULL;
	if (!check_path(leaf->text, reason)) {
		conf_errors_add(builder->errors, leaf->line, "write the absolute path",
				"%s = \"%s\" %s", name, leaf->text, reason);
		return preset ? copy(builder, preset) : NULL;
	}
	return copy(builder, leaf->text);
}

static char *get_address(struct builder *builder, cfg_t *section, const char *name)
{
	const struct conf_leaf *leaf = leaf_of(section, name);
	char reason[CHECK_TEXT_BYTES];

	if (!leaf)
		return NULL;
	if (!check_address(leaf->text, reason)) {
		conf_errors_add(builder->errors, leaf->line,
				"write HOST:PORT or [IPV6]:PORT, like \"10.0.0.2:7400\"",
				"%s = \"%s\" %s", name, leaf->text, reason);
		return NULL;
	}
	return copy(builder, leaf->text);
}

/* tls, agent, engine: at most one of each. */
static cfg_t *single(struct builder *builder, cfg_t *root, const char *name)
{
	unsigned count = cfg_size(root, name);

	for (unsigned i = 1; i < count; i++) {
		cfg_t *section = cfg_getnsec(root, name, i);

		conf_errors_add(builder->errors, (unsigned)section->line, "merge the two",
				"a second section '%s' ends here", name);
	}
	return count ? cfg_getnsec(root, name, 0) : NULL;
}

static void build_tls(struct builder *builder, cfg_t *section)
{
	struct conf *conf = builder->conf;

	conf->tls.ca = get_path(builder, section, "ca", NULL);
	conf->tls.cert = get_path(builder, section, "cert", NULL);
	conf->tls.key = get_path(builder, section, "key", NULL);
	conf->tls.crl = get_path(builder, section, "crl", NULL);
}

static void build_daemons(struct builder *builder, cfg_t *agent, cfg_t *engine)
{
	static const char *const policies[] = { "required", "off", NULL };
	struct conf *conf = builder->conf;
	const struct conf_leaf *leaf = leaf_of(agent, "nbd_connections_max");
	uint64_t value = 64;

	conf->agent.nbd_listen = get_address(builder, agent, "nbd_listen");
	conf->agent.metrics_listen = get_address(builder, agent, "metrics_listen");
	conf->agent.nbd_tls_required = get_word(builder, agent, "nbd_tls", policies, 0) == 0;
	if (leaf && (units_parse_u64(leaf->text, &value) != 0 || value < 1 || value > 4096)) {
		conf_errors_add(builder->errors, leaf->line, "write a whole number of them",
				"nbd_connections_max = \"%s\" is outside 1 to 4096", leaf->text);
		value = 64;
	}
	conf->agent.nbd_connections_max = (unsigned)value;
	if (!conf->agent.nbd_tls_required && conf->agent.nbd_listen &&
	    !check_is_loopback(conf->agent.nbd_listen)) {
		conf_errors_add(builder->errors, leaf_of(agent, "nbd_tls")->line,
				"set nbd_tls = required, or listen on 127.0.0.1 or [::1]",
				"nbd_tls = off would serve volumes to everybody who reaches %s",
				conf->agent.nbd_listen);
	}
	conf->engine.listen = get_address(builder, engine, "listen");
	conf->engine.metrics_listen = get_address(builder, engine, "metrics_listen");
}

static void build_volume(struct builder *builder, const struct conf_group *group, cfg_t *section,
			 struct conf_volume *volume)
{
	unsigned line = conf_text_open_line(builder->text, (unsigned)section->line, 2);

	volume->name = copy(builder, cfg_title(section));
	if (!group_name_valid(cfg_title(section)))
		conf_errors_add(builder->errors, line, CHECK_NAME_RULE,
				"volume name \"%s\" is not valid", cfg_title(section));
	volume->path = get_path(builder, section, "path", NULL);
	if (!leaf_of(section, "path"))
		conf_errors_add(
			builder->errors, line, "add path = \"/dev/...\" or the path of a file",
			"volume '%s' of group '%s' has no path", cfg_title(section), group->name);
}

static void build_peer(struct builder *builder, const struct conf_group *group, cfg_t *section,
		       struct conf_peer *peer)
{
	static const char *const roles[] = { "both", "standby", "source", NULL };
	static const struct bounds window = { "window", 16 * MIB, 2 * MIB, GIB, false };
	static const struct bounds rate = { "sync_rate", 0, 64 * KIB, TIB, true };
	unsigned line = conf_text_open_line(builder->text, (unsigned)section->line, 2);
	char reason[CHECK_TEXT_BYTES];

	peer->node = copy(builder, cfg_title(section));
	if (!check_node(cfg_title(section), reason))
		conf_errors_add(builder->errors, line, "write the identity of its certificate",
				"peer \"%s\" %s", cfg_title(section), reason);
	peer->role = (enum conf_peer_role)get_word(builder, section, "role", roles, CONF_PEER_BOTH);
	peer->address = get_address(builder, section, "address");
	if (!leaf_of(section, "address") && peer->role != CONF_PEER_SOURCE)
		conf_errors_add(builder->errors, line,
				"add address = \"HOST:PORT\" of its engine, or role = source",
				"peer '%s' of group '%s' has no address", cfg_title(section),
				group->name);
	peer->window_bytes = get_size(builder, section, &window);
	peer->sync_rate_bytes = get_size(builder, section, &rate);
	if (builder->conf->node && strcmp(cfg_title(section), builder->conf->node) == 0)
		conf_errors_add(builder->errors, line, "name the other node",
				"peer '%s' of group '%s' is this node itself", cfg_title(section),
				group->name);
}

static void build_clients(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	unsigned count = cfg_size(section, "nbd_clients");
	char reason[CHECK_TEXT_BYTES];

	group->nbd_clients = array(builder, count, sizeof(*group->nbd_clients));
	for (unsigned i = 0; group->nbd_clients && i < count; i++) {
		const struct conf_leaf *leaf = leaf_at(section, "nbd_clients", i);

		if (!check_node(leaf->text, reason))
			conf_errors_add(builder->errors, leaf->line,
					"write the identity of the client's certificate",
					"NBD client \"%s\" %s", leaf->text, reason);
		group->nbd_clients[group->nbd_client_count++] = copy(builder, leaf->text);
	}
}

static void build_timings(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	static const struct bounds retention = { "journal_retention", 0, NS_PER_S, 365 * NS_PER_DAY,
						 true };
	static const struct bounds checkpoint = { "checkpoint_interval", NS_PER_S, 10 * NS_PER_MS,
						  NS_PER_HOUR, false };
	static const struct bounds flush = { "flush_interval", 5 * NS_PER_MS, 100 * NS_PER_US,
					     10 * NS_PER_S, false };
	static const struct bounds settle = { "settle_timeout", 2 * NS_PER_S, 10 * NS_PER_MS,
					      5 * NS_PER_MINUTE, true };
	static const struct bounds heartbeat = { "heartbeat", 500 * NS_PER_MS, 10 * NS_PER_MS,
						 NS_PER_MINUTE, false };
	static const struct bounds timeout = { "peer_timeout", 5 * NS_PER_S, 50 * NS_PER_MS,
					       10 * NS_PER_MINUTE, false };
	static const struct bounds rpo = { "rpo_objective", 0, NS_PER_MS, 30 * NS_PER_DAY, true };
	static const struct bounds rto = { "rto_objective", 0, NS_PER_MS, 30 * NS_PER_DAY, true };
	const struct conf_leaf *leaf;
	char text[UNITS_TEXT_BYTES];

	group->journal_retention_ns = get_duration(builder, section, &retention);
	group->checkpoint_interval_ns = get_duration(builder, section, &checkpoint);
	group->flush_interval_ns = get_duration(builder, section, &flush);
	group->settle_timeout_ns = get_duration(builder, section, &settle);
	group->heartbeat_interval_ns = get_duration(builder, section, &heartbeat);
	group->peer_timeout_ns = get_duration(builder, section, &timeout);
	group->rpo_objective_ns = get_duration(builder, section, &rpo);
	group->rto_objective_ns = get_duration(builder, section, &rto);
	if (group->peer_timeout_ns < 3 * group->heartbeat_interval_ns) {
		leaf = leaf_of(section, "peer_timeout");
		leaf = leaf ? leaf : leaf_of(section, "heartbeat");
		conf_errors_add(builder->errors, leaf ? leaf->line : group->line,
				"make peer_timeout at least three heartbeats",
				"peer_timeout would cut links that merely lost a heartbeat of %s",
				units_format_duration_exact(group->heartbeat_interval_ns, text));
	}
}

static void build_sizes(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	static const struct bounds whole = { "journal_size", GIB, 16 * MIB, 64 * TIB, false };
	static const struct bounds one = { "journal_file_size", 64 * MIB, 4 * MIB, 4 * GIB, false };
	static const struct bounds memory = { "memory", 64 * MIB, 16 * MIB, TIB, false };
	const struct conf_leaf *leaf = leaf_of(section, "journal_file_size");
	char text[UNITS_TEXT_BYTES];
	unsigned line;

	group->journal_size_bytes = get_size(builder, section, &whole);
	group->journal_file_bytes = get_size(builder, section, &one);
	group->memory_bytes = get_size(builder, section, &memory);
	line = leaf ? leaf->line : group->line;
	leaf = leaf_of(section, "journal_size");
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
		const struct conf_leaf *set = leaf_of(section, "memory");

		conf_errors_add(builder->errors,
				set    ? set->line
				: leaf ? leaf->line
				       : group->line,
				"lower memory or raise journal_size",
				"memory is larger than the journal of %s that it is backed by",
				units_format_size_exact(group->journal_size_bytes, text));
	}
}

static void build_group(struct builder *builder, cfg_t *section, struct conf_group *group)
{
	static const char *const caches[] = { "writeback", "writethrough", NULL };
	unsigned volumes = cfg_size(section, "volume"), peers = cfg_size(section, "peer");

	group->line = conf_text_open_line(builder->text, (unsigned)section->line, 1);
	group->name = copy(builder, cfg_title(section));
	if (!group_name_valid(cfg_title(section)))
		conf_errors_add(builder->errors, group->line, CHECK_NAME_RULE,
				"group name \"%s\" is not valid", cfg_title(section));
	group->cache = get_word(builder, section, "cache", caches, 0) == 0 ? CONF_WRITEBACK
									   : CONF_WRITETHROUGH;
	build_sizes(builder, section, group);
	build_timings(builder, section, group);
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
	group->volumes = array(builder, volumes, sizeof(*group->volumes));
	group->peers = array(builder, peers, sizeof(*group->peers));
	for (unsigned i = 0; group->volumes && i < volumes; i++)
		build_volume(builder, group, cfg_getnsec(section, "volume", i),
			     &group->volumes[group->volume_count++]);
	for (unsigned i = 0; group->peers && i < peers; i++)
		build_peer(builder, group, cfg_getnsec(section, "peer", i),
			   &group->peers[group->peer_count++]);
}

struct seen_path {
	const struct conf_leaf *leaf;
	const char *group, *volume;
};

/* Adds a path to those seen, or complains. */
static void see_path(struct builder *builder, struct seen_path *seen, unsigned *count,
		     const struct seen_path *path)
{
	for (unsigned i = 0; i < *count; i++) {
		if (strcmp(path->leaf->text, seen[i].leaf->text) != 0)
			continue;
		conf_errors_add(builder->errors, path->leaf->line,
				"give each volume its own device or file",
				"%s is already volume '%s' of group '%s'", path->leaf->text,
				seen[i].volume, seen[i].group);
		return;
	}
	seen[(*count)++] = *path;
}

/* One device under two volumes would be written by both. */
static void check_paths(struct builder *builder, cfg_t *root)
{
	const struct conf *conf = builder->conf;
	unsigned total = 0, count = 0;
	struct seen_path *seen;

	for (unsigned i = 0; i < conf->group_count; i++)
		total += conf->groups[i].volume_count;
	seen = array(builder, total, sizeof(*seen));
	for (unsigned i = 0; seen && i < conf->group_count; i++) {
		cfg_t *group = cfg_getnsec(root, "group", i);

		for (unsigned j = 0; j < conf->groups[i].volume_count; j++) {
			cfg_t *volume = cfg_getnsec(group, "volume", j);
			const struct seen_path path = { leaf_of(volume, "path"), cfg_title(group),
							cfg_title(volume) };

			if (path.leaf)
				see_path(builder, seen, &count, &path);
		}
	}
	free(seen);
}

/* Who speaks TLS needs an identity. */
static void check_tls(struct builder *builder, cfg_t *root)
{
	const struct conf *conf = builder->conf;
	const char *why = NULL;
	unsigned line = 0;

	for (unsigned i = conf->group_count; i > 0; i--) {
		if (conf->groups[i - 1].peer_count > 0) {
			why = "a group has peers";
			line = conf->groups[i - 1].line;
		}
	}
	if (conf->engine.listen) {
		why = "the engine listens";
		line = leaf_of(cfg_getnsec(root, "engine", 0), "listen")->line;
	}
	if (conf->agent.nbd_listen && conf->agent.nbd_tls_required) {
		why = "the agent serves NBD with TLS";
		line = leaf_of(cfg_getnsec(root, "agent", 0), "nbd_listen")->line;
	}
	if (cfg_size(root, "tls") > 0) {
		why = "section 'tls' is there";
		line = conf_text_open_line(builder->text,
					   (unsigned)cfg_getnsec(root, "tls", 0)->line, 1);
	}
	if (why && (!conf->tls.ca || !conf->tls.cert || !conf->tls.key))
		conf_errors_add(builder->errors, line,
				"set ca, cert and key (holdfast pki makes them)",
				"%s, but tls { } does not name all of ca, cert and key", why);
}

static void build(struct builder *builder, cfg_t *root)
{
	static const char *const levels[] = { "error", "warning", "info", "debug", NULL };
	struct conf *conf = builder->conf;
	const struct conf_leaf *node = leaf_of(root, "node");
	unsigned groups = cfg_size(root, "group");
	char reason[CHECK_TEXT_BYTES];

	if (!node) {
		conf_errors_add(builder->errors, 1, "add node = \"NAME\", as in its certificate",
				"this node has no name");
	} else {
		conf->node = copy(builder, node->text);
		if (!check_node(node->text, reason))
			conf_errors_add(builder->errors, node->line,
					"write the identity of this node's certificate",
					"node = \"%s\" %s", node->text, reason);
	}
	conf->state_dir = get_path(builder, root, "state_dir", STATE_DIR_DEFAULT);
	conf->run_dir = get_path(builder, root, "run_dir", RUN_DIR_DEFAULT);
	conf->log_level = copy(builder, levels[get_word(builder, root, "log_level", levels, 2)]);
	/* The sockets' names must fit into an address. */
	if (conf->run_dir && strlen(conf->run_dir) + strlen("/nbd-.sock") > 106)
		conf_errors_add(builder->errors,
				leaf_of(root, "run_dir") ? leaf_of(root, "run_dir")->line : 1,
				"choose a shorter one", "run_dir is too long for unix sockets");
	build_tls(builder, single(builder, root, "tls"));
	build_daemons(builder, single(builder, root, "agent"), single(builder, root, "engine"));
	conf->groups = array(builder, groups, sizeof(*conf->groups));
	for (unsigned i = 0; conf->groups && i < groups; i++)
		build_group(builder, cfg_getnsec(root, "group", i),
			    &conf->groups[conf->group_count++]);
	for (unsigned i = 0; conf->run_dir && i < conf->group_count; i++) {
		const struct conf_group *group = &conf->groups[i];

		if (strlen(conf->run_dir) + strlen("/nbd-.sock") + strlen(group->name) > 106)
			conf_errors_add(builder->errors, group->line,
					"shorten the group's name or run_dir",
					"the NBD socket of group '%s' would have too long a path",
					group->name);
	}
	check_paths(builder, root);
	check_tls(builder, root);
}

int conf_load(const char *file, struct conf **ret_conf, char *error, size_t error_max)
{
	struct conf_text text = { .bytes = NULL };
	struct conf_errors *errors = calloc(1, sizeof(*errors));
	struct builder builder = { .text = &text, .errors = errors };
	cfg_t *root = NULL;
	int res = -ENOMEM;

	if (error_max > 0)
		error[0] = '\0';
	builder.conf = calloc(1, sizeof(*builder.conf));
	if (!errors || !builder.conf)
		goto out;
	errors->file = file;
	res = conf_text_load(file, &text, errors);
	if (res < 0)
		goto out;
	builder.conf->file = copy(&builder, file);
	root = conf_parse(&text, errors);
	if (root)
		build(&builder, root);
	res = builder.no_memory ? -ENOMEM : errors->count ? -EINVAL : 0;
out:
	if (errors)
		conf_errors_print(errors, error, error_max);
	if (res == -ENOMEM)
		(void)snprintf(error, error_max, "%s: out of memory", file);
	if (root)
		(void)cfg_free(root);
	conf_text_free(&text);
	free(errors);
	if (res == 0)
		*ret_conf = builder.conf;
	else
		conf_free(builder.conf);
	return res;
}

static void group_free(struct conf_group *group)
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

struct conf *conf_free(struct conf *conf)
{
	if (!conf)
		return NULL;
	for (unsigned i = 0; i < conf->group_count; i++)
		group_free(&conf->groups[i]);
	free(conf->groups);
	free(conf->file);
	free(conf->node);
	free(conf->state_dir);
	free(conf->run_dir);
	free(conf->log_level);
	free(conf->tls.ca);
	free(conf->tls.cert);
	free(conf->tls.key);
	free(conf->tls.crl);
	free(conf->agent.nbd_listen);
	free(conf->agent.metrics_listen);
	free(conf->engine.listen);
	free(conf->engine.metrics_listen);
	free(conf);
	return NULL;
}

const struct conf_group *conf_group(const struct conf *conf, const char *name)
{
	for (unsigned i = 0; i < conf->group_count; i++) {
		if (strcmp(conf->groups[i].name, name) == 0)
			return &conf->groups[i];
	}
	return NULL;
}

const struct conf_peer *conf_peer(const struct conf_group *group, const char *node)
{
	for (unsigned i = 0; i < group->peer_count; i++) {
		if (strcmp(group->peers[i].node, node) == 0)
			return &group->peers[i];
	}
	return NULL;
}
