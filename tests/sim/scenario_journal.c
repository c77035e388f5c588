/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal alone: random work of its owner, crashes, errors, restarts; and short scripts in
 * which every event is a crash, every operation an error. What is checked is in journal_model.h.
 */
#include "tests/sim/scenario_journal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/journal_model.h"

#define STEPS 80u

/* ---- seeds -------------------------------------------------------------------------------------
 */

static uint32_t some_bytes(struct sim_world *world)
{
	switch (sim_between(world, 0, 19)) {
	case 0:
		return (uint32_t)sim_between(world, 256 * 1024, SEGMENT_DATA_MAX_BYTES);
	case 1 ... 3:
		return (uint32_t)sim_between(world, 1, 256 * 1024);
	default:
		return (uint32_t)sim_between(world, 1, 16 * 1024);
	}
}

static void append_some(struct journal_model *model)
{
	struct sim_world *world = model->world;
	uint64_t count = sim_between(world, 1, 10);

	while (count-- > 0 &&
	       journal_model_append(model, some_bytes(world), sim_chance(world, SIM_PPM / 4)))
		;
}

/* Somewhere in the range, more often near its end. */
static uint64_t some_seq(struct sim_world *world, uint64_t low, uint64_t high)
{
	if (low >= high)
		return high;
	return max_u64(sim_between(world, low, high), sim_between(world, low, high));
}

static void crash(struct journal_model *model)
{
	bool power = sim_chance(model->world, SIM_PPM / 2);

	sim_node_crash(model->node, power ? SIM_POWER : SIM_KILL);
	journal_model_crashed(model, power);
	sim_node_restart(model->node);
}

static bool can_reset(const struct journal_model *model)
{
	return model->options.standby && !model->run->tail_busy &&
	       list_empty(&model->run->journal.flight) && list_empty(&model->run->journal.queue);
}

static void work(struct journal_model *model)
{
	struct sim_world *world = model->world;

	switch (sim_between(world, 0, 19)) {
	case 0 ... 8:
		append_some(model);
		break;
	case 9 ... 12:
		journal_model_flush(model);
		break;
	case 13 ... 14:
		journal_model_apply(model,
				    some_seq(world, model->sb.applied_seq, model->durable_seq));
		break;
	case 15 ... 16:
		journal_model_floor(model,
				    some_seq(world, model->floor_seq, model->sb.applied_seq));
		break;
	case 17:
		journal_model_tail(model);
		break;
	case 18:
		if (!model->run->tail_busy)
			tail_seek(&model->run->tail,
				  some_seq(world, model->floor_seq + 1, model->durable_seq + 1));
		if (sim_chance(world, SIM_PPM / 4))
			journal_expire(&model->run->journal, io_wall(sim_node_io(model->node)));
		break;
	default:
		if (can_reset(model))
			journal_model_reset(model, sim_between(world, 1, 1000));
		break;
	}
}

static bool unblocked(void *context)
{
	const struct journal_model *model = context;

	return model->state != MODEL_RUNNING ||
	       model->durable_seq == model->run->journal.appended_seq;
}

/* Liveness: whatever was appended gets durable once the owner gives room. */
static void settle(struct journal_model *model)
{
	unsigned rounds = 0;

	while (model->state == MODEL_RUNNING && !model->run->resetting &&
	       model->durable_seq < model->run->journal.appended_seq) {
		journal_model_flush(model);
		sim_run_until(model->world, unblocked, model, 5 * SIM_SECOND);
		if (model->state != MODEL_RUNNING)
			return;
		journal_model_apply(model, model->durable_seq);
		journal_model_floor(model, model->durable_seq);
		if (++rounds > 500)
			sim_fail(model->world, "seq %" PRIu64 " appended, stuck at %" PRIu64,
				 model->run->journal.appended_seq, model->durable_seq);
	}
}

static void restart(struct journal_model *model)
{
	unsigned tries = 0;

	journal_model_start(model);
	while (!journal_model_started(model)) {
		/* Only an error that was injected may keep it from starting. */
		if (model->res != -EIO)
			sim_fail(model->world, "does not start: %" PRId64 " %s", model->res,
				 model->error);
		sim_node_crash(model->node, SIM_KILL);
		journal_model_crashed(model, false);
		sim_node_restart(model->node);
		if (++tries > 2)
			sim_fault_clear(model->world);
		if (tries > 50)
			sim_fail(model->world, "does not start in 50 attempts: %s", model->error);
		journal_model_start(model);
	}
}

static void options_of_seed(struct sim_world *world, struct journal_model_options *ret_options)
{
	bool standby = sim_chance(world, SIM_PPM / 2);

	*ret_options = (struct journal_model_options){
		.slots = (uint32_t)sim_between(world, 3, 6),
		.slot_bytes = SEGMENT_TOTAL_MAX_BYTES + 4096 * sim_between(world, 0, 64),
		.standby = standby,
		.dsync = standby || sim_chance(world, SIM_PPM / 2),
		.writes_max = (unsigned)sim_between(world, 1, 16),
		.ring_bytes = (size_t)sim_between(world, 2, 5) << 20,
	};
}

