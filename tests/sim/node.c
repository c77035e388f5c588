/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts and nodes: clocks, memory, timers, the loop's turns, crashes. And the table of struct io.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/internal.h"
#include "tests/sim/ops.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, size)	  ((void)(memory), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(memory, size) ((void)(memory), (void)(size))
#endif

#define OP_SUBMITTED 0x51u
/* 2026-01-01T00:00:00Z: where the worlds' wall clocks begin. */
#define WALL_BEGIN_NS (1767225600ull * SIM_SECOND)
#define FREED_BYTE    0xdd
/* Freed memory is filled to make its use visible; of large blocks the beginning will do. */
#define FREED_FILL_MAX 16384u

struct node_alloc {
	struct list link;
	void *raw;
	uint64_t size_bytes, raw_bytes;
};

/* ---- hosts and their clocks -------------------------------------------------------------------
 */

static void host_boot(struct sim_host *host)
{
	struct sim_world *world = host->world;

	host->powered = true;
	host->boot_at_ns = world->now_ns;
	host->boot_base_ns = sim_between(world, SIM_SECOND, 100 * SIM_SECOND);
}

static struct sim_host *host_new(struct sim_world *world, const char *name)
{
	struct sim_host *host = calloc(1, sizeof(*host));
	const struct sim_options *options = &world->options;

	must(host && world->host_count < HOSTS_MAX);
	host->world = world;
	host->index = world->host_count;
	world->hosts[world->host_count++] = host;
	snprintf(host->name, sizeof(host->name), "%s", name);
	host->drift_ppm = (int64_t)sim_between(world, 0, 2 * options->clock_drift_ppm) -
			  (int64_t)options->clock_drift_ppm;
	host->wall_offset_ns = (int64_t)sim_between(world, 0, 2 * options->wall_skew_ns) -
			       (int64_t)options->wall_skew_ns;
	host->next_port = 40000;
	host->disk = disk_new(host);
	host_boot(host);
	return host;
}

/* Virtual nanoseconds as this host's clocks count them. */
static uint64_t host_elapsed_ns(const struct sim_host *host, uint64_t from_ns)
{
	int64_t elapsed_ns = (int64_t)(host->world->now_ns - from_ns);

	return (uint64_t)(elapsed_ns + elapsed_ns / SIM_PPM * host->drift_ppm +
			  elapsed_ns % SIM_PPM * host->drift_ppm / (int64_t)SIM_PPM);
}

static uint64_t node_now(struct io *io)
{
	const struct sim_host *host = node_of(io)->host;

	return host->boot_base_ns + host_elapsed_ns(host, host->boot_at_ns);
}

static uint64_t node_wall(struct io *io)
{
	const struct sim_host *host = node_of(io)->host;

	return WALL_BEGIN_NS + host_elapsed_ns(host, 0) + (uint64_t)host->wall_offset_ns;
}

static uint64_t node_random(struct io *io)
{
	return sim_random(node_of(io)->world);
}

void sim_node_wall_jump(struct sim_node *node, int64_t ns)
{
	node->host->wall_offset_ns += ns;
	trace_add(node->world, node, WHAT_WALL_JUMP, NULL, 0, 0, ns / (int64_t)SIM_SECOND);
}

/* ---- memory -----------------------------------------------------------------------------------
 */

static void *node_alloc(struct io *io, size_t size, size_t align)
{
	struct sim_node *node = node_of(io);
	uint64_t raw_bytes = size + align + sizeof(struct node_alloc);
	struct node_alloc *alloc;
	uintptr_t address;
	void *raw;

	node_must_be_up(node, "io_alloc");
	if (!is_power_of_two(align) || align < 8)
		sim_fail(node->world, "%s: io_alloc with alignment %zu", node->name, align);
	node->alloc_count++;
	if ((node->alloc_fail_at && --node->alloc_fail_at == 0) ||
	    ++node->world->all_allocs == node->world->all_allocs_fail_at) {
		trace_add(node->world, node, WHAT_FAULT, "io_alloc", size, 0, -ENOMEM);
		return NULL;
	}
	raw = calloc(1, raw_bytes);
	must(raw);
	address = (uintptr_t)raw + sizeof(*alloc);
	address = (uintptr_t)round_up(address, align);
	alloc = (struct node_alloc *)(address - sizeof(*alloc));
	alloc->raw = raw;
	alloc->size_bytes = size;
	alloc->raw_bytes = raw_bytes;
	node->alloc_bytes += size;
	list_push_back(&node->allocs, &alloc->link);
	ASAN_POISON_MEMORY_REGION((uint8_t *)address + size,
				  (uintptr_t)raw + raw_bytes - address - size);
	return (void *)address;
}

