/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast-sim: runs simulated worlds, one for each seed, and the enumerated scripts.
 * Exit status: 0 all held, 1 a run failed, 2 usage.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/macros.h"
#include "core/base/units.h"
#include "tests/sim/enumerate.h"
#include "tests/sim/reach.h"
#include "tests/sim/sim.h"

#define SEEDS_DEFAULT	 1000u
#define TWICE_EVERY	 100u
#define JOBS_MAX	 64u
#define REPORTS_MAX	 3u
#define FAILED_SEEDS_MAX 16u

struct arguments {
	uint64_t seeds, first_seed, seconds, jobs, cases_max;
	bool one_seed, trace, enumerate, list, calm, require_reach;
	const char *scenario, *one_case;
};

/* What a worker tells its parent at the end. */
struct totals {
	uint64_t runs, failures, repeats, events, virtual_ns;
	uint64_t failed_seeds[FAILED_SEEDS_MAX];
	struct sim_enum_result enumerated;
	uint64_t reached[REACH_COUNT];
};

/* The world that runs, for the report of a crash of the program itself. */
static struct {
	struct sim_world *world;
	const char *what;
	uint64_t seed;
} current;

static void usage(FILE *out)
{
	fputs("usage: holdfast-sim [OPTION]...\n"
	      "  --seeds N          run seeds FIRST .. FIRST+N-1 (1000)\n"
	      "  --first-seed S     the first of them (1); also --start\n"
	      "  --seed S           run one seed and print its events\n"
	      "  --scenario NAME    only this scenario; all = every one (all)\n"
	      "  --enumerate [NAME] run the enumerated scripts instead of seeds\n"
	      "  --case NAME        only this case of an enumerated script\n"
	      "  --cases-max N      thin out crash points beyond about N cases a script (0 = all)\n"
	      "  --jobs J           processes (1)\n"
	      "  --time SECONDS     stop after so much real time\n"
	      "  --calm             no faults\n"
	      "  --require-reach    fail when something that the runs are there for was never met\n"
	      "  --trace            print every event\n"
	      "  --list             name the scenarios\n",
	      out);
}

static double real_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void on_fatal_signal(int number)
{
	/* Nothing can be trusted any more; the seed is what matters. */
	fprintf(stderr, "holdfast-sim: signal %d in %s, seed %" PRIu64 "\n", number,
		current.what ? current.what : "no run", current.seed);
	if (current.world)
		fprintf(stderr, "holdfast-sim: virtual time %" PRIu64 " ns, event %" PRIu64 "\n",
			sim_now(current.world), sim_events(current.world));
	signal(number, SIG_DFL);
	raise(number);
}

/* ---- seeds ------------------------------------------------------------------------------------
 */

struct seed_run {
	const struct sim_scenario *scenario;
	uint64_t seed;
	int res;
};

static void seed_body(struct sim_world *world, void *context)
{
	struct seed_run *run = context;

	run->res = run->scenario->run(world, run->seed);
}

/* Returns the run's hash. */
static uint64_t run_once(const struct arguments *args, const struct sim_scenario *scenario,
			 uint64_t seed, struct totals *totals, bool *ret_held)
{
	struct seed_run run = { scenario, seed, 0 };
	struct sim_options options;
	char repeat[128];
	uint64_t hash;

	if (args->calm)
		sim_options_calm(&options);
	else
		sim_options_swarm(&options, seed);
	snprintf(repeat, sizeof(repeat), "holdfast-sim --scenario %s --seed %" PRIu64 "%s",
		 scenario->name, seed, args->calm ? " --calm" : "");
	current.world = sim_new(seed, &options);
	current.what = scenario->name;
	current.seed = seed;
	sim_describe(current.world, repeat);
	sim_trace(current.world, args->trace);
	if (totals->failures >= REPORTS_MAX)
		sim_report_to(current.world, NULL);
	*ret_held = sim_run(current.world, seed_body, &run) && run.res == 0;
	hash = sim_hash(current.world);
	totals->events += sim_events(current.world);
	totals->virtual_ns += sim_now(current.world);
	if (run.res != 0 && !sim_failed(current.world))
		fprintf(stderr, "%s: seed %" PRIu64 " returned %d\n", scenario->name, seed,
			run.res);
	sim_free(current.world);
	current.world = NULL;
	return hash;
}

