/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong with a disk operation: planned, by its number, or by chance. */
#include <errno.h>
#include <fnmatch.h>

#include "core/base/macros.h"
#include "tests/sim/disk.h"

void sim_fault_add(struct sim_world *world, const struct sim_fault *fault)
{
	must(world->fault_count < FAULTS_MAX);
	world->faults[world->fault_count++] =
		(struct planned_fault){ .fault = *fault, .limited = fault->count != 0 };
}

void sim_fault_clear(struct sim_world *world)
{
	struct list *pos;

	world->fault_count = 0;
	world->fail_op = 0;
	for (unsigned i = 0; i < world->host_count; i++) {
		list_for_each (pos, &world->hosts[i]->disk->files) {
			struct sim_file *file = container_of(pos, struct sim_file, link);

			file->sticky_read = 0;
			file->sticky_write = 0;
		}
	}
}

uint64_t sim_fault_hits(const struct sim_world *world)
{
	return world->fault_hits;
}

void sim_fail_op(struct sim_world *world, uint64_t op, int error, bool sticky)
{
	must(op > world->disk_ops || op == 0);
	world->fail_op = op;
	world->fail_error = error;
	world->fail_sticky = sticky;
}

uint64_t sim_disk_ops(const struct sim_world *world)
{
	return world->disk_ops;
}

static int *sticky_of(struct sim_file *file, uint32_t op)
{
	return op == SIM_READ ? &file->sticky_read : &file->sticky_write;
}

static bool planned_fault_strikes(struct planned_fault *planned, const struct sim_node *node,
				  const char *path, uint32_t op)
{
	struct sim_fault *fault = &planned->fault;

	if (!(fault->ops & op) || (fault->node && fault->node != node) ||
	    (fault->pattern && fnmatch(fault->pattern, path, 0) != 0))
		return false;
	if (fault->skip) {
		fault->skip--;
		return false;
	}
	if (!planned->limited)
		return true;
	if (!fault->count)
		return false;
	fault->count--;
	return true;
}

static void apply_planned(const struct sim_fault *fault, struct fate *fate)
{
	switch (fault->action) {
	case SIM_ERROR:
		fate->error = fault->error;
		break;
	case SIM_LOSE:
		fate->lose = true;
		break;
	case SIM_MISDIRECT:
		fate->offset_delta = fault->offset_delta;
		break;
	case SIM_DELAY:
		fate->delay_ns += fault->delay_ns;
		break;
	}
}

static uint64_t error_ppm(const struct sim_options *options, uint32_t op)
{
	if (op == SIM_READ)
		return options->read_error_ppm;
	return op == SIM_FLUSH ? options->flush_error_ppm : options->write_error_ppm;
}

static void fate_by_chance(struct sim_world *world, struct sim_file *file, uint32_t op,
			   struct fate *fate)
{
	const struct sim_options *options = &world->options;

	if (sim_chance(world, options->slow_io_ppm))
		fate->delay_ns += sim_between(world, 0, options->slow_io_ns);
	if (!sim_chance(world, error_ppm(options, op)))
		return;
	fate->error = -EIO;
	if (file && sim_chance(world, options->sticky_ppm))
		*sticky_of(file, op) = -EIO;
}

static uint64_t latency(struct sim_world *world, uint32_t op)
{
	const struct sim_options *options = &world->options;

	if (op == SIM_READ)
		return sim_between(world, options->read_ns_min, options->read_ns_max);
	if (op == SIM_FLUSH || op == SIM_CREATE)
		return sim_between(world, options->flush_ns_min, options->flush_ns_max);
	return sim_between(world, options->write_ns_min, options->write_ns_max);
}

void disk_fate(struct sim_node *node, struct sim_file *file, const char *path, uint32_t op,
	       struct fate *ret_fate)
{
	struct sim_world *world = node->world;
	struct fate fate = { .delay_ns = latency(world, op) };

	world->disk_ops++;
	fate_by_chance(world, file, op, &fate);
	if (world->disk_ops == world->fail_op) {
		fate.error = world->fail_error;
		world->fault_hits++;
		if (file && world->fail_sticky)
			*sticky_of(file, op) = fate.error;
	}
	for (unsigned i = 0; i < world->fault_count; i++) {
		if (!planned_fault_strikes(&world->faults[i], node, path, op))
			continue;
		world->fault_hits++;
		apply_planned(&world->faults[i].fault, &fate);
	}
	if (file && *sticky_of(file, op))
		fate.error = *sticky_of(file, op);
	if (fate.error || fate.lose || fate.offset_delta)
		trace_add(world, node, WHAT_FAULT, path, 0, 0, fate.error);
	*ret_fate = fate;
}
