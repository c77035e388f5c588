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

#include "core/base/macros.h"
#include "core/base/prng.h"
#include "core/base/units.h"
#include "core/conf/peek.h"
#include "core/conf/status_json.h"
#include "core/conf/status_metrics.h"

static struct prng prng;

static uint64_t number(void)
{
	return prng_next(&prng) >> 20; /* what a JSON number keeps exactly, as seconds too */
}

static void text(char *out, size_t size, const char *stem)
{
	(void)snprintf(out, size, "%s%u", stem, (unsigned)(prng_next(&prng) % 1000));
}

static void fill_sync(struct status_sync *sync)
{
	*sync = (struct status_sync){ true, number(), number(), number(), number() };
}

static void fill_lag(struct status_lag *lag)
{
	*lag = (struct status_lag){ number(), number(), number() };
}

static void fill_verify(struct status_verify *verify)
{
	*verify = (struct status_verify){
		.active = true,
		.failed = true,
		.total_bytes = number(),
		.done_bytes = number(),
		.rate_bytes_per_s = number(),
		.left_ns = number(),
		.differing_ranges = number(),
		.differing_bytes = number(),
		.repaired_bytes = number(),
		.known_ranges = number(),
		.known_bytes = number(),
		.range_count = 2,
		.verified_seq = number(),
		.verified_time_ns = UINT64_C(1780000000000000002),
	};
	for (unsigned i = 0; i < verify->range_count; i++) {
		text(verify->ranges[i].volume, sizeof(verify->ranges[i].volume), "volume");
		verify->ranges[i].off = number();
		verify->ranges[i].len = number();
	}
}

/* What only a primary, or only a standby, has to say. */
static void fill_role(struct status_group *s)
{
	s->diverged = true;
	s->common_seq = number();
	s->salvages = number();
	s->released_seq = number();
	text(s->held, sizeof(s->held), "held");
	if (strcmp(s->role, "standby") == 0) {
		s->journal_full_ns = UINT64_MAX;
		s->kept = s->undo_full = true;
		s->kept_seq = number();
		s->kept_time_ns = UINT64_C(1780000000000000003);
		s->undo_bytes = number();
		s->undo_saved_bytes = number();
		s->undo_limit_bytes = number();
		s->rollback_done_bytes = number();
		s->rollback_total_bytes = number();
		s->verified_seq = number();
		s->verified_time_ns = UINT64_C(1780000000000000004);
		return;
	}
	s->journal_full_ns = number();
	text(s->mode, sizeof(s->mode), "mode");
	text(s->mode_state, sizeof(s->mode_state), "state");
	s->lost_since_ns = UINT64_C(1780000000000000005);
	s->sync_losses = number();
}

