/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator: a second back end of struct io, in which one seed is one run.
 *
 * A world has hosts (a disk, clocks, a place in the network) and nodes (processes on a host, each
 * with one struct io). Everything happens in events, ordered by virtual time and then by insertion;
 * the world's generator is the only source of chance. Nothing here reads a real clock or starts a
 * thread, so the same seed and the same options give the same run, event by event: sim_hash() says
 * whether they did.
 *
 * Owner: the one thread that drives the world. Code under test runs inside sim_step(), or in calls
 * that a scenario makes into it between steps.
 *
 * A broken rule (of io.h, of the scenario's model, of the code's own assertions) ends the run
 * through sim_fail(): it prints the seed, the options, the reason and the last events, and jumps
 * back to sim_run(). Memory that must survive neither a node's crash nor the world comes from
 * sim_alloc().
 */
#ifndef HOLDFAST_TESTS_SIM_SIM_H
#define HOLDFAST_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/io/io.h"

struct sim_world;
struct sim_node;
struct sim_host;

#define SIM_US		 UINT64_C(1000)
#define SIM_MS		 UINT64_C(1000000)
#define SIM_SECOND	 UINT64_C(1000000000)
#define SIM_SECTOR_BYTES 512u
#define SIM_NODES_MAX	 16u
#define SIM_PPM		 1000000u

/*
 * What may go wrong. Probabilities are parts per million, drawn per operation; the rates of the
 * nemesis are mean virtual times between two events, 0 = never. All fields are numbers, so that a
 * failure can print all of them.
 */
struct sim_options {
	/* disks */
	uint64_t read_ns_min, read_ns_max;   /* latency of an ordinary read */
	uint64_t write_ns_min, write_ns_max; /* of a write, discard, write-zeroes */
	uint64_t flush_ns_min, flush_ns_max; /* of a flush; a DSYNC write takes both */
	uint64_t slow_io_ppm, slow_io_ns;    /* latency tail: an operation takes up to slow_io_ns */
	uint64_t read_error_ppm;	     /* -EIO once; the operation may be repeated */
	uint64_t write_error_ppm;	     /* -EIO; any part of it may be on the disk */
	uint64_t flush_error_ppm;	     /* -EIO; unflushed writes are kept or silently lost */
	uint64_t sticky_ppm;		     /* of such errors: the file fails from then on */
	uint64_t no_space_ppm;		     /* -ENOSPC on a create or on filling a hole */
	/* process */
	uint64_t timer_late_ns;	  /* a timer fires up to this late */
	uint64_t clock_drift_ppm; /* a host's clock is up to this much too fast or slow */
	uint64_t wall_skew_ns;	  /* a host's wall clock is off by up to this, either way */
	/* network */
	uint64_t link_ns_min, link_ns_max;    /* latency of a segment */
	uint64_t slow_link_ppm, slow_link_ns; /* a segment is late by up to slow_link_ns */
	uint64_t socket_bytes;		      /* bytes that one direction of a stream can hold */
	uint64_t split_recv_ppm;	      /* a receive gets less than what is there */
	/* nemesis (sim_nemesis_start) */
	uint64_t kill_every_ns, power_every_ns, pause_every_ns, wall_jump_every_ns;
	uint64_t cut_every_ns, cut_one_way_every_ns, reset_every_ns;
	uint64_t down_ns_max;  /* a crashed node stays down up to this long */
	uint64_t pause_ns_max; /* a paused node stands still up to this long */
	uint64_t cut_ns_max;   /* a cut link heals after up to this long */
};

/* No faults, ordinary latencies. */
void sim_options_calm(struct sim_options *ret_options);
/* Each class of fault is off in about half of the seeds, else of a strength drawn from the seed. */
void sim_options_swarm(struct sim_options *ret_options, uint64_t seed);
/* Drops every fault, keeps the latencies: for the phase in which everything must converge. */
void sim_options_heal(struct sim_options *options);
/* One line per field that is not 0. */
void sim_options_print(const struct sim_options *options, FILE *out);

/* ---- world ------------------------------------------------------------------------------------
 */

