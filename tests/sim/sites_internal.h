/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the scenario "sites" share and its scripts need not know. */
#ifndef HOLDFAST_TESTS_SIM_SITES_INTERNAL_H
#define HOLDFAST_TESTS_SIM_SITES_INTERNAL_H

#include "tests/sim/sites.h"

#define SITES_STATE_DIR "/state"

/* Makes the group's directory; `done` may be NULL. The node's processes must be up. */
void place_init(struct place *place, enum group_role role,
		void (*done)(struct place *place, int res));

/* An image of its disk, and the disk as it was then; afterwards its power is off. */
void site_take_image(struct sites_site *site);
void site_restore_image(struct sites_site *site);
/* All sites hold and have applied the same, and nothing waits. */
bool sites_converged(void *sites);

/* Who rules a group, as things stand; NULL: nobody can. */
struct place *sites_ruler(struct sites *sites, unsigned group);
/* Verifies all standbys of the ruling primary, one of them perhaps spoilt. At rest. */
void sites_check_verify(struct sites *sites, struct place *ruler);

#endif
