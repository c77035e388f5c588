/* SPDX-License-Identifier: Apache-2.0 */
/* The only file that knows protobuf-c: proto/link.h on one side, proto/link.proto on the other. */
#include "proto/link.h"

#include <errno.h>
#include <stdalign.h>
#include <string.h>

#include "core/base/must.h"
#include "proto/frame.h"
#include "proto/link.pb-c.h"

#define ARENA_ALIGN_BYTES alignof(max_align_t)

/* What one message needs while it is packed or unpacked. Freed all at once by the next one. */
struct arena {
	size_t used_bytes;
	bool exhausted;
	alignas(max_align_t) uint8_t bytes[LINK_ARENA_BYTES];
};
static _Thread_local struct arena arena;

static void arena_reset(void)
{
	arena.used_bytes = 0;
	arena.exhausted = false;
}

static void *arena_take(void *unused, size_t size_bytes)
{
	size_t padded_bytes;

	(void)unused;
	if (size_bytes > sizeof(arena.bytes)) {
		arena.exhausted = true;
		return NULL;
	}
	padded_bytes = (size_bytes + ARENA_ALIGN_BYTES - 1) / ARENA_ALIGN_BYTES * ARENA_ALIGN_BYTES;
	if (padded_bytes > sizeof(arena.bytes) - arena.used_bytes) {
		arena.exhausted = true;
		return NULL;
	}
	arena.used_bytes += padded_bytes;
	return arena.bytes + arena.used_bytes - padded_bytes;
}

static void arena_give(void *unused, void *pointer)
{
	(void)unused;
	(void)pointer;
}

static ProtobufCAllocator arena_allocator = { .alloc = arena_take, .free = arena_give };

/* For packing: what our own limits allow always fits. */
static void *arena_array(size_t count, size_t size_bytes)
{
	void *array = arena_take(NULL, count * size_bytes);

	must(array != NULL);
	return array;
}

static int message_pack(const ProtobufCMessage *message, uint8_t *out, size_t max)
{
	size_t len = protobuf_c_message_get_packed_size(message);

	if (len > max || len > FRAME_CONTROL_MAX_BYTES)
		return -EMSGSIZE;
	must(protobuf_c_message_pack(message, out) == len);
	return (int)len;
}

static int message_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes,
			  size_t len, void *ret_message)
{
	ProtobufCMessage *message;

	if (len > FRAME_CONTROL_MAX_BYTES)
		return LINK_E_LIMIT;
	arena_reset();
	message = protobuf_c_message_unpack(descriptor, &arena_allocator, len, bytes);
	if (message == NULL)
		return arena.exhausted ? LINK_E_LIMIT : LINK_E_SYNTAX;
	memcpy(ret_message, &message, sizeof(message));
	return 0;
}

/* ---- parts of messages ------------------------------------------------------------------------
 */

/* protobuf-c has no const in its messages; packing only reads. */
static char *text_borrow(const char *text)
{
	return (char *)(uintptr_t)text;
}

/* Bytes that are not printable ASCII must reach no terminal and no log. Absent means empty. */
static void text_copy(char *ret, size_t size, const char *text)
{
	size_t i;

	memset(ret, 0, size);
	for (i = 0; text != NULL && text[i] != '\0' && i < size - 1; i++)
		ret[i] = text[i] >= 0x20 && text[i] <= 0x7e ? text[i] : '?';
}

static int name_copy(char *ret, size_t size, const char *name, bool (*valid)(const char *))
{
	size_t len;

	if (name == NULL)
		return LINK_E_MISSING;
	len = strnlen(name, size);
	if (len == size)
		return LINK_E_LIMIT;
	if (!valid(name))
		return LINK_E_NAME;
	memset(ret, 0, size);
	memcpy(ret, name, len);
	return 0;
}

static int uuid_copy(struct uuid *ret, bool present, const ProtobufCBinaryData *bytes)
{
	static const struct uuid zero;

	if (!present)
		return LINK_E_MISSING;
	if (bytes->len != sizeof(*ret) || memcmp(bytes->data, &zero, sizeof(zero)) == 0)
		return LINK_E_VALUE;
	memcpy(ret, bytes->data, sizeof(*ret));
	return 0;
}

static void position_pack(const struct link_position *position,
			  Holdfast__Link__V1__Position *message)
{
	holdfast__link__v1__position__init(message);
	message->has_epoch = message->has_seq = message->has_bytes = true;
	message->epoch = position->epoch;
	message->seq = position->seq;
	message->bytes = position->bytes;
	message->has_chain = position->chain != 0;
	message->chain = position->chain;
}

