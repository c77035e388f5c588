/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/reach.h"

uint64_t reach_counts[REACH_COUNT];

const char *const reach_texts[REACH_COUNT] = {
#define REACH_TEXT(name, text) [REACH_##name] = text,
	REACH_LIST(REACH_TEXT)
#undef REACH_TEXT
};
