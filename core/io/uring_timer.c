/* SPDX-License-Identifier: Apache-2.0 */
/* Timers: a binary heap by deadline, then by start order. Index 0 is unused. */
#include "core/io/internal.h"

#include <stdlib.h>

#define TIMERS_MIN 256u

static bool earlier(const struct io_timer *a, const struct io_timer *b)
{
	if (a->deadline_ns != b->deadline_ns)
		return a->deadline_ns < b->deadline_ns;
	return a->order < b->order;
}

static void put(struct uring *loop, uint32_t index, struct io_timer *timer)
{
	loop->timers[index] = timer;
	timer->heap_index = index;
}

static void sift_up(struct uring *loop, struct io_timer *timer)
{
	uint32_t index = timer->heap_index;

	while (index > 1 && earlier(timer, loop->timers[index / 2])) {
		put(loop, index, loop->timers[index / 2]);
		index /= 2;
	}
	put(loop, index, timer);
}

static void sift_down(struct uring *loop, struct io_timer *timer)
{
	uint32_t index = timer->heap_index;

	for (;;) {
		uint32_t child = 2 * index;

		if (child > loop->timer_count)
			break;
		if (child < loop->timer_count &&
		    earlier(loop->timers[child + 1], loop->timers[child]))
			child++;
		if (!earlier(loop->timers[child], timer))
			break;
		put(loop, index, loop->timers[child]);
		index = child;
	}
	put(loop, index, timer);
}

void uring_timer_start(struct io *io, struct io_timer *timer, uint64_t delay_ns)
{
	struct uring *loop = uring_of(io);
	uint64_t now_ns = uring_now(io);

	must(timer->fire != NULL);
	uring_timer_stop(io, timer);
	if (loop->timer_count + 1 >= loop->timer_max) {
		loop->timer_max = max_u32(TIMERS_MIN, 2 * loop->timer_max);
		loop->timers = realloc(loop->timers, loop->timer_max * sizeof(*loop->timers));
		must(loop->timers != NULL);
	}
	timer->deadline_ns = delay_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + delay_ns;
	timer->order = ++loop->timer_order;
	put(loop, ++loop->timer_count, timer);
	sift_up(loop, timer);
}

void uring_timer_stop(struct io *io, struct io_timer *timer)
{
	struct uring *loop = uring_of(io);
	uint32_t index = timer->heap_index;
	struct io_timer *last;

	if (index == 0)
		return;
	must(index <= loop->timer_count && loop->timers[index] == timer);
	timer->heap_index = 0;
	timer->deadline_ns = 0;
	last = loop->timers[loop->timer_count--];
	if (last == timer)
		return;
	put(loop, index, last);
	sift_up(loop, last);
	sift_down(loop, last);
}

void timers_run(struct uring *loop)
{
	uint64_t order_max = loop->timer_order;
	uint64_t now_ns;

	if (loop->timer_count == 0)
		return;
	now_ns = uring_now(&loop->io);
	/* Timers started by these callbacks wait for the next turn, so this ends. */
	while (loop->timer_count > 0) {
		struct io_timer *timer = loop->timers[1];

		if (timer->deadline_ns > now_ns || timer->order > order_max)
			return;
		uring_timer_stop(&loop->io, timer);
		timer->fire(timer);
	}
}

uint64_t timers_wait_ns(struct uring *loop)
{
	if (loop->timer_count == 0)
		return UINT64_MAX;
	return sub_floor_u64(loop->timers[1]->deadline_ns, uring_now(&loop->io));
}
