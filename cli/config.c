/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cli/cli.h"
#include "core/base/units.h"

#define WINDOW_TEXT_BYTES 96u

static const char *const roles[] = { "both", "standby", "source" };
static const char *const modes[] = { "async", "sync", "sync-all" };
static const char *const losses[] = { "async", "freeze" };
static const char *const compares[] = { "auto", "always", "never" };

static json_t *seconds(uint64_t ns)
{
	return json_real((double)ns / 1e9);
}

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

static const char *window_text(const struct conf_window *window, char text[WINDOW_TEXT_BYTES])
{
	char rate[UNITS_TEXT_BYTES] = "0";

	if (window->rate_bytes)
		(void)units_format_size_exact(window->rate_bytes, rate);
	(void)snprintf(text, WINDOW_TEXT_BYTES, "%02u:%02u-%02u:%02u %s", window->from_min / 60,
		       window->from_min % 60, window->to_min / 60, window->to_min % 60, rate);
	return text;
}

static json_t *peer_json(const struct conf_peer *peer)
{
	json_t *windows = json_array(), *json;
	char text[WINDOW_TEXT_BYTES];

	for (unsigned i = 0; i < peer->window_count; i++)
		json_array_append_new(windows, json_string(window_text(&peer->windows[i], text)));
	json = json_pack("{s:s, s:o, s:s, s:I, s:I, s:i, s:I, s:I, s:s}", "node", peer->node,
			 "address", text_or_null(peer->address), "role", roles[peer->role],
			 "window_bytes", (json_int_t)peer->window_bytes, "sync_rate_bytes",
			 (json_int_t)peer->sync_rate_bytes, "sync_share_percent",
			 (int)peer->sync_share, "bandwidth_bytes",
			 (json_int_t)peer->bandwidth_bytes, "coalesce_bytes",
			 (json_int_t)peer->coalesce_bytes, "compare", compares[peer->compare]);
	json_object_set_new(json, "bandwidth_windows", windows);
	return json;
}

static json_t *group_json(const struct conf_group *group)
{
	json_t *volumes = json_array(), *peers = json_array(), *clients = json_array(), *json;

	for (unsigned i = 0; i < group->volume_count; i++)
		json_array_append_new(volumes,
				      json_pack("{s:s, s:s}", "name", group->volumes[i].name,
						"path", group->volumes[i].path));
	for (unsigned i = 0; i < group->peer_count; i++)
		json_array_append_new(peers, peer_json(&group->peers[i]));
	for (unsigned i = 0; i < group->nbd_client_count; i++)
		json_array_append_new(clients, json_string(group->nbd_clients[i]));
	json = json_pack("{s:s, s:s, s:I, s:I, s:I}", "name", group->name, "cache",
			 group->cache == CONF_WRITEBACK ? "writeback" : "writethrough",
			 "journal_size_bytes", (json_int_t)group->journal_size_bytes,
			 "journal_file_size_bytes", (json_int_t)group->journal_file_bytes,
			 "memory_bytes", (json_int_t)group->memory_bytes);
	json_object_set_new(json, "journal_retention_seconds",
			    seconds(group->journal_retention_ns));
	json_object_set_new(json, "checkpoint_interval_seconds",
			    seconds(group->checkpoint_interval_ns));
	json_object_set_new(json, "flush_interval_seconds", seconds(group->flush_interval_ns));
	json_object_set_new(json, "settle_timeout_seconds", seconds(group->settle_timeout_ns));
	json_object_set_new(json, "heartbeat_seconds", seconds(group->heartbeat_interval_ns));
	json_object_set_new(json, "peer_timeout_seconds", seconds(group->peer_timeout_ns));
	json_object_set_new(json, "mode", json_string(modes[group->mode]));
	json_object_set_new(json, "on_sync_loss", json_string(losses[group->on_sync_loss]));
	json_object_set_new(json, "sync_timeout_seconds", seconds(group->sync_timeout_ns));
	json_object_set_new(json, "undo_limit_bytes",
			    json_integer((json_int_t)group->undo_limit_bytes));
	json_object_set_new(json, "rejoin", json_string(group->rejoin_auto ? "auto" : "manual"));
	json_object_set_new(json, "verify_interval_seconds", seconds(group->verify_interval_ns));
	json_object_set_new(json, "verify_rate_bytes",
			    json_integer((json_int_t)group->verify_rate_bytes));
	json_object_set_new(json, "rpo_objective_seconds", seconds(group->rpo_objective_ns));
	json_object_set_new(json, "rto_objective_seconds", seconds(group->rto_objective_ns));
	json_object_set_new(json, "nbd_clients", clients);
	json_object_set_new(json, "volumes", volumes);
	json_object_set_new(json, "peers", peers);
	return json;
}

