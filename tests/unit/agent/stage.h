/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent's tests share: one primary in a simulated world, clients that know what it must
 * hold, and standbys made by hand that can be told what to answer, and when. Header only.
 */
#ifndef HOLDFAST_TESTS_UNIT_AGENT_STAGE_H
#define HOLDFAST_TESTS_UNIT_AGENT_STAGE_H

#include <errno.h>

#include "agent/internal.h"
#include "agent/ship.h"
#include "core/base/endian.h"
#include "core/base/hash64.h"
#include "core/base/log.h"
#include "core/group/init.h"
#include "proto/payload.h"
#include "tests/sim/sim.h"
#include "tests/unit/unit.h"

#define STAGE_VOLUMES	   2u
#define STAGE_VOLUME_BYTES (1u << 20)
#define STAGE_SLOT_BYTES   98304u
#define STAGE_SLOTS	   8u
#define STAGE_PEERS	   2u
#define STAGE_REQUESTS	   256u
#define STAGE_DIR	   "/state/g"
#define STAGE_LIMIT	   (60 * SIM_SECOND)

struct stage;

/* A standby as its primary meets it. What it holds survives its connections. */
struct stage_peer {
	struct stage *stage;
	char name[16], address[32];
	struct sim_node *node;
	struct io_listener *listener;
	struct io_stream *stream;
	struct io_op accept_op, tls_op;
	struct link *link;
	/* how it answers */
	bool silent;		/* says nothing at all */
	bool mute;		/* acknowledges nothing */
	bool no_sync_ack;	/* does not acknowledge copied extents */
	bool no_answer;		/* does not answer questions */
	uint64_t refuse_epoch;	/* REFUSE with this epoch in the frame */
	uint64_t refuse_body;	/* and this one in its body; 0 = the same */
	uint32_t refuse_code;	/* 0 = stale epoch */
	uint64_t kept_seq;	/* syncing: it keeps that position; 0 = none */
	uint64_t welcome_epoch; /* in the WELCOME's body; 0 = the primary's */
	uint64_t durable_epoch; /* of its last record; 0 = the primary's */
	uint64_t chain_wrong;	/* added to the chain value it names */
	const char *bye;	/* says BYE with these words instead of a WELCOME */
	uint64_t window_bytes;
	enum {
		STAGE_NO_ANSWER,
		STAGE_TAKES_OVER,
		STAGE_DECLINES
	} take; /* HANDOVER */
	/* WELCOME says that its history parted from ours, and RANGES what it wrote since */
	bool diverged;
	uint64_t common_seq, common_chain, own_seq; /* own_seq: its last one */
	struct stage_range {
		unsigned volume;
		uint64_t off, len;
	} ranges[8];
	unsigned range_count, ranges_per_frame, ranges_cut; /* ranges_cut: frames, then silence */
	/* what it holds */
	bool empty, syncing, seeded;
	uint64_t copy_id;
	uint64_t seq, chain, sync_end;
	uint64_t writer; /* of the segment with seq */
	uint8_t *content[STAGE_VOLUMES];
	/* what it met */
	struct link_hello hello;
	struct link_start start;
	struct link_heartbeat beat;
	struct link_bye said_bye;
	struct link_refuse said_refuse;
	unsigned hellos, starts, beats, byes, ends, refuses;
	uint64_t segments, segment_bytes, unacked_bytes, unacked_max_bytes;
	uint64_t data_frames, data_bytes, zero_frames, zero_bytes, end_seq;
	unsigned asked; /* HANDOVER frames */
	uint64_t asked_seq, asked_chain;
	uint64_t sync_frames;	     /* of this connection */
	uint64_t questions, answers; /* of this connection */
	uint64_t asked_bytes, differing, verified, verified_seq, verified_ranges;
	uint8_t *body;
	uint8_t control[FRAME_CONTROL_MAX_BYTES];
};

struct stage_request {
	struct export_request request;
	struct stage *stage;
	bool busy;
	unsigned volume;
	int64_t res;
	uint64_t order; /* of completion */
	uint8_t *buf;
	size_t buf_bytes;
};

