/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/journal_model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/hash64.h"
#include "core/base/macros.h"
#include "core/base/prng.h"

#define START_LIMIT (600 * SIM_SECOND)

static void read_on(struct journal_model *model);
static void seek_from(struct journal_model *model, uint64_t seq, bool strict);

static const struct uuid group_uuid = { { 7, 7, 7, 1 } };

struct journal_model *journal_model_new(struct sim_world *world, struct sim_node *node,
					const struct journal_model_options *options)
{
	struct journal_model *model = sim_alloc(world, sizeof(*model));
	struct superblock *sb = &model->sb;
	char path[64];

	model->world = world;
	model->node = node;
	model->options = *options;
	if (!model->options.slot_bytes)
		model->options.slot_bytes = SEGMENT_TOTAL_MAX_BYTES;
	if (!model->options.ring_bytes)
		model->options.ring_bytes = 8u << 20;
	model->segments = sim_alloc(world, JOURNAL_MODEL_SEGMENTS_MAX * sizeof(*model->segments));
	*sb = (struct superblock){
		.group = group_uuid,
		.role = options->standby ? GROUP_STANDBY : GROUP_PRIMARY,
		.epoch = 1,
		.slot_bytes = model->options.slot_bytes,
		.slots = options->slots,
		.applied_chain = segment_chain_root(&group_uuid),
		.history_count = 1,
		.history = { { .epoch = 1, .first_seq = 1 } },
	};
	for (uint32_t i = 0; i < options->slots; i++) {
		snprintf(path, sizeof(path), JOURNAL_MODEL_DIR "/journal/%08u", i);
		sim_file_make(node, path, model->options.slot_bytes, false, false);
	}
	return model;
}

const struct model_segment *journal_model_find(const struct journal_model *model, uint64_t seq)
{
	unsigned low = 0, high = model->appended;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (model->segments[middle].last_seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == model->appended || model->segments[low].first_seq > seq)
		return NULL;
	return &model->segments[low];
}

/* What was read is what was appended. */
static void check_segment(struct journal_model *model, const struct segment_header *header,
			  const uint8_t *stored)
{
	const struct model_segment *segment = journal_model_find(model, header->first_seq);

	/* From before the journal was started anew. */
	if (!segment && !model->run->strict && header->first_seq < model->base_seq)
		return;
	if (!segment)
		sim_fail(model->world, "read seq %" PRIu64 ", which was never appended",
			 header->first_seq);
	sim_check(model->world, segment->first_seq == header->first_seq);
	sim_check(model->world, segment->total_bytes == header->total_bytes);
	if (hash64(0, stored, header->total_bytes) != segment->hash)
		sim_fail(model->world, "seq %" PRIu64 " came back with other bytes",
			 header->first_seq);
	model->checked_segments++;
}

/* ---- events ------------------------------------------------------------------------------------
 */

static void on_written(void *owner, uint64_t seq)
{
	struct journal_model *model = owner;

	sim_note(model->world, model->node, "written %" PRIu64, seq);
	sim_check(model->world, model->state == MODEL_RUNNING);
	sim_check(model->world, seq > model->written_seq);
	sim_check(model->world, seq <= model->run->journal.appended_seq);
	model->written_seq = seq;
}

static void on_durable(void *owner, uint64_t seq)
{
	struct journal_model *model = owner;

	sim_note(model->world, model->node, "durable %" PRIu64, seq);
	sim_check(model->world, model->state == MODEL_RUNNING);
	sim_check(model->world, seq > model->durable_seq && seq <= model->written_seq);
	model->durable_seq = seq;
	model->rewrites = max_u64(model->rewrites, model->run->journal.rewrites);
}

static void on_space(void *owner, bool blocked)
{
	struct journal_model *model = owner;

	model->blocked += blocked;
}