static void run_seed(const struct arguments *args, const struct sim_scenario *scenario,
		     uint64_t seed, struct totals *totals)
{
	bool held, again;
	uint64_t hash = run_once(args, scenario, seed, totals, &held);

	totals->runs++;
	if (held && !args->one_seed && seed % TWICE_EVERY == 0) {
		totals->repeats++;
		if (run_once(args, scenario, seed, totals, &again) != hash) {
			fprintf(stderr, "%s: seed %" PRIu64 " is not the same run twice\n",
				scenario->name, seed);
			held = false;
		}
	}
	if (!held) {
		if (totals->failures < FAILED_SEEDS_MAX)
			totals->failed_seeds[totals->failures] = seed;
		totals->failures++;
	}
}

static bool is_wanted(const struct arguments *args, const struct sim_scenario *scenario)
{
	return strcmp(args->scenario, "all") == 0 || strcmp(args->scenario, scenario->name) == 0;
}

static void progress(const struct arguments *args, const struct totals *totals, uint64_t done,
		     uint64_t of, double begin)
{
	static double last;
	double now = real_seconds();

	if (!isatty(STDERR_FILENO) || args->trace || now - last < 0.2)
		return;
	last = now;
	fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " seeds, %" PRIu64 " failures, %.0f s ", done,
		of, totals->failures, now - begin);
}

static void run_seeds(const struct arguments *args, uint64_t job, struct totals *totals)
{
	double begin = real_seconds();

	for (uint64_t i = job; i < args->seeds; i += args->jobs) {
		for (unsigned s = 0; sim_scenarios[s]; s++) {
			if (sim_scenarios[s]->run && is_wanted(args, sim_scenarios[s]))
				run_seed(args, sim_scenarios[s], args->first_seed + i, totals);
		}
		if (job == 0)
			progress(args, totals, i + 1, args->seeds, begin);
		if (args->seconds && real_seconds() - begin > (double)args->seconds)
			break;
	}
	if (job == 0 && isatty(STDERR_FILENO))
		fprintf(stderr, "\r%60s\r", "");
}

/* ---- enumeration ------------------------------------------------------------------------------
 */

/* `--enumerate NAME`: of a scenario, or of one script of any of them. */
static bool names_scenario(const char *name)
{
	if (strcmp(name, "all") == 0)
		return true;
	for (unsigned s = 0; sim_scenarios[s]; s++)
		if (strcmp(sim_scenarios[s]->name, name) == 0)
			return true;
	return false;
}

static void run_enumerations(const struct arguments *args, uint64_t job, struct totals *totals)
{
	struct sim_enum_options options = {
		.seed = args->first_seed,
		.cases_max = args->cases_max,
		.script = names_scenario(args->scenario) ? NULL : args->scenario,
		.only = args->one_case,
		.shard = (unsigned)job,
		.shards = (unsigned)args->jobs,
		.trace = args->trace,
		.report = stderr,
		.reports_max = REPORTS_MAX,
	};

	for (unsigned s = 0; sim_scenarios[s]; s++) {
		const struct sim_scenario *scenario = sim_scenarios[s];
		struct sim_enum_result result = { 0 };
		double begin = real_seconds();

		if (!scenario->enumerate || (!options.script && !is_wanted(args, scenario)))
			continue;
		current.what = scenario->name;
		scenario->enumerate(&options, &result);
		if (job == 0)
			printf("%s: %" PRIu64 " events, %" PRIu64 " disk operations, %" PRIu64
			       " cases%s, %" PRIu64 " failures, %.1f s\n",
			       scenario->name, result.events, result.disk_ops, result.cases,
			       args->jobs > 1 ? " in this process" : "", result.failures,
			       real_seconds() - begin);
		totals->enumerated.cases += result.cases;
		totals->enumerated.failures += result.failures;
		totals->enumerated.points_skipped += result.points_skipped;
		totals->enumerated.simulated_events += result.simulated_events;
	}
}

/* ---- processes --------------------------------------------------------------------------------
 */

static void run_job(const struct arguments *args, uint64_t job, struct totals *totals)
{
	if (args->enumerate)
		run_enumerations(args, job, totals);
	else
		run_seeds(args, job, totals);
	memcpy(totals->reached, reach_counts, sizeof(totals->reached));
}

