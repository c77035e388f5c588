/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of the last events, the hash over all of them, and the report of a failure. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/hash64.h"
#include "core/base/macros.h"
#include "tests/sim/internal.h"

/* What the two numbers mean follows in brackets; the result is printed where there is one. */
const char *const what_names[WHAT_COUNT] = {
	[WHAT_NOTE] = "note",
	[WHAT_NODE_UP] = "node up",
	[WHAT_KILL] = "KILL",
	[WHAT_POWER] = "POWER LOSS",
	[WHAT_PAUSE] = "pause",
	[WHAT_WALL_JUMP] = "wall clock jump",
	[WHAT_TIMER] = "timer",
	[WHAT_DEFERRED] = "deferred",
	[WHAT_POSTED] = "posted",
	[WHAT_WORK] = "work",
	[WHAT_READ] = "read",
	[WHAT_READ_DONE] = "read done",
	[WHAT_WRITE] = "write",
	[WHAT_WRITE_DONE] = "write done",
	[WHAT_FLUSH] = "flush",
	[WHAT_FLUSH_DONE] = "flush done",
	[WHAT_DISCARD] = "discard",
	[WHAT_DISCARD_DONE] = "discard done",
	[WHAT_CREATE] = "create",
	[WHAT_CREATE_DONE] = "create done",
	[WHAT_MAP_DONE] = "map done",
	[WHAT_OPEN] = "open",
	[WHAT_REMOVE] = "remove",
	[WHAT_LOCK] = "lock",
	[WHAT_FAULT] = "FAULT",
	[WHAT_CONNECT] = "connect",
	[WHAT_CONNECT_DONE] = "connect done",
	[WHAT_ACCEPT] = "accept done",
	[WHAT_LISTEN] = "listen",
	[WHAT_TLS_DONE] = "tls done",
	[WHAT_SEND] = "send",
	[WHAT_SEND_DONE] = "send done",
	[WHAT_RECV_DONE] = "recv done",
	[WHAT_ARRIVAL] = "arrival",
	[WHAT_CLOSE] = "close",
	[WHAT_RESET] = "reset",
	[WHAT_CUT] = "CUT",
};

static void print_entry(struct sim_world *world, const struct trace_entry *entry, FILE *out)
{
	fprintf(out, "  %5" PRIu64 ".%09" PRIu64 " #%-6" PRIu64 " %-8s %-12s",
		entry->at_ns / SIM_SECOND, entry->at_ns % SIM_SECOND, entry->event,
		entry->node ? world->nodes[entry->node - 1]->name : "-", what_names[entry->what]);
	if (entry->what == WHAT_NOTE) {
		fprintf(out, " %s\n", entry->text);
		return;
	}
	if (entry->subject)
		fprintf(out, " %s", entry->subject);
	if (entry->a || entry->b)
		fprintf(out, " %" PRIu64 "+%" PRIu64, entry->a, entry->b);
	if (entry->what == WHAT_WALL_JUMP)
		fprintf(out, " %+" PRId64 " s", entry->res);
	else if (entry->res < 0 && entry->res >= -4095)
		fprintf(out, " = -%s", err_name((int)entry->res));
	else if (entry->res)
		fprintf(out, " = %" PRId64, entry->res);
	fputc('\n', out);
}

static struct trace_entry *trace_next(struct sim_world *world, const struct sim_node *node,
				      enum sim_what what)
{
	struct trace_entry *entry = &world->trace[world->trace_count++ % TRACE_ENTRIES];

	entry->at_ns = world->now_ns;
	entry->event = world->event_count;
	entry->node = (uint8_t)(node ? node->index + 1 : 0);
	entry->what = (uint8_t)what;
	return entry;
}

void trace_add(struct sim_world *world, const struct sim_node *node, enum sim_what what,
	       const char *subject, uint64_t a, uint64_t b, int64_t res)
{
	struct trace_entry *entry = trace_next(world, node, what);
	uint64_t facts[6] = {
		entry->at_ns, entry->event, (uint64_t)entry->node << 8 | entry->what, a, b,
		(uint64_t)res
	};

	entry->subject = subject;
	entry->a = a;
	entry->b = b;
	entry->res = res;
	world->hash = hash64(world->hash, facts, sizeof(facts));
	if (world->trace_print)
		print_entry(world, entry, stdout);
}

