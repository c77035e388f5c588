/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/status_json.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"

enum kind {
	TEXT,
	U64,
	KNOWN, /* U64, UINT64_MAX = unknown */
	BOOL,
	DURATION, /* ns, UINT64_MAX = unknown */
	TIME,	  /* wall clock ns, 0 = unknown */
};

/* One member of a C structure and where it stands in its object. */
struct field {
	const char *object; /* NULL: the object itself */
	const char *key;
	enum kind kind;
	size_t offset, size;
};

#define FIELD(type, object, key, kind, member)                                                     \
	{                                                                                          \
		object, key, kind, offsetof(struct type, member),                                  \
			sizeof(((struct type *)0)->member)                                         \
	}

static const struct field group_fields[] = {
	FIELD(status_group, NULL, "group", TEXT, name),
	FIELD(status_group, NULL, "uuid", TEXT, uuid),
	FIELD(status_group, NULL, "node", TEXT, node),
	FIELD(status_group, NULL, "role", TEXT, role),
	FIELD(status_group, NULL, "state", TEXT, state),
	FIELD(status_group, NULL, "detail", TEXT, detail),
	FIELD(status_group, NULL, "epoch", U64, epoch),
	FIELD(status_group, NULL, "fenced_by_epoch", U64, fenced_by_epoch),
	FIELD(status_group, NULL, "fenced_by", TEXT, fenced_by),
	FIELD(status_group, NULL, "head_seq", U64, head_seq),
	FIELD(status_group, NULL, "durable_seq", U64, durable_seq),
	FIELD(status_group, NULL, "applied_seq", U64, applied_seq),
	FIELD(status_group, NULL, "head_bytes", U64, head_bytes),
	FIELD(status_group, NULL, "durable_bytes", U64, durable_bytes),
	FIELD(status_group, NULL, "rpo_objective_seconds", DURATION, rpo_objective_ns),
	FIELD(status_group, NULL, "rto_objective_seconds", DURATION, rto_objective_ns),
	FIELD(status_group, "counters", "writes", U64, writes),
	FIELD(status_group, "counters", "written_bytes", U64, written_bytes),
	FIELD(status_group, "counters", "reads", U64, reads),
	FIELD(status_group, "counters", "read_bytes", U64, read_bytes),
	FIELD(status_group, "counters", "flushes", U64, flushes),
	FIELD(status_group, "counters", "segments", U64, segments),
	FIELD(status_group, "counters", "segment_raw_bytes", U64, segment_raw_bytes),
	FIELD(status_group, "counters", "segment_stored_bytes", U64, segment_stored_bytes),
	FIELD(status_group, "counters", "applied_bytes", U64, applied_bytes),
	FIELD(status_group, "counters", "checkpoints", U64, checkpoints),
	FIELD(status_group, "counters", "stalls", U64, stalls),
	FIELD(status_group, "counters", "stall_seconds", DURATION, stall_ns),
	FIELD(status_group, "counters", "errors", U64, errors),
	FIELD(status_group, "counters", "received_bytes", U64, received_bytes),
	FIELD(status_group, "counters", "received_segments", U64, received_segments),
	FIELD(status_group, "counters", "rejected_epoch", U64, rejected_epoch),
	FIELD(status_group, "counters", "rejected_corrupt", U64, rejected_corrupt),
	FIELD(status_group, "journal", "size_bytes", U64, journal_size_bytes),
	FIELD(status_group, "journal", "used_bytes", U64, journal_used_bytes),
	FIELD(status_group, "journal", "oldest_seq", U64, journal_oldest_seq),
	FIELD(status_group, "journal", "oldest_time", TIME, journal_oldest_time_ns),
	FIELD(status_group, "journal", "released_seq", U64, released_seq),
	FIELD(status_group, NULL, "held", TEXT, held),
	FIELD(status_group, NULL, "lacking_volumes", TEXT, lacking),
	FIELD(status_group, NULL, "diverged", BOOL, diverged),
	FIELD(status_group, NULL, "salvage_missing", U64, salvage_missing),
	FIELD(status_group, NULL, "suspect", BOOL, suspect),
	FIELD(status_group, NULL, "salvages", U64, salvages),
	FIELD(status_group, "write_set", "bytes", U64, write_set_bytes),
	FIELD(status_group, "write_set", "max_bytes", U64, write_set_max_bytes),
	FIELD(status_group, "standby", "consistent", BOOL, consistent),
	FIELD(status_group, "standby", "syncing", BOOL, syncing),
	FIELD(status_group, "standby", "ever_consistent", BOOL, ever_consistent),
	FIELD(status_group, "standby", "connected", BOOL, connected),
	FIELD(status_group, "standby", "source", TEXT, source),
	FIELD(status_group, "standby", "source_head_seq", U64, source_head_seq),
	FIELD(status_group, "standby", "source_head_bytes", U64, source_head_bytes),
	FIELD(status_group, "standby", "heard_seconds_ago", DURATION, heard_ns_ago),
	FIELD(status_group, "standby", "heard_time", TIME, heard_time_ns),
	FIELD(status_group, "standby", "differing_ranges", U64, differing_ranges),
};