static void on_failed(void *owner, int res, const char *text)
{
	struct journal_model *model = owner;

	sim_note(model->world, model->node, "journal failed: %s", text);
	sim_check(model->world, res < 0 && text[0] && journal_is_quiet(&model->run->journal));
	model->res = res;
	snprintf(model->error, sizeof(model->error), "%s", text);
	model->state = MODEL_FAILED;
}

/* ---- start -------------------------------------------------------------------------------------
 */

static void failed(struct journal_model *model, int64_t res)
{
	model->res = res;
	snprintf(model->error, sizeof(model->error), "%s", model->run->journal.error);
	model->state = MODEL_FAILED;
	sim_note(model->world, model->node, "start failed: %" PRId64 " %s", res, model->error);
}

static void running(struct journal_model *model)
{
	struct journal_model *m = model;
	int r = tail_init(&m->run->tail, &m->run->journal, &m->run->ring);

	if (r) {
		failed(model, r);
		return;
	}
	m->run->tail_made = true;
	tail_seek(&m->run->tail, m->floor_seq + 1);
	model->state = MODEL_RUNNING;
}

static void segment_read(struct io_op *op, int64_t res)
{
	struct model_run *run = container_of(op, struct model_run, op);
	struct journal_model *model = run->model;

	if (res == 1) {
		check_segment(model, &run->reader.header, run->reader.stored);
		read_on(model);
		return;
	}
	if (res == 0 && run->strict) {
		sim_check(model->world, run->reader.at.seq == model->durable_seq + 1);
		running(model);
		return;
	}
	/* Below the floor the writer may have been about to overwrite, or had to leave a gap. */
	if (!run->strict && (res == 0 || res == -EBADMSG || res == -ENOENT)) {
		seek_from(model, model->floor_seq + 1, true);
		return;
	}
	if (res == -ENOENT || res == -EBADMSG || res == -ESTALE)
		sim_fail(model->world, "floor %" PRIu64 ", but what is above cannot be read: %s",
			 model->floor_seq, run->journal.error);
	failed(model, res);
}

static void seek_done(struct io_op *op, int64_t res)
{
	struct model_run *run = container_of(op, struct model_run, op);

	if (res < 0)
		segment_read(op, res);
	else
		read_on(run->model);
}

static void read_on(struct journal_model *model)
{
	model->run->op.done = segment_read;
	journal_reader_next(&model->run->reader, &model->run->op);
}

static void seek_from(struct journal_model *model, uint64_t seq, bool strict)
{
	struct model_run *run = model->run;

	run->strict = strict;
	run->op.done = seek_done;
	journal_reader_seek(&run->reader, seq, &run->op);
}

/* The end that was found becomes the model's: what lies behind was cut. */
static void opened(struct io_op *op, int64_t res)
{
	struct model_run *run = container_of(op, struct model_run, op);
	struct journal_model *model = run->model;
	uint64_t end_seq = run->journal.durable_seq;
	unsigned kept = 0;

	if (res) {
		failed(model, res);
		return;
	}
	sim_note(model->world, model->node, "opened at %" PRIu64, end_seq);
	if (end_seq < model->must_seq)
		sim_fail(model->world, "found %" PRIu64 ", reported %" PRIu64, end_seq,
			 model->must_seq);
	/* A standby can find what it had been sent before an earlier crash: the same bytes. */
	while (kept < (model->options.standby ? model->count : model->appended) &&
	       model->segments[kept].last_seq <= end_seq)
		kept++;
	if (kept > 0 && model->segments[kept - 1].last_seq > model->sb.applied_seq) {
		const struct model_segment *last = &model->segments[kept - 1];

		sim_check(model->world, last->last_seq == end_seq);
		sim_check(model->world, last->chain_next == run->journal.head.chain);
		sim_check(model->world, last->bytes_end == run->journal.head.bytes);
	} else {
		sim_check(model->world, end_seq == model->sb.applied_seq);
	}
	model->appended = kept;
	if (!model->options.standby)
		model->count = kept;
	model->written_seq = model->durable_seq = model->must_seq = end_seq;
	journal_set_floor(&run->journal, model->floor_seq);
	res = journal_reader_init(&run->reader, &run->journal);
	if (res) {
		failed(model, res);
		return;
	}
	run->reader_made = true;
	model->state = MODEL_CHECKING;
	seek_from(model, min_u64(journal_oldest_seq(&run->journal), model->floor_seq + 1), false);
}