static void alloc_release(struct sim_node *node, struct node_alloc *alloc)
{
	uint8_t *memory = (uint8_t *)(alloc + 1);
	void *raw = alloc->raw;

	node->alloc_bytes -= alloc->size_bytes;
	list_remove(&alloc->link);
	ASAN_UNPOISON_MEMORY_REGION(raw, alloc->raw_bytes);
	memset(memory, FREED_BYTE, min_size(alloc->size_bytes, FREED_FILL_MAX));
	free(raw);
}

static void node_free(struct io *io, void *memory)
{
	struct sim_node *node = node_of(io);
	struct node_alloc *alloc;
	const uint8_t *begin = memory, *end;
	struct list *pos;

	if (!memory)
		return;
	alloc = (struct node_alloc *)memory - 1;
	end = begin + alloc->size_bytes;
	for (struct io_op *op = node->ops; op; op = op->next) {
		if ((uint8_t *)op >= begin && (uint8_t *)op < end)
			sim_fail(node->world, "%s: io_free of memory with an operation in flight",
				 node->name);
	}
	list_for_each (pos, &node->events) {
		const struct sim_event *event = container_of(pos, struct sim_event, of_node);
		const uint8_t *timer = (const uint8_t *)event->timer;

		if (timer && timer >= begin && timer < end)
			sim_fail(node->world, "%s: io_free of memory with a running timer",
				 node->name);
	}
	alloc_release(node, alloc);
}

void sim_node_fail_alloc(struct sim_node *node, uint64_t nth)
{
	node->alloc_fail_at = nth;
}

uint64_t sim_node_allocs(const struct sim_node *node)
{
	return node->alloc_count;
}

uint64_t sim_node_alloc_bytes(const struct sim_node *node)
{
	return node->alloc_bytes;
}

/* ---- operations -------------------------------------------------------------------------------
 */

void node_must_be_up(struct sim_node *node, const char *what)
{
	if (!node->up)
		sim_fail(node->world, "%s: %s by a process that is dead", node->name, what);
}

void op_begin(struct sim_node *node, struct io_op *op, const char *what)
{
	node_must_be_up(node, what);
	if (op->state != IO_OP_IDLE)
		sim_fail(node->world, "%s: %s with an operation that is in flight or not zeroed",
			 node->name, what);
	if (!op->done)
		sim_fail(node->world, "%s: %s with an operation without done()", node->name, what);
	op->state = OP_SUBMITTED;
	op->prev = NULL;
	op->next = node->ops;
	if (node->ops)
		node->ops->prev = op;
	node->ops = op;
	node->op_count++;
}

void op_end(struct sim_node *node, struct io_op *op, int64_t res)
{
	if (op->state != OP_SUBMITTED)
		sim_fail(node->world, "%s: an operation in flight was overwritten by its owner",
			 node->name);
	if (op->prev)
		op->prev->next = op->next;
	else
		node->ops = op->next;
	if (op->next)
		op->next->prev = op->prev;
	op->next = NULL;
	op->prev = NULL;
	op->state = IO_OP_IDLE;
	op->res = res;
	node->op_count--;
	op->done(op, res);
}

static void fire_op_end(struct sim_event *event)
{
	if (event->a)
		trace_add(event->world, event->node, (enum sim_what)event->a, NULL, 0, 0,
			  event->res);
	op_end(event->node, event->op, event->res);
}

void op_end_later(struct sim_node *node, struct io_op *op, uint64_t delay_ns, int64_t res)
{
	struct sim_event *event = event_add(node->world, node, delay_ns, fire_op_end);

	event->op = op;
	event->res = res;
}

unsigned sim_node_pending(const struct sim_node *node)
{
	return node->op_count + node->timer_count;
}

/* ---- timers -----------------------------------------------------------------------------------
 */

static struct sim_event *timer_event(struct sim_node *node, const struct io_timer *timer)
{
	struct sim_event *event;

	if (!timer->heap_index)
		return NULL;
	event = event_at_slot(node->world, timer->heap_index - 1);
	if (!event || event->timer != timer)
		sim_fail(node->world, "%s: a timer that was not zeroed, or overwritten",
			 node->name);
	return event;
}

static void timer_stop(struct io *io, struct io_timer *timer)
{
	struct sim_node *node = node_of(io);
	struct sim_event *event = timer_event(node, timer);

	node_must_be_up(node, "io_timer_stop");
	timer->deadline_ns = 0;
	timer->heap_index = 0;
	if (event) {
		event_cancel(event);
		node->timer_count--;
	}
}

static void fire_timer(struct sim_event *event)
{
	struct io_timer *timer = event->timer;

	must(node_now(&event->node->io) >= timer->deadline_ns);
	trace_add(event->world, event->node, WHAT_TIMER, NULL, 0, 0, 0);
	event->node->timer_count--;
	timer->deadline_ns = 0;
	timer->heap_index = 0;
	timer->fire(timer);
}

