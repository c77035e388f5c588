/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/conf/check.h"
#include "core/conf/conf.h"

static char file[256];
static char error[8192];

static int load(const char *text, struct conf **ret_conf)
{
	const char *directory = getenv("TMPDIR");
	FILE *out;
	int fd, res;

	(void)snprintf(file, sizeof(file), "%s/test_conf.XXXXXX", directory ? directory : "/tmp");
	fd = mkstemp(file);
	assert_true(fd >= 0);
	out = fdopen(fd, "w");
	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
	res = conf_load(file, ret_conf, error, sizeof(error));
	assert_int_equal(unlink(file), 0);
	return res;
}

#define TLS "tls { ca = /e/ca.pem\n cert = /e/n.pem\n key = /e/n.key }\n"

static const char full[] =
	"# the whole language\n"
	"node = \"alpha.example\" // a comment\n"
	"state_dir = /srv/holdfast\n"
	"run_dir = '/run/hf'\n"
	"log_level = debug\n"
	"/* two\n"
	"   lines */\n"
	"tls {\n"
	"	ca = \"/e/ca.pem\"\n"
	"	cert = \"/e/a.pem\"\n"
	"	key = \"/e/a.key\"\n"
	"	crl = \"/e/ca.crl\"\n"
	"}\n"
	"agent { nbd_listen = \"0.0.0.0:10809\" nbd_tls = required nbd_connections_max = 7\n"
	"	metrics_listen = \"127.0.0.1:9400\" }\n"
	"engine { listen = \"[::]:7400\" }\n"
	"group \"db\" {\n" /* line 17 */
	"	cache = writethrough\n"
	"	journal_size = 256MiB\n"
	"	journal_file_size = 16MiB\n"
	"	journal_retention = 24h\n"
	"	memory = 32MiB\n"
	"	checkpoint_interval = 2s\n"
	"	flush_interval = 500us\n"
	"	settle_timeout = 0\n"
	"	heartbeat = 100ms\n"
	"	peer_timeout = 1s\n"
	"	rpo_objective = 5s\n"
	"	rto_objective = 1m\n"
	"	mode = sync-all\n"
	"	on_sync_loss = freeze\n"
	"	sync_timeout = 250ms\n"
	"	undo_limit = 1GiB\n"
	"	rejoin = auto\n"
	"	verify_interval = 7d\n"
	"	verify_rate = 8MiB\n"
	"	volume \"data\" { path = \"/dev/vg0/data\" }\n"
	"	volume wal {\n"
	"		path = \"/dev/vg0/wal\"\n"
	"	}\n"
	"	peer \"beta.example\" { address = \"10.0.0.2:7400\" role = standby window = 4MiB\n"
	"		sync_rate = 10MiB sync_share = 80 bandwidth = 20MiB coalesce = 64MiB\n"
	"		bandwidth_windows = {\"08:00-18:00 10MiB\", \"22:30-06:00 0\",\n"
	"			\"18:00-18:01   64KiB\"} compare = never }\n"
	"	peer \"spiffe://x/gamma\" { role = source }\n"
	"	nbd_clients = {\"vm1.example\",\n \"vm2.example\"}\n"
	"}\n"
	"group small { volume v { path = /srv/v.img } }\n";