struct stage {
	struct sim_world *world;
	struct sim_node *node;
	void (*body)(struct stage *stage);
	void (*tweak)(struct stage *stage);
	unsigned peer_count;
	uint64_t slot_bytes;
	uint32_t slots;
	struct conf conf;
	struct conf_group group_conf;
	struct conf_volume volumes[STAGE_VOLUMES];
	struct conf_peer peers_conf[STAGE_PEERS];
	struct stage_peer peers[STAGE_PEERS];
	struct agent_group *group;
	int started, failed, stopped;
	unsigned starts, fails, stops, releases;
	struct stage_request requests[STAGE_REQUESTS];
	uint64_t completions, next_id;
	uint8_t *content[STAGE_VOLUMES]; /* of everything submitted */
	struct status_group status;
};

static inline bool stage_until(struct stage *stage, bool (*done)(void *context))
{
	return sim_run_until(stage->world, done, stage, STAGE_LIMIT);
}

static inline const struct status_group *stage_status(struct stage *stage)
{
	agent_group_status(stage->group, &stage->status);
	return &stage->status;
}

static inline void stage_pattern(uint8_t *bytes, size_t len, uint64_t id)
{
	uint64_t x = id * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i += 8) {
		if (id % 2 || i % 512 == 0) /* odd ids do not compress */
			x = x * 6364136223846793005ull + 1442695040888963407ull;
		for (unsigned b = 0; b < 8; b++)
			bytes[i + b] = (uint8_t)(x >> 8 * b);
	}
}

#include "tests/unit/agent/stage_peer.h"

/* ---- the clients --------------------------------------------------------------------------------
 */

static inline void stage_done(struct export_request *export_request, int64_t res)
{
	struct stage_request *request = container_of(export_request, struct stage_request, request);

	sim_check(request->stage->world, request->busy);
	request->busy = false;
	request->res = res;
	request->order = ++request->stage->completions;
}

static inline struct stage_request *stage_request(struct stage *stage, enum export_op op,
						  unsigned volume, uint64_t off, uint64_t len,
						  unsigned flags)
{
	struct stage_request *request = stage->requests;

	while (request < stage->requests + STAGE_REQUESTS && request->busy)
		request++;
	sim_check(stage->world, request < stage->requests + STAGE_REQUESTS);
	if (request->buf_bytes < len || !request->buf) {
		request->buf_bytes = max_u64(len, 4096);
		request->buf = sim_alloc(stage->world, request->buf_bytes + 4096);
		request->buf += round_up((uintptr_t)request->buf, 4096) - (uintptr_t)request->buf;
	}
	request->stage = stage;
	request->busy = true;
	request->volume = volume;
	memset(&request->request, 0, sizeof(request->request));
	request->request = (struct export_request){ .done = stage_done,
						    .op = op,
						    .flags = flags,
						    .offset_bytes = off,
						    .length_bytes = len,
						    .buf = request->buf };
	return request;
}

static inline void stage_submit(struct stage *stage, struct stage_request *request)
{
	struct export *export = &stage->group->exports[request->volume].export;

	export->ops->submit(export, &request->request);
}

static inline struct stage_request *stage_write(struct stage *stage, unsigned volume, uint64_t off,
						uint64_t len, unsigned flags)
{
	struct stage_request *request = stage_request(stage, EXPORT_WRITE, volume, off, len, flags);

	stage_pattern(request->buf, len, ++stage->next_id);
	memcpy(stage->content[volume] + off, request->buf, len);
	stage_submit(stage, request);
	return request;
}

static inline struct stage_request *stage_zero(struct stage *stage, enum export_op op,
					       unsigned volume, uint64_t off, uint64_t len)
{
	struct stage_request *request = stage_request(stage, op, volume, off, len, 0);

	memset(stage->content[volume] + off, 0, len);
	stage_submit(stage, request);
	return request;
}

static inline struct stage_request *stage_flush(struct stage *stage)
{
	struct stage_request *request = stage_request(stage, EXPORT_FLUSH, 0, 0, 0, 0);

	stage_submit(stage, request);
	return request;
}

static inline bool stage_request_done(void *context)
{
	return !((struct stage_request *)context)->busy;
}