/* The smallest virtual delay after which the host's clock has counted `delay_ns`. */
static uint64_t host_delay(const struct sim_host *host, uint64_t delay_ns)
{
	uint64_t rate = (uint64_t)((int64_t)SIM_PPM + host->drift_ppm);
	uint64_t virtual_ns;

	if (!host->drift_ppm)
		return delay_ns;
	virtual_ns = delay_ns / rate * SIM_PPM + delay_ns % rate * SIM_PPM / rate;
	/* The clock counts in whole steps; two of them make up for every rounding. */
	return virtual_ns + 2;
}

static void timer_start(struct io *io, struct io_timer *timer, uint64_t delay_ns)
{
	struct sim_node *node = node_of(io);
	struct sim_world *world = node->world;
	struct sim_event *event;

	if (!timer->fire)
		sim_fail(world, "%s: a timer without fire()", node->name);
	timer_stop(io, timer);
	event = event_add(world, node,
			  host_delay(node->host, min_u64(delay_ns, INT64_MAX / 4)) +
				  sim_between(world, 0, world->options.timer_late_ns),
			  fire_timer);
	event->timer = timer;
	timer->deadline_ns = node_now(io) + delay_ns;
	timer->order = event->order;
	timer->heap_index = event->slot + 1;
	node->timer_count++;
}

/* ---- turns, posts, work -----------------------------------------------------------------------
 */

/*
 * The end of a turn: after all other events of the instant. Operations that are deferred meanwhile
 * wait for another pass, behind whatever their callbacks caused at once.
 */
static void fire_turn_end(struct sim_event *event)
{
	struct sim_node *node = event->node;
	struct io_op *op = node->deferred, *after;

	node->turn_end_planned = false;
	node->deferred = NULL;
	for (; op; op = after) {
		after = (struct io_op *)(uintptr_t)op->priv[0];
		trace_add(node->world, node, WHAT_DEFERRED, NULL, 0, 0, (int64_t)op->priv[1]);
		op_end(node, op, (int64_t)op->priv[1]);
	}
}

static void defer(struct io *io, struct io_op *op, int64_t res)
{
	struct sim_node *node = node_of(io);

	op_begin(node, op, "io_defer");
	op->priv[0] = 0;
	op->priv[1] = (uint64_t)res;
	if (node->deferred)
		node->deferred_last->priv[0] = (uintptr_t)op;
	else
		node->deferred = op;
	node->deferred_last = op;
	if (!node->turn_end_planned) {
		node->turn_end_planned = true;
		event_add_last(node->world, node, fire_turn_end);
	}
}

static void post(struct io *io, struct io_op *op)
{
	struct sim_node *node = node_of(io);
	struct sim_event *event;

	op_begin(node, op, "io_post");
	event = event_add(node->world, node, sim_between(node->world, 0, 5 * SIM_US), fire_op_end);
	event->op = op;
	event->a = WHAT_POSTED;
}

static void fire_work(struct sim_event *event)
{
	event->fn.work(event->op);
	trace_add(event->world, event->node, WHAT_WORK, NULL, 0, 0, event->op->res);
	op_end(event->node, event->op, event->op->res);
}

static void work(struct io *io, void (*fn)(struct io_op *op), struct io_op *op)
{
	struct sim_node *node = node_of(io);
	struct sim_event *event;

	op_begin(node, op, "io_work");
	event = event_add(node->world, node, sim_between(node->world, SIM_US, 60 * SIM_US),
			  fire_work);
	event->op = op;
	event->fn.work = fn;
}

static int buffers(struct io *io, void *base, size_t len)
{
	(void)base;
	(void)len;
	node_must_be_up(node_of(io), "io_buffers");
	return 0;
}

const struct io_ops sim_io_ops = {
	.alloc = node_alloc,
	.free = node_free,
	.now = node_now,
	.wall = node_wall,
	.random = node_random,
	.timer_start = timer_start,
	.timer_stop = timer_stop,
	.defer = defer,
	.post = post,
	.work = work,
	.mkdir = disk_mkdir,
	.lock = disk_lock,
	.unlock = disk_unlock,
	.file_open = disk_file_open,
	.file_close = disk_file_close,
	.file_info = disk_file_info,
	.file_grow = disk_file_grow,
	.file_create = disk_file_create,
	/* Space set aside and zeroes written are the same on a disk whose holes count as room. */
	.file_reserve = disk_file_create,
	.file_remove = disk_file_remove,
	.read = disk_read,
	.writev = disk_writev,
	.flush = disk_flush,
	.discard = disk_discard,
	.write_zeroes = disk_write_zeroes,
	.map = disk_map,
	.listen = net_listen,
	.accept = net_accept,
	.listener_close = net_listener_close,
	.connect = net_connect,
	.start_tls = net_start_tls,
	.recv = net_recv,
	.sendv = net_sendv,
	.stream_close = net_stream_close,
	.stream_move = net_stream_move,
	.stream_peer = net_stream_peer,
	.stream_error = net_stream_error,
	.buffers = buffers,
};

