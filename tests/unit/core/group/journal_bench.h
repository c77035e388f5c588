/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the journal share: a calm world with one journal and its model. Header only.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_GROUP_JOURNAL_BENCH_H
#define HOLDFAST_TESTS_UNIT_CORE_GROUP_JOURNAL_BENCH_H

#include <inttypes.h>

#include "tests/sim/journal_model.h"
#include "tests/unit/core/group/waiting.h"

#define BENCH_FILES JOURNAL_MODEL_DIR "/journal/*"
#define BENCH_LARGE (SEGMENT_DATA_MAX_BYTES - 64u * 1024u) /* one fills a slot */

struct bench {
	const struct journal_model_options *options;
	void (*body)(struct journal_model *model);
	struct sim_world *world;
};

static const struct journal_model_options bench_writeback
	__attribute__((unused)) = { .slots = 4, .writes_max = 4 };
static const struct journal_model_options bench_dsync
	__attribute__((unused)) = { .slots = 4, .writes_max = 4, .dsync = true };
static const struct journal_model_options bench_standby
	__attribute__((unused)) = { .slots = 4, .writes_max = 4, .dsync = true, .standby = true };

static inline void bench_body(struct sim_world *world, void *context)
{
	struct bench *bench = context;
	struct journal_model *model =
		journal_model_new(world, sim_node_new(world, "a"), bench->options);

	model->written_counts = true;
	journal_model_start(model);
	sim_check(world, journal_model_started(model));
	bench->body(model);
}

static inline void bench_run(void (*body)(struct journal_model *model),
			     const struct journal_model_options *options)
{
	struct bench bench = { .options = options, .body = body };
	struct sim_options sim;
	bool held;

	sim_options_calm(&sim);
	bench.world = sim_new(1, &sim);
	held = sim_run(bench.world, bench_body, &bench);
	sim_free(bench.world);
	assert_true(held);
}

static inline bool bench_is_durable(void *context)
{
	const struct journal_model *model = context;

	return model->state == MODEL_FAILED ||
	       model->durable_seq == model->run->journal.appended_seq;
}

static inline bool bench_is_written(void *context)
{
	const struct journal_model *model = context;

	return model->state == MODEL_FAILED ||
	       model->written_seq == model->run->journal.appended_seq;
}

/* Everything appended becomes durable, or the journal fails. */
static inline void bench_await_durable(struct journal_model *model)
{
	sim_check(model->world,
		  sim_run_until(model->world, bench_is_durable, model, 10 * SIM_SECOND));
}

static inline void bench_await_written(struct journal_model *model)
{
	sim_check(model->world,
		  sim_run_until(model->world, bench_is_written, model, 10 * SIM_SECOND));
}

static inline void bench_append(struct journal_model *model, uint32_t bytes)
{
	sim_check(model->world, journal_model_append(model, bytes, false));
}

/* Appends and waits until it is durable. */
static inline void bench_append_durably(struct journal_model *model, uint32_t bytes)
{
	bench_append(model, bytes);
	journal_model_flush(model);
	bench_await_durable(model);
	sim_check(model->world, model->state == MODEL_RUNNING);
}

static inline void bench_crash(struct journal_model *model, enum sim_crash kind)
{
	sim_node_crash(model->node, kind);
	journal_model_crashed(model, kind == SIM_POWER);
	sim_node_restart(model->node);
}

/* Starts again after a crash or a stop; false: refused, model->res and error say why. */
static inline bool bench_restart(struct journal_model *model)
{
	journal_model_start(model);
	return journal_model_started(model);
}

static inline void bench_fault(struct journal_model *model, const char *pattern, uint32_t ops,
			       uint64_t skip, uint64_t count)
{
	struct sim_fault fault = {
		.pattern = pattern,
		.ops = ops,
		.action = SIM_ERROR,
		.error = -EIO,
		.skip = skip,
		.count = count,
	};

	model->written_counts = false;
	sim_fault_add(model->world, &fault);
}

static inline void bench_slot_path(unsigned slot, char path[64])
{
	snprintf(path, 64, JOURNAL_MODEL_DIR "/journal/%08u", slot);
}

#endif
