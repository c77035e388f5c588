/* SPDX-License-Identifier: Apache-2.0 */
/* Which faults a world has, and how strong: nothing, or drawn from its seed. */
#include <inttypes.h>

#include "core/base/macros.h"
#include "core/base/prng.h"
#include "tests/sim/sim.h"

void sim_options_calm(struct sim_options *ret_options)
{
	*ret_options = (struct sim_options){
		.read_ns_min = 40 * SIM_US,
		.read_ns_max = 200 * SIM_US,
		.write_ns_min = 20 * SIM_US,
		.write_ns_max = 100 * SIM_US,
		.flush_ns_min = 100 * SIM_US,
		.flush_ns_max = 2 * SIM_MS,
		.link_ns_min = 200 * SIM_US,
		.link_ns_max = 2 * SIM_MS,
		.socket_bytes = 64 * 1024,
		.down_ns_max = 2 * SIM_SECOND,
		.pause_ns_max = 2 * SIM_SECOND,
		.cut_ns_max = 3 * SIM_SECOND,
	};
}

static bool on(struct prng *prng)
{
	return prng_next(prng) & 1;
}

/* Between high/1000 and high, small values as likely as large ones. */
static uint64_t strength(struct prng *prng, uint64_t high)
{
	uint64_t shift = prng_between(prng, 0, 9);

	return max_u64(prng_between(prng, 1, max_u64(high >> shift, 1)), 1);
}

static uint64_t maybe(struct prng *prng, uint64_t high)
{
	uint64_t value = strength(prng, high);

	return on(prng) ? value : 0;
}

/* A mean time between two events. */
static uint64_t maybe_every(struct prng *prng, uint64_t low_ns, uint64_t high_ns)
{
	uint64_t value = prng_between(prng, low_ns, high_ns);

	return on(prng) ? value : 0;
}

static void swarm_disk(struct sim_options *options, struct prng *prng)
{
	options->read_ns_max = prng_between(prng, 50 * SIM_US, SIM_MS);
	options->write_ns_max = prng_between(prng, 30 * SIM_US, SIM_MS);
	options->flush_ns_max = prng_between(prng, 200 * SIM_US, 10 * SIM_MS);
	options->slow_io_ppm = maybe(prng, 20000);
	options->slow_io_ns = prng_between(prng, 10 * SIM_MS, 2 * SIM_SECOND);
	options->read_error_ppm = maybe(prng, 2000);
	options->write_error_ppm = maybe(prng, 2000);
	options->flush_error_ppm = maybe(prng, 2000);
	options->sticky_ppm = maybe(prng, SIM_PPM);
	options->no_space_ppm = maybe(prng, 5000);
}

static void swarm_network(struct sim_options *options, struct prng *prng)
{
	options->link_ns_min = prng_between(prng, 20 * SIM_US, 20 * SIM_MS);
	options->link_ns_max = options->link_ns_min + prng_between(prng, 0, 30 * SIM_MS);
	options->slow_link_ppm = maybe(prng, 50000);
	options->slow_link_ns = prng_between(prng, 50 * SIM_MS, 3 * SIM_SECOND);
	options->socket_bytes = 1024ull << prng_between(prng, 1, 9);
	options->split_recv_ppm = maybe(prng, SIM_PPM);
	options->cut_every_ns = maybe_every(prng, 2 * SIM_SECOND, 30 * SIM_SECOND);
	options->cut_one_way_every_ns = maybe_every(prng, 2 * SIM_SECOND, 30 * SIM_SECOND);
	options->reset_every_ns = maybe_every(prng, SIM_SECOND, 20 * SIM_SECOND);
	options->cut_ns_max = prng_between(prng, 100 * SIM_MS, 30 * SIM_SECOND);
}

static void swarm_process(struct sim_options *options, struct prng *prng)
{
	options->timer_late_ns = maybe(prng, 20 * SIM_MS);
	options->clock_drift_ppm = maybe(prng, 5000);
	options->wall_skew_ns = maybe(prng, 3600 * SIM_SECOND);
	options->kill_every_ns = maybe_every(prng, SIM_SECOND, 30 * SIM_SECOND);
	options->power_every_ns = maybe_every(prng, SIM_SECOND, 30 * SIM_SECOND);
	options->pause_every_ns = maybe_every(prng, 2 * SIM_SECOND, 30 * SIM_SECOND);
	options->wall_jump_every_ns = maybe_every(prng, SIM_SECOND, 30 * SIM_SECOND);
	options->down_ns_max = prng_between(prng, SIM_MS, 10 * SIM_SECOND);
	options->pause_ns_max = prng_between(prng, SIM_MS, 15 * SIM_SECOND);
}

void sim_options_swarm(struct sim_options *ret_options, uint64_t seed)
{
	struct prng prng;

	/* Another sequence than the world's own, which starts from the same seed. */
	prng_seed(&prng, seed ^ 0x5a17e5eed0b7105ull);
	sim_options_calm(ret_options);
	swarm_disk(ret_options, &prng);
	swarm_network(ret_options, &prng);
	swarm_process(ret_options, &prng);
}

void sim_options_heal(struct sim_options *options)
{
	struct sim_options calm;

	sim_options_calm(&calm);
	calm.read_ns_max = options->read_ns_max;
	calm.write_ns_max = options->write_ns_max;
	calm.flush_ns_max = options->flush_ns_max;
	calm.link_ns_min = options->link_ns_min;
	calm.link_ns_max = options->link_ns_max;
	calm.socket_bytes = options->socket_bytes;
	calm.split_recv_ppm = options->split_recv_ppm;
	*options = calm;
}

void sim_options_print(const struct sim_options *options, FILE *out)
{
	const struct {
		const char *name;
		uint64_t value;
	} fields[] = {
#define FIELD(name) { #name, options->name }
		FIELD(read_ns_min),	FIELD(read_ns_max),	     FIELD(write_ns_min),
		FIELD(write_ns_max),	FIELD(flush_ns_min),	     FIELD(flush_ns_max),
		FIELD(slow_io_ppm),	FIELD(slow_io_ns),	     FIELD(read_error_ppm),
		FIELD(write_error_ppm), FIELD(flush_error_ppm),	     FIELD(sticky_ppm),
		FIELD(no_space_ppm),	FIELD(timer_late_ns),	     FIELD(clock_drift_ppm),
		FIELD(wall_skew_ns),	FIELD(link_ns_min),	     FIELD(link_ns_max),
		FIELD(slow_link_ppm),	FIELD(slow_link_ns),	     FIELD(socket_bytes),
		FIELD(split_recv_ppm),	FIELD(kill_every_ns),	     FIELD(power_every_ns),
		FIELD(pause_every_ns),	FIELD(wall_jump_every_ns),   FIELD(cut_every_ns),
		FIELD(reset_every_ns),	FIELD(cut_one_way_every_ns), FIELD(down_ns_max),
		FIELD(pause_ns_max),	FIELD(cut_ns_max),
#undef FIELD
	};

	for (size_t i = 0; i < array_len(fields); i++) {
		if (fields[i].value)
			fprintf(out, "  %-22s %" PRIu64 "\n", fields[i].name, fields[i].value);
	}
}
