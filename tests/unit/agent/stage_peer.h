/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The standbys' side of the stage: what stage.h leaves to a file of its own. Included there.
 */
#ifndef HOLDFAST_TESTS_UNIT_AGENT_STAGE_PEER_H
#define HOLDFAST_TESTS_UNIT_AGENT_STAGE_PEER_H

#include "tests/unit/agent/stage.h"

/* ---- the standbys' side -------------------------------------------------------------------------
 */

static inline uint64_t stage_epoch(const struct stage_peer *peer)
{
	return peer->hello.epoch;
}

static inline void stage_peer_send(struct stage_peer *peer, struct frame *frame, const void *body)
{
	if (!frame->epoch)
		frame->epoch = stage_epoch(peer);
	if (link_is_open(peer->link))
		sim_check(peer->stage->world, link_send(peer->link, frame, body) == 0);
}

static inline void stage_peer_ack(struct stage_peer *peer, uint64_t seq)
{
	struct frame frame = { .type = FRAME_ACK, .seq = seq, .arg1 = seq };

	frame.arg2 = max_u64(seq, peer->seq);
	peer->unacked_bytes = 0;
	stage_peer_send(peer, &frame, NULL);
}

static inline void stage_peer_sync_ack(struct stage_peer *peer)
{
	struct frame frame = { .type = FRAME_SYNC_ACK, .seq = peer->sync_frames };

	stage_peer_send(peer, &frame, NULL);
}

static inline void stage_peer_refuse(struct stage_peer *peer)
{
	struct link_refuse refuse = {
		.code = peer->refuse_code ? peer->refuse_code : LINK_REFUSE_STALE_EPOCH,
		.epoch = peer->refuse_body ? peer->refuse_body : peer->refuse_epoch,
		.text = "a higher epoch rules"
	};
	struct frame frame = { .type = FRAME_REFUSE, .epoch = peer->refuse_epoch };

	frame.body_bytes = (uint32_t)link_refuse_pack(&refuse, peer->body, FRAME_CONTROL_MAX_BYTES);
	stage_peer_send(peer, &frame, peer->body);
}

static inline void stage_peer_bye(struct stage_peer *peer, const char *text)
{
	struct link_bye bye = { .text = "" };
	struct frame frame = { .type = FRAME_BYE };

	snprintf(bye.text, sizeof(bye.text), "%s", text);
	frame.body_bytes = (uint32_t)link_bye_pack(&bye, peer->body, FRAME_CONTROL_MAX_BYTES);
	stage_peer_send(peer, &frame, peer->body);
}

static inline void stage_peer_ranges(struct stage_peer *peer)
{
	struct frame frame = { .type = FRAME_RANGES };
	unsigned frames = 0;

	for (unsigned i = 0; i < peer->range_count; i++) {
		const struct stage_range *range = &peer->ranges[i];
		uint8_t *entry = peer->body + frame.body_bytes;

		le64_put(entry, range->off);
		le32_put(entry + 8, (uint32_t)(range->len / 512));
		le16_put(entry + 12, (uint16_t)range->volume);
		le16_put(entry + 14, 0);
		frame.body_bytes += FRAME_RANGE_BYTES;
		if ((i + 1) % peer->ranges_per_frame && i + 1 < peer->range_count)
			continue;
		frame.seq = i + 1 == peer->range_count;
		if (!peer->ranges_cut || frames < peer->ranges_cut)
			stage_peer_send(peer, &frame, peer->body);
		frames++;
		frame.body_bytes = 0;
	}
}

