/* SPDX-License-Identifier: Apache-2.0 */
/* How fast a copy or a verification reads, and what part of the link a copy takes from records. */
#include "agent/sync.h"

#define SHARE_DEFAULT 50u

/* When it is read, an extent counts in full; what did not go over the link is given back. Counted
 * only when sent, all extents would be read, and sent, at once. */
void pace_count(struct pace *pace, uint64_t bytes)
{
	if (pace->rate_bytes)
		pace->allowed_ns = max_u64(pace->allowed_ns, io_now(pace->io)) +
				   bytes * 1000000000ull / pace->rate_bytes;
}

void pace_refund(struct pace *pace, uint64_t bytes)
{
	if (pace->rate_bytes)
		pace->allowed_ns =
			sub_floor_u64(pace->allowed_ns, bytes * 1000000000ull / pace->rate_bytes);
}

bool pace_allows(struct pace *pace)
{
	uint64_t now = io_now(pace->io);

	if (!pace->rate_bytes || pace->allowed_ns <= now)
		return true;
	if (!pace->timer.deadline_ns)
		io_timer_start(pace->io, &pace->timer, pace->allowed_ns - now);
	return false;
}

static void timer_due(struct io_timer *timer)
{
	struct pace *pace = container_of(timer, struct pace, timer);

	pace->due(pace->owner);
}

void pace_init(struct pace *pace, struct io *io, void *owner, void (*due)(void *owner))
{
	pace->io = io;
	pace->owner = owner;
	pace->due = due;
	pace->timer.fire = timer_due;
}

void pace_begin(struct pace *pace, uint64_t rate_bytes)
{
	pace->rate_bytes = rate_bytes;
	pace->allowed_ns = 0;
}

void pace_end(struct pace *pace)
{
	io_timer_stop(pace->io, &pace->timer);
}

/*
 * As much is read as the records that have gone out meanwhile allow. Counted since records began to
 * wait: what was copied while the link had room is nobody's loss.
 */
bool share_allows(struct share *share, const struct ship *ship)
{
	uint64_t percent = ship->conf->sync_share ? ship->conf->sync_share : SHARE_DEFAULT;
	uint64_t records_bytes = ship->sent_record_bytes - share->records_bytes;

	if (ship->sent_seq >= ship->group->journal.durable_seq) { /* none waits */
		share_begin(share, ship);
		return true;
	}
	share->waits = share->copied_bytes * (100 - percent) > records_bytes * percent;
	return !share->waits;
}

void share_begin(struct share *share, const struct ship *ship)
{
	share->records_bytes = ship->sent_record_bytes;
	share->copied_bytes = 0;
	share->waits = false;
}