static void add_totals(struct totals *sum, const struct totals *part)
{
	for (uint64_t i = 0; i < part->failures && i < FAILED_SEEDS_MAX; i++) {
		if (sum->failures + i < FAILED_SEEDS_MAX)
			sum->failed_seeds[sum->failures + i] = part->failed_seeds[i];
	}
	sum->runs += part->runs;
	sum->failures += part->failures;
	sum->repeats += part->repeats;
	sum->events += part->events;
	sum->virtual_ns += part->virtual_ns;
	for (unsigned i = 0; i < REACH_COUNT; i++)
		sum->reached[i] += part->reached[i];
	sum->enumerated.cases += part->enumerated.cases;
	sum->enumerated.failures += part->enumerated.failures;
	sum->enumerated.points_skipped += part->enumerated.points_skipped;
	sum->enumerated.simulated_events += part->enumerated.simulated_events;
}

/* A child that dies without its totals counts as a failure. */
static void run_jobs(const struct arguments *args, struct totals *totals)
{
	int pipes[JOBS_MAX][2];
	pid_t children[JOBS_MAX];

	for (uint64_t job = 0; job < args->jobs; job++) {
		if (pipe(pipes[job]) != 0) {
			perror("holdfast-sim: pipe");
			exit(1);
		}
		fflush(NULL);
		children[job] = fork();
		if (children[job] < 0) {
			perror("holdfast-sim: fork");
			exit(1);
		}
		if (children[job] == 0) {
			struct totals mine = { 0 };

			run_job(args, job, &mine);
			fflush(NULL);
			_exit(write(pipes[job][1], &mine, sizeof(mine)) != sizeof(mine));
		}
		close(pipes[job][1]);
	}
	for (uint64_t job = 0; job < args->jobs; job++) {
		struct totals part = { 0 };
		int status;

		if (read(pipes[job][0], &part, sizeof(part)) != sizeof(part)) {
			fprintf(stderr, "holdfast-sim: process %" PRIu64 " died\n", job);
			part = (struct totals){ .failures = 1 };
		}
		close(pipes[job][0]);
		waitpid(children[job], &status, 0);
		add_totals(totals, &part);
	}
}

/* False: something was never met, and had to be. */
static bool conclude_reach(const struct arguments *args, const struct totals *totals)
{
	uint64_t met = 0;
	bool all = true;

	for (unsigned i = 0; i < REACH_COUNT; i++)
		met += totals->reached[i];
	if ((met == 0 && !args->require_reach) || args->one_seed)
		return true;
	for (unsigned i = 0; i < REACH_COUNT; i++) {
		printf("reached %10" PRIu64 "  %s\n", totals->reached[i], reach_texts[i]);
		all &= totals->reached[i] > 0;
	}
	if (!all && args->require_reach)
		fprintf(stderr, "holdfast-sim: not all of it was reached: run more seeds, or mend "
				"what no longer happens\n");
	return all || !args->require_reach;
}

static int conclude(const struct arguments *args, const struct totals *totals, double seconds)
{
	bool reached;

	if (args->enumerate) {
		uint64_t failures = totals->enumerated.failures + totals->failures;

		printf("cases %" PRIu64 ", failures %" PRIu64 ", crash points left out %" PRIu64
		       ", events %" PRIu64 ", %.1f s\n",
		       totals->enumerated.cases, failures, totals->enumerated.points_skipped,
		       totals->enumerated.simulated_events, seconds);
		if (totals->enumerated.cases == 0)
			fprintf(stderr, "holdfast-sim: no case has run: no such script or case; "
					"see --list\n");
		return failures || !totals->enumerated.cases;
	}
	reached = conclude_reach(args, totals);
	for (uint64_t i = 0; i < totals->failures && i < FAILED_SEEDS_MAX; i++)
		printf("failed seed %" PRIu64 "\n", totals->failed_seeds[i]);
	printf("seeds %" PRIu64 ", failures %" PRIu64 ", run twice %" PRIu64 ", events %" PRIu64
	       ", virtual hours %.1f, %.1f s, %.2f ms per seed\n",
	       totals->runs, totals->failures, totals->repeats, totals->events,
	       (double)totals->virtual_ns / 3600e9, seconds,
	       totals->runs ? seconds * 1e3 * (double)args->jobs / (double)totals->runs : 0);
	if (totals->runs == 0)
		fprintf(stderr, "holdfast-sim: nothing has run: no such scenario; see --list\n");
	return totals->failures || !totals->runs || !reached;
}

/* ---- arguments --------------------------------------------------------------------------------
 */

static uint64_t number(const char *option, const char *text)
{
	uint64_t value;

	if (units_parse_u64(text, &value) != 0) {
		fprintf(stderr, "holdfast-sim: --%s takes a number, not %s\n", option, text);
		exit(2);
	}
	return value;
}