static inline void stage_peer_welcome(struct stage_peer *peer)
{
	struct frame frame = { .type = FRAME_WELCOME };
	static struct link_welcome welcome;

	memset(&welcome, 0, sizeof(welcome));
	welcome.protocol = PROTOCOL_VERSION;
	welcome.epoch = peer->welcome_epoch ? peer->welcome_epoch : stage_epoch(peer);
	snprintf(welcome.node, sizeof(welcome.node), "%s", peer->name);
	snprintf(welcome.software, sizeof(welcome.software), "test");
	welcome.empty = peer->empty;
	welcome.syncing = peer->syncing;
	welcome.copy_id = peer->copy_id;
	welcome.kept = peer->kept_seq != 0;
	welcome.kept_seq = peer->kept_seq;
	welcome.seeded = peer->seeded;
	welcome.durable = (struct link_position){ .epoch = peer->durable_epoch ? peer->durable_epoch
									       : stage_epoch(peer),
						  .seq = peer->seq,
						  .chain = peer->chain + peer->chain_wrong };
	welcome.applied_seq = peer->seq;
	welcome.writer = peer->writer;
	welcome.window_bytes = peer->window_bytes;
	if (!peer->empty) {
		welcome.history_count = peer->hello.history_count;
		memcpy(welcome.history, peer->hello.history, sizeof(welcome.history));
	}
	if (peer->diverged) {
		welcome.diverged = true;
		welcome.common_seq = peer->common_seq;
		welcome.common_chain = peer->common_chain;
		welcome.durable.seq = welcome.applied_seq = peer->own_seq;
		welcome.durable.chain = 4711;
		if (peer->range_count)
			welcome.ranges = (peer->range_count + peer->ranges_per_frame - 1) /
					 peer->ranges_per_frame;
	}
	frame.body_bytes =
		(uint32_t)link_welcome_pack(&welcome, peer->body, FRAME_CONTROL_MAX_BYTES);
	stage_peer_send(peer, &frame, peer->body);
	if (peer->diverged)
		stage_peer_ranges(peer);
}

static inline void stage_peer_hello(struct stage_peer *peer, const struct frame *frame,
				    const uint8_t *body)
{
	sim_check(peer->stage->world, !link_hello_unpack(body, frame->body_bytes, &peer->hello));
	peer->hellos++;
	if (peer->silent)
		return;
	if (peer->refuse_epoch)
		stage_peer_refuse(peer);
	else if (peer->bye)
		stage_peer_bye(peer, peer->bye);
	else
		stage_peer_welcome(peer);
}

static inline void stage_peer_start(struct stage_peer *peer, const struct frame *frame,
				    const uint8_t *body)
{
	struct sim_world *world = peer->stage->world;

	sim_check(world, !link_start_unpack(body, frame->body_bytes, &peer->start));
	peer->starts++;
	peer->sync_frames = 0;
	peer->questions = peer->answers = 0;
	peer->unacked_bytes = 0;
	if (peer->start.reset) {
		sim_check(world, peer->start.sync);
		sim_check(world, peer->start.base.seq == peer->start.from_seq - 1);
		peer->seq = peer->start.base.seq;
		peer->chain = peer->start.base.chain;
		peer->writer = peer->start.writer;
		peer->empty = peer->diverged = false;
	}
	/* S3, and that it resumes exactly behind what is durable there. */
	sim_check(world, peer->start.from_seq == peer->seq + 1);
	peer->syncing |= peer->start.sync;
	if (peer->start.sync)
		peer->copy_id = peer->start.copy_id;
	peer->sync_end = UINT64_MAX;
	if (!peer->mute)
		stage_peer_ack(peer, peer->seq);
}

static inline void stage_peer_record(struct stage_peer *peer, const struct record *record,
				     const uint8_t *data)
{
	uint8_t *to;

	if (record->type == RECORD_MARK)
		return;
	to = peer->content[record->volume] + record->offset_bytes;
	if (record->type == RECORD_WRITE)
		memcpy(to, data + record->data_off, record->length_bytes);
	else
		memset(to, 0, record->length_bytes);
}

