/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/superblock.h"

#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/macros.h"
#include "proto/format.h"

#define SUPERBLOCK_FLAGS                                                                           \
	(SUPERBLOCK_CLEAN | SUPERBLOCK_EVER_CONSISTENT | SUPERBLOCK_SYNCING |                      \
	 SUPERBLOCK_PROMOTING | SUPERBLOCK_REJOIN | SUPERBLOCK_HANDOVER | SUPERBLOCK_HELD |        \
	 SUPERBLOCK_SELF_DIRTY | SUPERBLOCK_ROLLBACK | SUPERBLOCK_DISTRUST | SUPERBLOCK_SUSPECT |  \
	 SUPERBLOCK_REJOIN_LOSS)

/* ---- rules ------------------------------------------------------------------------------------
 */

static bool name_byte_valid(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

bool group_name_valid(const char *name)
{
	size_t i;

	if (name[0] == '\0' || name[0] == '.' || name[0] == '-')
		return false;
	for (i = 0; name[i] != '\0'; i++) {
		if (i == GROUP_NAME_MAX || !name_byte_valid(name[i]))
			return false;
	}
	return true;
}

bool volume_name_valid(const char *name)
{
	_Static_assert(VOLUME_NAME_MAX == GROUP_NAME_MAX, "one rule for both");
	return group_name_valid(name);
}

bool node_name_valid(const char *name)
{
	size_t i;

	for (i = 0; name[i] != '\0'; i++) {
		if (i == NODE_NAME_MAX || name[i] < 0x21 || name[i] > 0x7e || name[i] == '"' ||
		    name[i] == '\\')
			return false;
	}
	return i > 0;
}

bool history_valid(const struct history_entry *history, uint32_t count)
{
	uint32_t i;

	if (count > HISTORY_MAX)
		return false;
	for (i = 0; i < count; i++) {
		if (history[i].epoch < 1 || history[i].first_seq < 1)
			return false;
		if (i > 0 && (history[i].epoch <= history[i - 1].epoch ||
			      history[i].first_seq < history[i - 1].first_seq))
			return false;
	}
	return true;
}

bool openings_valid(const struct opening *openings, uint32_t count)
{
	if (count > OPENINGS_MAX)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		if (openings[i].first_seq < 1 ||
		    (i > 0 && openings[i].first_seq <= openings[i - 1].first_seq))
			return false;
	}
	return true;
}

bool volumes_distinct(const struct superblock_volume *volumes, uint32_t count)
{
	uint32_t i, j;

	for (i = 0; i < count; i++) {
		for (j = 0; j < i; j++) {
			if (volumes[i].id == volumes[j].id ||
			    uuid_equal(&volumes[i].uuid, &volumes[j].uuid) ||
			    strcmp(volumes[i].name, volumes[j].name) == 0)
				return false;
		}
	}
	return true;
}

/* A field of `size` bytes: a text, its terminator, and nothing but zeroes behind. */
static bool text_padded(const char *text, size_t size)
{
	size_t i, len = strnlen(text, size);

	for (i = len; i < size; i++) {
		if (text[i] != '\0')
			return false;
	}
	return len < size;
}

static bool volume_valid(const struct superblock_volume *volume)
{
	return text_padded(volume->name, sizeof(volume->name)) && volume_name_valid(volume->name) &&
	       !uuid_is_zero(&volume->uuid) && volume->size_bytes <= VOLUME_BYTES_MAX;
}

static bool volumes_valid(const struct superblock *sb)
{
	uint32_t i;

	for (i = 0; i < sb->volume_count; i++) {
		if (!volume_valid(&sb->volumes[i]))
			return false;
	}
	return volumes_distinct(sb->volumes, sb->volume_count);
}

static bool peers_valid(const struct superblock *sb)
{
	uint32_t i, j;

	for (i = 0; i < sb->peer_count; i++) {
		if (!text_padded(sb->peers[i].node, sizeof(sb->peers[i].node)) ||
		    !node_name_valid(sb->peers[i].node))
			return false;
		for (j = 0; j < i; j++) {
			if (strcmp(sb->peers[i].node, sb->peers[j].node) == 0)
				return false;
		}
	}
	return true;
}