/* Every field gets a value of its own. */
static struct status_group *random_status(const char *role)
{
	struct status_group *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	text(s->name, sizeof(s->name), "group");
	text(s->uuid, sizeof(s->uuid), "uuid");
	text(s->node, sizeof(s->node), "node");
	(void)snprintf(s->role, sizeof(s->role), "%s", role);
	text(s->state, sizeof(s->state), "state");
	text(s->detail, sizeof(s->detail), "detail \"quoted\" \\ \n");
	text(s->fenced_by, sizeof(s->fenced_by), "other");
	text(s->source, sizeof(s->source), "source");
	s->epoch = number();
	s->fenced_by_epoch = number();
	for (uint64_t *p = &s->head_seq; p <= &s->durable_bytes; p++)
		*p = number();
	for (uint64_t *p = &s->writes; p <= &s->journal_oldest_seq; p++)
		*p = number();
	s->write_set_bytes = number();
	s->write_set_max_bytes = number();
	fill_role(s);
	s->consistent = s->ever_consistent = s->connected = true;
	s->source_head_seq = number();
	s->source_head_bytes = number();
	s->heard_ns_ago = number();
	s->heard_time_ns = UINT64_C(1790000000123456789);
	s->journal_oldest_time_ns = UINT64_C(1780000000000000001);
	fill_lag(&s->lag);
	fill_sync(&s->sync);
	for (uint64_t *p = &s->received_bytes; p <= &s->rto_objective_ns; p++)
		*p = number();
	s->volume_count = 3;
	for (unsigned i = 0; i < s->volume_count; i++) {
		text(s->volumes[i].name, sizeof(s->volumes[i].name), "volume");
		text(s->volumes[i].path, sizeof(s->volumes[i].path), "/dev/");
		text(s->volumes[i].uri, sizeof(s->volumes[i].uri), "nbd:");
		s->volumes[i].size_bytes = number();
	}
	s->peer_count = 2;
	for (unsigned i = 0; i < s->peer_count; i++) {
		struct status_peer *peer = &s->peers[i];

		(void)snprintf(peer->node, sizeof(peer->node), "peer%u", i);
		text(peer->address, sizeof(peer->address), "host:");
		text(peer->state, sizeof(peer->state), "state");
		text(peer->error, sizeof(peer->error), "error");
		peer->connected = i == 0;
		peer->needs_sync = i == 1;
		peer->received_seq = number();
		peer->durable_seq = number();
		peer->applied_seq = number();
		peer->sent_bytes = number();
		peer->sent_segments = number();
		peer->reconnects = number();
		peer->heard_ns_ago = i == 0 ? number() : UINT64_MAX;
		fill_lag(&peer->lag);
		fill_sync(&peer->sync);
		fill_verify(&peer->verify);
		peer->in_sync = i == 0;
		peer->dirty_bytes = number();
		peer->resync_sent_bytes = number();
		peer->resync_compared_bytes = number();
		peer->sent_rate_bytes_per_s = number();
		peer->bandwidth_bytes = number();
	}
	return s;
}

static void test_json_round_trip(void **state)
{
	struct status_group *back = calloc(1, sizeof(*back));

	(void)state;
	prng_seed(&prng, 1);
	for (unsigned i = 0; i < 200; i++) {
		struct status_group *s = random_status(i % 2 ? "primary" : "standby");
		json_t *json = status_to_json(s), *parsed;
		char *bytes;

		if (i == 7)
			s->heard_ns_ago = UINT64_MAX;
		json_decref(json);
		json = status_to_json(s);
		bytes = json_dumps(json, 0);
		assert_non_null(bytes);
		parsed = json_loads(bytes, 0, NULL);
		memset(back, 0xaa, sizeof(*back));
		assert_int_equal(status_from_json(parsed, back), 0);
		assert_memory_equal(back, s, sizeof(*s));
		json_decref(parsed);
		json_decref(json);
		free(bytes);
		free(s);
	}
	free(back);
}

/* What means nothing is null, not 0; what an older daemon does not say is not known. */
static void test_json_null(void **state)
{
	struct status_group *s = calloc(1, sizeof(*s));
	json_t *json, *standby, *journal;

	(void)state;
	(void)snprintf(s->name, sizeof(s->name), "db");
	(void)snprintf(s->role, sizeof(s->role), "standby");
	json = status_to_json(s);
	standby = json_object_get(json, "standby");
	journal = json_object_get(json, "journal");
	assert_true(json_is_null(json_object_get(json, "mode")));
	assert_true(json_is_null(json_object_get(json, "common_seq")));
	assert_true(json_is_null(json_object_get(journal, "full_seconds")));
	assert_true(json_is_null(json_object_get(standby, "kept")));
	assert_true(json_is_null(json_object_get(standby, "rollback")));
	assert_true(json_is_null(json_object_get(standby, "verified")));
	assert_int_equal(json_object_del(journal, "full_seconds"), 0);
	assert_int_equal(status_from_json(json, s), 0);
	assert_true(s->journal_full_ns == UINT64_MAX);
	assert_false(s->kept);
	json_decref(json);
	(void)snprintf(s->role, sizeof(s->role), "primary");
	s->journal_full_ns = 0;
	json = status_to_json(s);
	assert_int_equal(status_from_json(json, s), 0);
	assert_int_equal(s->journal_full_ns, 0);
	json_decref(json);
	free(s);
}