static int run_journal(struct sim_world *world, uint64_t seed)
{
	const struct sim_options *faults = sim_options(world);
	struct journal_model_options options;
	struct journal_model *model;

	(void)seed;
	options_of_seed(world, &options);
	model = journal_model_new(world, sim_node_new(world, "a"), &options);
	model->written_counts = !faults->write_error_ppm && !faults->flush_error_ppm;
	restart(model);
	for (unsigned step = 0; step < STEPS; step++) {
		if (model->state != MODEL_RUNNING || sim_chance(world, SIM_PPM / 20)) {
			crash(model);
			restart(model);
		}
		if (!model->run->resetting)
			work(model);
		sim_run_for(world, sim_between(world, 0, 2 * SIM_MS));
	}
	settle(model);
	sim_options_heal(sim_options(world));
	sim_fault_clear(world);
	crash(model);
	restart(model);
	settle(model);
	journal_model_stop(model, true);
	journal_model_start(model);
	if (!journal_model_started(model))
		sim_fail(world, "does not start after a clean stop: %s", model->error);
	return 0;
}

/* ---- scripts -----------------------------------------------------------------------------------
 */

/* One step of a script; false: not yet, it is asked again after the next event. */
typedef bool (*script_step_fn)(struct journal_model *model);

struct script_state {
	struct journal_model *model;
	const script_step_fn *steps;
	unsigned at;
};

static bool step_append_small(struct journal_model *model)
{
	return journal_model_append(model, 3000, false);
}

static bool step_append_two(struct journal_model *model)
{
	return journal_model_append(model, 9000, false) && journal_model_append(model, 9000, true);
}

static bool step_append_large(struct journal_model *model)
{
	return journal_model_append(model, SEGMENT_DATA_MAX_BYTES - 64 * 1024, false);
}

static bool step_flush(struct journal_model *model)
{
	journal_model_flush(model);
	return true;
}

static bool step_await_written(struct journal_model *model)
{
	return model->written_seq == model->run->journal.appended_seq;
}

static bool step_await_durable(struct journal_model *model)
{
	/* A rewrite can need more slots than the script has reckoned with. */
	if (model->run->journal.blocked) {
		journal_model_apply(model, model->durable_seq);
		journal_model_floor(model, model->durable_seq);
	}
	return model->durable_seq == model->run->journal.appended_seq;
}

static bool step_apply(struct journal_model *model)
{
	journal_model_apply(model, model->durable_seq);
	return true;
}

static bool step_floor(struct journal_model *model)
{
	journal_model_floor(model, model->sb.applied_seq);
	return true;
}

static bool step_expire(struct journal_model *model)
{
	journal_expire(&model->run->journal, UINT64_MAX);
	return true;
}

static bool step_await_quiet(struct journal_model *model)
{
	return journal_is_quiet(&model->run->journal);
}

static bool step_reset(struct journal_model *model)
{
	if (!can_reset(model))
		return false;
	journal_model_reset(model, 10);
	return true;
}

static bool step_await_reset(struct journal_model *model)
{
	return !model->run->resetting;
}

/* The next flush, or with dsync the next write, of the journal fails once. */
static bool step_fault(struct journal_model *model)
{
	struct sim_fault fault = {
		.pattern = JOURNAL_MODEL_DIR "/journal/*",
		.ops = model->options.dsync ? SIM_WRITE : SIM_FLUSH,
		.action = SIM_ERROR,
		.error = -EIO,
		.count = 1,
	};

	sim_fault_add(model->world, &fault);
	model->written_counts = false;
	return true;
}

static const script_step_fn steps_writeback[] = {
	step_append_small,
	step_append_two,
	step_await_written,
	step_append_small,
	step_flush,
	step_await_durable,
	step_append_small,
	step_flush,
	step_await_durable,
	step_apply,
	step_append_two,
	step_await_written,
	NULL,
};
static const script_step_fn steps_dsync[] = {
	step_append_two, step_append_two, step_append_small,  step_await_durable,
	step_apply,	 step_append_two, step_await_durable, NULL,
};
static const script_step_fn steps_laps[] = {
	step_append_large, step_append_two,    step_flush,	   step_append_large,
	step_flush,	   step_await_durable, step_apply,	   step_floor,
	step_append_large, step_append_two,    step_flush,	   step_await_durable,
	step_append_large, step_flush,	       step_await_durable, NULL,
};
static const script_step_fn steps_failure[] = {
	step_append_two, step_flush,	    step_await_durable, step_fault,
	step_append_two, step_append_small, step_flush,		step_await_durable,
	step_append_two, step_flush,	    step_await_durable, NULL,
};
/* The failure strikes where a slot has just begun: it holds nothing afterwards. */
static const script_step_fn steps_failure_at_start[] = {
	step_append_large, step_flush,	    step_await_durable, step_fault,
	step_append_large, step_append_two, step_flush,		step_await_durable,
	step_append_two,   step_flush,	    step_await_durable, NULL,
};
static const script_step_fn steps_expire[] = {
	step_append_large,
	step_append_large,
	step_append_large,
	step_flush,
	step_await_durable,
	step_apply,
	step_floor,
	step_expire,
	step_append_large,
	step_flush,
	step_await_durable,
	step_await_quiet,
	NULL,
};
static const script_step_fn steps_reset[] = {
	step_append_two, step_append_large, step_append_large, step_await_durable, step_apply,
	step_reset,	 step_await_reset,  step_append_two,   step_await_durable, NULL,
};

