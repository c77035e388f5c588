/* SPDX-License-Identifier: Apache-2.0 */
/* The world: its clock, its generator and the heap of events. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/internal.h"

/* So many events without the clock moving means that somebody spins. */
#define INSTANT_EVENTS_MAX 200000u

/* Memory of the world itself. Running out of it says nothing about the code under test. */
struct world_block {
	struct world_block *next;
	max_align_t bytes[];
};

struct sim_world *sim_new(uint64_t seed, const struct sim_options *options)
{
	struct sim_world *world = calloc(1, sizeof(*world));

	must(world);
	world->seed = seed;
	world->options = *options;
	prng_seed(&world->prng, seed);
	world->hash = seed;
	world->report = stderr;
	world->heap_max = 1024;
	world->heap = calloc(world->heap_max, sizeof(*world->heap));
	must(world->heap);
	world->net = net_new(world);
	return world;
}

void sim_free(struct sim_world *world)
{
	struct world_block *block;

	/* Killed processes give back what they hold; the trace of that interests nobody. */
	world->trace_print = false;
	world->running = NULL;
	for (unsigned i = 0; i < world->node_count; i++) {
		if (world->nodes[i]->up)
			sim_node_crash(world->nodes[i], SIM_KILL);
		free(world->nodes[i]);
	}
	net_free(world->net);
	for (unsigned i = 0; i < world->host_count; i++) {
		disk_free(world->hosts[i]->disk);
		free(world->hosts[i]);
	}
	while ((block = world->blocks)) {
		world->blocks = block->next;
		free(block);
	}
	for (uint32_t i = 0; i < world->event_blocks_count; i++)
		free(world->event_blocks[i]);
	free(world->event_blocks);
	free(world->heap);
	free(world);
}

struct sim_options *sim_options(struct sim_world *world)
{
	return &world->options;
}

uint64_t sim_seed(const struct sim_world *world)
{
	return world->seed;
}

uint64_t sim_now(const struct sim_world *world)
{
	return world->now_ns;
}

uint64_t sim_events(const struct sim_world *world)
{
	return world->event_count;
}

uint64_t sim_hash(const struct sim_world *world)
{
	return world->hash;
}

void *sim_alloc(struct sim_world *world, size_t size)
{
	struct world_block *block = calloc(1, sizeof(*block) + size);

	must(block);
	block->next = world->blocks;
	world->blocks = block;
	return block->bytes;
}

void sim_set_user(struct sim_world *world, void *user)
{
	world->user = user;
}

void *sim_user(const struct sim_world *world)
{
	return world->user;
}

uint64_t sim_random(struct sim_world *world)
{
	return prng_next(&world->prng);
}

uint64_t sim_between(struct sim_world *world, uint64_t min, uint64_t max)
{
	return min >= max ? min : prng_between(&world->prng, min, max);
}

bool sim_chance(struct sim_world *world, uint64_t ppm)
{
	/* Without a draw for what is switched off: runs with fewer faults stay comparable. */
	return ppm != 0 && prng_below(&world->prng, SIM_PPM) < ppm;
}

/* ---- heap: ordered by time, then by insertion -------------------------------------------------
 */