static void test_full(void **state)
{
	const struct conf_group *group;
	struct conf *conf = NULL;

	(void)state;
	assert_int_equal(load(full, &conf), 0);
	assert_string_equal(error, "");
	assert_string_equal(conf->file, file);
	assert_string_equal(conf->node, "alpha.example");
	assert_string_equal(conf->state_dir, "/srv/holdfast");
	assert_string_equal(conf->run_dir, "/run/hf");
	assert_string_equal(conf->log_level, "debug");
	assert_string_equal(conf->tls.ca, "/e/ca.pem");
	assert_string_equal(conf->tls.cert, "/e/a.pem");
	assert_string_equal(conf->tls.key, "/e/a.key");
	assert_string_equal(conf->tls.crl, "/e/ca.crl");
	assert_string_equal(conf->agent.nbd_listen, "0.0.0.0:10809");
	assert_true(conf->agent.nbd_tls_required);
	assert_int_equal(conf->agent.nbd_connections_max, 7);
	assert_string_equal(conf->agent.metrics_listen, "127.0.0.1:9400");
	assert_string_equal(conf->engine.listen, "[::]:7400");
	assert_null(conf->engine.metrics_listen);
	assert_int_equal(conf->group_count, 2);
	group = conf_group(conf, "db");
	assert_ptr_equal(group, &conf->groups[0]);
	assert_int_equal(group->line, 17);
	assert_int_equal(group->cache, CONF_WRITETHROUGH);
	assert_int_equal(group->journal_size_bytes, 256 * MIB);
	assert_int_equal(group->journal_file_bytes, 16 * MIB);
	assert_int_equal(group->journal_retention_ns, 24 * NS_PER_HOUR);
	assert_int_equal(group->memory_bytes, 32 * MIB);
	assert_int_equal(group->checkpoint_interval_ns, 2 * NS_PER_S);
	assert_int_equal(group->flush_interval_ns, 500 * NS_PER_US);
	assert_int_equal(group->settle_timeout_ns, 0);
	assert_int_equal(group->heartbeat_interval_ns, 100 * NS_PER_MS);
	assert_int_equal(group->peer_timeout_ns, NS_PER_S);
	assert_int_equal(group->rpo_objective_ns, 5 * NS_PER_S);
	assert_int_equal(group->rto_objective_ns, 60 * NS_PER_S);
	assert_int_equal(group->volume_count, 2);
	assert_string_equal(group->volumes[0].name, "data");
	assert_string_equal(group->volumes[0].path, "/dev/vg0/data");
	assert_string_equal(group->volumes[1].name, "wal");
	assert_string_equal(group->volumes[1].path, "/dev/vg0/wal");
	assert_int_equal(group->peer_count, 2);
	assert_ptr_equal(conf_peer(group, "beta.example"), &group->peers[0]);
	assert_null(conf_peer(group, "beta"));
	assert_string_equal(group->peers[0].address, "10.0.0.2:7400");
	assert_int_equal(group->peers[0].role, CONF_PEER_STANDBY);
	assert_int_equal(group->peers[0].window_bytes, 4 * MIB);
	assert_int_equal(group->peers[0].sync_rate_bytes, 10 * MIB);
	assert_string_equal(group->peers[1].node, "spiffe://x/gamma");
	assert_int_equal(group->peers[1].role, CONF_PEER_SOURCE);
	assert_null(group->peers[1].address);
	assert_int_equal(group->nbd_client_count, 2);
	assert_string_equal(group->nbd_clients[1], "vm2.example");
	assert_null(conf_group(conf, "nothing"));
	assert_null(conf_free(conf));
}

static void test_full_modes(void **state)
{
	const struct conf_group *group;
	const struct conf_peer *peer;
	struct conf *conf = NULL;

	(void)state;
	assert_int_equal(load(full, &conf), 0);
	group = conf_group(conf, "db");
	peer = &group->peers[0];
	assert_int_equal(group->mode, CONF_SYNC_ALL);
	assert_int_equal(group->on_sync_loss, CONF_LOSS_FREEZE);
	assert_int_equal(group->sync_timeout_ns, 250 * NS_PER_MS);
	assert_int_equal(group->undo_limit_bytes, GIB);
	assert_true(group->rejoin_auto);
	assert_int_equal(group->verify_interval_ns, 7 * NS_PER_DAY);
	assert_int_equal(group->verify_rate_bytes, 8 * MIB);
	assert_int_equal(peer->sync_share, 80);
	assert_int_equal(peer->bandwidth_bytes, 20 * MIB);
	assert_int_equal(peer->coalesce_bytes, 64 * MIB);
	assert_int_equal(peer->compare, CONF_COMPARE_NEVER);
	assert_int_equal(peer->window_count, 3);
	assert_int_equal(peer->windows[0].from_min, 8 * 60);
	assert_int_equal(peer->windows[0].to_min, 18 * 60);
	assert_int_equal(peer->windows[0].rate_bytes, 10 * MIB);
	assert_int_equal(peer->windows[1].from_min, 22 * 60 + 30);
	assert_int_equal(peer->windows[1].to_min, 6 * 60);
	assert_int_equal(peer->windows[1].rate_bytes, 0);
	assert_int_equal(peer->windows[2].rate_bytes, 64 * KIB);
	conf_free(conf);
}