/* What only some groups have; null where it means nothing. */
static const struct field mode_fields[] = {
	FIELD(status_group, NULL, "name", TEXT, mode),
	FIELD(status_group, NULL, "state", TEXT, mode_state),
	FIELD(status_group, NULL, "lost_since", TIME, lost_since_ns),
	FIELD(status_group, NULL, "losses", U64, sync_losses),
};

static const struct field kept_fields[] = {
	FIELD(status_group, NULL, "seq", U64, kept_seq),
	FIELD(status_group, NULL, "time", TIME, kept_time_ns),
	FIELD(status_group, NULL, "undo_bytes", U64, undo_bytes),
	FIELD(status_group, NULL, "undo_saved_bytes", U64, undo_saved_bytes),
	FIELD(status_group, NULL, "undo_limit_bytes", U64, undo_limit_bytes),
	FIELD(status_group, NULL, "undo_full", BOOL, undo_full),
};

static const struct field rollback_fields[] = {
	FIELD(status_group, NULL, "done_bytes", U64, rollback_done_bytes),
	FIELD(status_group, NULL, "total_bytes", U64, rollback_total_bytes),
};

static const struct field verified_fields[] = {
	FIELD(status_group, NULL, "seq", U64, verified_seq),
	FIELD(status_group, NULL, "time", TIME, verified_time_ns),
};

static const struct field full_field =
	FIELD(status_group, NULL, "full_seconds", DURATION, journal_full_ns);
static const struct field common_field = FIELD(status_group, NULL, "common_seq", U64, common_seq);

static const struct field verify_fields[] = {
	FIELD(status_verify, NULL, "active", BOOL, active),
	FIELD(status_verify, NULL, "failed", BOOL, failed),
	FIELD(status_verify, NULL, "total_bytes", U64, total_bytes),
	FIELD(status_verify, NULL, "done_bytes", U64, done_bytes),
	FIELD(status_verify, NULL, "rate_bytes_per_second", U64, rate_bytes_per_s),
	FIELD(status_verify, NULL, "left_seconds", DURATION, left_ns),
	FIELD(status_verify, NULL, "differing_ranges", U64, differing_ranges),
	FIELD(status_verify, NULL, "differing_bytes", U64, differing_bytes),
	FIELD(status_verify, NULL, "repaired_bytes", U64, repaired_bytes),
	FIELD(status_verify, NULL, "known_ranges", U64, known_ranges),
	FIELD(status_verify, NULL, "known_bytes", U64, known_bytes),
	FIELD(status_verify, NULL, "verified_seq", U64, verified_seq),
	FIELD(status_verify, NULL, "verified_time", TIME, verified_time_ns),
};

static const struct field range_fields[] = {
	FIELD(status_range, NULL, "volume", TEXT, volume),
	FIELD(status_range, NULL, "offset_bytes", U64, off),
	FIELD(status_range, NULL, "length_bytes", U64, len),
};

