/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/status_notes.h"
#include "core/base/units.h"

#define NOW UINT64_C(1790000000000000000)

static struct status_group *group;
static char *notes;

static int begin(void **state)
{
	(void)state;
	group = calloc(1, sizeof(*group));
	assert_non_null(group);
	(void)snprintf(group->name, sizeof(group->name), "db");
	(void)snprintf(group->state, sizeof(group->state), "serving");
	(void)snprintf(group->role, sizeof(group->role), "primary");
	(void)snprintf(group->peers[0].node, sizeof(group->peers[0].node), "beta");
	group->peer_count = 1;
	group->journal_full_ns = UINT64_MAX;
	group->heard_ns_ago = UINT64_MAX;
	return 0;
}

static int end(void **state)
{
	(void)state;
	free(group);
	free(notes);
	notes = NULL;
	return 0;
}

static void take(bool all)
{
	size_t length_bytes;
	FILE *out;

	free(notes);
	notes = NULL;
	out = open_memstream(&notes, &length_bytes);
	assert_non_null(out);
	status_notes(out, group, all, NOW);
	assert_int_equal(fclose(out), 0);
}

static void says(const char *text)
{
	if (!strstr(notes, text))
		fail_msg("no '%s' in\n%s", text, notes);
}

static void silent(const char *text)
{
	if (strstr(notes, text))
		fail_msg("'%s' in\n%s", text, notes);
}

static void test_well(void **state)
{
	(void)state;
	take(false);
	assert_string_equal(notes, "");
	group->peers[0].verify.verified_seq = 7;
	group->peers[0].verify.verified_time_ns = NOW - NS_PER_HOUR;
	group->peers[0].bandwidth_bytes = 10 * MIB;
	take(false);
	assert_string_equal(notes, "");
	take(true);
	says("db: beta verified at seq 7, ");
	says("1h 00m ago");
	says("go to beta, limit 10.0 MiB/s");
}

/* Every state that waits for a person names the command that ends it. */
static void test_alarms(void **state)
{
	(void)state;
	group->epoch = 4;
	(void)snprintf(group->held, sizeof(group->held), "beta holds more than this copy; accept");
	(void)snprintf(group->detail, sizeof(group->detail), "%s", group->held);
	take(false);
	says("! db: not served: beta holds more than this copy; promote a standby instead");
	silent("db: beta");
	says("holdfast accept db --expect-epoch 4");
	group->held[0] = group->detail[0] = '\0';
	group->diverged = true;
	group->common_seq = 12;
	take(false);
	(void)snprintf(group->source, sizeof(group->source), "alpha");
	(void)snprintf(group->fenced_by, sizeof(group->fenced_by), "gamma");
	group->fenced_by_epoch = 6;
	take(false);
	says("! db: holds writes behind seq 12 that the ruling history of gamma does not have");
	says("holdfast demote db");
	/* Of the same epoch: nobody's word makes it follow. */
	group->fenced_by_epoch = 0;
	(void)snprintf(group->role, sizeof(group->role), "standby");
	take(false);
	says("! db: holds writes behind seq 12 that the primary of the same epoch, alpha lacks");
	says("holdfast promote db --force");
	silent("demote");
	/* The word has been given. */
	(void)snprintf(group->role, sizeof(group->role), "standby");
	(void)snprintf(group->state, sizeof(group->state), "syncing");
	take(false);
	silent("!");
	says("had behind seq 12 is being replaced");
	(void)snprintf(group->role, sizeof(group->role), "primary");
	(void)snprintf(group->state, sizeof(group->state), "serving");
	group->diverged = false;
	(void)snprintf(group->mode, sizeof(group->mode), "sync");
	(void)snprintf(group->mode_state, sizeof(group->mode_state), "lost");
	group->lost_since_ns = NOW - 90 * NS_PER_S;
	take(false);
	says("! db: mode sync is not kept since 20");
	says("(1m 30s)");
	(void)snprintf(group->mode_state, sizeof(group->mode_state), "frozen");
	take(false);
	says("! db: writes wait");
	says("on_sync_loss = async");
}

static void test_journal(void **state)
{
	(void)state;
	group->journal_full_ns = NS_PER_HOUR;
	take(false);
	says("db: journal full in 1h 00m");
	silent("!");
	group->journal_full_ns = 0;
	take(false);
	says("! db: journal full in ");
	(void)snprintf(group->state, sizeof(group->state), "failed");
	take(false);
	assert_string_equal(notes, "");
}