static void test_defaults(void **state)
{
	struct conf *conf = NULL;
	const struct conf_group *group;

	(void)state;
	assert_int_equal(load("node = a group g { volume v { path = /v } }", &conf), 0);
	group = &conf->groups[0];
	assert_string_equal(conf->state_dir, "/var/lib/holdfast");
	assert_string_equal(conf->run_dir, "/run/holdfast");
	assert_string_equal(conf->log_level, "info");
	assert_true(conf->agent.nbd_tls_required);
	assert_int_equal(conf->agent.nbd_connections_max, 64);
	assert_int_equal(group->cache, CONF_WRITEBACK);
	assert_int_equal(group->journal_size_bytes, GIB);
	assert_int_equal(group->journal_file_bytes, 64 * MIB);
	assert_int_equal(group->memory_bytes, 64 * MIB);
	assert_int_equal(group->checkpoint_interval_ns, NS_PER_S);
	assert_int_equal(group->flush_interval_ns, 5 * NS_PER_MS);
	assert_int_equal(group->settle_timeout_ns, 2 * NS_PER_S);
	assert_int_equal(group->heartbeat_interval_ns, 500 * NS_PER_MS);
	assert_int_equal(group->peer_timeout_ns, 5 * NS_PER_S);
	assert_int_equal(group->mode, CONF_ASYNC);
	assert_int_equal(group->on_sync_loss, CONF_LOSS_ASYNC);
	assert_int_equal(group->sync_timeout_ns, 5 * NS_PER_S);
	assert_int_equal(group->undo_limit_bytes, 0);
	assert_false(group->rejoin_auto);
	assert_int_equal(group->verify_interval_ns, 0);
	assert_int_equal(group->verify_rate_bytes, 32 * MIB);
	conf_free(conf);
	assert_int_equal(load("node = a " TLS
			      "group g { volume v { path = /v } peer b { address = \"h:1\" } }",
			      &conf),
			 0);
	assert_int_equal(conf->groups[0].peers[0].window_bytes, 16 * MIB);
	assert_int_equal(conf->groups[0].peers[0].role, CONF_PEER_BOTH);
	assert_int_equal(conf->groups[0].peers[0].sync_rate_bytes, 0);
	assert_int_equal(conf->groups[0].peers[0].sync_share, 50);
	assert_int_equal(conf->groups[0].peers[0].bandwidth_bytes, 0);
	assert_int_equal(conf->groups[0].peers[0].window_count, 0);
	assert_int_equal(conf->groups[0].peers[0].coalesce_bytes, 0);
	assert_int_equal(conf->groups[0].peers[0].compare, CONF_COMPARE_AUTO);
	conf_free(conf);
}

#define V "volume v { path = /v }"
/* A right configuration whose peer has `options`, on line 6. */
#define PEER(options)                                                                              \
	"node = a\n" TLS "group g { " V "\n peer b { address = \"h:1\" " options " } }\n"

