/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the simulator know of each other. Nothing outside tests/sim includes this.
 *
 * Ownership: the world owns everything. An event belongs to the heap until it fires or is
 * cancelled; events of a node are on the node's list as well, so that a crash finds them without a
 * search.
 */
#ifndef HOLDFAST_TESTS_SIM_INTERNAL_H
#define HOLDFAST_TESTS_SIM_INTERNAL_H

#include <setjmp.h>

#include "core/base/list.h"
#include "core/base/prng.h"
#include "tests/sim/sim.h"

#define TRACE_ENTRIES	 200u
#define TRACE_TEXT_MAX	 104u
#define EVENTS_PER_BLOCK 256u
#define FAULTS_MAX	 64u
#define HOSTS_MAX	 SIM_NODES_MAX

enum sim_what {
	WHAT_NOTE,
	WHAT_NODE_UP,
	WHAT_KILL,
	WHAT_POWER,
	WHAT_PAUSE,
	WHAT_WALL_JUMP,
	WHAT_TIMER,
	WHAT_DEFERRED,
	WHAT_POSTED,
	WHAT_WORK,
	WHAT_READ,
	WHAT_READ_DONE,
	WHAT_WRITE,
	WHAT_WRITE_DONE,
	WHAT_FLUSH,
	WHAT_FLUSH_DONE,
	WHAT_DISCARD,
	WHAT_DISCARD_DONE,
	WHAT_CREATE,
	WHAT_CREATE_DONE,
	WHAT_MAP_DONE,
	WHAT_OPEN,
	WHAT_REMOVE,
	WHAT_LOCK,
	WHAT_FAULT,
	WHAT_CONNECT,
	WHAT_CONNECT_DONE,
	WHAT_ACCEPT,
	WHAT_LISTEN,
	WHAT_TLS_DONE,
	WHAT_SEND,
	WHAT_SEND_DONE,
	WHAT_RECV_DONE,
	WHAT_ARRIVAL,
	WHAT_CLOSE,
	WHAT_RESET,
	WHAT_CUT,
	WHAT_COUNT,
};

struct sim_event {
	uint64_t at_ns;
	uint64_t order; /* insertion number, with ORDER_LAST set: after the others of the instant */
	uint32_t heap_index; /* 1-based, 0 = free */
	uint32_t slot;
	struct sim_world *world;
	struct sim_node *node; /* NULL: an event of the world (network, nemesis, scenario) */
	struct list of_node;
	void (*fire)(struct sim_event *event);
	struct io_op *op;
	struct io_timer *timer;
	void *object;
	union {
		void (*work)(struct io_op *op);
		void (*call)(void *context);
	} fn;
	uint64_t a, b;
	int64_t res;
	struct sim_event *next_free;
};
#define ORDER_LAST (1ull << 63)

struct heap_entry {
	uint64_t at_ns, order;
	struct sim_event *event;
};

struct trace_entry {
	uint64_t at_ns, event;
	const char *subject;
	uint64_t a, b;
	int64_t res;
	uint8_t node; /* index + 1, 0 = world */
	uint8_t what;
	char text[TRACE_TEXT_MAX];
};

struct sim_disk;
struct sim_net;
struct world_block;

struct sim_host {
	struct sim_world *world;
	unsigned index;
	char name[64];
	struct sim_disk *disk;
	bool powered;
	uint64_t boot_at_ns;   /* world time of its boot */
	uint64_t boot_base_ns; /* CLOCK_BOOTTIME then */
	int64_t drift_ppm;
	int64_t wall_offset_ns;
	uint16_t next_port;
};

struct sim_node {
	struct io io; /* first: a struct io is its node */
	struct sim_world *world;
	struct sim_host *host;
	unsigned index;
	char name[64];
	bool up;
	int crash_soon; /* 0, or enum sim_crash + 1 */
	uint64_t paused_until_ns;
	struct list events; /* struct sim_event.of_node */
	struct list allocs; /* struct node_alloc */
	struct io_op *ops;  /* submitted operations, by io_op.next */
	unsigned op_count, timer_count;
	struct list files;			/* open handles: struct io_file */
	struct list locks;			/* struct io_lock */
	struct list requests;			/* struct disk_request in flight, by submission */
	struct list streams;			/* struct io_stream, also half-dead ones */
	struct list listeners;			/* struct io_listener */
	struct list connecting;			/* struct net_connect */
	struct io_op *deferred, *deferred_last; /* linked by priv[0] */
	bool turn_end_planned;
	uint64_t alloc_count, alloc_bytes, alloc_fail_at;
};

