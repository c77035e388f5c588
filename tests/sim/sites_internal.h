/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the scenario "sites" share and its scripts need not know. */
#ifndef HOLDFAST_TESTS_SIM_SITES_INTERNAL_H
#define HOLDFAST_TESTS_SIM_SITES_INTERNAL_H

#include "tests/sim/sites.h"

#define SITES_STATE_DIR "/state"

/* Makes the group's directory; `done` may be NULL. The node's processes must be up. */
void place_init(struct place *place, enum group_role role,
		void (*done)(struct place *place, int res));

#endif
