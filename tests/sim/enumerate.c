/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/enumerate.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/internal.h"

#define LIMIT_NS_DEFAULT       (120 * SIM_SECOND)
#define SUBSET_SECTORS_DEFAULT 6u
#define SUBSET_SECTORS_LIMIT   16u
#define SAMPLES_DEFAULT	       6u
#define REPORTS_DEFAULT	       3u

enum case_kind {
	CASE_PLAIN,
	CASE_KILL,
	CASE_POWER,
	CASE_ERROR,
	CASE_STICKY,
	CASE_ALLOC,
};

static const char *const kind_names[] = {
	[CASE_PLAIN] = "plain",	   [CASE_KILL] = "kill",	 [CASE_POWER] = "power",
	[CASE_ERROR] = "eio-once", [CASE_STICKY] = "eio-sticky", [CASE_ALLOC] = "no-memory",
};

struct sim_case {
	enum case_kind kind;
	unsigned node;
	uint64_t at;  /* event, disk operation or allocation */
	bool sampled; /* choice is a sample's number, not the exact survivors */
	uint64_t choice;
	unsigned volatile_sectors; /* found out by the run */
	uint64_t first_event, first_op, first_alloc;
	uint64_t events, disk_ops, allocs;
	bool failed;
};

/* Everything one enumeration carries along. */
struct enumeration {
	const struct sim_enum_script *script;
	const struct sim_enum_options *options;
	struct sim_enum_result *result;
	uint64_t case_number;
	unsigned reports;
};

struct case_run {
	const struct sim_enum_script *script;
	struct sim_case *it;
	struct sim_world *world;
	bool crashed;
};

static void case_name(const struct sim_case *it, char *text, size_t max)
{
	if (it->kind == CASE_PLAIN)
		snprintf(text, max, "plain");
	else if (it->kind == CASE_KILL || it->kind == CASE_POWER)
		snprintf(text, max, "%s/%u/%" PRIu64 "/%s%" PRIx64, kind_names[it->kind], it->node,
			 it->at, it->sampled ? "sample" : "", it->choice);
	else
		snprintf(text, max, "%s/%" PRIu64, kind_names[it->kind], it->at);
}

void sim_enum_begin(struct sim_world *world)
{
	world->first_event = sim_events(world);
	world->first_op = sim_disk_ops(world);
	world->first_alloc = world->all_allocs;
}

static void crash_now(void *context)
{
	struct case_run *run = context;
	struct sim_case *it = run->it;
	enum sim_crash kind = it->kind == CASE_KILL ? SIM_KILL : SIM_POWER;
	struct sim_node *node = sim_node_at(run->world, it->node);

	if (!sim_node_is_up(node))
		return;
	it->volatile_sectors = sim_node_volatile_sectors(node, kind);
	if (it->sampled) {
		prng_seed(&run->world->prng, run->world->seed + (it->choice + 1) * 7919);
		sim_node_crash(node, kind);
	} else {
		sim_node_crash_exactly(node, kind, it->choice);
	}
	run->crashed = true;
	if (run->script->crashed)
		run->script->crashed(run->world, node);
}

static bool case_is_over(void *context)
{
	const struct case_run *run = context;

	return (run->crashed && !run->script->crashed) || run->script->done(run->world);
}

static void case_body(struct sim_world *world, void *context)
{
	struct case_run *run = context;
	const struct sim_enum_script *script = run->script;
	struct sim_case *it = run->it;
	uint64_t limit_ns = script->limit_ns ? script->limit_ns : LIMIT_NS_DEFAULT;

	if (it->kind == CASE_ERROR || it->kind == CASE_STICKY)
		sim_fail_op(world, it->at, -EIO, it->kind == CASE_STICKY);
	world->all_allocs_fail_at = it->kind == CASE_ALLOC ? it->at : 0;
	script->start(world);
	if (it->kind == CASE_KILL || it->kind == CASE_POWER) {
		if (it->at <= sim_events(world))
			crash_now(run);
		else
			sim_at_event(world, it->at, crash_now, run);
	}
	if (!sim_run_until(world, case_is_over, run, limit_ns))
		sim_fail(world, "the script has not come to its end in %" PRIu64 " s",
			 limit_ns / SIM_SECOND);
	it->first_event = world->first_event;
	it->first_op = world->first_op;
	it->first_alloc = world->first_alloc;
	it->events = sim_events(world);
	it->disk_ops = sim_disk_ops(world);
	it->allocs = world->all_allocs;
	sim_at_event(world, 0, NULL, NULL);
	sim_fault_clear(world);
	world->all_allocs_fail_at = 0;
	sim_note(world, NULL, "check");
	script->check(world);
}

/* Whether this shard, and a wish for one case, leave the case to others. */
static bool is_skipped(struct enumeration *e, const char *name)
{
	const struct sim_enum_options *options = e->options;
	uint64_t number = e->case_number++;

	if (options->only)
		return strcmp(options->only, name) != 0;
	return options->shards > 1 && number % options->shards != options->shard;
}

static unsigned full_reports(const struct enumeration *e)
{
	return e->options->reports_max ? e->options->reports_max : REPORTS_DEFAULT;
}

static void count_case(struct enumeration *e, struct sim_world *world, bool held, const char *name)
{
	e->result->cases++;
	e->result->simulated_events += sim_events(world);
	if (held)
		return;
	e->result->failures++;
	if (e->options->report && e->reports >= full_reports(e))
		fprintf(e->options->report, "FAILED %s %s: %s\n", e->script->name, name,
			sim_reason(world));
	e->reports++;
}

