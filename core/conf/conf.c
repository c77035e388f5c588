/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/conf.h"

#include <confuse.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/conf/builder.h"
#include "core/conf/check.h"

#define STATE_DIR_DEFAULT "/var/lib/holdfast"
#define RUN_DIR_DEFAULT	  "/run/holdfast"

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

	conf->tls.ca = builder_path(builder, section, "ca", NULL);
	conf->tls.cert = builder_path(builder, section, "cert", NULL);
	conf->tls.key = builder_path(builder, section, "key", NULL);
	conf->tls.crl = builder_path(builder, section, "crl", NULL);
}

static void build_daemons(struct builder *builder, cfg_t *agent, cfg_t *engine)
{
	static const char *const policies[] = { "required", "off", NULL };
	static const struct builder_bounds connections = { "nbd_connections_max", 64, 1, 4096,
							   false };
	struct conf *conf = builder->conf;

	conf->agent.nbd_listen = builder_address(builder, agent, "nbd_listen");
	conf->agent.metrics_listen = builder_address(builder, agent, "metrics_listen");
	conf->agent.nbd_tls_required = builder_word(builder, agent, "nbd_tls", policies, 0) == 0;
	conf->agent.nbd_connections_max = (unsigned)builder_number(builder, agent, &connections);
	if (!conf->agent.nbd_tls_required && conf->agent.nbd_listen &&
	    !check_is_loopback(conf->agent.nbd_listen)) {
		conf_errors_add(builder->errors, builder_leaf(agent, "nbd_tls")->line,
				"set nbd_tls = required, or listen on 127.0.0.1 or [::1]",
				"nbd_tls = off would serve volumes to everybody who reaches %s",
				conf->agent.nbd_listen);
	}
	conf->engine.listen = builder_address(builder, engine, "listen");
	conf->engine.metrics_listen = builder_address(builder, engine, "metrics_listen");
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
	seen = builder_array(builder, total, sizeof(*seen));
	for (unsigned i = 0; seen && i < conf->group_count; i++) {
		cfg_t *group = cfg_getnsec(root, "group", i);

		for (unsigned j = 0; j < conf->groups[i].volume_count; j++) {
			cfg_t *volume = cfg_getnsec(group, "volume", j);
			const struct seen_path path = { builder_leaf(volume, "path"),
							cfg_title(group), cfg_title(volume) };

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
		line = builder_leaf(cfg_getnsec(root, "engine", 0), "listen")->line;
	}
	if (conf->agent.nbd_listen && conf->agent.nbd_tls_required) {
		why = "the agent serves NBD with TLS";
		line = builder_leaf(cfg_getnsec(root, "agent", 0), "nbd_listen")->line;
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
	const struct conf_leaf *node = builder_leaf(root, "node");
	unsigned groups = cfg_size(root, "group");
	char reason[CHECK_TEXT_BYTES];

	if (!node) {
		conf_errors_add(builder->errors, 1, "add node = \"NAME\", as in its certificate",
				"this node has no name");
	} else {
		conf->node = builder_copy(builder, node->text);
		if (!check_node(node->text, reason))
			conf_errors_add(builder->errors, node->line,
					"write the identity of this node's certificate",
					"node = \"%s\" %s", node->text, reason);
	}
	conf->state_dir = builder_path(builder, root, "state_dir", STATE_DIR_DEFAULT);
	conf->run_dir = builder_path(builder, root, "run_dir", RUN_DIR_DEFAULT);
	conf->log_level =
		builder_copy(builder, levels[builder_word(builder, root, "log_level", levels, 2)]);
	/* The sockets' names must fit into an address. */
	if (conf->run_dir && strlen(conf->run_dir) + strlen("/nbd-.sock") > 106)
		conf_errors_add(builder->errors,
				builder_leaf(root, "run_dir") ? builder_leaf(root, "run_dir")->line
							      : 1,
				"choose a shorter one", "run_dir is too long for unix sockets");
	build_tls(builder, single(builder, root, "tls"));
	build_daemons(builder, single(builder, root, "agent"), single(builder, root, "engine"));
	conf->groups = builder_array(builder, groups, sizeof(*conf->groups));
	for (unsigned i = 0; conf->groups && i < groups; i++)
		builder_group(builder, cfg_getnsec(root, "group", i),
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
	builder.conf->file = builder_copy(&builder, file);
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

struct conf *conf_free(struct conf *conf)
{
	if (!conf)
		return NULL;
	for (unsigned i = 0; i < conf->group_count; i++)
		builder_group_free(&conf->groups[i]);
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