static bool journal_valid(const struct superblock *sb)
{
	if (sb->slots == 0)
		return sb->applied_slot == 0 && sb->applied_off == 0;
	return sb->slot_bytes >= SEGMENT_ALIGN_BYTES && sb->slot_bytes <= VOLUME_BYTES_MAX &&
	       is_aligned(sb->slot_bytes, SEGMENT_ALIGN_BYTES) && sb->applied_slot < sb->slots &&
	       sb->applied_off <= sb->slot_bytes &&
	       is_aligned(sb->applied_off, SEGMENT_ALIGN_BYTES);
}

static bool kept_valid(const struct superblock *sb)
{
	const struct superblock_kept *kept = &sb->kept;

	if (!history_valid(kept->history, kept->history_count))
		return false;
	if (kept->undo_id == 0)
		return kept->undo_bytes == 0 && kept->seq == 0 && kept->history_count == 0 &&
		       (sb->flags & SUPERBLOCK_ROLLBACK) == 0;
	return kept->history_count == 0 ||
	       kept->history[kept->history_count - 1].epoch <= kept->epoch;
}

static bool handover_valid(const struct superblock *sb)
{
	if (!text_padded(sb->handover_node, sizeof(sb->handover_node)))
		return false;
	if (sb->flags & SUPERBLOCK_HANDOVER)
		return node_name_valid(sb->handover_node);
	return sb->handover_node[0] == '\0' || node_name_valid(sb->handover_node);
}

bool superblock_valid(const struct superblock *sb)
{
	if (sb->role < GROUP_PRIMARY || sb->role > GROUP_FENCED)
		return false;
	if ((sb->flags & ~(uint32_t)SUPERBLOCK_FLAGS) != 0)
		return false;
	if (sb->volume_count > GROUP_VOLUMES_MAX || sb->history_count > HISTORY_MAX ||
	    sb->peer_count > GROUP_PEERS_MAX)
		return false;
	if (!text_padded(sb->name, sizeof(sb->name)) || !group_name_valid(sb->name))
		return false;
	if (!text_padded(sb->fenced_by, sizeof(sb->fenced_by)) ||
	    (sb->fenced_by[0] != '\0' && !node_name_valid(sb->fenced_by)))
		return false;
	if (!history_valid(sb->history, sb->history_count))
		return false;
	if (sb->history_count > 0 && sb->history[sb->history_count - 1].epoch > sb->epoch)
		return false;
	return journal_valid(sb) && volumes_valid(sb) && peers_valid(sb) && kept_valid(sb) &&
	       handover_valid(sb) && openings_valid(sb->openings, sb->opening_count);
}

/* ---- one volume: in the superblock, and in a VOLUME record -------------------------------------
 */

_Static_assert(sizeof(struct superblock_volume_le) == RECORD_VOLUME_BYTES, "one form for both");

static void volume_encode(const struct superblock_volume *volume, struct superblock_volume_le *le)
{
	memset(le, 0, sizeof(*le));
	le->id = le16_of(volume->id);
	le->size_bytes = le64_of(volume->size_bytes);
	le->uuid = volume->uuid;
	memcpy(le->name, volume->name, sizeof(le->name));
}

static void volume_decode(const struct superblock_volume_le *le, struct superblock_volume *volume)
{
	memset(volume, 0, sizeof(*volume));
	volume->id = le16_get(le->id);
	volume->size_bytes = le64_get(le->size_bytes);
	volume->uuid = le->uuid;
	memcpy(volume->name, le->name, sizeof(volume->name));
}

void record_volume_encode(const struct superblock_volume *volume, uint8_t out[RECORD_VOLUME_BYTES])
{
	struct superblock_volume_le le;

	must(volume_valid(volume));
	volume_encode(volume, &le);
	memcpy(out, &le, sizeof(le));
}

int record_volume_decode(const uint8_t bytes[RECORD_VOLUME_BYTES],
			 struct superblock_volume *ret_volume)
{
	static const uint8_t zeroes[sizeof((struct superblock_volume_le){ 0 }.reserved)];
	struct superblock_volume_le le;