static void test_json_foreign(void **state)
{
	struct status_group *s = calloc(1, sizeof(*s));
	json_t *json;

	(void)state;
	assert_int_equal(status_from_json(NULL, s), -EPROTO);
	json = json_pack("{s:i}", "group", 3);
	assert_int_equal(status_from_json(json, s), -EPROTO);
	json_decref(json);
	/* Wrong types, too many entries, newer fields: read as far as they make sense. */
	json = json_pack("{s:s, s:s, s:i, s:f, s:{s:s}, s:[], s:i, s:s}", "group", "g", "role",
			 "standby", "epoch", -4, "head_seq", 1.5, "journal", "oldest_time",
			 "yesterday", "peers", "volumes", 5, "colour", "red");
	for (unsigned i = 0; i < 2 * STATUS_PEERS_MAX; i++)
		json_array_append_new(json_object_get(json, "peers"),
				      json_pack("{s:s}", "node", "n"));
	assert_int_equal(status_from_json(json, s), 0);
	assert_string_equal(s->name, "g");
	assert_int_equal(s->epoch, 0);
	assert_int_equal(s->head_seq, 0);
	assert_int_equal(s->journal_oldest_time_ns, 0);
	assert_int_equal(s->peer_count, STATUS_PEERS_MAX);
	assert_int_equal(s->volume_count, 0);
	json_decref(json);
	free(s);
}

static void test_document(void **state)
{
	json_t *json = status_document("agent", "alpha", UINT64_C(1790000000123456789));

	(void)state;
	assert_string_equal(json_string_value(json_object_get(json, "schema")), STATUS_SCHEMA);
	assert_string_equal(json_string_value(json_object_get(json, "daemon")), "agent");
	assert_true(json_is_array(json_object_get(json, "groups")));
	json_decref(json);
}

/* ---- metrics: what promtool would say ----------------------------------------------------------
 */

#define FAMILIES_MAX 256u
#define SERIES_MAX   4096u

struct exposition {
	char family[FAMILIES_MAX][80];
	bool counter[FAMILIES_MAX];
	bool helped[FAMILIES_MAX], closed[FAMILIES_MAX];
	unsigned family_count;
	char *series[SERIES_MAX];
	unsigned series_count;
	unsigned current; /* family whose samples come now; FAMILIES_MAX: none */
};

static bool name_valid(const char *name, size_t length)
{
	if (length == 0 || (name[0] >= '0' && name[0] <= '9'))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789:",
			    name[i]))
			return false;
	}
	return true;
}

static unsigned family_of(struct exposition *e, const char *name, size_t length)
{
	for (unsigned i = 0; i < e->family_count; i++) {
		if (strlen(e->family[i]) == length && memcmp(e->family[i], name, length) == 0)
			return i;
	}
	return FAMILIES_MAX;
}

static void read_comment(struct exposition *e, const char *line)
{
	size_t length = strcspn(line + 7, " ");
	const char *name = line + 7, *rest = name + length + 1;
	unsigned at = family_of(e, name, length);

	assert_true(name_valid(name, length));
	if (strncmp(line, "# HELP ", 7) == 0) {
		/* A family has one HELP, before anything else of it. */
		assert_int_equal(at, FAMILIES_MAX);
		at = e->family_count++;
		assert_true(at < FAMILIES_MAX && length < sizeof(e->family[0]));
		memcpy(e->family[at], name, length);
		assert_true(strlen(rest) > 10 && rest[strlen(rest) - 1] == '.');
		e->helped[at] = true;
		if (e->current < FAMILIES_MAX)
			e->closed[e->current] = true;
		e->current = at;
		return;
	}
	assert_int_equal(strncmp(line, "# TYPE ", 7), 0);
	assert_int_equal(at, e->current);
	e->counter[at] = strcmp(rest, "counter") == 0;
	assert_true(e->counter[at] || strcmp(rest, "gauge") == 0);
	/* Counters end in _total, and nothing else does. */
	assert_int_equal(e->counter[at], length > 6 && memcmp(name + length - 6, "_total", 6) == 0);
}

static const char *skip_labels(const char *at)
{
	do {
		size_t length = strcspn(++at, "=");

		assert_true(name_valid(at, length));
		at += length + 1;
		assert_int_equal(*at++, '"');
		for (; *at != '"'; at++) {
			assert_int_not_equal(*at, '\0');
			if (*at == '\\')
				assert_non_null(strchr("\\\"n", *++at));
		}
		at++;
	} while (*at == ',');
	assert_int_equal(*at, '}');
	return at + 1;
}