enum option_code {
	OPT_SEEDS = 256,
	OPT_SEED,
	OPT_FIRST,
	OPT_SCENARIO,
	OPT_ENUMERATE,
	OPT_CASE,
	OPT_CASES_MAX,
	OPT_JOBS,
	OPT_TIME,
	OPT_CALM,
	OPT_REQUIRE_REACH,
	OPT_TRACE,
	OPT_LIST,
	OPT_HELP,
};

static const struct option options[] = {
	{ "seeds", required_argument, NULL, OPT_SEEDS },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "first-seed", required_argument, NULL, OPT_FIRST },
	{ "start", required_argument, NULL, OPT_FIRST },
	{ "scenario", required_argument, NULL, OPT_SCENARIO },
	{ "enumerate", optional_argument, NULL, OPT_ENUMERATE },
	{ "case", required_argument, NULL, OPT_CASE },
	{ "cases-max", required_argument, NULL, OPT_CASES_MAX },
	{ "jobs", required_argument, NULL, OPT_JOBS },
	{ "time", required_argument, NULL, OPT_TIME },
	{ "calm", no_argument, NULL, OPT_CALM },
	{ "require-reach", no_argument, NULL, OPT_REQUIRE_REACH },
	{ "trace", no_argument, NULL, OPT_TRACE },
	{ "list", no_argument, NULL, OPT_LIST },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static void take_option(struct arguments *args, int code, const char *value)
{
	switch (code) {
	case OPT_SEEDS:
		args->seeds = number("seeds", value);
		break;
	case OPT_SEED:
		args->first_seed = number("seed", value);
		args->seeds = 1;
		args->one_seed = true;
		args->trace = true;
		break;
	case OPT_FIRST:
		args->first_seed = number("first-seed", value);
		break;
	case OPT_SCENARIO:
		args->scenario = value;
		break;
	case OPT_ENUMERATE:
		args->enumerate = true;
		if (value)
			args->scenario = value;
		break;
	case OPT_CASE:
		args->one_case = value;
		args->trace = true;
		break;
	case OPT_CASES_MAX:
		args->cases_max = number("cases-max", value);
		break;
	case OPT_JOBS:
		args->jobs = max_u64(1, min_u64(number("jobs", value), JOBS_MAX));
		break;
	case OPT_TIME:
		args->seconds = number("time", value);
		break;
	case OPT_CALM:
		args->calm = true;
		break;
	case OPT_REQUIRE_REACH:
		args->require_reach = true;
		break;
	case OPT_TRACE:
		args->trace = true;
		break;
	case OPT_LIST:
		args->list = true;
		break;
	case OPT_HELP:
		usage(stdout);
		exit(0);
	default:
		usage(stderr);
		exit(2);
	}
}

static void parse(int argc, char **argv, struct arguments *args)
{
	int code;

	while ((code = getopt_long(argc, argv, "", options, NULL)) != -1)
		take_option(args, code, optarg);
	/* `--enumerate NAME` with a space, as the reports print it. */
	if (optind < argc && args->enumerate && strcmp(args->scenario, "all") == 0)
		args->scenario = argv[optind++];
	if (optind < argc) {
		usage(stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct arguments args = {
		.seeds = SEEDS_DEFAULT, .first_seed = 1, .jobs = 1, .scenario = "all"
	};
	struct totals totals = { 0 };
	double begin = real_seconds();

	/* Large blocks come from the kernel as zeroes, untouched; else each is cleared by hand. */
	(void)mallopt(M_MMAP_THRESHOLD, 128 << 10);
	parse(argc, argv, &args);
	if (args.list) {
		for (unsigned s = 0; sim_scenarios[s]; s++)
			printf("%-20s %s%s%s\n", sim_scenarios[s]->name, sim_scenarios[s]->about,
			       sim_scenarios[s]->run ? "  [seeds]" : "",
			       sim_scenarios[s]->enumerate ? "  [enumerate]" : "");
		return 0;
	}
#if !defined(__SANITIZE_ADDRESS__)
	signal(SIGSEGV, on_fatal_signal);
	signal(SIGBUS, on_fatal_signal);
	signal(SIGFPE, on_fatal_signal);
#else
	(void)on_fatal_signal;
#endif
	if (args.jobs > 1)
		run_jobs(&args, &totals);
	else
		run_job(&args, 0, &totals);
	return conclude(&args, &totals, real_seconds() - begin);
}