	memcpy(&le, bytes, sizeof(le));
	volume_decode(&le, ret_volume);
	if (memcmp(le.reserved, zeroes, sizeof(zeroes)) != 0 || !volume_valid(ret_volume))
		return SEGMENT_E_RECORD;
	return 0;
}

/* ---- encoding ---------------------------------------------------------------------------------
 */

static void encode_lists(const struct superblock *sb, struct superblock_le *le)
{
	uint32_t i;

	for (i = 0; i < sb->history_count; i++) {
		le->history[i].epoch = le64_of(sb->history[i].epoch);
		le->history[i].first_seq = le64_of(sb->history[i].first_seq);
	}
	for (i = 0; i < sb->peer_count; i++) {
		memcpy(le->peers[i].node, sb->peers[i].node, sizeof(le->peers[i].node));
		le->peers[i].durable_seq = le64_of(sb->peers[i].durable_seq);
		le->peers[i].released_seq = le64_of(sb->peers[i].released_seq);
		le->peers[i].flags =
			le32_of((sb->peers[i].needs_sync ? SUPERBLOCK_PEER_NEEDS_SYNC : 0) |
				(sb->peers[i].needs_compare ? SUPERBLOCK_PEER_NEEDS_COMPARE : 0));
		le->peers[i].verified_seq = le64_of(sb->peers[i].verified_seq);
		le->peers[i].verified_time_ns = le64_of(sb->peers[i].verified_time_ns);
		le->peers[i].copy_seq = le64_of(sb->peers[i].copy_seq);
		le->peers[i].copy_time_ns = le64_of(sb->peers[i].copy_time_ns);
		le->peers[i].differing_ranges = le64_of(sb->peers[i].differing_ranges);
		le->peers[i].differing_bytes = le64_of(sb->peers[i].differing_bytes);
		le->peers[i].copy_id = le64_of(sb->peers[i].copy_id);
	}
	for (i = 0; i < sb->volume_count; i++) {
		volume_encode(&sb->volumes[i], &le->volumes[i]);
		le->stamps[i].mtime_ns = le64_of(sb->stamps[i].mtime_ns);
		le->stamps[i].sample = le64_of(sb->stamps[i].sample);
	}
	for (i = 0; i < sb->opening_count; i++) {
		le->openings[i].writer = le64_of(sb->openings[i].writer);
		le->openings[i].first_seq = le64_of(sb->openings[i].first_seq);
	}
}

static void encode_kept(const struct superblock_kept *kept, struct superblock_le *le)
{
	uint32_t i;

	le->undo_id = le64_of(kept->undo_id);
	le->undo_bytes = le64_of(kept->undo_bytes);
	le->kept_seq = le64_of(kept->seq);
	le->kept_chain = le64_of(kept->chain);
	le->kept_bytes = le64_of(kept->bytes);
	le->kept_epoch = le64_of(kept->epoch);
	le->kept_time_ns = le64_of(kept->time_ns);
	le->kept_history_count = le32_of(kept->history_count);
	for (i = 0; i < kept->history_count; i++) {
		le->kept_history[i].epoch = le64_of(kept->history[i].epoch);
		le->kept_history[i].first_seq = le64_of(kept->history[i].first_seq);
	}
}