static inline void stage_peer_segment(struct stage_peer *peer, const struct frame *frame,
				      const uint8_t *body)
{
	struct sim_world *world = peer->stage->world;
	static uint8_t data[SEGMENT_DATA_MAX_BYTES];
	struct segment_header header;

	sim_check(world, !segment_header_decode(body, frame->body_bytes, &header));
	sim_check(world, !segment_verify(body, frame->body_bytes, &header));
	sim_check(world, header.first_seq == peer->seq + 1 && header.chain == peer->chain);
	sim_check(world,
		  frame->seq == header.first_seq && frame->arg1 == segment_last_seq(&header));
	/* Nothing that the primary could still forget. */
	sim_check(world, segment_last_seq(&header) <= peer->stage->group->journal.durable_seq);
	sim_check(world, !segment_unpack(body, &header, data));
	if (!(header.flags & SEGMENT_LZ4))
		memcpy(data, body + header.data_off, header.data_raw_bytes);
	for (uint32_t i = 0; i < header.records; i++) {
		struct record record;

		sim_check(world, !record_decode(body + SEGMENT_HEADER_BYTES + i * RECORD_BYTES,
						&header, &record));
		stage_peer_record(peer, &record, data);
	}
	peer->seq = segment_last_seq(&header);
	peer->writer = header.writer;
	peer->chain = segment_chain(body);
	peer->segments++;
	peer->segment_bytes += frame->body_bytes;
	peer->unacked_bytes += frame->body_bytes;
	peer->unacked_max_bytes = max_u64(peer->unacked_max_bytes, peer->unacked_bytes);
	if (!peer->mute)
		stage_peer_ack(peer, peer->seq);
}

/* Of the volume that is meant, as this session knows it. */
static inline uint64_t stage_peer_size(const struct stage_peer *peer, const struct frame *frame)
{
	const struct link_hello *hello = &peer->hello;

	for (uint32_t i = 0; i < hello->volume_count; i++)
		if (hello->volumes[i].id == frame_range_volume(frame))
			return hello->volumes[i].size_bytes;
	return 0;
}

static inline void stage_peer_extent(struct stage_peer *peer, const struct frame *frame,
				     const uint8_t *body)
{
	struct sim_world *world = peer->stage->world;
	uint64_t len = frame_range_bytes(frame);
	uint8_t *to = peer->content[frame_range_volume(frame)] + frame->arg1;

	/* Y1: behind the segment of its stamp. */
	sim_check(world, frame->seq <= peer->seq);
	sim_check(world, frame->arg1 + len <= stage_peer_size(peer, frame) && len > 0);
	if (frame->type == FRAME_SYNC_ZERO) {
		memset(to, 0, len);
		peer->zero_frames++;
		peer->zero_bytes += len;
	} else {
		if (frame->flags & FRAME_LZ4)
			sim_check(world,
				  payload_unpack(body, frame->body_bytes, to, (uint32_t)len));
		else
			memcpy(to, body, len);
		peer->data_frames++;
		peer->data_bytes += len;
	}
	peer->sync_frames++;
	if (!peer->no_sync_ack)
		stage_peer_sync_ack(peer);
}

static inline void stage_peer_answer(struct stage_peer *peer, bool differs)
{
	struct frame frame = { .type = FRAME_HASH_RESULT, .seq = ++peer->answers, .arg1 = differs };

	peer->differing += differs;
	stage_peer_send(peer, &frame, NULL);
}

static inline void stage_peer_hash(struct stage_peer *peer, const struct frame *frame,
				   const uint8_t *body)
{
	struct sim_world *world = peer->stage->world;
	uint64_t len = frame_range_bytes(frame);
	uint8_t hash[FRAME_HASH_BYTES];

	/* Y1: behind the segment of its stamp. */
	sim_check(world, frame->seq <= peer->seq);
	sim_check(world, frame->arg1 + len <= stage_peer_size(peer, frame) && len > 0);
	hash128(peer->content[frame_range_volume(frame)] + frame->arg1, len, hash);
	peer->questions++;
	peer->asked_bytes += len;
	sim_check(world, peer->questions - peer->answers <= 256);
	if (!peer->no_answer)
		stage_peer_answer(peer, memcmp(hash, body, sizeof(hash)) != 0);
}

static inline void stage_peer_end(struct stage_peer *peer)
{
	peer->sync_end = UINT64_MAX;
	peer->syncing = false;
	peer->ends++;
	peer->sync_frames++;
	if (!peer->no_sync_ack)
		stage_peer_sync_ack(peer);
}