static json_t *conf_json(const struct conf *conf)
{
	json_t *groups = json_array(), *json;

	for (unsigned i = 0; i < conf->group_count; i++)
		json_array_append_new(groups, group_json(&conf->groups[i]));
	json = json_pack("{s:s, s:s, s:s, s:s, s:s}", "file", conf->file, "node", conf->node,
			 "state_dir", conf->state_dir, "run_dir", conf->run_dir, "log_level",
			 conf->log_level);
	json_object_set_new(json, "tls",
			    json_pack("{s:o, s:o, s:o, s:o}", "ca", text_or_null(conf->tls.ca),
				      "cert", text_or_null(conf->tls.cert), "key",
				      text_or_null(conf->tls.key), "crl",
				      text_or_null(conf->tls.crl)));
	json_object_set_new(json, "agent",
			    json_pack("{s:o, s:s, s:i, s:o}", "nbd_listen",
				      text_or_null(conf->agent.nbd_listen), "nbd_tls",
				      conf->agent.nbd_tls_required ? "required" : "off",
				      "nbd_connections_max", (int)conf->agent.nbd_connections_max,
				      "metrics_listen", text_or_null(conf->agent.metrics_listen)));
	json_object_set_new(json, "engine",
			    json_pack("{s:o, s:o}", "listen", text_or_null(conf->engine.listen),
				      "metrics_listen", text_or_null(conf->engine.metrics_listen)));
	json_object_set_new(json, "groups", groups);
	return json;
}

static void show_text(const char *indent, const char *name, const char *value)
{
	if (value)
		printf("%s%s = \"%s\"\n", indent, name, value);
}

static void show_size(const char *indent, const char *name, uint64_t bytes)
{
	char text[UNITS_TEXT_BYTES];

	printf("%s%s = %s\n", indent, name, units_format_size_exact(bytes, text));
}

static void show_duration(const char *name, uint64_t ns)
{
	char text[UNITS_TEXT_BYTES];

	printf("\t%s = %s\n", name, units_format_duration_exact(ns, text));
}

static void show_peer(const struct conf_peer *peer)
{
	char text[WINDOW_TEXT_BYTES];

	printf("\tpeer \"%s\" {\n", peer->node);
	show_text("\t\t", "address", peer->address);
	printf("\t\trole = %s\n", roles[peer->role]);
	show_size("\t\t", "window", peer->window_bytes);
	show_size("\t\t", "sync_rate", peer->sync_rate_bytes);
	printf("\t\tsync_share = %u\n", peer->sync_share);
	show_size("\t\t", "bandwidth", peer->bandwidth_bytes);
	if (peer->window_count) {
		printf("\t\tbandwidth_windows = {");
		for (unsigned i = 0; i < peer->window_count; i++)
			printf("%s\"%s\"", i ? ", " : "", window_text(&peer->windows[i], text));
		printf("}\n");
	}
	show_size("\t\t", "coalesce", peer->coalesce_bytes);
	printf("\t\tcompare = %s\n", compares[peer->compare]);
	printf("\t}\n");
}