void superblock_encode(const struct superblock *sb, uint8_t *out)
{
	struct superblock_le *le = (struct superblock_le *)(void *)out;

	must(superblock_valid(sb));
	memset(le, 0, sizeof(*le));
	le->magic = le32_of(SUPERBLOCK_MAGIC);
	le->version = le32_of(SUPERBLOCK_VERSION);
	le->features_compat = le64_of(sb->features_compat);
	le->generation = le64_of(sb->generation);
	le->group = sb->group;
	le->role = sb->role;
	le->flags = le32_of(sb->flags);
	memcpy(le->name, sb->name, sizeof(le->name));
	le->epoch = le64_of(sb->epoch);
	le->fenced_by_epoch = le64_of(sb->fenced_by_epoch);
	memcpy(le->fenced_by, sb->fenced_by, sizeof(le->fenced_by));
	le->slot_bytes = le64_of(sb->slot_bytes);
	le->slots = le32_of(sb->slots);
	le->applied_slot = le32_of(sb->applied_slot);
	le->applied_seq = le64_of(sb->applied_seq);
	le->applied_bytes = le64_of(sb->applied_bytes);
	le->applied_chain = le64_of(sb->applied_chain);
	le->applied_off = le64_of(sb->applied_off);
	le->durable_seq = le64_of(sb->durable_seq);
	le->sync_end_seq = le64_of(sb->sync_end_seq);
	le->heard_head_seq = le64_of(sb->heard_head_seq);
	le->heard_head_bytes = le64_of(sb->heard_head_bytes);
	le->heard_time_ns = le64_of(sb->heard_time_ns);
	le->promoted_time_ns = le64_of(sb->promoted_time_ns);
	le->lost_writes = le64_of(sb->lost_writes);
	le->lost_bytes = le64_of(sb->lost_bytes);
	le->lost_ns = le64_of(sb->lost_ns);
	le->differing_ranges = le64_of(sb->differing_ranges);
	le->durable_time_ns = le64_of(sb->durable_time_ns);
	le->copy_id = le64_of(sb->copy_id);
	le->verified_seq = le64_of(sb->verified_seq);
	le->verified_time_ns = le64_of(sb->verified_time_ns);
	le->handover_seq = le64_of(sb->handover_seq);
	memcpy(le->handover_node, sb->handover_node, sizeof(le->handover_node));
	encode_kept(&sb->kept, le);
	le->volume_count = le32_of(sb->volume_count);
	le->history_count = le32_of(sb->history_count);
	le->peer_count = le32_of(sb->peer_count);
	le->opening_count = le32_of(sb->opening_count);
	encode_lists(sb, le);
	le->crc = le32_of(crc32c(0, le, offsetof(struct superblock_le, crc)));
}

/* ---- decoding ---------------------------------------------------------------------------------
 */