struct planned_fault {
	struct sim_fault fault; /* skip and count run down */
	bool limited;
};

struct sim_world {
	uint64_t seed;
	struct prng prng;
	struct sim_options options;
	uint64_t now_ns, event_count, insertions, instant_events;
	struct heap_entry *heap;
	uint32_t heap_count, heap_max;
	struct sim_event **event_blocks;
	uint32_t event_blocks_count;
	struct sim_event *free_events;
	struct sim_host *hosts[HOSTS_MAX];
	unsigned host_count;
	struct sim_node *nodes[SIM_NODES_MAX];
	unsigned node_count;
	struct sim_node *running; /* whose callback is on the stack */
	bool crash_wanted;
	uint64_t hook_event;
	void (*hook)(void *context);
	void *hook_context;
	void *user;
	struct world_block *blocks;

	/* disk faults */
	struct planned_fault faults[FAULTS_MAX];
	unsigned fault_count;
	uint64_t fault_hits, disk_ops, fail_op;
	int fail_error;
	bool fail_sticky;
	uint64_t all_allocs, all_allocs_fail_at;     /* io_alloc of any node */
	uint64_t first_event, first_op, first_alloc; /* of an enumerated script */
	uint64_t survivors;			     /* of an exact crash */
	bool exact;

	struct sim_net *net;
	struct sim_nemesis nemesis;
	bool nemesis_on;
	uint64_t nemesis_generation;

	/* trace and failure */
	struct trace_entry trace[TRACE_ENTRIES];
	uint64_t trace_count, hash;
	bool trace_print, failed, jump_set;
	sigjmp_buf jump;
	FILE *report;
	const char *how_to_repeat;
	char reason[512];
};

/* sim.c */
struct sim_event *event_add(struct sim_world *world, struct sim_node *node, uint64_t delay_ns,
			    void (*fire)(struct sim_event *event));
/* After the other events of the present instant, also those that are yet to be inserted. */
struct sim_event *event_add_last(struct sim_world *world, struct sim_node *node,
				 void (*fire)(struct sim_event *event));
void event_cancel(struct sim_event *event);
struct sim_event *event_at_slot(struct sim_world *world, uint32_t slot);

/* node.c */
extern const struct io_ops sim_io_ops;
static inline struct sim_node *node_of(struct io *io)
{
	return (struct sim_node *)(void *)io;
}
/* Takes an operation from its owner, and gives it back with its result. */
void op_begin(struct sim_node *node, struct io_op *op, const char *what);
void op_end(struct sim_node *node, struct io_op *op, int64_t res);
/* Plans op_end after a delay. */
void op_end_later(struct sim_node *node, struct io_op *op, uint64_t delay_ns, int64_t res);
void node_must_be_up(struct sim_node *node, const char *what);

/* trace.c */
void trace_add(struct sim_world *world, const struct sim_node *node, enum sim_what what,
	       const char *subject, uint64_t a, uint64_t b, int64_t res);
void trace_print_all(struct sim_world *world, FILE *out);
extern const char *const what_names[WHAT_COUNT];

/* disk.c, disk_ops.c */
struct sim_disk *disk_new(struct sim_host *host);
void disk_free(struct sim_disk *disk);
/* The process's operations in flight meet their fate; its handles and locks go. */
void disk_process_died(struct sim_node *node, enum sim_crash kind);
/* The host lost power, after disk_process_died of each process. */
void disk_power_lost(struct sim_host *host);

/* net.c */
struct sim_net *net_new(struct sim_world *world);
void net_free(struct sim_net *net);
void net_process_died(struct sim_node *node, enum sim_crash kind);
void net_host_up(struct sim_host *host);

#endif
