/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An export in memory whose completions the test can hold back, reorder and fail. It asserts that
 * the front end validated what it submits.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_BLOCK_FAKE_EXPORT_H
#define HOLDFAST_TESTS_UNIT_CORE_BLOCK_FAKE_EXPORT_H

#include "core/block/export.h"
#include "tests/unit/core/block/fake_io.h"

#define FAKE_EXPORT_BYTES (1u << 20)
#define FAKE_BLOCK_BYTES  4096u
#define FAKE_BLOCKS	  (FAKE_EXPORT_BYTES / FAKE_BLOCK_BYTES)

struct fake_export {
	struct export export;
	struct fake_io *fake;
	uint8_t *data;
	bool hole[FAKE_BLOCKS];
	struct list held;   /* requests not completed yet */
	bool hold;	    /* keep requests until fake_export_release() */
	int fail;	    /* negative errno for every request while not 0 */
	int map_fail_after; /* fail MAP after that many more runs; 0 = never */
	int attach_result;
	int attached;
	unsigned submitted[EXPORT_MAP + 1];
	unsigned last_flags;
	struct io_op tick;
	bool ticking;
};

void fake_export_init(struct fake_export *fe, struct fake_io *fake, const char *name);
void fake_export_done(struct fake_export *fe);
/* Completes what is held, newest first when `backwards`. */
void fake_export_release(struct fake_export *fe, bool backwards);
unsigned fake_export_held(const struct fake_export *fe);

#endif