static inline int64_t stage_wait(struct stage *stage, struct stage_request *request)
{
	sim_check(stage->world,
		  sim_run_until(stage->world, stage_request_done, request, STAGE_LIMIT));
	return request->res;
}

/* Reads all of a volume, and compares. */
static inline void stage_check_read(struct stage *stage, const char *what)
{
	for (unsigned v = 0; v < STAGE_VOLUMES; v++) {
		struct stage_request *request =
			stage_request(stage, EXPORT_READ, v, 0, STAGE_VOLUME_BYTES, 0);

		stage_submit(stage, request);
		sim_check(stage->world, stage_wait(stage, request) == 0);
		for (uint64_t i = 0; i < STAGE_VOLUME_BYTES; i++)
			if (request->buf[i] != stage->content[v][i])
				sim_fail(stage->world, "%s: volume %u reads wrong at %lu", what, v,
					 (unsigned long)i);
	}
}

static inline void stage_check_peer(struct stage *stage, unsigned index, const char *what)
{
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		for (uint64_t i = 0; i < STAGE_VOLUME_BYTES; i++)
			if (stage->peers[index].content[v][i] != stage->content[v][i])
				sim_fail(stage->world, "%s: standby %u, volume %u differs at %lu",
					 what, index, v, (unsigned long)i);
}

static inline void stage_check_volumes(struct stage *stage, const char *what)
{
	static uint8_t bytes[STAGE_VOLUME_BYTES];
	char path[16];

	for (unsigned v = 0; v < STAGE_VOLUMES; v++) {
		snprintf(path, sizeof(path), "/vol/v%u", v);
		sim_file_peek(stage->node, path, 0, bytes, sizeof(bytes));
		for (uint64_t i = 0; i < STAGE_VOLUME_BYTES; i++)
			if (bytes[i] != stage->content[v][i])
				sim_fail(stage->world, "%s: volume %u holds wrong bytes at %lu",
					 what, v, (unsigned long)i);
	}
}

/* ---- the agent's life ---------------------------------------------------------------------------
 */

static inline void stage_on_started(void *owner, struct agent_group *group, int res)
{
	struct stage *stage = owner;

	(void)group;
	stage->starts++;
	stage->started = res;
}

static inline void stage_on_failed(void *owner, struct agent_group *group, int res)
{
	struct stage *stage = owner;

	(void)group;
	stage->fails++;
	stage->failed = res;
}

static inline void stage_on_stopped(void *owner, struct agent_group *group, int res)
{
	struct stage *stage = owner;

	(void)group;
	stage->stops++;
	stage->stopped = res;
}

static inline void stage_on_released(void *owner, struct agent_group *group)
{
	struct stage *stage = owner;

	(void)group;
	stage->releases++;
}

static inline bool stage_is_released(void *context)
{
	return ((struct stage *)context)->releases > 0;
}

static inline bool stage_is_started(void *context)
{
	return ((struct stage *)context)->starts > 0;
}

static inline bool stage_is_stopped(void *context)
{
	return ((struct stage *)context)->stops > 0;
}

static inline bool stage_is_failed(void *context)
{
	return ((struct stage *)context)->fails > 0;
}

static inline void stage_begin(struct stage *stage)
{
	struct agent_options options = { .io = sim_node_io(stage->node),
					 .conf = &stage->conf,
					 .group = &stage->group_conf,
					 .tls = sim_tls(stage->node, "primary", "ca"),
					 .events = { stage, stage_on_started, stage_on_failed,
						     stage_on_stopped, stage_on_released } };

	stage->starts = stage->fails = stage->stops = stage->releases = 0;
	sim_check(stage->world, agent_group_new(&options, &stage->group) == 0);
	agent_group_start(stage->group);
}

static inline int stage_start(struct stage *stage)
{
	stage_begin(stage);
	sim_check(stage->world, stage_until(stage, stage_is_started));
	return stage->started;
}

/* Waits for a stop that was asked for; frees the group. */
static inline int stage_end_stop(struct stage *stage)
{
	sim_check(stage->world, stage_until(stage, stage_is_stopped));
	stage->group = agent_group_free(stage->group);
	return stage->stopped;
}

static inline int stage_stop(struct stage *stage)
{
	agent_group_stop(stage->group);
	return stage_end_stop(stage);
}