static void read_sample(struct exposition *e, char *line)
{
	size_t length = strcspn(line, "{ ");
	const char *at = line + length;
	unsigned family = family_of(e, line, length);
	char *end;

	assert_true(family < FAMILIES_MAX);
	assert_int_equal(family, e->current);
	assert_false(e->closed[family]);
	if (*at == '{')
		at = skip_labels(at);
	assert_int_equal(*at, ' ');
	if (strcmp(at + 1, "+Inf") != 0) {
		(void)strtod(at + 1, &end);
		assert_int_equal(*end, '\0');
	}
	line[at - line] = '\0';
	for (unsigned i = 0; i < e->series_count; i++)
		assert_string_not_equal(e->series[i], line);
	assert_true(e->series_count < SERIES_MAX);
	e->series[e->series_count++] = line;
}

/* Reads all of it by the rules of the text format; `text` is cut into pieces. */
static struct exposition *check(char *all)
{
	struct exposition *e = calloc(1, sizeof(*e));
	char *line = all, *next;

	assert_non_null(e);
	e->current = FAMILIES_MAX;
	assert_true(strlen(all) > 0 && all[strlen(all) - 1] == '\n');
	for (; *line; line = next) {
		next = strchr(line, '\n');
		*next++ = '\0';
		if (line[0] == '#')
			read_comment(e, line);
		else
			read_sample(e, line);
	}
	return e;
}

static bool has(const struct exposition *e, const char *series)
{
	for (unsigned i = 0; i < e->series_count; i++) {
		if (strcmp(e->series[i], series) == 0)
			return true;
	}
	return false;
}

static void test_metrics_format(void **state)
{
	struct status_group *all[4];
	struct exposition *e;
	char *out;

	(void)state;
	prng_seed(&prng, 2);
	for (unsigned i = 0; i < array_len(all); i++) {
		all[i] = random_status(i == 0 ? "primary" : i == 1 ? "fenced" : "standby");
		(void)snprintf(all[i]->name, sizeof(all[i]->name), "g%u", i);
		for (unsigned j = 0; j < all[i]->volume_count; j++)
			(void)snprintf(all[i]->volumes[j].name, sizeof(all[i]->volumes[j].name),
				       "v%u", j);
	}
	/* What could break the format: quotes, line ends, an unknown lag. */
	(void)snprintf(all[3]->source, sizeof(all[3]->source), "a\"b\\c\nd");
	all[3]->lag.ns = UINT64_MAX;
	out = status_metrics("agent", "no\"de", (const struct status_group *const *)all,
			     array_len(all));
	assert_non_null(out);
	assert_non_null(strstr(out, "holdfast_rpo_seconds{group=\"g3\",node=\"no\\\"de\","
				    "peer=\"a\\\"b\\\\c\\nd\"} +Inf\n"));
	e = check(out);
	assert_true(has(e, "holdfast_role{group=\"g0\",node=\"no\\\"de\",role=\"primary\"}"));
	assert_true(has(e, "holdfast_replication_connected{group=\"g0\",node=\"no\\\"de\","
			   "peer=\"peer1\"}"));
	assert_true(has(e, "holdfast_sent_bytes_total{group=\"g0\",node=\"no\\\"de\","
			   "peer=\"peer0\"}"));
	assert_true(has(e, "holdfast_received_bytes_total{group=\"g2\",node=\"no\\\"de\"}"));
	assert_false(has(e, "holdfast_received_bytes_total{group=\"g0\",node=\"no\\\"de\"}"));
	assert_false(has(e, "holdfast_writes_total{group=\"g2\",node=\"no\\\"de\"}"));
	free(e);
	free(out);
	for (unsigned i = 0; i < array_len(all); i++)
		free(all[i]);
}