/* Absent is the position before everything. */
static void position_unpack(const Holdfast__Link__V1__Position *message, struct link_position *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (message == NULL)
		return;
	ret->epoch = message->epoch;
	ret->seq = message->seq;
	ret->chain = message->chain;
	ret->bytes = message->bytes;
}

static Holdfast__Link__V1__HistoryEntry **history_pack(const struct history_entry *history,
						       uint32_t count)
{
	Holdfast__Link__V1__HistoryEntry **messages, *entries;
	uint32_t i;

	must(count <= HISTORY_MAX);
	messages = arena_array(count, sizeof(*messages));
	entries = arena_array(count, sizeof(*entries));
	for (i = 0; i < count; i++) {
		holdfast__link__v1__history_entry__init(&entries[i]);
		entries[i].has_epoch = entries[i].has_first_seq = true;
		entries[i].epoch = history[i].epoch;
		entries[i].first_seq = history[i].first_seq;
		messages[i] = &entries[i];
	}
	return messages;
}

static int history_unpack(Holdfast__Link__V1__HistoryEntry *const *messages, size_t count,
			  struct history_entry *ret, uint32_t *ret_count)
{
	size_t i;

	if (count > HISTORY_MAX)
		return LINK_E_LIMIT;
	for (i = 0; i < count; i++) {
		if (!messages[i]->has_epoch || !messages[i]->has_first_seq)
			return LINK_E_MISSING;
		ret[i].epoch = messages[i]->epoch;
		ret[i].first_seq = messages[i]->first_seq;
	}
	*ret_count = (uint32_t)count;
	return history_valid(ret, *ret_count) ? 0 : LINK_E_VALUE;
}

static Holdfast__Link__V1__Volume **volumes_pack(const struct superblock_volume *volumes,
						 uint32_t count)
{
	Holdfast__Link__V1__Volume **messages, *entries;
	uint32_t i;

	must(count <= GROUP_VOLUMES_MAX);
	messages = arena_array(count, sizeof(*messages));
	entries = arena_array(count, sizeof(*entries));
	for (i = 0; i < count; i++) {
		Holdfast__Link__V1__Volume *entry = &entries[i];

		holdfast__link__v1__volume__init(entry);
		entry->has_id = entry->has_uuid = entry->has_size_bytes = true;
		entry->id = volumes[i].id;
		entry->uuid.len = sizeof(volumes[i].uuid);
		entry->uuid.data = (uint8_t *)(uintptr_t)&volumes[i].uuid;
		entry->name = text_borrow(volumes[i].name);
		entry->size_bytes = volumes[i].size_bytes;
		messages[i] = entry;
	}
	return messages;
}

static int volume_unpack(const Holdfast__Link__V1__Volume *message, struct superblock_volume *ret)
{
	int r;

	if (!message->has_id || !message->has_size_bytes)
		return LINK_E_MISSING;
	if (message->id > UINT16_MAX || message->size_bytes > VOLUME_BYTES_MAX)
		return LINK_E_VALUE;
	ret->id = (uint16_t)message->id;
	ret->size_bytes = message->size_bytes;
	r = uuid_copy(&ret->uuid, message->has_uuid, &message->uuid);
	if (r != 0)
		return r;
	return name_copy(ret->name, sizeof(ret->name), message->name, volume_name_valid);
}

static int volumes_unpack(Holdfast__Link__V1__Volume *const *messages, size_t count,
			  struct link_hello *ret)
{
	size_t i;
	int r;

	if (count > GROUP_VOLUMES_MAX)
		return LINK_E_LIMIT;
	for (i = 0; i < count; i++) {
		r = volume_unpack(messages[i], &ret->volumes[i]);
		if (r != 0)
			return r;
	}
	ret->volume_count = (uint32_t)count;
	return volumes_distinct(ret->volumes, ret->volume_count) ? 0 : LINK_E_NAME;
}

/* ---- messages ---------------------------------------------------------------------------------
 */