/* What is wrong, where it must be reported, and a word of the reason. */
static const struct bad {
	const char *text;
	unsigned line;
	const char *reason;
} bad[] = {
	/* syntax */
	{ "node = a\ngroup g {\n" V "\n", 2, "never closed" },
	{ "node = a\n}\n", 2, "closing brace without" },
	{ "node = \"a\ngroup g {" V "}", 1, "does not end on its line" },
	{ "node = \"a\\n\"\n", 1, "backslash" },
	{ "node = a\n/* x\n", 2, "never ends" },
	{ "node = a\nstate_dir = ${HOME}\n", 2, "environment" },
	{ "node = a\nstate_dir = \"/x/${HOME}\"\n", 2, "environment" },
	{ "node = a\nagent { metrics_listen = *:9400 }\n", 2, "quoted values only" },
	{ "node = a\ngroup g { memory = +64MiB " V " }\n", 2, "quoted values only" },
	{ "node a\n", 1, "missing equal sign" },
	{ "node = a\ngroup { " V " }\n", 2, "missing title" },
	{ "node = a\ngroup g = 3\n", 2, "missing opening brace" },
	{ "node = {a}\n", 1, "unexpected" },
	{ "node = a\n# c\n// c\n/* c\n c */ group g {\n " V "\n}\nnonsense\n", 8, "nonsense" },
	{ "node = a {{{{{{{{{{{{", 1, "nested too deeply" },
	/* unknown and double options */
	{ "node = a\ncolour = red\n", 2, "unknown option 'colour'" },
	{ "node = a\ngroup g { " V "\n cash = writeback }\n", 3, "known in group: cache" },
	{ "node = a\ngroup g { " V " }\nwitness \"w\" { a = 1 b { c = 2 } }\n", 3, "'witness'" },
	{ "node = a\nnode = b\n", 2, "set twice" },
	{ "node = a\ngroup g { " V "\n memory = 16MiB\n memory = 32MiB }\n", 4, "set twice" },
	{ "node = a\ngroup g { " V "\n nbd_clients = {a}\n nbd_clients = {b}\n}", 4, "set twice" },
	{ "node = a\n" TLS TLS, 7, "second section 'tls'" },
	{ "node = a\ngroup g { " V " }\ngroup g { volume w { path = /w } }\n", 3, "named 'g'" },
	{ "node = a\ngroup g { " V "\n" V " }\n", 3, "named 'v'" },
	/* names */
	{ "group g { " V " }\n", 1, "no name" },
	{ "node = \"\"\n", 1, "is empty" },
	{ "node = \"a b\"\n", 1, "neither a DNS name nor a URI" },
	{ "node = \"-a\"\n", 1, "does not start with" },
	{ "node = a\ngroup \"../g\" { " V " }\n", 2, "group name \"../g\"" },
	{ "node = a\ngroup \"\" { " V " }\n", 2, "group name" },
	{ "node = a\ngroup .g { " V " }\n", 2, "group name" },
	{ "node = a\ngroup g { volume \"a/b\" { path = /v } }\n", 2, "volume name" },
	{ "node = a\n" TLS "group g { " V "\n peer \"x y\" { address = \"h:1\" } }\n", 6,
	  "peer \"x y\"" },
	{ "node = a\n" TLS "group g { " V "\n peer a { address = \"h:1\" } }\n", 6,
	  "this node itself" },
	{ "node = a\ngroup g { " V "\n nbd_clients = {b,\n\"c d\"}\n}\n", 4, "NBD client \"c d\"" },
	/* paths and addresses */
	{ "node = a\nstate_dir = relative\n", 2, "not absolute" },
	{ "node = a\nstate_dir = /a//b\n", 2, "empty component" },
	{ "node = a\nrun_dir = /a/../b\n", 2, ".. component" },
	{ "node = a\nstate_dir = /a/\n", 2, "empty component" },
	{ "node = a\ngroup g { volume v { } }\n", 2, "has no path" },
	{ "node = a\ngroup g { volume v { path = v } }\n", 2, "not absolute" },
	{ "node = a\ngroup g { " V " }\ngroup h { volume w { path = /v } }\n", 3,
	  "already volume 'v'" },
	{ "node = a\ngroup g { " V " volume w {\n path = /v } }\n", 3, "already volume 'v'" },
	{ "node = a\n" TLS "engine { listen = \"host\" }\n", 5, "has no port" },
	{ "node = a\n" TLS "engine { listen = \"host:\" }\n", 5, "has no port" },
	{ "node = a\n" TLS "engine { listen = \":7400\" }\n", 5, "has no host" },
	{ "node = a\n" TLS "engine { listen = \"h:0\" }\n", 5, "not 1 to 65535" },
	{ "node = a\n" TLS "engine { listen = \"h:65536\" }\n", 5, "not 1 to 65535" },
	{ "node = a\n" TLS "engine { listen = \"h:7x\" }\n", 5, "not 1 to 65535" },
	{ "node = a\n" TLS "engine { listen = \"::1:7400\" }\n", 5, "without [ ]" },
	{ "node = a\n" TLS "engine { listen = \"[::1:7400\" }\n", 5, "unclosed [" },
	{ "node = a\n" TLS "engine { listen = \"[zz]:7400\" }\n", 5, "IPv6" },
	{ "node = a\n" TLS "engine { listen = \"a/b:7400\" }\n", 5, "neither a name" },
	/* numbers */
	{ "node = a\ngroup g { " V "\n memory = 64\n}\n", 3, "outside 16MiB" },
	{ "node = a\ngroup g { " V "\n memory = 64MB\n}\n", 3, "not a size" },
	{ "node = a\ngroup g { " V "\n memory = -64MiB\n}\n", 3, "not a size" },
	{ "node = a\ngroup g { " V "\n memory = \"64 MiB\"\n}\n", 3, "not a size" },
	{ "node = a\ngroup g { " V "\n memory = 99999999999999999999\n}\n", 3, "not a size" },
	{ "node = a\ngroup g { " V "\n memory = 2GiB\n}\n", 3, "larger than the journal" },
	{ "node = a\ngroup g { " V "\n heartbeat = 500\n}\n", 3, "not a duration" },
	{ "node = a\ngroup g { " V "\n heartbeat = 0\n}\n", 3, "outside 10ms" },
	{ "node = a\ngroup g { " V "\n peer_timeout = 1s\n}\n", 3, "three heartbeats" },
	{ "node = a\ngroup g { " V "\n flush_interval = 11s\n}\n", 3, "outside 100us to 10s" },
	{ "node = a\ngroup g { " V "\n journal_file_size = 5000000\n}\n", 3, "multiple of 4096" },
	{ "node = a\ngroup g { " V "\n journal_size = 100MiB\n}\n", 3, "not a multiple" },
	{ "node = a\ngroup g { " V "\n journal_size = 192MiB\n}\n", 3, "fewer than 4" },
	{ "node = a\ngroup g { " V "\n journal_file_size = 2MiB\n}\n", 3, "outside 4MiB" },
	{ "node = a\nagent { nbd_connections_max = 0 }\n", 2, "outside 1 to 4096" },
	{ "node = a\nagent { nbd_connections_max = many }\n", 2, "outside 1 to 4096" },
	/* words */
	{ "node = a\nlog_level = loud\n", 2, "choose one of error, warning, info, debug" },
	{ "node = a\ngroup g { " V "\n cache = none\n}\n", 3, "writeback, writethrough" },
	{ "node = a\n" TLS "group g { " V "\n peer b { role = boss address = \"h:1\" } }\n", 6,
	  "boss" },
	{ "node = a\ngroup g { " V "\n mode = semi\n}\n", 3, "async, sync, sync-all" },
	{ "node = a\ngroup g { " V "\n on_sync_loss = stop\n}\n", 3, "async, freeze" },
	{ "node = a\ngroup g { " V "\n rejoin = yes\n}\n", 3, "manual, auto" },
	{ "node = a\ngroup g { " V "\n sync_timeout = 0\n}\n", 3, "outside 10ms to 10m" },
	{ "node = a\ngroup g { " V "\n undo_limit = 1MiB\n}\n", 3, "outside 64MiB" },
	{ "node = a\ngroup g { " V "\n verify_interval = 7\n}\n", 3, "not a duration" },
	{ "node = a\ngroup g { " V "\n verify_rate = 0\n}\n", 3, "outside 64KiB" },
	{ PEER("sync_share = 0"), 6, "outside 1 to 100" },
	{ PEER("sync_share = 101"), 6, "outside 1 to 100" },
	{ PEER("sync_share = half"), 6, "outside 1 to 100" },
	{ PEER("bandwidth = 1KiB"), 6, "outside 64KiB to 1TiB (or 0)" },
	{ PEER("coalesce = 4KiB"), 6, "outside 1MiB" },
	{ PEER("compare = maybe"), 6, "auto, always, never" },
	{ PEER("bandwidth_windows = {\"8:00-18:00 10MiB\"}"), 6, "is no window of a day" },
	{ PEER("bandwidth_windows = {\"08:00-18:60 10MiB\"}"), 6, "is no window of a day" },
	{ PEER("bandwidth_windows = {\"24:00-18:00 10MiB\"}"), 6, "is no window of a day" },
	{ PEER("bandwidth_windows = {\"08:00-24:01 10MiB\"}"), 6, "is no window of a day" },
	{ PEER("bandwidth_windows = {\"08:00-18:00\"}"), 6, "is no window of a day" },
	{ PEER("bandwidth_windows = {\"08\"}"), 6, "is no window of a day" },
	{ PEER("bandwidth_windows = {\"08:00-08:00 10MiB\"}"), 6, "begins where it ends" },
	{ PEER("bandwidth_windows = {\"00:00-24:01 10MiB\"}"), 6, "is no window of a day" },
	{ PEER("bandwidth_windows = {\"08:00-18:00 fast\"}"), 6, "has a rate that is no size" },
	{ PEER("bandwidth_windows = {\"08:00-18:00 1\"}"), 6, "has a rate that is no size" },
	{ PEER("bandwidth_windows = {\"08:00-18:00 1MiB\",\n\"17:59-20:00 0\"}"), 7,
	  "overlaps one before" },
	{ PEER("bandwidth_windows = {\"22:00-06:00 1MiB\",\n\"05:00-07:00 0\"}"), 7,
	  "overlaps one before" },
	{ PEER("bandwidth_windows = {\"00:00-24:00 1MiB\",\n\"23:59-24:00 0\"}"), 7,
	  "overlaps one before" },
	{ PEER("bandwidth_windows = {\"00:00-00:01 0\", \"00:01-00:02 0\", \"00:02-00:03 0\",\n"
	       "\"00:03-00:04 0\", \"00:04-00:05 0\", \"00:05-00:06 0\", \"00:06-00:07 0\",\n"
	       "\"00:07-00:08 0\", \"00:08-00:09 0\"}"),
	  8, "8 are possible" },
	/* what belongs together */
	{ PEER("coalesce = 1GiB"), 6, "is never reached" },
	{ "node = a\ngroup g { " V "\n mode = sync\n}\n", 3, "waits for a standby" },
	{ "node = a\n" TLS "group g { " V "\n mode = sync peer b { role = source } }\n", 6,
	  "waits for a standby" },
	{ "node = a\ngroup g { }\n", 2, "has no volume" },
	{ "node = a\n" TLS "group g { " V "\n peer b { } }\n", 6, "has no address" },
	{ "node = a\nengine { listen = \"0.0.0.0:7400\" }\n", 2, "tls { } does not name" },
	{ "node = a\ngroup g { " V "\n peer b { address = \"h:1\" } }\n", 2,
	  "tls { } does not name" },
	{ "node = a\nagent { nbd_listen = \"0.0.0.0:10809\" }\n", 2, "serves NBD with TLS" },
	{ "node = a\ntls { ca = /ca }\n", 2, "section 'tls' is there" },
	{ "node = a\nagent { nbd_listen = \"0.0.0.0:10809\"\n nbd_tls = off }\n", 3,
	  "to everybody" },
	{ "node = a\nagent { nbd_listen = \"127.evil.example:1\"\n nbd_tls = off }\n", 3,
	  "everybody" },
};