/* Never NULL. `options` is copied; sim_options() changes it later. */
struct sim_world *sim_new(uint64_t seed, const struct sim_options *options);
void sim_free(struct sim_world *world);
struct sim_options *sim_options(struct sim_world *world);
uint64_t sim_seed(const struct sim_world *world);
uint64_t sim_now(const struct sim_world *world);
/* Events delivered so far; crash points are named by this number. */
uint64_t sim_events(const struct sim_world *world);
/* Disk operations submitted so far; injected errors are named by this number, from 1. */
uint64_t sim_disk_ops(const struct sim_world *world);
/* A hash of everything that has happened. */
uint64_t sim_hash(const struct sim_world *world);
/* Zeroed memory that lives as long as the world. */
void *sim_alloc(struct sim_world *world, size_t size);

uint64_t sim_random(struct sim_world *world);
/* Uniform in [min, max]. */
uint64_t sim_between(struct sim_world *world, uint64_t min, uint64_t max);
bool sim_chance(struct sim_world *world, uint64_t ppm);

/* Delivers the next event. False when there is none. */
bool sim_step(struct sim_world *world);
/* Steps until `done` (may be NULL) holds, at most `limit_ns` of virtual time. True when it held. */
bool sim_run_until(struct sim_world *world, bool (*done)(void *context), void *context,
		   uint64_t limit_ns);
/* Steps through `ns` of virtual time; the clock then stands exactly there. */
void sim_run_for(struct sim_world *world, uint64_t ns);

/* A scenario's own event, tied to no node: it survives crashes. */
void sim_after(struct sim_world *world, uint64_t delay_ns, void (*fn)(void *context),
	       void *context);
/* Calls `fn` between events, right after event number `event` has been delivered. One at a time. */
void sim_at_event(struct sim_world *world, uint64_t event, void (*fn)(void *context),
		  void *context);

/*
 * Runs `body` so that sim_fail() and a failed must() inside it come back here. Returns true when it
 * returned by itself and nothing failed.
 */
bool sim_run(struct sim_world *world, void (*body)(struct sim_world *world, void *context),
	     void *context);
/* Ends the run: reports and jumps to sim_run(); without one around, aborts. */
__attribute__((format(printf, 2, 3), noreturn)) void sim_fail(struct sim_world *world,
							      const char *format, ...);
bool sim_failed(const struct sim_world *world);
/* The reason, "" before. */
const char *sim_reason(const struct sim_world *world);
/* Where reports go (stderr); NULL = nowhere, for tests that expect a failure. */
void sim_report_to(struct sim_world *world, FILE *out);
/* A line for the report that says how to repeat this run. Kept by reference. */
void sim_describe(struct sim_world *world, const char *how_to_repeat);
/* An entry in the trace; part of the hash. `node` may be NULL. */
__attribute__((format(printf, 3, 4))) void sim_note(struct sim_world *world, struct sim_node *node,
						    const char *format, ...);
/* Prints every event as it happens. */
void sim_trace(struct sim_world *world, bool on);