static const struct field lag_fields[] = {
	FIELD(status_lag, NULL, "writes", KNOWN, writes),
	FIELD(status_lag, NULL, "bytes", KNOWN, bytes),
	FIELD(status_lag, NULL, "seconds", DURATION, ns),
};

static const struct field sync_fields[] = {
	FIELD(status_sync, NULL, "active", BOOL, active),
	FIELD(status_sync, NULL, "total_bytes", U64, total_bytes),
	FIELD(status_sync, NULL, "done_bytes", U64, done_bytes),
	FIELD(status_sync, NULL, "rate_bytes_per_second", U64, rate_bytes_per_s),
	FIELD(status_sync, NULL, "left_seconds", DURATION, left_ns),
};

static const struct field peer_fields[] = {
	FIELD(status_peer, NULL, "node", TEXT, node),
	FIELD(status_peer, NULL, "address", TEXT, address),
	FIELD(status_peer, NULL, "state", TEXT, state),
	FIELD(status_peer, NULL, "connected", BOOL, connected),
	FIELD(status_peer, NULL, "received_seq", U64, received_seq),
	FIELD(status_peer, NULL, "durable_seq", U64, durable_seq),
	FIELD(status_peer, NULL, "applied_seq", U64, applied_seq),
	FIELD(status_peer, NULL, "sent_bytes", U64, sent_bytes),
	FIELD(status_peer, NULL, "sent_segments", U64, sent_segments),
	FIELD(status_peer, NULL, "reconnects", U64, reconnects),
	FIELD(status_peer, NULL, "heard_seconds_ago", DURATION, heard_ns_ago),
	FIELD(status_peer, NULL, "needs_sync", BOOL, needs_sync),
	FIELD(status_peer, NULL, "dirty_bytes", U64, dirty_bytes),
	FIELD(status_peer, NULL, "resync_sent_bytes", U64, resync_sent_bytes),
	FIELD(status_peer, NULL, "resync_compared_bytes", U64, resync_compared_bytes),
	FIELD(status_peer, NULL, "in_sync", BOOL, in_sync),
	FIELD(status_peer, NULL, "sent_bytes_per_second", U64, sent_rate_bytes_per_s),
	FIELD(status_peer, NULL, "bandwidth_bytes_per_second", U64, bandwidth_bytes),
	FIELD(status_peer, NULL, "error", TEXT, error),
	FIELD(status_peer, NULL, "parted", TEXT, parted),
};

static const struct field volume_fields[] = {
	FIELD(status_volume, NULL, "name", TEXT, name),
	FIELD(status_volume, NULL, "path", TEXT, path),
	FIELD(status_volume, NULL, "size_bytes", U64, size_bytes),
	FIELD(status_volume, NULL, "uri", TEXT, uri),
};

/* JSON integers are signed here; no counter comes near that. */
static json_t *of_u64(uint64_t value)
{
	return json_integer((json_int_t)min_u64(value, INT64_MAX));
}

static json_t *of_field(const struct field *field, const char *base)
{
	const char *at = base + field->offset;
	char text[TIMEFMT_BYTES];
	uint64_t number = 0;
	bool flag = false;

	switch (field->kind) {
	case TEXT: {
		json_t *json = json_stringn(at, strnlen(at, field->size));

		return json ? json : json_string("(not UTF-8)");
	}
	case BOOL:
		memcpy(&flag, at, sizeof(flag));
		return json_boolean(flag);
	case U64:
	case KNOWN:
	case DURATION:
	case TIME:
		memcpy(&number, at, sizeof(number));
	}
	if (field->kind == U64 || (field->kind == KNOWN && number != UINT64_MAX))
		return of_u64(number);
	if (field->kind == TIME)
		return number ? json_string(timefmt_ns(number, text)) : json_null();
	return number == UINT64_MAX ? json_null() : json_real((double)number / 1e9);
}

static void put_fields(json_t *json, const struct field *fields, size_t count, const void *base)
{
	for (size_t i = 0; i < count; i++) {
		json_t *into = json;

		if (fields[i].object) {
			into = json_object_get(json, fields[i].object);
			if (!into) {
				into = json_object();
				json_object_set_new(json, fields[i].object, into);
			}
		}
		json_object_set_new(into, fields[i].key, of_field(&fields[i], base));
	}
}