void sim_note(struct sim_world *world, struct sim_node *node, const char *format, ...)
{
	struct trace_entry *entry = trace_next(world, node, WHAT_NOTE);
	va_list args;

	va_start(args, format);
	vsnprintf(entry->text, sizeof(entry->text), format, args);
	va_end(args);
	world->hash = hash64(world->hash + world->now_ns, entry->text, strlen(entry->text));
	if (world->trace_print)
		print_entry(world, entry, stdout);
}

void sim_trace(struct sim_world *world, bool on)
{
	world->trace_print = on;
}

void trace_print_all(struct sim_world *world, FILE *out)
{
	uint64_t first = sub_floor_u64(world->trace_count, TRACE_ENTRIES);

	for (uint64_t i = first; i < world->trace_count; i++)
		print_entry(world, &world->trace[i % TRACE_ENTRIES], out);
}

/* ---- failure ----------------------------------------------------------------------------------
 */

static void report(struct sim_world *world)
{
	FILE *out = world->report;

	if (!out)
		return;
	fflush(stdout);
	fprintf(out,
		"\nsim: FAILED seed %" PRIu64 " at event %" PRIu64 ", %" PRIu64 ".%09" PRIu64
		" s: %s\n",
		world->seed, world->event_count, world->now_ns / SIM_SECOND,
		world->now_ns % SIM_SECOND, world->reason);
	if (world->how_to_repeat)
		fprintf(out, "repeat: %s\n", world->how_to_repeat);
	fprintf(out, "options:\n");
	sim_options_print(&world->options, out);
	fprintf(out, "nodes:\n");
	for (unsigned i = 0; i < world->node_count; i++) {
		const struct sim_node *node = world->nodes[i];

		fprintf(out, "  %-8s on %-8s %s, %u operations and %u timers outstanding\n",
			node->name, node->host->name, node->up ? "up" : "down", node->op_count,
			node->timer_count);
	}
	fprintf(out, "last events (seconds, event, node, what, offset+length, result):\n");
	trace_print_all(world, out);
	fprintf(out, "sim: FAILED seed %" PRIu64 ": %s\n", world->seed, world->reason);
	fflush(out);
}

void sim_fail(struct sim_world *world, const char *format, ...)
{
	va_list args;

	if (!world->failed) {
		va_start(args, format);
		vsnprintf(world->reason, sizeof(world->reason), format, args);
		va_end(args);
		world->failed = true;
		report(world);
	}
	world->running = NULL;
	if (world->jump_set)
		siglongjmp(world->jump, 1);
	abort();
}

bool sim_failed(const struct sim_world *world)
{
	return world->failed;
}

const char *sim_reason(const struct sim_world *world)
{
	return world->reason;
}

void sim_report_to(struct sim_world *world, FILE *out)
{
	world->report = out;
}

void sim_describe(struct sim_world *world, const char *how_to_repeat)
{
	world->how_to_repeat = how_to_repeat;
}

/* The world whose body runs: a failed must() raises SIGABRT, which knows nothing else. */
static struct sim_world *aborting_world;

static void on_abort(int signal_number)
{
	struct sim_world *world = aborting_world;

	(void)signal_number;
	/* Raised by abort() on this very thread, from ordinary code: the jump is safe. */
	if (world && world->jump_set)
		sim_fail(world, "the code under test gave up: its own assertion above failed");
}

bool sim_run(struct sim_world *world, void (*body)(struct sim_world *world, void *context),
	     void *context)
{
	struct sim_world *outer = aborting_world;
	struct sigaction action = { .sa_handler = on_abort, .sa_flags = SA_NODEFER };
	struct sigaction before;

	must(!world->jump_set);
	sigemptyset(&action.sa_mask);
	sigaction(SIGABRT, &action, &before);
	aborting_world = world;
	world->jump_set = true;
	if (sigsetjmp(world->jump, 1) == 0)
		body(world, context);
	world->jump_set = false;
	aborting_world = outer;
	sigaction(SIGABRT, &before, NULL);
	return !world->failed;
}