int link_hello_pack(const struct link_hello *hello, uint8_t *out, size_t max)
{
	Holdfast__Link__V1__Hello message;
	Holdfast__Link__V1__Position head;

	arena_reset();
	holdfast__link__v1__hello__init(&message);
	message.has_protocol_min = message.has_protocol_max = true;
	message.protocol_min = hello->protocol_min;
	message.protocol_max = hello->protocol_max;
	message.has_features_required = message.has_features_optional = true;
	message.features_required = hello->features_required;
	message.features_optional = hello->features_optional;
	message.software = text_borrow(hello->software);
	message.node = text_borrow(hello->node);
	message.group = text_borrow(hello->group);
	message.has_group_uuid = true;
	message.group_uuid.len = sizeof(hello->group_uuid);
	message.group_uuid.data = (uint8_t *)(uintptr_t)&hello->group_uuid;
	message.has_epoch = true;
	message.epoch = hello->epoch;
	message.n_history = hello->history_count;
	message.history = history_pack(hello->history, hello->history_count);
	message.n_volumes = hello->volume_count;
	message.volumes = volumes_pack(hello->volumes, hello->volume_count);
	position_pack(&hello->head, &head);
	message.head = &head;
	message.has_oldest_seq = message.has_wall_time_ns = message.has_session = true;
	message.oldest_seq = hello->oldest_seq;
	message.wall_time_ns = hello->wall_time_ns;
	message.session = hello->session;
	must(hello->mode <= LINK_MODE_MAX);
	message.has_mode = hello->mode != 0;
	message.mode = hello->mode;
	return message_pack(&message.base, out, max);
}

static int hello_convert(const Holdfast__Link__V1__Hello *message, struct link_hello *ret)
{
	int r;

	if (!message->has_protocol_min || !message->has_protocol_max || !message->has_epoch)
		return LINK_E_MISSING;
	if (message->protocol_min < 1 || message->protocol_max < message->protocol_min ||
	    message->epoch < 1)
		return LINK_E_VALUE;
	ret->protocol_min = message->protocol_min;
	ret->protocol_max = message->protocol_max;
	ret->features_required = message->features_required;
	ret->features_optional = message->features_optional;
	ret->epoch = message->epoch;
	ret->oldest_seq = message->oldest_seq;
	ret->wall_time_ns = message->wall_time_ns;
	ret->session = message->session;
	if (message->mode > LINK_MODE_MAX)
		return LINK_E_VALUE;
	ret->mode = message->mode;
	text_copy(ret->software, sizeof(ret->software), message->software);
	position_unpack(message->head, &ret->head);
	r = name_copy(ret->node, sizeof(ret->node), message->node, node_name_valid);
	if (r == 0)
		r = name_copy(ret->group, sizeof(ret->group), message->group, group_name_valid);
	if (r == 0)
		r = uuid_copy(&ret->group_uuid, message->has_group_uuid, &message->group_uuid);
	if (r == 0)
		r = history_unpack(message->history, message->n_history, ret->history,
				   &ret->history_count);
	if (r == 0)
		r = volumes_unpack(message->volumes, message->n_volumes, ret);
	return r;
}