static const struct journal_model_options primary = { .slots = 4, .writes_max = 4 };
static const struct journal_model_options primary_dsync = { .slots = 4,
							    .writes_max = 4,
							    .dsync = true };
static const struct journal_model_options standby = {
	.slots = 4, .writes_max = 4, .dsync = true, .standby = true
};

static void script_start(struct sim_world *world, const struct journal_model_options *options,
			 const script_step_fn *steps)
{
	struct script_state *state = sim_alloc(world, sizeof(*state));

	state->model = journal_model_new(world, sim_node_new(world, "a"), options);
	state->model->written_counts = true;
	state->steps = steps;
	sim_set_user(world, state);
	sim_enum_begin(world);
	journal_model_start(state->model);
}

static bool script_done(struct sim_world *world)
{
	struct script_state *state = sim_user(world);

	if (state->model->state == MODEL_FAILED)
		return true;
	if (state->model->state != MODEL_RUNNING)
		return false;
	while (state->steps[state->at] && state->steps[state->at](state->model))
		state->at++;
	return !state->steps[state->at];
}

/* Recovers, and what was written before can be gone on with. */
static void script_check(struct sim_world *world)
{
	struct script_state *state = sim_user(world);
	struct journal_model *model = state->model;
	uint64_t unflushed = 0;
	char path[64];

	if (sim_fault_hits(world))
		model->written_counts = false;
	if (sim_node_is_up(model->node)) {
		sim_node_crash(model->node, SIM_KILL);
		journal_model_crashed(model, false);
	} else {
		/* After a power loss nothing is left in a cache. */
		for (uint32_t i = 0; i < model->options.slots; i++) {
			snprintf(path, sizeof(path), JOURNAL_MODEL_DIR "/journal/%08u", i);
			unflushed += sim_file_unflushed(model->node, path);
		}
		journal_model_crashed(model, unflushed == 0);
	}
	sim_node_restart(model->node);
	journal_model_start(model);
	if (!journal_model_started(model))
		sim_fail(world, "does not start: %" PRId64 " %s", model->res, model->error);
	for (unsigned i = 0; i < 3; i++)
		sim_check(world, journal_model_append(model, 20000, false));
	journal_model_tail(model);
	settle(model);
	sim_check(world, model->state == MODEL_RUNNING);
	sim_node_crash(model->node, SIM_POWER);
	journal_model_crashed(model, true);
	sim_node_restart(model->node);
	journal_model_start(model);
	if (!journal_model_started(model))
		sim_fail(world, "does not start again: %" PRId64 " %s", model->res, model->error);
}

#define SCRIPT(script, options, steps)                                                             \
	static void start_##script(struct sim_world *world)                                        \
	{                                                                                          \
		script_start(world, &(options), steps);                                            \
	}
SCRIPT(writeback, primary, steps_writeback)
SCRIPT(dsync, primary_dsync, steps_dsync)
SCRIPT(standby, standby, steps_dsync)
SCRIPT(laps, primary, steps_laps)
SCRIPT(laps_standby, standby, steps_laps)
SCRIPT(failure, primary, steps_failure)
SCRIPT(failure_dsync, primary_dsync, steps_failure)
SCRIPT(failure_at_start, primary, steps_failure_at_start)
SCRIPT(failure_standby, standby, steps_failure_at_start)
SCRIPT(expire, primary, steps_expire)
SCRIPT(reset, standby, steps_reset)

#define ENTRY(script)                                                                              \
	{                                                                                          \
		.name = "journal/" #script, .start = start_##script, .done = script_done,          \
		.check = script_check                                                              \
	}
const struct sim_enum_script journal_scripts[] = {
	ENTRY(writeback),	ENTRY(dsync),	ENTRY(standby),	      ENTRY(laps),
	ENTRY(laps_standby),	ENTRY(failure), ENTRY(failure_dsync), ENTRY(failure_at_start),
	ENTRY(failure_standby), ENTRY(expire),	ENTRY(reset),	      { .name = NULL },
};

static void enumerate_journal(const struct sim_enum_options *options,
			      struct sim_enum_result *result)
{
	for (const struct sim_enum_script *script = journal_scripts; script->name; script++)
		sim_enumerate(script, options, result);
}

const struct sim_scenario scenario_journal = {
	.name = "journal",
	.about = "the journal alone: crashes, torn and lost writes, errors, laps, rewrites",
	.run = run_journal,
	.enumerate = enumerate_journal,
};