static json_t *of_fields(const struct field *fields, size_t count, const void *base)
{
	json_t *json = json_object();

	put_fields(json, fields, count, base);
	return json;
}

/* The object with these fields, or null. */
static void put_part(json_t *json, const char *key, bool present, const struct field *fields,
		     size_t count, const void *base)
{
	json_object_set_new(json, key, present ? of_fields(fields, count, base) : json_null());
}
#define PUT_PART(json, key, present, fields, base)                                                 \
	put_part(json, key, present, fields, array_len(fields), base)

static json_t *of_verify(const struct status_verify *verify)
{
	json_t *json = of_fields(verify_fields, array_len(verify_fields), verify);
	json_t *ranges = json_array();

	for (unsigned i = 0; i < verify->range_count && i < array_len(verify->ranges); i++)
		json_array_append_new(ranges, of_fields(range_fields, array_len(range_fields),
							&verify->ranges[i]));
	json_object_set_new(json, "ranges", ranges);
	return json;
}

static json_t *of_peer(const struct status_peer *peer)
{
	json_t *json = of_fields(peer_fields, array_len(peer_fields), peer);

	json_object_set_new(json, "lag", of_fields(lag_fields, array_len(lag_fields), &peer->lag));
	json_object_set_new(json, "sync",
			    of_fields(sync_fields, array_len(sync_fields), &peer->sync));
	json_object_set_new(json, "verify", of_verify(&peer->verify));
	return json;
}

static bool is_standby(const struct status_group *status)
{
	return strcmp(status->role, "standby") == 0;
}

json_t *status_to_json(const struct status_group *status)
{
	json_t *json = json_object(), *list, *standby;

	put_fields(json, group_fields, array_len(group_fields), status);
	/* A prediction of the primary's; elsewhere nothing is released. */
	json_object_set_new(json_object_get(json, "journal"), full_field.key,
			    is_standby(status) ? json_null()
					       : of_field(&full_field, (const char *)status));
	PUT_PART(json, "mode", status->mode[0] != '\0', mode_fields, status);
	json_object_set_new(json, common_field.key,
			    status->diverged ? of_field(&common_field, (const char *)status)
					     : json_null());
	standby = json_object_get(json, "standby");
	PUT_PART(standby, "kept", status->kept, kept_fields, status);
	PUT_PART(standby, "rollback", status->rollback_total_bytes > 0, rollback_fields, status);
	PUT_PART(standby, "verified", status->verified_time_ns > 0, verified_fields, status);
	json_object_set_new(standby, "lag",
			    of_fields(lag_fields, array_len(lag_fields), &status->lag));
	json_object_set_new(standby, "sync",
			    of_fields(sync_fields, array_len(sync_fields), &status->sync));
	list = json_array();
	for (unsigned i = 0; i < status->volume_count && i < STATUS_VOLUMES_MAX; i++)
		json_array_append_new(list, of_fields(volume_fields, array_len(volume_fields),
						      &status->volumes[i]));
	json_object_set_new(json, "volumes", list);
	list = json_array();
	for (unsigned i = 0; i < status->peer_count && i < STATUS_PEERS_MAX; i++)
		json_array_append_new(list, of_peer(&status->peers[i]));
	json_object_set_new(json, "peers", list);
	return json;
}