static void test_metrics_values(void **state)
{
	struct status_group *s = calloc(1, sizeof(*s));
	const struct status_group *list[1] = { s };
	char *out;

	(void)state;
	(void)snprintf(s->name, sizeof(s->name), "db");
	(void)snprintf(s->role, sizeof(s->role), "primary");
	(void)snprintf(s->state, sizeof(s->state), "serving");
	s->epoch = 3;
	s->stall_ns = 1500000001;
	s->peer_count = 1;
	(void)snprintf(s->peers[0].node, sizeof(s->peers[0].node), "b");
	s->peers[0].lag = (struct status_lag){ 7, 4096, 250 * NS_PER_MS };
	s->peers[0].sync = (struct status_sync){ true, 1000, 400, 1, 1 };
	out = status_metrics("agent", "a", list, 1);
	assert_non_null(strstr(out, "\nholdfast_epoch{group=\"db\",node=\"a\"} 3\n"));
	assert_non_null(strstr(out, "\nholdfast_stall_seconds_total{group=\"db\",node=\"a\"} "
				    "1.500000001\n"));
	assert_non_null(strstr(out, "\nholdfast_rpo_seconds{group=\"db\",node=\"a\",peer=\"b\"} "
				    "0.250000000\n"));
	assert_non_null(strstr(out, "\nholdfast_replication_lag_writes{group=\"db\",node=\"a\","
				    "peer=\"b\"} 7\n"));
	assert_non_null(strstr(out, "\nholdfast_resync_remaining_bytes{group=\"db\",node=\"a\","
				    "peer=\"b\"} 600\n"));
	assert_non_null(strstr(out, "state=\"serving\"} 1\n"));
	assert_non_null(strstr(out, "state=\"failed\"} 0\n"));
	/* Unset objectives and unknown times have no sample. */
	assert_null(strstr(out, "\nholdfast_rpo_objective_seconds{"));
	assert_null(strstr(out, "\nholdfast_journal_oldest_timestamp_seconds{"));
	free(out);
	/* Without groups it is still a document. */
	out = status_metrics("engine", "a", NULL, 0);
	assert_non_null(strstr(out, "holdfast_up{daemon=\"engine\",node=\"a\"} 1\n"));
	free(check(out));
	free(out);
	free(s);
}

static bool exports(const struct status_group *s, const char *sample)
{
	const struct status_group *list[1] = { s };
	char *out = status_metrics("agent", "a", list, 1);
	bool found = strstr(out, sample) != NULL;

	free(out);
	return found;
}