static void show_group(const struct conf_group *group)
{
	printf("group \"%s\" {\n", group->name);
	printf("\tcache = %s\n", group->cache == CONF_WRITEBACK ? "writeback" : "writethrough");
	printf("\tmode = %s\n", modes[group->mode]);
	printf("\ton_sync_loss = %s\n", losses[group->on_sync_loss]);
	show_duration("sync_timeout", group->sync_timeout_ns);
	show_size("\t", "journal_size", group->journal_size_bytes);
	show_size("\t", "journal_file_size", group->journal_file_bytes);
	show_duration("journal_retention", group->journal_retention_ns);
	show_size("\t", "memory", group->memory_bytes);
	show_duration("checkpoint_interval", group->checkpoint_interval_ns);
	show_duration("flush_interval", group->flush_interval_ns);
	show_duration("settle_timeout", group->settle_timeout_ns);
	show_duration("heartbeat", group->heartbeat_interval_ns);
	show_duration("peer_timeout", group->peer_timeout_ns);
	show_size("\t", "undo_limit", group->undo_limit_bytes);
	printf("\trejoin = %s\n", group->rejoin_auto ? "auto" : "manual");
	show_duration("verify_interval", group->verify_interval_ns);
	show_size("\t", "verify_rate", group->verify_rate_bytes);
	show_duration("rpo_objective", group->rpo_objective_ns);
	show_duration("rto_objective", group->rto_objective_ns);
	if (group->nbd_client_count) {
		printf("\tnbd_clients = {");
		for (unsigned i = 0; i < group->nbd_client_count; i++)
			printf("%s\"%s\"", i ? ", " : "", group->nbd_clients[i]);
		printf("}\n");
	}
	for (unsigned i = 0; i < group->volume_count; i++)
		printf("\tvolume \"%s\" { path = \"%s\" }\n", group->volumes[i].name,
		       group->volumes[i].path);
	for (unsigned i = 0; i < group->peer_count; i++)
		show_peer(&group->peers[i]);
	printf("}\n");
}

/* As the file could have been written, with every preset spelt out. */
static void show(const struct conf *conf)
{
	printf("# %s\n", conf->file);
	show_text("", "node", conf->node);
	show_text("", "state_dir", conf->state_dir);
	show_text("", "run_dir", conf->run_dir);
	show_text("", "log_level", conf->log_level);
	if (conf->tls.ca) {
		printf("tls {\n");
		show_text("\t", "ca", conf->tls.ca);
		show_text("\t", "cert", conf->tls.cert);
		show_text("\t", "key", conf->tls.key);
		show_text("\t", "crl", conf->tls.crl);
		printf("}\n");
	}
	printf("agent {\n");
	show_text("\t", "nbd_listen", conf->agent.nbd_listen);
	printf("\tnbd_tls = %s\n", conf->agent.nbd_tls_required ? "required" : "off");
	printf("\tnbd_connections_max = %u\n", conf->agent.nbd_connections_max);
	show_text("\t", "metrics_listen", conf->agent.metrics_listen);
	printf("}\nengine {\n");
	show_text("\t", "listen", conf->engine.listen);
	show_text("\t", "metrics_listen", conf->engine.metrics_listen);
	printf("}\n");
	for (unsigned i = 0; i < conf->group_count; i++)
		show_group(&conf->groups[i]);
}

int cli_config(struct cli *cli, int argc, char **argv)
{
	int first, code;

	if (cli_parse(cli, argc, argv, NULL, 0, 1, 1, &first, &code) == CLI_STOP)
		return code;
	if (strcmp(argv[first], "check") != 0 && strcmp(argv[first], "show") != 0)
		return cli_fail(cli, EXIT_USAGE, "usage", "use check or show",
				"config: '%s' is unknown", argv[first]);
	code = cli_load(cli);
	if (code != EXIT_OK)
		return code;
	if (strcmp(argv[first], "show") == 0) {
		if (cli->json)
			return cli_print_json(conf_json(cli->conf));
		show(cli->conf);
		return EXIT_OK;
	}
	if (cli->json)
		return cli_print_json(json_pack("{s:s, s:b, s:i}", "file", cli->conf->file, "ok", 1,
						"groups", (int)cli->conf->group_count));
	printf("%s: ok, node %s, %u group%s\n", cli->conf->file, cli->conf->node,
	       cli->conf->group_count, cli->conf->group_count == 1 ? "" : "s");
	return EXIT_OK;
}