static inline void stage_peer_handover(struct stage_peer *peer, const struct frame *frame)
{
	struct frame answer = { .type = FRAME_HANDED, .epoch = frame->epoch };
	struct link_bye bye = { .text = "not now" };

	peer->asked++;
	peer->asked_seq = frame->seq;
	peer->asked_chain = frame->arg1;
	/* H1, H2 */
	sim_check(peer->stage->world, frame->seq == peer->seq && frame->arg1 == peer->chain);
	sim_check(peer->stage->world, !peer->syncing);
	if (peer->take == STAGE_NO_ANSWER)
		return;
	if (peer->take == STAGE_TAKES_OVER) {
		answer.epoch++;
		answer.seq = frame->seq;
		bye.text[0] = 0;
		peer->refuse_epoch = answer.epoch; /* whoever asks later */
	}
	answer.body_bytes = (uint32_t)link_bye_pack(&bye, peer->body, FRAME_CONTROL_MAX_BYTES);
	stage_peer_send(peer, &answer, peer->body);
}

static inline int stage_peer_frame(void *owner, const struct frame *frame, const uint8_t *body)
{
	struct stage_peer *peer = owner;
	struct sim_world *world = peer->stage->world;

	switch (frame->type) {
	case FRAME_HELLO:
		stage_peer_hello(peer, frame, body);
		break;
	case FRAME_START:
		stage_peer_start(peer, frame, body);
		break;
	case FRAME_SEGMENT:
		stage_peer_segment(peer, frame, body);
		break;
	case FRAME_SYNC_DATA:
	case FRAME_SYNC_ZERO:
		stage_peer_extent(peer, frame, body);
		break;
	case FRAME_SYNC_HASH:
		stage_peer_hash(peer, frame, body);
		break;
	case FRAME_VERIFIED:
		peer->verified++;
		peer->verified_seq = frame->seq;
		peer->verified_ranges = frame->arg2;
		sim_check(world, frame->seq <= peer->seq);
		break;
	case FRAME_SYNC_END:
		peer->end_seq = peer->sync_end = frame->seq;
		break;
	case FRAME_HEARTBEAT:
		sim_check(world, !link_heartbeat_unpack(body, frame->body_bytes, &peer->beat));
		peer->beats++;
		if (!peer->mute)
			stage_peer_ack(peer, peer->seq);
		break;
	case FRAME_HANDOVER:
		stage_peer_handover(peer, frame);
		break;
	case FRAME_BYE:
		sim_check(world, !link_bye_unpack(body, frame->body_bytes, &peer->said_bye));
		peer->byes++;
		link_close(peer->link);
		break;
	case FRAME_REFUSE:
		sim_check(world, !link_refuse_unpack(body, frame->body_bytes, &peer->said_refuse));
		peer->refuses++;
		link_close(peer->link);
		break;
	default:
		sim_fail(world, "a primary sends %s", frame_type_text(frame->type));
	}
	/* Consistent once it has passed the highest stamp. */
	if (peer->sync_end <= peer->seq)
		stage_peer_end(peer);
	return 0;
}

static inline uint8_t *stage_peer_place(void *owner, const struct frame *frame)
{
	(void)frame;
	return ((struct stage_peer *)owner)->body;
}

static inline void stage_peer_writable(void *owner)
{
	(void)owner;
}

static inline void stage_peer_ended(void *owner, int res, const char *text)
{
	struct stage_peer *peer = owner;

	(void)res;
	(void)text;
	link_close(peer->link);
}

static inline void stage_peer_tls_done(struct io_op *op, int64_t res)
{
	struct stage_peer *peer = container_of(op, struct stage_peer, tls_op);

	if (res < 0)
		io_stream_close(peer->stream);
	else
		link_start(peer->link, peer->stream);
	peer->stream = NULL;
	io_accept(peer->listener, &peer->stream, &peer->accept_op);
}

static inline void stage_peer_accepted(struct io_op *op, int64_t res)
{
	struct stage_peer *peer = container_of(op, struct stage_peer, accept_op);

	if (res < 0)
		return;
	peer->tls_op.done = stage_peer_tls_done;
	io_start_tls(peer->stream, sim_tls(peer->node, peer->name, "ca"), true, NULL,
		     &peer->tls_op);
}

static inline void stage_peer_listen(struct stage_peer *peer)
{
	struct io *io = sim_node_io(peer->node);
	struct io_address address;

	snprintf(address.text, sizeof(address.text), "%s", peer->address);
	sim_check(peer->stage->world, io_listen(io, &address, &peer->listener) == 0);
	peer->accept_op.done = stage_peer_accepted;
	io_accept(peer->listener, &peer->stream, &peer->accept_op);
}

#endif
