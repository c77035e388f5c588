/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A repeatable pseudo-random sequence (xoshiro256**, seeded through splitmix64): for the simulator,
 * for jitter, for shapes of trees. Never for secrets. One thread per struct; same seed, same
 * sequence, on every machine.
 */
#ifndef HOLDFAST_CORE_BASE_PRNG_H
#define HOLDFAST_CORE_BASE_PRNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct prng {
	uint64_t state[4];
};

void prng_seed(struct prng *prng, uint64_t seed);

uint64_t prng_next(struct prng *prng);

/* Evenly out of [0, bound). bound > 0. */
uint64_t prng_below(struct prng *prng, uint64_t bound);

/* Evenly out of [low, high], both included. */
uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high);

/* True `numerator` times out of `denominator`. denominator > 0. */
bool prng_chance(struct prng *prng, uint64_t numerator, uint64_t denominator);

void prng_fill(struct prng *prng, void *bytes, size_t length_bytes);

#endif