static void get_field(const json_t *json, const struct field *field, char *base)
{
	const json_t *from = field->object ? json_object_get(json, field->object) : json;
	const json_t *value = json_object_get(from, field->key);
	char *at = base + field->offset;
	uint64_t number = 0;
	bool flag = json_is_true(value);

	switch (field->kind) {
	case TEXT:
		if (json_is_string(value))
			(void)snprintf(at, field->size, "%s", json_string_value(value));
		return;
	case BOOL:
		memcpy(at, &flag, sizeof(flag));
		return;
	case U64:
	case KNOWN:
		if (json_is_integer(value) && json_integer_value(value) > 0)
			number = (uint64_t)json_integer_value(value);
		else if (field->kind == KNOWN && json_is_null(value))
			number = UINT64_MAX;
		break;
	case DURATION:
		if (json_is_null(value))
			number = UINT64_MAX;
		else if (json_number_value(value) > 0 && json_number_value(value) < 1e9)
			number = (uint64_t)(json_number_value(value) * 1e9 + 0.5);
		break;
	case TIME:
		if (json_is_string(value) && timefmt_parse(json_string_value(value), &number) != 0)
			number = 0;
		break;
	}
	memcpy(at, &number, sizeof(number));
}

static void get_fields(const json_t *json, const struct field *fields, size_t count, void *base)
{
	for (size_t i = 0; i < count; i++)
		get_field(json, &fields[i], base);
}

static bool get_part(const json_t *json, const char *key, const struct field *fields, size_t count,
		     void *base)
{
	const json_t *part = json_object_get(json, key);

	if (!json_is_object(part))
		return false;
	get_fields(part, fields, count, base);
	return true;
}
#define GET_PART(json, key, fields, base) get_part(json, key, fields, array_len(fields), base)

static void get_verify(const json_t *json, struct status_verify *verify)
{
	const json_t *ranges = json_object_get(json, "ranges");

	get_fields(json, verify_fields, array_len(verify_fields), verify);
	for (size_t i = 0; i < json_array_size(ranges) && i < array_len(verify->ranges); i++)
		get_fields(json_array_get(ranges, i), range_fields, array_len(range_fields),
			   &verify->ranges[verify->range_count++]);
}

static void get_peer(const json_t *json, struct status_peer *peer)
{
	get_fields(json, peer_fields, array_len(peer_fields), peer);
	(void)GET_PART(json, "lag", lag_fields, &peer->lag);
	(void)GET_PART(json, "sync", sync_fields, &peer->sync);
	get_verify(json_object_get(json, "verify"), &peer->verify);
}

int status_from_json(const json_t *json, struct status_group *ret_status)
{
	const json_t *standby = json_object_get(json, "standby"), *list;

	if (!json_is_string(json_object_get(json, "group")))
		return -EPROTO;
	memset(ret_status, 0, sizeof(*ret_status));
	get_fields(json, group_fields, array_len(group_fields), ret_status);
	get_field(json_object_get(json, "journal"), &full_field, (char *)ret_status);
	/* An older daemon predicts nothing; 0 would mean now. */
	if (!json_object_get(json_object_get(json, "journal"), full_field.key))
		ret_status->journal_full_ns = UINT64_MAX;
	get_field(json, &common_field, (char *)ret_status);
	(void)GET_PART(json, "mode", mode_fields, ret_status);
	ret_status->kept = GET_PART(standby, "kept", kept_fields, ret_status);
	(void)GET_PART(standby, "rollback", rollback_fields, ret_status);
	(void)GET_PART(standby, "verified", verified_fields, ret_status);
	(void)GET_PART(standby, "lag", lag_fields, &ret_status->lag);
	(void)GET_PART(standby, "sync", sync_fields, &ret_status->sync);
	list = json_object_get(json, "volumes");
	for (size_t i = 0; i < json_array_size(list) && i < STATUS_VOLUMES_MAX; i++)
		get_fields(json_array_get(list, i), volume_fields, array_len(volume_fields),
			   &ret_status->volumes[ret_status->volume_count++]);
	list = json_object_get(json, "peers");
	for (size_t i = 0; i < json_array_size(list) && i < STATUS_PEERS_MAX; i++)
		get_peer(json_array_get(list, i), &ret_status->peers[ret_status->peer_count++]);
	return 0;
}

json_t *status_document(const char *daemon, const char *node, uint64_t wall_ns)
{
	char text[TIMEFMT_BYTES];

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:[]}", "schema", STATUS_SCHEMA, "daemon",
			 daemon, "version", HOLDFAST_VERSION, "node", node, "time",
			 timefmt_ms(wall_ns, text), "groups");
}
