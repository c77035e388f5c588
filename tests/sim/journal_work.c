/* SPDX-License-Identifier: Apache-2.0 */
/* What the owner of a journal does: append, flush, apply, raise the floor, follow, start anew. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/hash64.h"
#include "core/base/macros.h"
#include "core/base/prng.h"
#include "tests/sim/journal_model.h"

#define BLOCK_BYTES 4096u

static uint8_t data_area[SEGMENT_DATA_MAX_BYTES];
static uint8_t table_area[SEGMENT_RECORDS_MAX * RECORD_BYTES];

/* Records of one segment: writes of whole blocks, and one discard. Returns the sum of their
 * lengths. */
static uint64_t make_records(struct segment_header *header, uint32_t data_bytes)
{
	uint32_t each = data_bytes / 4 > BLOCK_BYTES ? data_bytes / 4 : BLOCK_BYTES, at = 0, length;
	uint64_t sum = BLOCK_BYTES;
	struct record record;

	header->records = 0;
	for (; at < data_bytes; at += length) {
		length = min_u32(each, data_bytes - at);
		record = (struct record){
			.type = RECORD_WRITE,
			.length_bytes = length,
			.offset_bytes = (header->first_seq + header->records) * BLOCK_BYTES,
			.data_off = at,
			.data_crc = crc32c(0, data_area + at, length),
		};
		record_encode(&record, table_area + header->records++ * RECORD_BYTES);
		sum += length;
	}
	record = (struct record){ .type = RECORD_DISCARD, .length_bytes = BLOCK_BYTES };
	record_encode(&record, table_area + header->records++ * RECORD_BYTES);
	return sum;
}

static void fill(struct journal_model *model, uint32_t data_bytes, bool compressible)
{
	struct prng prng;

	prng_seed(&prng, sim_random(model->world));
	if (compressible)
		memset(data_area, (int)prng_below(&prng, 256), data_bytes);
	else
		prng_fill(&prng, data_area, data_bytes);
}

static void seal(struct journal_model *model, struct segment *segment, uint32_t data_bytes,
		 bool compressible)
{
	const struct journal *journal = &model->run->journal;
	struct segment_header *header = &segment->header;

	fill(model, data_bytes, compressible);
	*header = (struct segment_header){
		.group = model->sb.group,
		.epoch = model->sb.epoch,
		.first_seq = journal->appended_seq + 1,
		.data_raw_bytes = data_bytes,
		.first_time_ns = io_wall(journal->options.io),
		.last_time_ns = io_wall(journal->options.io),
		.durable_seq =
			model->options.standby ? journal->appended_seq : journal->durable_seq,
		.chain = journal->head.chain,
		.writer = model->run->writer,
	};
	header->bytes_end = journal->head.bytes + make_records(header, data_bytes);
	segment->stored = segment->block;
	segment_seal(header, table_area, data_area, segment->stored);
	segment->table = segment->stored + SEGMENT_HEADER_BYTES;
	segment->chain_next = segment_chain(segment->stored);
}

/* Standby: what the primary has sent before comes again as it was. */
static struct model_segment *sent_before(struct journal_model *model)
{
	struct model_segment *next = &model->segments[model->appended];

	if (model->appended == model->count)
		return NULL;
	must(next->first_seq == model->run->journal.appended_seq + 1 && next->stored);
	return next;
}

static void remember(struct journal_model *model, const struct segment *segment)
{
	const struct segment_header *header = &segment->header;
	struct model_segment *next = &model->segments[model->appended++];

	model->count = model->appended;
	*next = (struct model_segment){
		.first_seq = header->first_seq,
		.last_seq = segment_last_seq(header),
		.bytes_end = header->bytes_end,
		.chain = header->chain,
		.chain_next = segment->chain_next,
		.hash = hash64(0, segment->stored, header->total_bytes),
		.durable_seq = header->durable_seq,
		.total_bytes = header->total_bytes,
	};
	if (!model->options.standby)
		return;
	next->stored = sim_alloc(model->world, header->total_bytes);
	memcpy(next->stored, segment->stored, header->total_bytes);
}

bool journal_model_append(struct journal_model *model, uint32_t data_bytes, bool compressible)
{
	struct model_run *run = model->run;
	struct model_segment *again = sent_before(model);
	struct segment *segment;

	must(model->state == MODEL_RUNNING && !run->resetting);
	sim_check(model->world, model->count < JOURNAL_MODEL_SEGMENTS_MAX);
	segment = segring_begin(&run->ring, again ? again->total_bytes : SEGMENT_TOTAL_MAX_BYTES);
	if (!segment)
		return false;
	if (again) {
		memcpy(segment->block, again->stored, again->total_bytes);
		segment->stored = segment->block;
		sim_check(model->world, segment_header_decode(segment->stored, again->total_bytes,
							      &segment->header) == 0);
		segment->chain_next = again->chain_next;
		model->appended++;
	} else {
		seal(model, segment, data_bytes, compressible);
		remember(model, segment);
	}
	segring_trim(&run->ring, segment, segment->header.total_bytes);
	journal_append(&run->journal, segment);
	segring_release(&run->ring, segment);
	return true;
}

void journal_model_flush(struct journal_model *model)
{
	if (model->state == MODEL_RUNNING)
		journal_flush(&model->run->journal, model->run->journal.appended_seq);
}