/* The process dies; requests in flight have no answer. */
static inline void stage_crash(struct stage *stage, enum sim_crash kind)
{
	sim_node_crash(stage->node, kind);
	sim_node_restart(stage->node);
	stage->group = NULL;
	memset(stage->requests, 0, sizeof(stage->requests));
}

static inline void stage_superblock(struct stage *stage, struct superblock *ret_sb)
{
	static uint8_t file[SUPERBLOCK_FILE_BYTES];
	unsigned slot;

	sim_file_peek(stage->node, STAGE_DIR "/superblock", 0, file, sizeof(file));
	sim_check(stage->world, superblock_choose(file, ret_sb, &slot) == 0);
}

static inline void stage_superblock_is(struct stage *stage, uint8_t role, uint64_t epoch)
{
	static struct superblock sb;

	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == role && sb.epoch == epoch);
}

/* Puts a changed superblock on the medium, in both slots. */
static inline void stage_superblock_poke(struct stage *stage, struct superblock *sb)
{
	static uint8_t slot[SUPERBLOCK_SLOT_BYTES];

	for (unsigned i = 0; i < 2; i++) {
		sb->generation++;
		superblock_encode(sb, slot);
		sim_file_poke(stage->node, STAGE_DIR "/superblock", i * SUPERBLOCK_SLOT_BYTES, slot,
			      sizeof(slot));
	}
}

static inline bool stage_in_sync(void *context)
{
	struct stage *stage = context;
	struct agent_group *group = stage->group;

	for (unsigned i = 0; i < stage->peer_count; i++)
		if (group->ships[i]->state != SHIP_STREAMING || group->ships[i]->peer->needs_sync ||
		    stage->peers[i].syncing || stage->peers[i].seq != group->head_seq ||
		    (!stage->peers[i].mute && group->ships[i]->durable_seq != group->head_seq))
			return false;
	return group->applied_seq == group->head_seq;
}

static inline void stage_converge(struct stage *stage, const char *what)
{
	if (!stage_until(stage, stage_in_sync))
		sim_fail(stage->world, "%s: does not come in sync: %s, %s", what,
			 stage_status(stage)->peers[0].state, stage->status.peers[0].error);
	for (unsigned i = 0; i < stage->peer_count; i++)
		stage_check_peer(stage, i, what);
}

/* ---- making it ----------------------------------------------------------------------------------
 */

struct stage_op {
	struct io_op op;
	bool done;
	int64_t res;
};

static inline void stage_op_done(struct io_op *op, int64_t res)
{
	struct stage_op *wait = container_of(op, struct stage_op, op);

	wait->done = true;
	wait->res = res;
}

static inline bool stage_op_is_done(void *context)
{
	return ((struct stage_op *)context)->done;
}

static inline void stage_init_group(struct stage *stage)
{
	static struct group_init init;
	static struct superblock sb;
	struct stage_op wait = { .op.done = stage_op_done };
	struct group_init_volume volumes[STAGE_VOLUMES] = { { "v0", "/vol/v0" },
							    { "v1", "/vol/v1" } };

	init = (struct group_init){ .io = sim_node_io(stage->node),
				    .state_dir = "/state",
				    .group = "g",
				    .role = GROUP_PRIMARY,
				    .journal_file_bytes = stage->slot_bytes,
				    .journal_files = stage->slots,
				    .volumes = volumes,
				    .volume_count = STAGE_VOLUMES,
				    .sb = &sb };
	group_init_run(&init, &wait.op);
	sim_check(stage->world, sim_run_until(stage->world, stage_op_is_done, &wait, STAGE_LIMIT));
	if (wait.res)
		sim_fail(stage->world, "init: %s", init.error);
}