static void test_metrics_resync(void **state)
{
	struct status_group *s = calloc(1, sizeof(*s));

	(void)state;
	(void)snprintf(s->name, sizeof(s->name), "db");
	(void)snprintf(s->role, sizeof(s->role), "primary");
	s->journal_full_ns = UINT64_MAX;
	s->peer_count = 1;
	(void)snprintf(s->peers[0].node, sizeof(s->peers[0].node), "b");
	(void)snprintf(s->mode, sizeof(s->mode), "async");
	assert_true(exports(s, "\nholdfast_journal_full_seconds{group=\"db\",node=\"a\"} +Inf\n"));
	assert_true(exports(s, "\nholdfast_held{group=\"db\",node=\"a\"} 0\n"));
	assert_false(exports(s, "\nholdfast_sync_state{"));
	assert_false(exports(s, "\nholdfast_sync_lost_timestamp_seconds{"));
	assert_false(exports(s, "\nholdfast_verified_timestamp_seconds{"));
	s->journal_full_ns = 90 * NS_PER_S;
	(void)snprintf(s->held, sizeof(s->held), "why");
	(void)snprintf(s->mode, sizeof(s->mode), "sync");
	(void)snprintf(s->mode_state, sizeof(s->mode_state), "lost");
	s->lost_since_ns = UINT64_C(1790000000000000000);
	s->peers[0].in_sync = true;
	s->peers[0].verify.verified_time_ns = UINT64_C(1790000000500000000);
	s->peers[0].verify.differing_bytes = 4096;
	assert_true(exports(s, "\nholdfast_journal_full_seconds{group=\"db\",node=\"a\"} "
			       "90.000000000\n"));
	assert_true(exports(s, "\nholdfast_held{group=\"db\",node=\"a\"} 1\n"));
	assert_true(
		exports(s, "\nholdfast_sync_state{group=\"db\",node=\"a\",state=\"lost\"} 1\n"));
	assert_true(exports(s, "state=\"in-sync\"} 0\n"));
	assert_true(exports(s, "\nholdfast_sync_lost_timestamp_seconds{group=\"db\",node=\"a\"} "
			       "1790000000.000000000\n"));
	assert_true(exports(s, "\nholdfast_peer_in_sync{group=\"db\",node=\"a\",peer=\"b\"} 1\n"));
	assert_true(exports(s, "\nholdfast_verified_timestamp_seconds{group=\"db\",node=\"a\","
			       "peer=\"b\"} 1790000000.500000000\n"));
	assert_true(exports(s, "\nholdfast_verify_differing_bytes{group=\"db\",node=\"a\","
			       "peer=\"b\"} 4096\n"));
	(void)snprintf(s->role, sizeof(s->role), "standby");
	(void)snprintf(s->source, sizeof(s->source), "b");
	s->kept = s->undo_full = s->diverged = true;
	s->rollback_total_bytes = 100;
	s->rollback_done_bytes = 30;
	s->verified_time_ns = UINT64_C(1790000001000000000);
	assert_true(exports(s, "\nholdfast_kept{group=\"db\",node=\"a\"} 1\n"));
	assert_true(exports(s, "\nholdfast_undo_full{group=\"db\",node=\"a\"} 1\n"));
	assert_true(exports(s, "\nholdfast_diverged{group=\"db\",node=\"a\"} 1\n"));
	assert_true(
		exports(s, "\nholdfast_rollback_remaining_bytes{group=\"db\",node=\"a\"} 70\n"));
	assert_true(exports(s, "\nholdfast_verified_timestamp_seconds{group=\"db\",node=\"a\","
			       "peer=\"b\"} 1790000001.000000000\n"));
	assert_false(exports(s, "\nholdfast_held{"));
	free(s);
}

/* A fenced copy that the engine has open follows; one that the agent has does not. */
static void test_follower(void **state)
{
	struct status_group *s = calloc(1, sizeof(*s));

	(void)state;
	(void)snprintf(s->name, sizeof(s->name), "db");
	(void)snprintf(s->role, sizeof(s->role), "fenced");
	(void)snprintf(s->state, sizeof(s->state), "fenced");
	s->diverged = s->consistent = true;
	assert_false(status_is_follower(s));
	assert_false(exports(s, "\nholdfast_consistent{"));
	(void)snprintf(s->state, sizeof(s->state), "waiting");
	assert_true(status_is_follower(s));
	assert_true(exports(s, "\nholdfast_consistent{group=\"db\",node=\"a\"} 1\n"));
	assert_true(exports(s, "\nholdfast_diverged{group=\"db\",node=\"a\"} 1\n"));
	s->diverged = false;
	assert_false(status_is_protected(s));
	(void)snprintf(s->role, sizeof(s->role), "primary");
	assert_false(status_is_follower(s));
	free(s);
}

/* Not known is null, no sample, and known to whoever reads it back. */
static void test_lag_unknown(void **state)
{
	struct status_group *s = calloc(1, sizeof(*s)), *back = calloc(1, sizeof(*back));
	json_t *json, *lag;

	(void)state;
	assert_true(s && back);
	(void)snprintf(s->name, sizeof(s->name), "db");
	(void)snprintf(s->role, sizeof(s->role), "standby");
	s->consistent = true;
	s->lag = (struct status_lag)STATUS_LAG_UNKNOWN;
	json = status_to_json(s);
	lag = json_object_get(json_object_get(json, "standby"), "lag");
	assert_true(json_is_null(json_object_get(lag, "writes")));
	assert_true(json_is_null(json_object_get(lag, "bytes")));
	assert_true(json_is_null(json_object_get(lag, "seconds")));
	assert_int_equal(status_from_json(json, back), 0);
	assert_memory_equal(&back->lag, &s->lag, sizeof(s->lag));
	assert_false(status_is_protected(back));
	assert_false(exports(s, "\nholdfast_replication_lag_writes{"));
	assert_false(exports(s, "\nholdfast_replication_lag_bytes{"));
	s->lag.writes = 0;
	assert_true(exports(s, "\nholdfast_replication_lag_writes{"));
	json_decref(json);
	free(s);
	free(back);
}