void journal_model_start(struct journal_model *model)
{
	struct io *io = sim_node_io(model->node);
	struct model_run *run = io_alloc(io, sizeof(*run), 64);
	struct journal_options options = {
		.io = io,
		.dir = JOURNAL_MODEL_DIR,
		.group = group_uuid,
		.slot_bytes = model->options.slot_bytes,
		.slots = model->options.slots,
		.dsync = model->options.dsync,
		.writes_max = model->options.writes_max,
		.events = { model, on_written, on_durable, on_space, on_failed },
	};
	int r;

	must(model->state == MODEL_DOWN);
	model->starts++;
	model->error[0] = 0;
	model->res = -ENOMEM;
	model->state = MODEL_FAILED;
	model->run = run;
	if (!run)
		return;
	run->model = model;
	run->writer = io_random(io);
	r = segring_init(&run->ring, io, model->options.ring_bytes);
	if (r)
		return;
	run->ring_made = true;
	r = journal_init(&run->journal, &options);
	if (r)
		return;
	run->journal_made = true;
	model->state = MODEL_OPENING;
	run->op.done = opened;
	journal_open(&run->journal, &model->sb, &run->op);
}

static bool start_is_over(void *context)
{
	const struct journal_model *model = context;

	return model->state == MODEL_RUNNING || model->state == MODEL_FAILED;
}

bool journal_model_started(struct journal_model *model)
{
	if (!sim_run_until(model->world, start_is_over, model, START_LIMIT))
		sim_fail(model->world, "the journal does not open");
	return model->state == MODEL_RUNNING;
}

/* ---- stop --------------------------------------------------------------------------------------
 */

void journal_model_crashed(struct journal_model *model, bool power)
{
	bool was_running = model->state == MODEL_RUNNING || model->state == MODEL_FAILED;

	if (was_running)
		model->must_seq = max_u64(model->must_seq, !power && model->written_counts
								   ? model->written_seq
								   : model->durable_seq);
	model->run = NULL;
	model->state = MODEL_DOWN;
}

static bool is_quiet(void *context)
{
	const struct journal_model *model = context;

	return model->state == MODEL_FAILED ||
	       (journal_is_quiet(&model->run->journal) && !model->run->tail_busy);
}

void journal_model_stop(struct journal_model *model, bool clean)
{
	struct model_run *run = model->run;
	struct io *io = sim_node_io(model->node);

	journal_model_flush(model);
	if (!sim_run_until(model->world, is_quiet, model, START_LIMIT))
		sim_fail(model->world, "the journal does not come to rest");
	sim_check(model->world, model->state == MODEL_RUNNING);
	sim_check(model->world, model->durable_seq == run->journal.appended_seq);
	if (clean) {
		journal_model_apply(model, model->durable_seq);
		model->sb.flags |= SUPERBLOCK_CLEAN;
		model->sb.durable_seq = model->durable_seq;
	}
	model->must_seq = model->durable_seq;
	tail_deinit(&run->tail);
	journal_reader_deinit(&run->reader);
	journal_close(&run->journal);
	journal_deinit(&run->journal);
	sim_check(model->world, run->ring.count == 0 && run->ring.used_bytes == 0);
	segring_deinit(&run->ring);
	io_free(io, run);
	sim_check(model->world, sim_node_alloc_bytes(model->node) == 0);
	model->run = NULL;
	model->state = MODEL_DOWN;
}