/* `probe`: runs in every shard, for what can be learned of it; counts only where it belongs. */
static void run_case(struct enumeration *e, struct sim_case *it, bool probe)
{
	const struct sim_enum_options *options = e->options;
	struct sim_options world_options;
	struct case_run run = { .script = e->script, .it = it };
	char name[64], repeat[192];
	bool skip;

	case_name(it, name, sizeof(name));
	skip = is_skipped(e, name);
	if (skip && !probe)
		return;
	sim_options_calm(&world_options);
	if (e->script->prepare)
		e->script->prepare(&world_options);
	run.world = sim_new(options->seed, &world_options);
	snprintf(repeat, sizeof(repeat), "holdfast-sim --enumerate %s --case %s", e->script->name,
		 name);
	sim_describe(run.world, repeat);
	sim_trace(run.world, options->trace && !skip);
	sim_report_to(run.world, skip || e->reports >= full_reports(e) ? NULL : options->report);
	it->failed = !sim_run(run.world, case_body, &run);
	if (!skip)
		count_case(e, run.world, !it->failed, name);
	sim_free(run.world);
}

/* A crash after one event: all subsets of the sectors in doubt, or some. */
static void enumerate_crash(struct enumeration *e, enum case_kind kind, unsigned node, uint64_t at)
{
	const struct sim_enum_options *options = e->options;
	unsigned subset_max =
		options->subset_sectors_max ? options->subset_sectors_max : SUBSET_SECTORS_DEFAULT;
	unsigned samples = options->samples ? options->samples : SAMPLES_DEFAULT;
	struct sim_case it = { .kind = kind, .node = node, .at = at };
	unsigned sectors;
	char prefix[64];

	/* What one case needs to be found, and no more. */
	snprintf(prefix, sizeof(prefix), "%s/%u/%" PRIu64 "/", kind_names[kind], node, at);
	if (options->only && strncmp(options->only, prefix, strlen(prefix)) != 0)
		return;
	run_case(e, &it, true);
	sectors = it.volatile_sectors;
	if (sectors <= min_u32(subset_max, SUBSET_SECTORS_LIMIT)) {
		for (uint64_t mask = 1; mask < UINT64_C(1) << sectors; mask++) {
			struct sim_case subset = {
				.kind = kind, .node = node, .at = at, .choice = mask
			};

			run_case(e, &subset, false);
		}
		return;
	}
	if (sectors < 64) {
		struct sim_case all = { .kind = kind, .node = node, .at = at };

		all.choice = (UINT64_C(1) << sectors) - 1;
		run_case(e, &all, false);
	}
	for (unsigned i = 0; i < samples; i++) {
		struct sim_case sample = {
			.kind = kind, .node = node, .at = at, .sampled = true, .choice = i
		};

		run_case(e, &sample, false);
	}
}

/* Every how many events a crash is tried, so that the bound on cases is about kept. */
static uint64_t stride_of(const struct enumeration *e, uint64_t points)
{
	uint64_t cases_max = e->options->cases_max;

	if (!cases_max || e->options->only)
		return 1;
	return max_u64(div_round_up(points * 2 * SAMPLES_DEFAULT, cases_max), 1);
}

static void enumerate_errors(struct enumeration *e, const struct sim_case *plain)
{
	uint64_t cases_max = e->options->only ? 0 : e->options->cases_max, stride = 1;

	if (cases_max)
		stride = max_u64(div_round_up(2 * (plain->disk_ops - plain->first_op), cases_max),
				 1);
	for (uint64_t op = plain->first_op + 1; op <= plain->disk_ops; op++) {
		if (op % stride)
			continue;
		struct sim_case once = { .kind = CASE_ERROR, .at = op };
		struct sim_case sticky = { .kind = CASE_STICKY, .at = op };

		run_case(e, &once, false);
		run_case(e, &sticky, false);
	}
	if (e->script->no_fail_allocs)
		return;
	for (uint64_t nth = plain->first_alloc + 1; nth <= plain->allocs; nth++) {
		struct sim_case no_memory = { .kind = CASE_ALLOC, .at = nth };

		run_case(e, &no_memory, false);
	}
}

void sim_enumerate(const struct sim_enum_script *script, const struct sim_enum_options *options,
		   struct sim_enum_result *result)
{
	struct enumeration e = { .script = script, .options = options, .result = result };
	struct sim_case plain = { .kind = CASE_PLAIN };
	unsigned targets = max_u32(script->targets, 1);
	uint64_t stride;

	if (options->script && strcmp(options->script, script->name) != 0)
		return;
	run_case(&e, &plain, true);
	result->events += plain.events - plain.first_event;
	result->disk_ops += plain.disk_ops - plain.first_op;
	result->allocs += plain.allocs - plain.first_alloc;
	if (plain.failed)
		return;
	stride = stride_of(&e, (plain.events - plain.first_event + 1) * targets);
	for (unsigned node = 0; node < targets; node++) {
		for (uint64_t at = plain.first_event; at <= plain.events; at++) {
			if (at % stride) {
				result->points_skipped++;
				continue;
			}
			enumerate_crash(&e, CASE_KILL, node, at);
			enumerate_crash(&e, CASE_POWER, node, at);
		}
	}
	enumerate_errors(&e, &plain);
}