static void test_lacking(void **state)
{
	static struct superblock sb = { .volume_count = 1 };
	static char names[3][8] = { "data", "wal", "log" };
	struct conf_volume volumes[3] = { { names[0], names[0] },
					  { names[1], names[1] },
					  { names[2], names[2] } };
	const struct conf_group conf = { .volumes = volumes, .volume_count = 3 };
	char text[64];

	(void)state;
	(void)snprintf(sb.volumes[0].name, sizeof(sb.volumes[0].name), "data");
	assert_string_equal(peek_lacking(&conf, &sb, text, sizeof(text)), "wal, log");
	assert_string_equal(peek_lacking(&conf, &sb, text, 8), "wal");
	assert_string_equal(peek_lacking(&conf, &sb, text, 1), "");
	sb.volume_count = 3;
	(void)snprintf(sb.volumes[1].name, sizeof(sb.volumes[1].name), "log");
	(void)snprintf(sb.volumes[2].name, sizeof(sb.volumes[2].name), "wal");
	assert_string_equal(peek_lacking(&conf, &sb, text, sizeof(text)), "");
}

static void test_protected(void **state)
{
	struct status_group *s = calloc(1, sizeof(*s));

	(void)state;
	(void)snprintf(s->role, sizeof(s->role), "standby");
	assert_false(status_is_protected(s));
	s->consistent = true;
	assert_true(status_is_protected(s));
	s->lag.ns = 2 * NS_PER_S;
	s->rpo_objective_ns = NS_PER_S;
	assert_false(status_is_protected(s));
	s->lag.ns = NS_PER_S;
	assert_true(status_is_protected(s));
	s->syncing = true;
	assert_false(status_is_protected(s));
	/* What it keeps can be promoted, unless that is of another history. */
	s->kept = true;
	s->consistent = false;
	assert_true(status_is_protected(s));
	s->diverged = true;
	assert_false(status_is_protected(s));
	s->diverged = s->kept = false;
	s->consistent = true;
	s->syncing = false;
	s->differing_ranges = 1;
	assert_true(status_differs(s) && !status_is_protected(s));
	s->differing_ranges = 0;
	assert_true(!status_differs(s) && status_is_protected(s));
	(void)snprintf(s->state, sizeof(s->state), "failed");
	assert_false(status_is_protected(s));

	(void)snprintf(s->role, sizeof(s->role), "primary");
	assert_false(status_is_protected(s));
	s->peer_count = 2;
	s->peers[1].connected = true;
	assert_true(status_is_protected(s));
	s->peers[1].verify.known_ranges = 1;
	assert_true(status_differs(s) && !status_is_protected(s));
	s->peers[1].verify.known_ranges = 0;
	assert_true(!status_differs(s) && status_is_protected(s));
	s->peers[1].lag.ns = 2 * NS_PER_S;
	assert_false(status_is_protected(s));
	s->peers[1].lag.ns = 0;
	s->peers[1].sync.active = true;
	assert_false(status_is_protected(s));
	s->peers[1].sync.active = false;
	s->peers[1].needs_sync = true;
	assert_false(status_is_protected(s));
	s->peers[1].needs_sync = false;
	assert_true(status_is_protected(s));
	s->held[0] = 'x';
	assert_false(status_is_protected(s));
	s->held[0] = '\0';
	(void)snprintf(s->role, sizeof(s->role), "fenced");
	assert_false(status_is_protected(s));
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_round_trip), cmocka_unit_test(test_json_foreign),
		cmocka_unit_test(test_lag_unknown),	cmocka_unit_test(test_lacking),
		cmocka_unit_test(test_json_null),	cmocka_unit_test(test_document),
		cmocka_unit_test(test_metrics_format),	cmocka_unit_test(test_metrics_values),
		cmocka_unit_test(test_metrics_resync),	cmocka_unit_test(test_follower),
		cmocka_unit_test(test_protected),
	};

	return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