static bool bytes_zero(const void *bytes, size_t len)
{
	const uint8_t *b = bytes;

	return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

/* Reserved bytes and the unused ends of the lists; the counts are within their limits. */
static bool reserved_valid(const struct superblock_le *le, const struct superblock *sb)
{
	uint32_t i;

	for (i = 0; i < sb->volume_count; i++) {
		if (!bytes_zero(le->volumes[i].reserved, sizeof(le->volumes[i].reserved)))
			return false;
	}
	for (i = 0; i < sb->peer_count; i++) {
		if (!bytes_zero(le->peers[i].reserved0, sizeof(le->peers[i].reserved0)) ||
		    !bytes_zero(le->peers[i].reserved, sizeof(le->peers[i].reserved)) ||
		    (le32_get(le->peers[i].flags) &
		     ~(SUPERBLOCK_PEER_NEEDS_SYNC | SUPERBLOCK_PEER_NEEDS_COMPARE)) != 0)
			return false;
	}
	return bytes_zero(le->reserved0, sizeof(le->reserved0)) &&
	       bytes_zero(le->reserved1, sizeof(le->reserved1)) &&
	       bytes_zero(le->reserved2, sizeof(le->reserved2)) &&
	       bytes_zero(le->reserved4, sizeof(le->reserved4)) &&
	       bytes_zero(le->openings + sb->opening_count,
			  sizeof(le->openings[0]) * (OPENINGS_MAX - sb->opening_count)) &&
	       bytes_zero(le->history + sb->history_count,
			  sizeof(le->history[0]) * (HISTORY_MAX - sb->history_count)) &&
	       bytes_zero(le->peers + sb->peer_count,
			  sizeof(le->peers[0]) * (GROUP_PEERS_MAX - sb->peer_count)) &&
	       bytes_zero(le->kept_history + sb->kept.history_count,
			  sizeof(le->kept_history[0]) * (HISTORY_MAX - sb->kept.history_count)) &&
	       bytes_zero(le->stamps + sb->volume_count,
			  sizeof(le->stamps[0]) * (GROUP_VOLUMES_MAX - sb->volume_count)) &&
	       bytes_zero(le->volumes + sb->volume_count,
			  sizeof(le->volumes[0]) * (GROUP_VOLUMES_MAX - sb->volume_count));
}

static void decode_lists(const struct superblock_le *le, struct superblock *sb)
{
	uint32_t i;

	for (i = 0; i < sb->history_count; i++) {
		sb->history[i].epoch = le64_get(le->history[i].epoch);
		sb->history[i].first_seq = le64_get(le->history[i].first_seq);
	}
	for (i = 0; i < sb->peer_count; i++) {
		memcpy(sb->peers[i].node, le->peers[i].node, sizeof(sb->peers[i].node));
		sb->peers[i].durable_seq = le64_get(le->peers[i].durable_seq);
		sb->peers[i].released_seq = le64_get(le->peers[i].released_seq);
		sb->peers[i].needs_sync =
			(le32_get(le->peers[i].flags) & SUPERBLOCK_PEER_NEEDS_SYNC) != 0;
		sb->peers[i].needs_compare =
			(le32_get(le->peers[i].flags) & SUPERBLOCK_PEER_NEEDS_COMPARE) != 0;
		sb->peers[i].verified_seq = le64_get(le->peers[i].verified_seq);
		sb->peers[i].verified_time_ns = le64_get(le->peers[i].verified_time_ns);
		sb->peers[i].copy_seq = le64_get(le->peers[i].copy_seq);
		sb->peers[i].copy_time_ns = le64_get(le->peers[i].copy_time_ns);
		sb->peers[i].differing_ranges = le64_get(le->peers[i].differing_ranges);
		sb->peers[i].differing_bytes = le64_get(le->peers[i].differing_bytes);
		sb->peers[i].copy_id = le64_get(le->peers[i].copy_id);
	}
	for (i = 0; i < sb->volume_count; i++) {
		volume_decode(&le->volumes[i], &sb->volumes[i]);
		sb->stamps[i].mtime_ns = le64_get(le->stamps[i].mtime_ns);
		sb->stamps[i].sample = le64_get(le->stamps[i].sample);
	}
	for (i = 0; i < sb->opening_count; i++) {
		sb->openings[i].writer = le64_get(le->openings[i].writer);
		sb->openings[i].first_seq = le64_get(le->openings[i].first_seq);
	}
	for (i = 0; i < sb->kept.history_count; i++) {
		sb->kept.history[i].epoch = le64_get(le->kept_history[i].epoch);
		sb->kept.history[i].first_seq = le64_get(le->kept_history[i].first_seq);
	}
}

static void decode_kept(const struct superblock_le *le, struct superblock_kept *kept)
{
	kept->undo_id = le64_get(le->undo_id);
	kept->undo_bytes = le64_get(le->undo_bytes);
	kept->seq = le64_get(le->kept_seq);
	kept->chain = le64_get(le->kept_chain);
	kept->bytes = le64_get(le->kept_bytes);
	kept->epoch = le64_get(le->kept_epoch);
	kept->time_ns = le64_get(le->kept_time_ns);
	kept->history_count = le32_get(le->kept_history_count);
}

static void decode_fields(const struct superblock_le *le, struct superblock *sb)
{
	memset(sb, 0, sizeof(*sb));
	sb->generation = le64_get(le->generation);
	sb->features_compat = le64_get(le->features_compat);
	sb->group = le->group;
	sb->role = le->role;
	sb->flags = le32_get(le->flags);
	memcpy(sb->name, le->name, sizeof(sb->name));
	sb->epoch = le64_get(le->epoch);
	sb->fenced_by_epoch = le64_get(le->fenced_by_epoch);
	memcpy(sb->fenced_by, le->fenced_by, sizeof(sb->fenced_by));
	sb->slot_bytes = le64_get(le->slot_bytes);
	sb->slots = le32_get(le->slots);
	sb->applied_slot = le32_get(le->applied_slot);
	sb->applied_seq = le64_get(le->applied_seq);
	sb->applied_bytes = le64_get(le->applied_bytes);
	sb->applied_chain = le64_get(le->applied_chain);
	sb->applied_off = le64_get(le->applied_off);
	sb->durable_seq = le64_get(le->durable_seq);
	sb->sync_end_seq = le64_get(le->sync_end_seq);
	sb->heard_head_seq = le64_get(le->heard_head_seq);
	sb->heard_head_bytes = le64_get(le->heard_head_bytes);
	sb->heard_time_ns = le64_get(le->heard_time_ns);
	sb->promoted_time_ns = le64_get(le->promoted_time_ns);
	sb->lost_writes = le64_get(le->lost_writes);
	sb->lost_bytes = le64_get(le->lost_bytes);
	sb->lost_ns = le64_get(le->lost_ns);
	sb->differing_ranges = le64_get(le->differing_ranges);
	sb->durable_time_ns = le64_get(le->durable_time_ns);
	sb->copy_id = le64_get(le->copy_id);
	sb->verified_seq = le64_get(le->verified_seq);
	sb->verified_time_ns = le64_get(le->verified_time_ns);
	sb->handover_seq = le64_get(le->handover_seq);
	memcpy(sb->handover_node, le->handover_node, sizeof(sb->handover_node));
	decode_kept(le, &sb->kept);
	sb->volume_count = le32_get(le->volume_count);
	sb->history_count = le32_get(le->history_count);
	sb->peer_count = le32_get(le->peer_count);
	sb->opening_count = le32_get(le->opening_count);
}

int superblock_decode(const uint8_t *slot, struct superblock *ret_sb)
{
	const struct superblock_le *le = (const struct superblock_le *)(const void *)slot;

	if (le32_get(le->magic) != SUPERBLOCK_MAGIC)
		return SUPERBLOCK_E_NONE_VALID;
	if (le32_get(le->crc) != crc32c(0, le, offsetof(struct superblock_le, crc)))
		return SUPERBLOCK_E_NONE_VALID;
	/* All programs so far write what they have read, so read-only compatible is not enough. */
	if (le32_get(le->version) != SUPERBLOCK_VERSION || le64_get(le->features_incompat) != 0 ||
	    le64_get(le->features_ro_compat) != 0)
		return SUPERBLOCK_E_VERSION;
	decode_fields(le, ret_sb);
	if (ret_sb->volume_count > GROUP_VOLUMES_MAX || ret_sb->history_count > HISTORY_MAX ||
	    ret_sb->peer_count > GROUP_PEERS_MAX || ret_sb->kept.history_count > HISTORY_MAX ||
	    ret_sb->opening_count > OPENINGS_MAX)
		return SUPERBLOCK_E_FIELD;
	decode_lists(le, ret_sb);
	return reserved_valid(le, ret_sb) && superblock_valid(ret_sb) ? 0 : SUPERBLOCK_E_FIELD;
}

int superblock_choose(const uint8_t *file, struct superblock *ret_sb, unsigned *ret_slot)
{
	const uint8_t *slots[2] = { file, file + SUPERBLOCK_SLOT_BYTES };
	uint64_t generations[2] = { 0, 0 };
	int results[2];
	unsigned i, chosen;

	for (i = 0; i < 2; i++) {
		results[i] = superblock_decode(slots[i], ret_sb);
		generations[i] = results[i] == 0 ? ret_sb->generation : 0;
	}
	if (results[0] == SUPERBLOCK_E_VERSION || results[1] == SUPERBLOCK_E_VERSION)
		return SUPERBLOCK_E_VERSION;
	if (results[0] == SUPERBLOCK_E_FIELD || results[1] == SUPERBLOCK_E_FIELD)
		return SUPERBLOCK_E_FIELD;
	if (results[0] != 0 && results[1] != 0)
		return SUPERBLOCK_E_NONE_VALID;
	if (results[0] == 0 && results[1] == 0) {
		/* Each write raises the generation: two slots of one generation are the same. */
		if (generations[0] == generations[1] &&
		    memcmp(slots[0], slots[1], SUPERBLOCK_SLOT_BYTES) != 0)
			return SUPERBLOCK_E_FIELD;
		chosen = generations[1] > generations[0];
	} else {
		chosen = results[1] == 0;
	}
	must(superblock_decode(slots[chosen], ret_sb) == 0);
	*ret_slot = chosen;
	return 0;
}

const char *superblock_condition_text(int condition)
{
	switch ((enum superblock_condition)condition) {
	case SUPERBLOCK_E_NONE_VALID:
		return "no valid superblock";
	case SUPERBLOCK_E_VERSION:
		return "written by a newer version or with a feature this program does not know";
	case SUPERBLOCK_E_FIELD:
		return "checksum is right but the content is impossible";
	}
	return "unknown condition";
}
