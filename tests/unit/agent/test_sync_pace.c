/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the link that a copy takes while records wait. */
#include "agent/sync.h"
#include "tests/unit/unit.h"

static struct agent_group group;
static struct ship ship;
static struct conf_peer conf;
static struct share share;

static void begin(unsigned percent)
{
	conf = (struct conf_peer){ .sync_share = percent };
	ship.group = &group;
	ship.conf = &conf;
	ship.sent_record_bytes = 5000;
	ship.sent_seq = 10;
	group.journal.durable_seq = 20;
	share_begin(&share, &ship);
}

/* Of a link that is always full: what goes over it as copied content, in percent. */
static unsigned taken(unsigned percent)
{
	uint64_t copied = 0, records = 0;

	begin(percent);
	for (unsigned i = 0; i < 100000; i++) {
		if (share_allows(&share, &ship)) {
			share.copied_bytes += 1000;
			copied += 1000;
		} else {
			ship.sent_record_bytes += 700;
			records += 700;
		}
	}
	return (unsigned)(100 * copied / (copied + records));
}

UNIT(share_while_records_wait)
{
	static const unsigned percents[] = { 1, 10, 50, 80, 99 };

	for (size_t i = 0; i < array_len(percents); i++) {
		unsigned found = taken(percents[i]);

		assert_true(found >= percents[i] - 1 && found <= percents[i] + 1);
	}
	assert_true(taken(0) >= 49 && taken(0) <= 51); /* not configured */
	assert_int_equal(taken(100), 100);
}

UNIT(all_of_it_while_none_waits)
{
	begin(10);
	share.copied_bytes = 1000000;
	assert_false(share_allows(&share, &ship));
	assert_true(share.waits);
	ship.sent_seq = 20;
	assert_true(share_allows(&share, &ship));
	assert_false(share.waits);
	/* What was copied then is not held against it. */
	group.journal.durable_seq = 30;
	assert_true(share_allows(&share, &ship));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(share_while_records_wait),
		cmocka_unit_test(all_of_it_while_none_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