static void test_bad(void **state)
{
	unsigned failures = 0;

	(void)state;
	for (size_t i = 0; i < array_len(bad); i++) {
		struct conf *conf = NULL;
		char place[320];
		int res = load(bad[i].text, &conf);

		(void)snprintf(place, sizeof(place), "%s:%u: ", file, bad[i].line);
		/* One fault, one line: where, why, what to do. */
		if (res == -EINVAL && !conf && strstr(error, place) &&
		    strstr(error, bad[i].reason) && strstr(error, "; ") && !strchr(error, '\n'))
			continue;
		failures++;
		print_error("%s\n--- wanted line %u and '%s', got %d:\n%s\n", bad[i].text,
			    bad[i].line, bad[i].reason, res, error);
		conf_free(conf);
	}
	assert_int_equal(failures, 0);
}

/* All errors of a file come at once, in its order. */
static void test_all_errors(void **state)
{
	static const char *const wanted[] = {
		":1: ", ":2: ", ":4: ", ":5: ", ":6: ", ":7: ", ":9: "
	};
	const char *text = "colour = red\n"
			   "log_level = loud\n"
			   "node = a\n"
			   "node = b\n"
			   "shape { x = { 1, 2 } }\n"
			   "group g { memory = 1\n"
			   "  sound = 3\n"
			   "  volume v { path = /v }\n"
			   "  volume v { path = /w } }\n";
	struct conf *conf = NULL;
	const char *at = error;

	(void)state;
	assert_int_equal(load(text, &conf), -EINVAL);
	for (size_t i = 0; i < array_len(wanted); i++) {
		at = strstr(at, wanted[i]);
		if (!at)
			fail_msg("no %s in its place in\n%s", wanted[i], error);
	}
}