/* ---- life and death ---------------------------------------------------------------------------
 */

static void node_begin(struct sim_node *node)
{
	node->up = true;
	node->paused_until_ns = 0;
	node->alloc_count = 0;
	node->alloc_fail_at = 0;
	trace_add(node->world, node, WHAT_NODE_UP, NULL, 0, 0, 0);
}

static struct sim_node *node_add(struct sim_host *host, const char *name)
{
	struct sim_world *world = host->world;
	struct sim_node *node = calloc(1, sizeof(*node));

	must(node && world->node_count < SIM_NODES_MAX);
	node->io.ops = &sim_io_ops;
	node->world = world;
	node->host = host;
	node->index = world->node_count;
	world->nodes[world->node_count++] = node;
	snprintf(node->name, sizeof(node->name), "%s", name);
	list_init(&node->events);
	list_init(&node->allocs);
	list_init(&node->files);
	list_init(&node->locks);
	list_init(&node->requests);
	list_init(&node->streams);
	list_init(&node->listeners);
	list_init(&node->connecting);
	node_begin(node);
	return node;
}

struct sim_node *sim_node_new(struct sim_world *world, const char *name)
{
	return node_add(host_new(world, name), name);
}

struct sim_node *sim_node_beside(struct sim_node *other, const char *name)
{
	return node_add(other->host, name);
}

/* The process's memory and everything the loop still meant to do, without a word to its code. */
static void node_end(struct sim_node *node, enum sim_crash kind)
{
	struct list *pos;

	trace_add(node->world, node, kind == SIM_KILL ? WHAT_KILL : WHAT_POWER, NULL, 0, 0, 0);
	node->up = false;
	disk_process_died(node, kind);
	net_process_died(node, kind);
	while ((pos = list_first(&node->events)))
		event_cancel(container_of(pos, struct sim_event, of_node));
	while ((pos = list_first(&node->allocs)))
		alloc_release(node, container_of(pos, struct node_alloc, link));
	node->ops = NULL;
	node->op_count = 0;
	node->timer_count = 0;
	node->deferred = NULL;
	node->turn_end_planned = false;
	node->crash_soon = 0;
}

void sim_node_crash(struct sim_node *node, enum sim_crash kind)
{
	struct sim_world *world = node->world;
	struct sim_host *host = node->host;

	if (world->running)
		sim_fail(world, "sim_node_crash(%s) inside a callback; use sim_node_crash_soon",
			 node->name);
	if (kind == SIM_KILL) {
		if (node->up)
			node_end(node, kind);
		return;
	}
	for (unsigned i = 0; i < world->node_count; i++) {
		if (world->nodes[i]->host == host && world->nodes[i]->up)
			node_end(world->nodes[i], kind);
	}
	disk_power_lost(host);
	host->powered = false;
}

void sim_node_crash_soon(struct sim_node *node, enum sim_crash kind)
{
	node->crash_soon = (int)kind + 1;
	node->world->crash_wanted = true;
}

void sim_node_crash_exactly(struct sim_node *node, enum sim_crash kind, uint64_t survivors)
{
	struct sim_world *world = node->world;

	world->exact = true;
	world->survivors = survivors;
	sim_node_crash(node, kind);
	world->exact = false;
}

void sim_node_restart(struct sim_node *node)
{
	must(!node->up);
	if (!node->host->powered) {
		host_boot(node->host);
		net_host_up(node->host);
	}
	node_begin(node);
}

void sim_node_pause(struct sim_node *node, uint64_t ns)
{
	trace_add(node->world, node, WHAT_PAUSE, NULL, 0, ns, 0);
	node->paused_until_ns = max_u64(node->paused_until_ns, node->world->now_ns + ns);
}

struct io *sim_node_io(struct sim_node *node)
{
	return &node->io;
}

struct sim_world *sim_node_world(struct sim_node *node)
{
	return node->world;
}

const char *sim_node_name(const struct sim_node *node)
{
	return node->name;
}

bool sim_node_is_up(const struct sim_node *node)
{
	return node->up;
}

unsigned sim_node_count(const struct sim_world *world)
{
	return world->node_count;
}

struct sim_node *sim_node_at(const struct sim_world *world, unsigned index)
{
	must(index < world->node_count);
	return world->nodes[index];
}

struct sim_node *sim_node_of(struct io *io)
{
	must(io->ops == &sim_io_ops);
	return node_of(io);
}