/* Where the journal has that segment, as a follower would know it: from the slot index. */
static bool place_behind(struct journal_model *model, const struct model_segment *segment,
			 struct journal_position *ret_at)
{
	const struct journal *journal = &model->run->journal;
	unsigned index = (unsigned)(segment - model->segments);

	for (uint32_t i = 0; i < journal->options.slots; i++) {
		const struct journal_slot *slot = &journal->slots[i];
		const struct model_segment *at = segment;
		uint64_t off = slot->first_off;

		if (slot->first_seq == 0 || segment->first_seq < slot->first_seq ||
		    segment->last_seq > slot->last_seq)
			continue;
		while (at > model->segments && at->first_seq > slot->first_seq)
			at--;
		if (at->first_seq != slot->first_seq)
			return false;
		for (; at <= &model->segments[index]; at++)
			off += at->total_bytes;
		*ret_at = (struct journal_position){
			.seq = segment->last_seq + 1,
			.chain = segment->chain_next,
			.bytes = segment->bytes_end,
			.slot = i,
			.off = off,
		};
		return true;
	}
	return false;
}

void journal_model_apply(struct journal_model *model, uint64_t seq)
{
	const struct model_segment *segment;
	struct journal_position at;

	seq = min_u64(seq, model->durable_seq);
	segment = journal_model_find(model, seq);
	if (segment && segment->last_seq > seq)
		segment = segment > model->segments ? segment - 1 : NULL;
	if (!segment || segment->last_seq <= model->sb.applied_seq ||
	    !place_behind(model, segment, &at))
		return;
	model->sb.applied_seq = segment->last_seq;
	model->sb.applied_bytes = at.bytes;
	model->sb.applied_chain = at.chain;
	model->sb.applied_slot = at.slot;
	model->sb.applied_off = at.off;
	model->sb.durable_seq = model->durable_seq;
}

void journal_model_floor(struct journal_model *model, uint64_t seq)
{
	model->floor_seq = max_u64(model->floor_seq, min_u64(seq, model->sb.applied_seq));
	journal_set_floor(&model->run->journal, model->floor_seq);
}

/* ---- following ---------------------------------------------------------------------------------
 */

static void tail_done(struct io_op *op, int64_t res)
{
	struct model_run *run = container_of(op, struct model_run, tail_op);
	struct journal_model *model = run->model;
	const struct model_segment *segment;
	struct tail *tail = &run->tail;

	run->tail_busy = false;
	if (res < 0) {
		/* Overtaken by the writer, or a read error: the follower starts over. */
		sim_check(model->world, res == -ENOENT || res == -EIO || res == -EBADMSG);
		if (res == -EBADMSG)
			sim_check(model->world, tail->next_seq <= model->floor_seq);
		tail_seek(tail, model->floor_seq + 1);
		return;
	}
	if (res == 0) {
		sim_check(model->world,
			  tail->next_seq > model->durable_seq || model->state != MODEL_RUNNING);
		return;
	}
	segment = journal_model_find(model, tail->header->first_seq);
	sim_check(model->world, segment && segment->last_seq <= run->journal.durable_seq);
	sim_check(model->world, tail->next_seq == segment->last_seq + 1);
	sim_check(model->world, tail->header->total_bytes == segment->total_bytes);
	sim_check(model->world, hash64(0, tail->stored, segment->total_bytes) == segment->hash);
	model->tail_segments++;
	journal_model_tail(model);
}

void journal_model_tail(struct journal_model *model)
{
	struct model_run *run = model->run;

	if (run->tail_busy || run->resetting)
		return;
	run->tail_busy = true;
	run->tail_op.done = tail_done;
	tail_next(&run->tail, &run->tail_op);
}

/* ---- starting anew -----------------------------------------------------------------------------
 */

static void reset_done(struct io_op *op, int64_t res)
{
	struct model_run *run = container_of(op, struct model_run, reset_op);
	struct journal_model *model = run->model;

	run->resetting = false;
	if (res < 0) {
		model->res = res;
		model->state = MODEL_FAILED;
		return;
	}
	sim_check(model->world, run->journal.head.seq == run->reset_to.seq);
	sim_check(model->world, run->journal.durable_seq == run->reset_to.seq - 1);
	sim_check(model->world, journal_oldest_seq(&run->journal) == run->reset_to.seq);
	tail_seek(&run->tail, run->reset_to.seq);
}

void journal_model_reset(struct journal_model *model, uint64_t skip)
{
	struct model_run *run = model->run;
	struct journal_position base = {
		.seq = run->journal.head.seq + skip,
		.chain = sim_random(model->world),
		.bytes = run->journal.head.bytes + skip,
	};

	must(model->options.standby && !run->tail_busy);
	model->appended = model->count = 0;
	model->sb.applied_seq = model->sb.durable_seq = base.seq - 1;
	model->sb.applied_bytes = base.bytes;
	model->sb.applied_chain = base.chain;
	model->sb.applied_slot = 0;
	model->sb.applied_off = 0;
	model->floor_seq = base.seq - 1;
	model->base_seq = base.seq;
	model->written_seq = model->durable_seq = model->must_seq = base.seq - 1;
	run->resetting = true;
	run->reset_to = base;
	tail_drop(&run->tail);
	run->reset_op.done = reset_done;
	journal_reset(&run->journal, &base, &run->reset_op);
}