static bool entry_before(const struct heap_entry *a, const struct heap_entry *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

/* Positions are 1-based. */
static void heap_put(struct sim_world *world, uint32_t position, struct heap_entry entry)
{
	world->heap[position - 1] = entry;
	entry.event->heap_index = position;
}

static void heap_up(struct sim_world *world, uint32_t position, struct heap_entry entry)
{
	while (position > 1 && entry_before(&entry, &world->heap[position / 2 - 1])) {
		heap_put(world, position, world->heap[position / 2 - 1]);
		position /= 2;
	}
	heap_put(world, position, entry);
}

static void heap_down(struct sim_world *world, uint32_t position, struct heap_entry entry)
{
	while (position * 2 <= world->heap_count) {
		uint32_t child = position * 2;

		if (child < world->heap_count &&
		    entry_before(&world->heap[child], &world->heap[child - 1]))
			child++;
		if (!entry_before(&world->heap[child - 1], &entry))
			break;
		heap_put(world, position, world->heap[child - 1]);
		position = child;
	}
	heap_put(world, position, entry);
}

static void heap_insert(struct sim_world *world, struct sim_event *event)
{
	if (world->heap_count == world->heap_max) {
		world->heap_max *= 2;
		world->heap = realloc(world->heap, world->heap_max * sizeof(*world->heap));
		must(world->heap);
	}
	world->heap_count++;
	heap_up(world, world->heap_count, (struct heap_entry){ event->at_ns, event->order, event });
}

static void heap_remove(struct sim_world *world, struct sim_event *event)
{
	uint32_t position = event->heap_index;
	struct heap_entry last;

	must(position >= 1 && position <= world->heap_count);
	must(world->heap[position - 1].event == event);
	event->heap_index = 0;
	last = world->heap[world->heap_count - 1];
	world->heap_count--;
	if (last.event == event)
		return;
	if (position > 1 && entry_before(&last, &world->heap[position / 2 - 1]))
		heap_up(world, position, last);
	else
		heap_down(world, position, last);
}

/* ---- events -----------------------------------------------------------------------------------
 */

static void more_events(struct sim_world *world)
{
	uint32_t blocks = world->event_blocks_count + 1;
	struct sim_event *block = calloc(EVENTS_PER_BLOCK, sizeof(*block));

	world->event_blocks = realloc(world->event_blocks, blocks * sizeof(*world->event_blocks));
	must(block && world->event_blocks);
	world->event_blocks[blocks - 1] = block;
	for (uint32_t i = EVENTS_PER_BLOCK; i-- > 0;) {
		block[i].slot = (blocks - 1) * EVENTS_PER_BLOCK + i;
		block[i].next_free = world->free_events;
		world->free_events = &block[i];
	}
	world->event_blocks_count = blocks;
}

struct sim_event *event_at_slot(struct sim_world *world, uint32_t slot)
{
	if (slot / EVENTS_PER_BLOCK >= world->event_blocks_count)
		return NULL;
	return &world->event_blocks[slot / EVENTS_PER_BLOCK][slot % EVENTS_PER_BLOCK];
}

static struct sim_event *event_new(struct sim_world *world, struct sim_node *node, uint64_t at_ns,
				   uint64_t order, void (*fire)(struct sim_event *event))
{
	struct sim_event *event;
	uint32_t slot;

	if (!world->free_events)
		more_events(world);
	event = world->free_events;
	world->free_events = event->next_free;
	slot = event->slot;
	*event = (struct sim_event){ 0 };
	event->slot = slot;
	event->at_ns = at_ns;
	event->order = order;
	event->world = world;
	event->node = node;
	event->fire = fire;
	if (node)
		list_push_back(&node->events, &event->of_node);
	heap_insert(world, event);
	return event;
}

struct sim_event *event_add(struct sim_world *world, struct sim_node *node, uint64_t delay_ns,
			    void (*fire)(struct sim_event *event))
{
	return event_new(world, node, world->now_ns + delay_ns, ++world->insertions, fire);
}

struct sim_event *event_add_last(struct sim_world *world, struct sim_node *node,
				 void (*fire)(struct sim_event *event))
{
	return event_new(world, node, world->now_ns, ++world->insertions | ORDER_LAST, fire);
}

static void event_release(struct sim_world *world, struct sim_event *event)
{
	if (event->node)
		list_remove(&event->of_node);
	event->fire = NULL;
	event->timer = NULL;
	event->next_free = world->free_events;
	world->free_events = event;
}

void event_cancel(struct sim_event *event)
{
	struct sim_world *world = event->world;

	heap_remove(world, event);
	event_release(world, event);
}

/* ---- running ----------------------------------------------------------------------------------
 */

static void crash_the_doomed(struct sim_world *world)
{
	world->crash_wanted = false;
	for (unsigned i = 0; i < world->node_count; i++) {
		struct sim_node *node = world->nodes[i];
		int wanted = node->crash_soon;

		node->crash_soon = 0;
		if (wanted && node->up)
			sim_node_crash(node, (enum sim_crash)(wanted - 1));
	}
}

/* A paused process: its events wait, in their order. */
static bool postpone(struct sim_world *world, struct sim_event *event)
{
	uint64_t until_ns = event->node ? event->node->paused_until_ns : 0;

	if (until_ns <= event->at_ns)
		return false;
	heap_remove(world, event);
	event->at_ns = until_ns;
	event->order = ++world->insertions | (event->order & ORDER_LAST);
	heap_insert(world, event);
	return true;
}

/* When the next event is due that somebody is there for; UINT64_MAX when there is none. */
static uint64_t next_event_ns(struct sim_world *world)
{
	if (world->crash_wanted)
		crash_the_doomed(world);
	do {
		if (!world->heap_count)
			return UINT64_MAX;
	} while (postpone(world, world->heap[0].event));
	return world->heap[0].at_ns;
}

bool sim_step(struct sim_world *world)
{
	struct sim_event *event;
	struct sim_event fired;

	if (next_event_ns(world) == UINT64_MAX)
		return false;
	event = world->heap[0].event;
	must(event->at_ns >= world->now_ns);
	if (event->at_ns > world->now_ns)
		world->instant_events = 0;
	else if (++world->instant_events > INSTANT_EVENTS_MAX)
		sim_fail(world, "%u events without progress in time: something spins",
			 INSTANT_EVENTS_MAX);
	world->now_ns = event->at_ns;
	world->event_count++;
	heap_remove(world, event);
	fired = *event;
	event_release(world, event);
	world->running = fired.node;
	fired.fire(&fired);
	world->running = NULL;
	if (world->crash_wanted)
		crash_the_doomed(world);
	if (world->hook && world->event_count == world->hook_event) {
		void (*hook)(void *context) = world->hook;

		world->hook = NULL;
		hook(world->hook_context);
	}
	return true;
}

bool sim_run_until(struct sim_world *world, bool (*done)(void *context), void *context,
		   uint64_t limit_ns)
{
	uint64_t end_ns = world->now_ns + limit_ns;

	for (;;) {
		if (done && done(context))
			return true;
		if (next_event_ns(world) > end_ns)
			return false;
		sim_step(world);
	}
}

void sim_run_for(struct sim_world *world, uint64_t ns)
{
	uint64_t end_ns = world->now_ns + ns;

	while (next_event_ns(world) <= end_ns)
		sim_step(world);
	if (world->now_ns < end_ns) {
		world->now_ns = end_ns;
		world->instant_events = 0;
	}
}

static void scenario_event(struct sim_event *event)
{
	event->fn.call(event->object);
}

void sim_after(struct sim_world *world, uint64_t delay_ns, void (*fn)(void *context), void *context)
{
	struct sim_event *event = event_add(world, NULL, delay_ns, scenario_event);

	event->object = context;
	event->fn.call = fn;
}

void sim_at_event(struct sim_world *world, uint64_t event, void (*fn)(void *context), void *context)
{
	must(event > world->event_count || !fn);
	world->hook_event = event;
	world->hook = fn;
	world->hook_context = context;
}