int link_hello_unpack(const uint8_t *bytes, size_t len, struct link_hello *ret)
{
	Holdfast__Link__V1__Hello *message;
	int r;

	r = message_unpack(&holdfast__link__v1__hello__descriptor, bytes, len, &message);
	if (r != 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	return hello_convert(message, ret);
}

int link_welcome_pack(const struct link_welcome *welcome, uint8_t *out, size_t max)
{
	Holdfast__Link__V1__Welcome message;
	Holdfast__Link__V1__Position durable;

	arena_reset();
	holdfast__link__v1__welcome__init(&message);
	message.has_protocol = message.has_epoch = message.has_applied_seq = true;
	message.protocol = welcome->protocol;
	message.software = text_borrow(welcome->software);
	message.node = text_borrow(welcome->node);
	message.epoch = welcome->epoch;
	position_pack(&welcome->durable, &durable);
	message.durable = &durable;
	message.applied_seq = welcome->applied_seq;
	message.has_syncing = message.has_empty = message.has_window_bytes = true;
	message.syncing = welcome->syncing;
	message.empty = welcome->empty;
	message.window_bytes = welcome->window_bytes;
	message.n_history = welcome->history_count;
	message.history = history_pack(welcome->history, welcome->history_count);
	message.has_wall_time_ns = true;
	message.wall_time_ns = welcome->wall_time_ns;
	message.has_seeded = welcome->seeded;
	message.has_diverged = message.has_common_seq = welcome->diverged;
	message.has_common_chain = welcome->diverged && welcome->common_chain != 0;
	message.has_ranges = welcome->ranges != 0;
	message.has_kept = message.has_kept_seq = welcome->kept;
	message.seeded = welcome->seeded;
	message.diverged = welcome->diverged;
	message.common_seq = welcome->common_seq;
	message.common_chain = welcome->common_chain;
	message.ranges = welcome->ranges;
	message.kept = welcome->kept;
	message.kept_seq = welcome->kept_seq;
	message.has_copy_id = welcome->copy_id != 0;
	message.copy_id = welcome->copy_id;
	message.has_writer = welcome->writer != 0;
	message.writer = welcome->writer;
	return message_pack(&message.base, out, max);
}

int link_welcome_unpack(const uint8_t *bytes, size_t len, struct link_welcome *ret)
{
	Holdfast__Link__V1__Welcome *message;
	int r;

	r = message_unpack(&holdfast__link__v1__welcome__descriptor, bytes, len, &message);
	if (r != 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	if (!message->has_protocol || !message->has_epoch || !message->has_window_bytes)
		return LINK_E_MISSING;
	ret->protocol = message->protocol;
	ret->epoch = message->epoch;
	position_unpack(message->durable, &ret->durable);
	ret->applied_seq = message->applied_seq;
	ret->syncing = message->syncing;
	ret->empty = message->empty;
	ret->window_bytes = message->window_bytes;
	ret->wall_time_ns = message->wall_time_ns;
	text_copy(ret->software, sizeof(ret->software), message->software);
	ret->seeded = message->seeded;
	ret->diverged = message->diverged;
	ret->common_seq = message->common_seq;
	ret->writer = message->writer;
	ret->copy_id = message->copy_id;
	ret->common_chain = message->common_chain;
	ret->ranges = message->ranges;
	ret->kept = message->kept;
	ret->kept_seq = message->kept_seq;
	if (ret->protocol < 1 || ret->window_bytes < 1 || ret->applied_seq > ret->durable.seq ||
	    (ret->diverged && ret->common_seq > ret->durable.seq))
		return LINK_E_VALUE;
	r = name_copy(ret->node, sizeof(ret->node), message->node, node_name_valid);
	if (r != 0)
		return r;
	return history_unpack(message->history, message->n_history, ret->history,
			      &ret->history_count);
}

int link_refuse_pack(const struct link_refuse *refuse, uint8_t *out, size_t max)
{
	Holdfast__Link__V1__Refuse message;

	must(refuse->code <= LINK_REFUSE_MAX);
	holdfast__link__v1__refuse__init(&message);
	message.has_code = message.has_epoch = true;
	message.code = (Holdfast__Link__V1__Refuse__Code)refuse->code;
	message.text = text_borrow(refuse->text);
	message.epoch = refuse->epoch;
	message.node = text_borrow(refuse->node);
	return message_pack(&message.base, out, max);
}

int link_refuse_unpack(const uint8_t *bytes, size_t len, struct link_refuse *ret)
{
	Holdfast__Link__V1__Refuse *message;
	int r;

	r = message_unpack(&holdfast__link__v1__refuse__descriptor, bytes, len, &message);
	if (r != 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	ret->code = (uint32_t)message->code;
	if (ret->code > LINK_REFUSE_MAX)
		ret->code = LINK_REFUSE_ERROR;
	ret->epoch = message->epoch;
	text_copy(ret->text, sizeof(ret->text), message->text);
	text_copy(ret->node, sizeof(ret->node), message->node);
	return 0;
}

int link_start_pack(const struct link_start *start, uint8_t *out, size_t max)
{
	Holdfast__Link__V1__Start message;
	Holdfast__Link__V1__Position base;

	holdfast__link__v1__start__init(&message);
	message.has_from_seq = message.has_sync = message.has_reset = message.has_sync_bytes = true;
	message.has_compare = start->compare;
	message.compare = start->compare;
	message.has_copy_id = start->copy_id != 0;
	message.copy_id = start->copy_id;
	message.has_writer = start->reset && start->writer != 0;
	message.writer = start->writer;
	message.from_seq = start->from_seq;
	message.sync = start->sync;
	message.reset = start->reset;
	message.sync_bytes = start->sync_bytes;
	if (start->reset) {
		position_pack(&start->base, &base);
		message.before = &base;
	}
	return message_pack(&message.base, out, max);
}

int link_start_unpack(const uint8_t *bytes, size_t len, struct link_start *ret)
{
	Holdfast__Link__V1__Start *message;
	int r;

	r = message_unpack(&holdfast__link__v1__start__descriptor, bytes, len, &message);
	if (r != 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	if (!message->has_from_seq)
		return LINK_E_MISSING;
	ret->from_seq = message->from_seq;
	ret->sync = message->sync;
	ret->reset = message->reset;
	ret->sync_bytes = message->sync_bytes;
	ret->compare = message->compare;
	if (ret->from_seq < 1)
		return LINK_E_VALUE;
	if (!ret->reset)
		return 0;
	if (message->before == NULL)
		return LINK_E_MISSING;
	position_unpack(message->before, &ret->base);
	ret->writer = message->writer;
	ret->copy_id = message->copy_id;
	return ret->base.seq == ret->from_seq - 1 ? 0 : LINK_E_VALUE;
}

int link_heartbeat_pack(const struct link_heartbeat *heartbeat, uint8_t *out, size_t max)
{
	Holdfast__Link__V1__Heartbeat message;
	Holdfast__Link__V1__Position head, durable;

	holdfast__link__v1__heartbeat__init(&message);
	position_pack(&heartbeat->head, &head);
	position_pack(&heartbeat->durable, &durable);
	message.head = &head;
	message.durable = &durable;
	message.has_wall_time_ns = message.has_behind_ns = message.has_sync_left_bytes = true;
	message.wall_time_ns = heartbeat->wall_time_ns;
	message.behind_ns = heartbeat->behind_ns;
	message.sync_left_bytes = heartbeat->sync_left_bytes;
	must(heartbeat->mode <= LINK_MODE_MAX);
	message.has_mode = heartbeat->mode != 0;
	message.mode = heartbeat->mode;
	return message_pack(&message.base, out, max);
}

int link_heartbeat_unpack(const uint8_t *bytes, size_t len, struct link_heartbeat *ret)
{
	Holdfast__Link__V1__Heartbeat *message;
	int r;

	r = message_unpack(&holdfast__link__v1__heartbeat__descriptor, bytes, len, &message);
	if (r != 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	if (message->head == NULL || message->durable == NULL)
		return LINK_E_MISSING;
	position_unpack(message->head, &ret->head);
	position_unpack(message->durable, &ret->durable);
	ret->wall_time_ns = message->wall_time_ns;
	ret->behind_ns = message->behind_ns;
	ret->sync_left_bytes = message->sync_left_bytes;
	if (message->mode > LINK_MODE_MAX)
		return LINK_E_VALUE;
	ret->mode = message->mode;
	return 0;
}

int link_bye_pack(const struct link_bye *bye, uint8_t *out, size_t max)
{
	Holdfast__Link__V1__Bye message;

	holdfast__link__v1__bye__init(&message);
	message.text = text_borrow(bye->text);
	return message_pack(&message.base, out, max);
}

int link_bye_unpack(const uint8_t *bytes, size_t len, struct link_bye *ret)
{
	Holdfast__Link__V1__Bye *message;
	int r;

	r = message_unpack(&holdfast__link__v1__bye__descriptor, bytes, len, &message);
	if (r != 0)
		return r;
	text_copy(ret->text, sizeof(ret->text), message->text);
	return 0;
}

/* ---- words ------------------------------------------------------------------------------------
 */

const char *link_refuse_text(uint32_t code)
{
	static const char *const texts[LINK_REFUSE_MAX + 1] = {
		[LINK_REFUSE_UNSPECIFIED] = "unspecified",
		[LINK_REFUSE_VERSION] = "version",
		[LINK_REFUSE_UNKNOWN_GROUP] = "unknown group",
		[LINK_REFUSE_STALE_EPOCH] = "stale epoch",
		[LINK_REFUSE_WRONG_GROUP] = "wrong group",
		[LINK_REFUSE_VOLUMES] = "volumes differ",
		[LINK_REFUSE_DIVERGED] = "diverged",
		[LINK_REFUSE_BUSY] = "busy",
		[LINK_REFUSE_NOT_STANDBY] = "not a standby",
		[LINK_REFUSE_ERROR] = "error",
	};

	return texts[code <= LINK_REFUSE_MAX ? code : LINK_REFUSE_ERROR];
}

const char *link_condition_text(int condition)
{
	switch ((enum link_condition)condition) {
	case LINK_E_SYNTAX:
		return "not a message of this kind";
	case LINK_E_LIMIT:
		return "too many or too long entries";
	case LINK_E_MISSING:
		return "a required field is missing";
	case LINK_E_NAME:
		return "an invalid or repeated name";
	case LINK_E_VALUE:
		return "an impossible value";
	}
	return "unknown condition";
}