static inline void stage_make_conf(struct stage *stage)
{
	static char node[] = "primary", state_dir[] = "/state", name[] = "g";
	static char names[STAGE_VOLUMES][8] = { "v0", "v1" };
	static char paths[STAGE_VOLUMES][16] = { "/vol/v0", "/vol/v1" };

	stage->conf = (struct conf){
		.node = node, .state_dir = state_dir, .groups = &stage->group_conf, .group_count = 1
	};
	for (unsigned i = 0; i < STAGE_VOLUMES; i++)
		stage->volumes[i] = (struct conf_volume){ names[i], paths[i] };
	for (unsigned i = 0; i < STAGE_PEERS; i++)
		stage->peers_conf[i] = (struct conf_peer){ .node = stage->peers[i].name,
							   .address = stage->peers[i].address,
							   .window_bytes = 16u << 20 };
	stage->group_conf = (struct conf_group){ .name = name,
						 .cache = CONF_WRITEBACK,
						 .memory_bytes = 1u << 20,
						 .checkpoint_interval_ns = 100 * SIM_MS,
						 .flush_interval_ns = 5 * SIM_MS,
						 .settle_timeout_ns = SIM_SECOND,
						 .heartbeat_interval_ns = 200 * SIM_MS,
						 .peer_timeout_ns = 2 * SIM_SECOND,
						 .volumes = stage->volumes,
						 .volume_count = STAGE_VOLUMES,
						 .peers = stage->peers_conf,
						 .peer_count = stage->peer_count };
}

static inline void stage_make_peer(struct stage *stage, unsigned index)
{
	struct stage_peer *peer = &stage->peers[index];
	struct link_events events = { .owner = peer,
				      .place = stage_peer_place,
				      .frame = stage_peer_frame,
				      .writable = stage_peer_writable,
				      .ended = stage_peer_ended };

	peer->stage = stage;
	snprintf(peer->name, sizeof(peer->name), "standby%u", index);
	snprintf(peer->address, sizeof(peer->address), "standby%u:7400", index);
	peer->node = sim_node_new(stage->world, peer->name);
	peer->empty = true;
	peer->sync_end = UINT64_MAX;
	peer->window_bytes = 16u << 20;
	peer->body = sim_alloc(stage->world, SEGMENT_TOTAL_MAX_BYTES);
	for (unsigned v = 0; v < STAGE_VOLUMES; v++) {
		peer->content[v] = sim_alloc(stage->world, STAGE_VOLUME_BYTES);
		memset(peer->content[v], 0xee, STAGE_VOLUME_BYTES);
	}
	sim_check(stage->world,
		  link_new(sim_node_io(peer->node), 3u << 20, &events, &peer->link) == 0);
	stage_peer_listen(peer);
}

static inline void stage_open(struct sim_world *world, void *context)
{
	struct stage *stage = context;

	stage->world = world;
	stage->node = sim_node_new(world, "primary");
	for (unsigned i = 0; i < STAGE_VOLUMES; i++) {
		char path[16];

		snprintf(path, sizeof(path), "/vol/v%u", i);
		/* Volume 1 begins as one hole, volume 0 holds something. */
		sim_file_make(stage->node, path, STAGE_VOLUME_BYTES, false, i == 1);
		stage->content[i] = sim_alloc(world, STAGE_VOLUME_BYTES);
		if (i == 0) {
			stage_pattern(stage->content[i], STAGE_VOLUME_BYTES, 99999);
			sim_file_poke(stage->node, path, 0, stage->content[i], STAGE_VOLUME_BYTES);
		}
	}
	for (unsigned i = 0; i < stage->peer_count; i++)
		stage_make_peer(stage, i);
	stage_make_conf(stage);
	if (stage->tweak)
		stage->tweak(stage);
	stage_init_group(stage);
	stage->body(stage);
}

/* Runs `body` with a directory made and nothing started. */
static inline void stage_run_raw(void (*body)(struct stage *stage), unsigned peers,
				 void (*tweak)(struct stage *stage))
{
	struct stage *stage = calloc(1, sizeof(*stage));
	struct sim_options options;
	struct sim_world *world;
	bool held;

	log_set_level(LOG_LEVEL_ERROR);
	sim_options_calm(&options);
	world = sim_new(1, &options);
	assert_non_null(stage);
	stage->body = body;
	stage->tweak = tweak;
	stage->peer_count = peers;
	stage->slot_bytes = STAGE_SLOT_BYTES;
	stage->slots = STAGE_SLOTS;
	held = sim_run(world, stage_open, stage);
	sim_free(world);
	free(stage);
	assert_true(held);
}

#endif