static void test_verify(void **state)
{
	struct status_verify *verify = &group->peers[0].verify;

	(void)state;
	*verify = (struct status_verify){
		.active = true,
		.total_bytes = 100 * MIB,
		.done_bytes = 25 * MIB,
		.rate_bytes_per_s = MIB,
		.left_ns = 75 * NS_PER_S,
	};
	take(false);
	says("db: verifying beta: 25.0 MiB of 100 MiB (25%), 1.00 MiB/s, 1m 15s left");
	verify->active = false;
	verify->differing_ranges = 2;
	verify->differing_bytes = 128 * KIB;
	verify->known_ranges = verify->differing_ranges;
	verify->known_bytes = verify->differing_bytes;
	verify->range_count = 1;
	verify->ranges[0] = (struct status_range){ "data", 1048576, 65536 };
	take(false);
	says("! db: beta differs from this copy in 2 ranges (128 KiB)");
	says("holdfast verify db --to beta --repair");
	says("\n    volume data, offset 1048576 (1.00 MiB), 64.0 KiB\n");
	verify->repaired_bytes = verify->differing_bytes;
	verify->known_ranges = verify->known_bytes = 0;
	take(false);
	silent("!");
	says("which were sent again");
	verify->repaired_bytes = 0;
	group->peers[0].needs_sync = true;
	take(false);
	silent("!");
	says("which are being sent again");
	group->peers[0].needs_sync = false;
	*verify = (struct status_verify){ .failed = true };
	take(false);
	says("did not come to its end");
}

static void test_standby(void **state)
{
	(void)state;
	(void)snprintf(group->role, sizeof(group->role), "standby");
	group->peer_count = 0;
	(void)snprintf(group->node, sizeof(group->node), "beta");
	group->differing_ranges = 3;
	take(false);
	says("! db: a verification found 3 ranges here");
	says("holdfast verify db --to beta --repair");
	group->differing_ranges = 0;
	(void)snprintf(group->lacking, sizeof(group->lacking), "wal, log");
	take(false);
	says("! db: the configuration names volumes that the group does not have");
	says("wal, log");
	says("holdfast volume add db");
	group->lacking[0] = '\0';
	take(false);
	says("not consistent yet: cannot be promoted");
	group->ever_consistent = true;
	take(false);
	says("no position is kept");
	group->kept = true;
	group->kept_seq = 5;
	group->kept_time_ns = NOW;
	take(false);
	says("keeps seq 5 of 20");
	says("promote goes there");
	silent("!");
	group->undo_full = true;
	group->undo_bytes = GIB;
	take(false);
	says("! db: the resync waits");
	says("holdfast resync db --drop-kept");
	group->rollback_total_bytes = 10 * MIB;
	group->rollback_done_bytes = 5 * MIB;
	take(false);
	says("going back to the kept position, seq 5: 5.00 MiB of 10.0 MiB");
	group->salvages = 1;
	take(false);
	says("1 salvage is kept: holdfast salvage list db");
	group->suspect = true;
	group->durable_seq = 77;
	take(false);
	says("! db: a volume was changed behind the daemon's back: its content is not known to be "
	     "that of seq 77");
	group->syncing = true;
	take(false);
	says("all of it is being copied or compared");
	silent("! db: a volume");
}

static void test_resync(void **state)
{
	(void)state;
	group->peers[0].needs_sync = true;
	group->peers[0].dirty_bytes = 3 * MIB;
	take(false);
	says("it will be resynced, 3.00 MiB are to be sent");
	group->peers[0].sync = (struct status_sync){ true, 10 * MIB, MIB, MIB, 0 };
	group->peers[0].resync_compared_bytes = 8 * MIB;
	group->peers[0].resync_sent_bytes = MIB;
	take(false);
	silent("will be");
	says("copying, peer beta: 1.00 MiB of 10.0 MiB (10%), 1.00 MiB/s, unknown time left");
	says("8.00 MiB compared and found equal, 1.00 MiB sent");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_well, begin, end),
		cmocka_unit_test_setup_teardown(test_alarms, begin, end),
		cmocka_unit_test_setup_teardown(test_journal, begin, end),
		cmocka_unit_test_setup_teardown(test_verify, begin, end),
		cmocka_unit_test_setup_teardown(test_standby, begin, end),
		cmocka_unit_test_setup_teardown(test_resync, begin, end),
	};

	return cmocka_run_group_tests_name("status_notes", tests, NULL, NULL);
}