static void test_no_file(void **state)
{
	struct conf *conf = NULL;

	(void)state;
	assert_int_equal(conf_load("/nonexistent/holdfast.conf", &conf, error, sizeof(error)),
			 -ENOENT);
	assert_non_null(strstr(error, "/nonexistent/holdfast.conf: cannot be read"));
	assert_non_null(strstr(error, "-c"));
	assert_true(conf_load("/proc/self", &conf, error, sizeof(error)) < 0);
	/* A short error buffer is filled, not overrun. */
	memset(error, 'x', sizeof(error));
	assert_int_equal(conf_load("/nonexistent/holdfast.conf", &conf, error, 10), -ENOENT);
	assert_int_equal(strlen(error), 9);
	assert_int_equal(error[10], 'x');
}

static void test_loopback(void **state)
{
	(void)state;
	assert_true(check_is_loopback("127.0.0.1:1"));
	assert_true(check_is_loopback("127.9.9.9:1"));
	assert_true(check_is_loopback("[::1]:1"));
	assert_true(check_is_loopback("localhost:1"));
	assert_false(check_is_loopback("0.0.0.0:1"));
	assert_false(check_is_loopback("127.example:1"));
	assert_false(check_is_loopback("[::]:1"));
	assert_false(check_is_loopback("127.0.0.1"));
}

/* Whatever stands in the file, loading ends with a verdict. */
static void test_cut_anywhere(void **state)
{
	(void)state;
	for (size_t cut = 0; cut < sizeof(full) - 1; cut++) {
		struct conf *conf = NULL;
		char text[sizeof(full)];

		memcpy(text, full, cut);
		text[cut] = '\0';
		if (load(text, &conf) == 0)
			conf_free(conf);
		else
			assert_true(strlen(error) > 0);
		memcpy(text, full, sizeof(full));
		text[cut] = '{';
		if (load(text, &conf) == 0)
			conf_free(conf);
		else
			assert_true(strlen(error) > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),	   cmocka_unit_test(test_full_modes),
		cmocka_unit_test(test_defaults),   cmocka_unit_test(test_bad),
		cmocka_unit_test(test_all_errors), cmocka_unit_test(test_no_file),
		cmocka_unit_test(test_loopback),   cmocka_unit_test(test_cut_anywhere),
	};

	return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