#define sim_check(world, condition)                                                                \
	do {                                                                                       \
		if (!(condition))                                                                  \
			sim_fail(world, "%s:%d: %s does not hold", __FILE__, __LINE__,             \
				 #condition);                                                      \
	} while (0)

/* A scenario's object, for callbacks that get only the world. */
void sim_set_user(struct sim_world *world, void *user);
void *sim_user(const struct sim_world *world);

/* ---- nodes ------------------------------------------------------------------------------------
 */

enum sim_crash {
	/* The process dies, its host lives: what had completed stays, each write in flight happens
	 * wholly, in part or not at all; its connections are closed or reset. */
	SIM_KILL,
	/* The host loses power, with every process on it: of each unflushed write, completed or in
	 * flight, any subset of sectors survives. Peers notice nothing. */
	SIM_POWER,
};

/* A process on a host of its own, running. `name` is also the host's network name. */
struct sim_node *sim_node_new(struct sim_world *world, const char *name);
/* A further process on the host of `other`: same disk, same clocks, same network place. */
struct sim_node *sim_node_beside(struct sim_node *other, const char *name);
struct io *sim_node_io(struct sim_node *node);
struct sim_world *sim_node_world(struct sim_node *node);
const char *sim_node_name(const struct sim_node *node);
bool sim_node_is_up(const struct sim_node *node);
unsigned sim_node_count(const struct sim_world *world);
struct sim_node *sim_node_at(const struct sim_world *world, unsigned index);
struct sim_node *sim_node_of(struct io *io);

/* Between events only. All memory, timers, operations, locks, files and streams of the process are
 * gone; nothing of it is called any more. POWER takes the other processes of the host too. */
void sim_node_crash(struct sim_node *node, enum sim_crash kind);
/* Same, from anywhere: happens before the next event. */
void sim_node_crash_soon(struct sim_node *node, enum sim_crash kind);
/*
 * Sectors whose fate a crash of this kind would decide now, and a crash in which sector i, in the
 * order of submission, survives when bit i of `survivors` is set. For at most 64 of them.
 */
unsigned sim_node_volatile_sectors(struct sim_node *node, enum sim_crash kind);
void sim_node_crash_exactly(struct sim_node *node, enum sim_crash kind, uint64_t survivors);
/* The process runs again, with empty memory. The scenario starts its code anew. */
void sim_node_restart(struct sim_node *node);
/* Nothing of this process runs for `ns` (a stopped process, a frozen machine). */
void sim_node_pause(struct sim_node *node, uint64_t ns);
/* Moves the host's wall clock. io_now() never jumps. */
void sim_node_wall_jump(struct sim_node *node, int64_t ns);
/* Makes allocation number n from now (1 = the next) fail; 0 = none. */
void sim_node_fail_alloc(struct sim_node *node, uint64_t nth);
/* Allocations of this process since it started, and the bytes that it holds. */
uint64_t sim_node_allocs(const struct sim_node *node);
uint64_t sim_node_alloc_bytes(const struct sim_node *node);
/* Operations and timers that the process has outstanding. */
unsigned sim_node_pending(const struct sim_node *node);

/* ---- disks ------------------------------------------------------------------------------------
 */

/* Makes a file or device of `size` bytes and its folders, durably. `hole`: nothing allocated. */
void sim_file_make(struct sim_node *node, const char *path, uint64_t size, bool device, bool hole);
/* Drops everything on the host's disk. No process of the host may be running. */
void sim_disk_wipe(struct sim_node *node);
/* Drops the files whose paths begin so. No process of the host may be running. */
void sim_disk_lose(struct sim_node *node, const char *prefix);
/* Free space for creates and for filling holes; default without bound. */
void sim_disk_set_free(struct sim_node *node, uint64_t bytes);
uint64_t sim_disk_used(const struct sim_node *node);

/* The size, or -ENOENT. */
/* Makes it longer behind everybody's back, as an operator does; what is new is a hole. */
void sim_file_grow(struct sim_node *node, const char *path, uint64_t size);
int64_t sim_file_size(struct sim_node *node, const char *path);
/* What a read would return now, or what a power loss would certainly leave. Past the end: zeroes.
 */
void sim_file_peek(struct sim_node *node, const char *path, uint64_t off, void *buf, size_t len);
void sim_file_peek_durable(struct sim_node *node, const char *path, uint64_t off, void *buf,
			   size_t len);
/* Puts bytes on the medium, durably, past everything. */
void sim_file_poke(struct sim_node *node, const char *path, uint64_t off, const void *buf,
		   size_t len);
/* Flips one bit on the medium. */
void sim_file_flip(struct sim_node *node, const char *path, uint64_t bit);
/* Sectors with a completed write that no flush has made durable yet. */
uint64_t sim_file_unflushed(struct sim_node *node, const char *path);
/* Calls `fn` for each path on the disk, in order of creation. */
void sim_file_each(struct sim_node *node, void (*fn)(void *context, const char *path),
		   void *context);
/* Keeps a copy of the disk, and puts it back later: the operator's restored backup. No process of
 * the host may be running for the latter. The copy lives as long as the world. */
struct sim_disk_copy;
struct sim_disk_copy *sim_disk_save(struct sim_node *node);
void sim_disk_restore(struct sim_node *node, const struct sim_disk_copy *copy);

enum sim_disk_op {
	SIM_READ = 1u << 0,
	SIM_WRITE = 1u << 1,
	SIM_FLUSH = 1u << 2,
	SIM_DISCARD = 1u << 3, /* and write-zeroes */
	SIM_CREATE = 1u << 4,
	SIM_ANY_OP = 0x1fu,
};

enum sim_action {
	SIM_ERROR,     /* fails with `error`; a write may have happened in part */
	SIM_LOSE,      /* a write reports success and does nothing */
	SIM_MISDIRECT, /* a write goes `offset_delta` away */
	SIM_DELAY,     /* takes `delay_ns` longer */
};

/* A planned fault: applies to the operations that match, after `skip` of them, `count` times. */
struct sim_fault {
	struct sim_node *node; /* NULL = any */
	const char *pattern;   /* fnmatch(3) on the path; NULL = any */
	uint32_t ops;	       /* enum sim_disk_op */
	enum sim_action action;
	int error; /* negative errno */
	int64_t offset_delta;
	uint64_t delay_ns;
	uint64_t skip;
	uint64_t count; /* 0 = from then on */
};
void sim_fault_add(struct sim_world *world, const struct sim_fault *fault);
void sim_fault_clear(struct sim_world *world);
/* How often planned faults have struck. */
uint64_t sim_fault_hits(const struct sim_world *world);
/* Disk operation number `op` (as sim_disk_ops counts) fails with `error`. `sticky`: and so do all
 * later ones of its kind on that file. */
void sim_fail_op(struct sim_world *world, uint64_t op, int error, bool sticky);

/* ---- network ----------------------------------------------------------------------------------
 */

/*
 * Addresses: "name:port" reaches the process listening on it on host `name`; "unix:/path" stays on
 * the host, as do "localhost", "127.0.0.1" and "[::1]". A listener may use any of them or
 * "0.0.0.0",
 * "[::]" or nothing for the name.
 */
enum sim_cut {
	SIM_CUT_NONE,
	SIM_CUT_SILENT, /* nothing arrives any more; what is under way waits */
	SIM_CUT_RESET,	/* as a firewall that answers with resets: streams break, connects are
			   refused */
};
/* Cuts one direction between two hosts, or heals it. */
void sim_cut(struct sim_node *from, struct sim_node *to, enum sim_cut cut);
/* Both directions. */
void sim_cut_both(struct sim_node *a, struct sim_node *b, enum sim_cut cut);
void sim_heal_all(struct sim_world *world);
/* Latency of one direction; UINT64_MAX for both restores the options' one. */
void sim_link_latency(struct sim_node *from, struct sim_node *to, uint64_t min_ns, uint64_t max_ns);
/* Breaks every stream between the two hosts with a reset. */
void sim_reset_streams(struct sim_node *a, struct sim_node *b);
/* Streams that the node has open. */
unsigned sim_stream_count(const struct sim_node *node);

/* The identity that a node shows in start_tls, issued by `ca`. Lives as long as the world. */
struct io_tls *sim_tls(struct sim_node *node, const char *identity, const char *ca);

/* ---- nemesis ----------------------------------------------------------------------------------
 */

/*
 * Does to the nodes what the options' rates say, until sim_nemesis_stop(), which also heals the
 * links and restarts the nodes that are down. `restart` starts the code of a node that is up again.
 * `may_crash` (may be NULL) can refuse a crash.
 */
struct sim_nemesis {
	void (*restart)(void *context, struct sim_node *node);
	bool (*may_crash)(void *context, struct sim_node *node, enum sim_crash kind);
	void *context;
};
void sim_nemesis_start(struct sim_world *world, const struct sim_nemesis *nemesis);
void sim_nemesis_stop(struct sim_world *world);

/* ---- scenarios --------------------------------------------------------------------------------
 */

struct sim_enum_options;
struct sim_enum_result;

/* What the holdfast-sim program can run; the table is in tests/sim/scenarios.c. */
struct sim_scenario {
	const char *name;
	const char *about;
	/* One seed in a fresh world with that seed's swarm options. 0 = held; else, or after
	 * sim_fail(), the seed has failed. NULL: not a scenario of seeds. */
	int (*run)(struct sim_world *world, uint64_t seed);
	/* Every crash point and every failing operation, without chance. NULL: none. */
	void (*enumerate)(const struct sim_enum_options *options, struct sim_enum_result *result);
};
extern const struct sim_scenario *const sim_scenarios[]; /* ends with NULL */

#endif
