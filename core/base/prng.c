/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/prng.h"

#include <string.h>

#include "core/base/endian.h"
#include "core/base/must.h"

/* splitmix64: spreads any seed, 0 included, over the whole state. */
static uint64_t spread(uint64_t *seed)
{
	uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

void prng_seed(struct prng *prng, uint64_t seed)
{
	unsigned i;

	for (i = 0; i < 4; i++)
		prng->state[i] = spread(&seed);
}

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

uint64_t prng_next(struct prng *prng)
{
	uint64_t *s = prng->state;
	uint64_t result = rotate_left(s[1] * 5, 7) * 9;
	uint64_t shifted = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= shifted;
	s[3] = rotate_left(s[3], 45);
	return result;
}

uint64_t prng_below(struct prng *prng, uint64_t bound)
{
	/* The lowest 2^64 % bound values would be drawn once more often than the others. */
	uint64_t unfair;
	uint64_t value;

	must(bound > 0);
	unfair = -bound % bound;
	do {
		value = prng_next(prng);
	} while (value < unfair);
	return value % bound;
}

uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high)
{
	must(low <= high);
	if (high - low == UINT64_MAX)
		return prng_next(prng);
	return low + prng_below(prng, high - low + 1);
}

bool prng_chance(struct prng *prng, uint64_t numerator, uint64_t denominator)
{
	return prng_below(prng, denominator) < numerator;
}

void prng_fill(struct prng *prng, void *bytes, size_t length_bytes)
{
	uint8_t *at = bytes;
	uint8_t word[8];

	while (length_bytes > 0) {
		size_t piece = length_bytes < sizeof(word) ? length_bytes : sizeof(word);

		le64_put(word, prng_next(prng));
		memcpy(at, word, piece);
		at += piece;
		length_bytes -= piece;
	}
}
