/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine's tests share: one standby in a simulated world, and a primary that is made by
 * hand, frame by frame, so that it can say what no real one would. Header only.
 */
#ifndef HOLDFAST_TESTS_UNIT_ENGINE_STAGE_H
#define HOLDFAST_TESTS_UNIT_ENGINE_STAGE_H

#include <errno.h>

#include "core/base/crc32c.h"
#include "core/base/endian.h"
#include "core/base/hash64.h"
#include "core/base/log.h"
#include "core/group/group_dir.h"
#include "core/group/init.h"
#include "core/group/link.h"
#include "engine/engine.h"
#include "proto/payload.h"
#include "tests/sim/sim.h"
#include "tests/unit/unit.h"

#define STAGE_VOLUMES	   2u
#define STAGE_VOLUME_BYTES (64u << 10)
#define STAGE_EXTENT_BYTES (64u << 10)
#define STAGE_SLOT_BYTES   98304u
#define STAGE_SLOTS	   8u
#define STAGE_SEGMENTS	   256u
#define STAGE_RANGES	   64u
#define STAGE_DIR	   "/state/g"
#define STAGE_LIMIT	   (60 * SIM_SECOND)

struct stage_segment {
	struct segment_header header;
	uint8_t *bytes;
	uint64_t chain_next;
};

struct stage {
	struct sim_world *world;
	struct sim_node *primary, *standby;
	void (*body)(struct stage *stage);
	uint64_t slot_bytes, volume_bytes;
	uint32_t slots;
	struct conf conf;
	struct conf_group group_conf;
	struct conf_volume volumes[STAGE_VOLUMES];

	/* standby */
	struct engine_group *group;
	struct io_listener *listener;
	struct io_stream *accepted;
	struct io_op accept_op;
	int started, starts, stopped, stops;
	struct engine_promote promote;
	bool promote_done;

	/* primary */
	struct link *link;
	struct io_stream *dialled;
	struct io_op dial_op;
	bool dial_ok, dial_failed, accept_ok, connected;
	struct link_hello hello;
	uint32_t beat_mode; /* enum link_mode of the next heartbeats */
	struct link_welcome welcome;
	struct link_refuse refuse;
	struct link_bye bye;
	bool welcomed, refused, said_bye, ended;
	struct frame ack, handed;
	struct stage_range {
		unsigned volume;
		uint64_t off, len;
	} ranges[STAGE_RANGES]; /* that it says differ */
	unsigned range_count, range_frames;
	bool ranges_ended, promise_sent;
	uint64_t promised; /* highest seq ever acknowledged as durable */
	uint64_t acked, acks, sync_acked, copied;
	uint64_t asked, answered, differing; /* hashes of this connection */
	bool differs[1024];		     /* by question, from 0 */
	uint8_t body_buf[FRAME_SYNC_MAX_BYTES], packed[FRAME_SYNC_MAX_BYTES];

	/* history */
	struct stage_segment segments[STAGE_SEGMENTS + 1]; /* from 1 */
	unsigned count;
	uint64_t next_seq, chain, bytes;
	uint8_t *content[STAGE_VOLUMES]; /* what the standby shall hold */
	struct status_group status;
};

/* ---- waiting ----------------------------------------------------------------------------------
 */

static inline bool stage_until(struct stage *stage, bool (*done)(void *context))
{
	return sim_run_until(stage->world, done, stage, STAGE_LIMIT);
}

static inline bool stage_is_welcomed(void *context)
{
	return ((struct stage *)context)->welcomed;
}
static inline bool stage_is_refused(void *context)
{
	return ((struct stage *)context)->refused;
}
static inline bool stage_is_over(void *context)
{
	struct stage *stage = context;

	return stage->ended || stage->said_bye || stage->refused;
}
static inline bool stage_is_started(void *context)
{
	return ((struct stage *)context)->starts > 0;
}
static inline bool stage_is_stopped(void *context)
{
	return ((struct stage *)context)->stops > 0;
}
/* Everything of the history so far is acknowledged as durable. */
static inline bool stage_all_durable(void *context)
{
	struct stage *stage = context;

	return stage->acked == stage->next_seq - 1;
}
static inline bool stage_all_applied(void *context)
{
	struct stage *stage = context;

	return stage_all_durable(stage) && stage->ack.arg1 == stage->next_seq - 1;
}
static inline const struct status_group *stage_status(struct stage *stage)
{
	engine_group_status(stage->group, &stage->status);
	return &stage->status;
}

/* ---- content ----------------------------------------------------------------------------------
 */

static inline void stage_pattern(uint8_t *bytes, size_t len, uint64_t id, bool packs)
{
	uint64_t x = id * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < len; i += 8) {
		if (!packs || i % 512 == 0)
			x = x * 6364136223846793005ull + 1442695040888963407ull;
		for (unsigned b = 0; b < 8; b++)
			bytes[i + b] = (uint8_t)(x >> 8 * b);
	}
}

static inline void stage_check_volumes(struct stage *stage, const char *what)
{
	static uint8_t bytes[4u << 20];
	char path[32];

	for (unsigned v = 0; v < STAGE_VOLUMES; v++) {
		snprintf(path, sizeof(path), "/vol/v%u", v);
		sim_file_peek(stage->standby, path, 0, bytes, stage->volume_bytes);
		for (uint64_t i = 0; i < stage->volume_bytes; i++)
			if (bytes[i] != stage->content[v][i])
				sim_fail(stage->world, "%s: volume %u differs at %lu", what, v,
					 (unsigned long)i);
	}
}

/* ---- history ----------------------------------------------------------------------------------
 */

struct stage_write {
	unsigned volume;
	uint64_t off;
	uint32_t len;
	uint64_t id; /* 0: discard */
	bool packs;
};

static inline void stage_note(struct stage *stage, const struct stage_write *write)
{
	if (write->id)
		stage_pattern(stage->content[write->volume] + write->off, write->len, write->id,
			      write->packs);
	else
		memset(stage->content[write->volume] + write->off, 0, write->len);
}

/* Makes the next segment of the history, does not send it. Returns its number. */
static inline unsigned stage_make(struct stage *stage, const struct stage_write *writes,
				  unsigned count)
{
	struct stage_segment *segment = &stage->segments[++stage->count];
	static uint8_t data[SEGMENT_DATA_MAX_BYTES], table[SEGMENT_RECORDS_MAX * RECORD_BYTES];
	static uint8_t stored[SEGMENT_TOTAL_MAX_BYTES] __attribute__((aligned(4096)));
	struct segment_header *header = &segment->header;

	sim_check(stage->world, stage->count <= STAGE_SEGMENTS);
	memset(segment, 0, sizeof(*segment));
	header->group = stage->hello.group_uuid;
	header->epoch = stage->hello.epoch;
	header->first_seq = stage->next_seq;
	header->records = count;
	header->first_time_ns = header->last_time_ns = sim_now(stage->world) + 1000;
	header->durable_seq = stage->next_seq - 1;
	header->chain = stage->chain;
	header->writer = 77;
	header->bytes_end = stage->bytes;
	for (unsigned i = 0; i < count; i++) {
		struct record record = { .type = writes[i].id ? RECORD_WRITE : RECORD_DISCARD,
					 .volume = (uint16_t)writes[i].volume,
					 .offset_bytes = writes[i].off,
					 .length_bytes = writes[i].len };

		if (writes[i].id) {
			uint8_t *bytes = data + header->data_raw_bytes;

			stage_pattern(bytes, writes[i].len, writes[i].id, writes[i].packs);
			record.data_off = header->data_raw_bytes;
			record.data_crc = crc32c(0, bytes, writes[i].len);
			header->data_raw_bytes += writes[i].len;
		}
		header->bytes_end += writes[i].len;
		record_encode(&record, table + (size_t)i * RECORD_BYTES);
	}
	segment_seal(header, table, data, stored);
	segment->bytes = sim_alloc(stage->world, header->total_bytes);
	memcpy(segment->bytes, stored, header->total_bytes);
	segment->chain_next = segment_chain(stored);
	stage->chain = segment->chain_next;
	stage->next_seq += count;
	stage->bytes = header->bytes_end;
	return stage->count;
}

/* The same, and the content that it leads to. */
static inline unsigned stage_write(struct stage *stage, unsigned volume, uint64_t off, uint32_t len,
				   uint64_t id)
{
	struct stage_write write = { volume, off, len, id, id % 2 == 0 };

	if (volume < STAGE_VOLUMES)
		stage_note(stage, &write);
	return stage_make(stage, &write, 1);
}

#include "tests/unit/engine/stage_link.h"

/* ---- connecting -------------------------------------------------------------------------------
 */

static inline void stage_meet(struct stage *stage)
{
	if (!stage->dial_ok || !stage->accept_ok)
		return;
	stage->dial_ok = stage->accept_ok = false;
	link_start(stage->link, stage->dialled);
	if (!stage->group) { /* it crashed in between */
		stage->dial_failed = true;
		return;
	}
	engine_group_connect(stage->group, stage->accepted, &stage->hello);
	stage->connected = true;
}

static inline void stage_accepted(struct io_op *op, int64_t res)
{
	struct stage *stage = container_of(op, struct stage, accept_op);

	if (res < 0)
		return;
	stage->accept_ok = true;
	stage_meet(stage);
	io_accept(stage->listener, &stage->accepted, &stage->accept_op);
}

static inline void stage_dialled(struct io_op *op, int64_t res)
{
	struct stage *stage = container_of(op, struct stage, dial_op);

	stage->dial_ok = res >= 0;
	stage->dial_failed = res < 0;
	stage_meet(stage);
}

static inline bool stage_is_connected(void *context)
{
	struct stage *stage = context;

	return stage->connected || stage->dial_failed;
}

/* Connects and says what is in stage->hello; a connection that is there is left behind. */
static inline bool stage_try_dial(struct stage *stage)
{
	struct io_address address = { .text = "standby:7400" };

	link_close(stage->link);
	stage->hello.head.seq = stage->next_seq - 1;
	stage->hello.head.bytes = stage->bytes;
	stage->hello.head.epoch = stage->hello.epoch;
	stage->welcomed = stage->refused = stage->said_bye = stage->ended = false;
	stage->acked = stage->sync_acked = 0;
	stage->range_count = stage->range_frames = 0;
	stage->ranges_ended = false;
	stage->asked = stage->answered = stage->differing = 0;
	stage->connected = stage->dial_ok = stage->dial_failed = stage->accept_ok = false;
	memset(&stage->ack, 0, sizeof(stage->ack));
	stage->dial_op.done = stage_dialled;
	io_connect(sim_node_io(stage->primary), &address, &stage->dialled, &stage->dial_op);
	return stage_until(stage, stage_is_connected) && stage->connected;
}

static inline void stage_dial(struct stage *stage)
{
	sim_check(stage->world, stage_try_dial(stage));
}

static inline void stage_dial_welcome(struct stage *stage)
{
	stage_dial(stage);
	if (!stage_until(stage, stage_is_welcomed))
		sim_fail(stage->world, "no welcome: %s", stage->refuse.text);
}

static inline void stage_dial_refused(struct stage *stage, enum link_refuse_code code)
{
	stage_dial(stage);
	sim_check(stage->world, stage_until(stage, stage_is_refused));
	if (stage->refuse.code != code)
		sim_fail(stage->world, "refused with %s, not %s: %s",
			 link_refuse_text(stage->refuse.code), link_refuse_text(code),
			 stage->refuse.text);
	sim_check(stage->world, !stage->welcomed && stage->refuse.text[0]);
}

/* The session must end by the standby's BYE whose words contain `words`. */
static inline void stage_expect_bye(struct stage *stage, const char *words)
{
	sim_check(stage->world, stage_until(stage, stage_is_over));
	if (!stage->said_bye || !strstr(stage->bye.text, words))
		sim_fail(stage->world, "no BYE with \"%s\": \"%s\" \"%s\"", words, stage->bye.text,
			 stage->refused ? stage->refuse.text : "");
}

static inline void stage_resume(struct stage *stage)
{
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->welcome.durable.seq + 1 });
}

/* The same, and sends again what the standby does not hold. One record to a segment. */
static inline void stage_resend(struct stage *stage)
{
	stage_resume(stage);
	for (unsigned i = 1; i <= stage->count; i++)
		if (stage->segments[i].header.first_seq > stage->welcome.durable.seq)
			stage_send_segment(stage, i);
}

/* ---- the standby -------------------------------------------------------------------------------
 */

static inline void stage_on_started(void *owner, struct engine_group *group, int res)
{
	struct stage *stage = owner;

	(void)group;
	stage->starts++;
	stage->started = res;
}

static inline void stage_on_stopped(void *owner, struct engine_group *group, int res)
{
	struct stage *stage = owner;

	(void)group;
	stage->stops++;
	stage->stopped = res;
}

static inline void stage_begin_engine(struct stage *stage)
{
	struct io *io = sim_node_io(stage->standby);
	struct io_address address = { .text = "standby:7400" };
	struct engine_options options = { .io = io,
					  .conf = &stage->conf,
					  .group = &stage->group_conf,
					  .events = { stage, stage_on_started, stage_on_stopped } };

	stage->starts = stage->stops = 0;
	sim_check(stage->world, io_listen(io, &address, &stage->listener) == 0);
	memset(&stage->accept_op, 0, sizeof(stage->accept_op));
	stage->accept_op.done = stage_accepted;
	io_accept(stage->listener, &stage->accepted, &stage->accept_op);
	sim_check(stage->world, engine_group_new(&options, &stage->group) == 0);
	engine_group_start(stage->group);
}

static inline int stage_start_engine(struct stage *stage)
{
	stage_begin_engine(stage);
	sim_check(stage->world, stage_until(stage, stage_is_started));
	return stage->started;
}

static inline void stage_stop_engine(struct stage *stage)
{
	engine_group_stop(stage->group);
	sim_check(stage->world, stage_until(stage, stage_is_stopped));
	stage->group = engine_group_free(stage->group);
	io_listener_close(stage->listener);
	sim_run_for(stage->world, SIM_MS);
}

static inline void stage_crash(struct stage *stage, enum sim_crash kind)
{
	sim_node_crash(stage->standby, kind);
	sim_node_restart(stage->standby);
	stage->group = NULL;
}

static inline void stage_on_promoted(struct engine_promote *promote)
{
	container_of(promote, struct stage, promote)->promote_done = true;
}
static inline bool stage_is_promoted(void *context)
{
	return ((struct stage *)context)->promote_done;
}

static inline void stage_begin_promote(struct stage *stage, bool force)
{
	stage->promote = (struct engine_promote){ .force = force, .done = stage_on_promoted };
	stage->promote_done = false;
	engine_group_promote(stage->group, &stage->promote);
}

static inline int stage_promote(struct stage *stage, bool force)
{
	stage_begin_promote(stage, force);
	sim_check(stage->world, stage_until(stage, stage_is_promoted));
	return stage->promote.res;
}

/* The superblock as it is on the disk. */
static inline void stage_superblock(struct stage *stage, struct superblock *ret_sb)
{
	static uint8_t file[SUPERBLOCK_FILE_BYTES];
	unsigned slot;

	sim_file_peek(stage->standby, STAGE_DIR "/superblock", 0, file, sizeof(file));
	sim_check(stage->world, superblock_choose(file, ret_sb, &slot) == 0);
}

/* ---- making it ---------------------------------------------------------------------------------
 */

struct stage_wait {
	struct io_op op;
	bool done;
	int64_t res;
};

static inline void stage_waited(struct io_op *op, int64_t res)
{
	struct stage_wait *wait = container_of(op, struct stage_wait, op);

	wait->done = true;
	wait->res = res;
}

static inline bool stage_wait_done(void *context)
{
	return ((struct stage_wait *)context)->done;
}

static inline void stage_init_group(struct stage *stage)
{
	static struct group_init init;
	static struct superblock sb;
	struct stage_wait wait = { .op.done = stage_waited };
	struct group_init_volume volumes[STAGE_VOLUMES] = { { "v0", "/vol/v0" },
							    { "v1", "/vol/v1" } };

	init = (struct group_init){ .io = sim_node_io(stage->standby),
				    .state_dir = "/state",
				    .group = "g",
				    .role = GROUP_STANDBY,
				    .journal_file_bytes = stage->slot_bytes,
				    .journal_files = stage->slots,
				    .volumes = volumes,
				    .volume_count = STAGE_VOLUMES,
				    .sb = &sb };
	group_init_run(&init, &wait.op);
	sim_check(stage->world, sim_run_until(stage->world, stage_wait_done, &wait, STAGE_LIMIT));
	if (wait.res)
		sim_fail(stage->world, "init: %s", init.error);
}

static inline void stage_make_conf(struct stage *stage)
{
	static char node[] = "standby.example", state_dir[] = "/state", name[] = "g";
	static char names[STAGE_VOLUMES][8] = { "v0", "v1" };
	static char paths[STAGE_VOLUMES][16] = { "/vol/v0", "/vol/v1" };

	stage->conf = (struct conf){
		.node = node, .state_dir = state_dir, .groups = &stage->group_conf, .group_count = 1
	};
	for (unsigned i = 0; i < STAGE_VOLUMES; i++)
		stage->volumes[i] = (struct conf_volume){ names[i], paths[i] };
	stage->group_conf = (struct conf_group){ .name = name,
						 .memory_bytes = 5u << 20,
						 .checkpoint_interval_ns = 100 * SIM_MS,
						 .heartbeat_interval_ns = 200 * SIM_MS,
						 .peer_timeout_ns = 2 * SIM_SECOND,
						 .volumes = stage->volumes,
						 .volume_count = STAGE_VOLUMES };
}

static inline void stage_make_hello(struct stage *stage)
{
	struct link_hello *hello = &stage->hello;

	hello->protocol_min = hello->protocol_max = PROTOCOL_VERSION;
	snprintf(hello->software, sizeof(hello->software), "test");
	snprintf(hello->node, sizeof(hello->node), "primary.example");
	snprintf(hello->group, sizeof(hello->group), "g");
	hello->group_uuid = uuid_from_random_u64(1, 2);
	hello->epoch = 1;
	hello->session = 1;
	hello->history_count = 1;
	hello->history[0] = (struct history_entry){ 1, 1 };
	hello->volume_count = STAGE_VOLUMES;
	for (unsigned i = 0; i < STAGE_VOLUMES; i++) {
		struct superblock_volume *volume = &hello->volumes[i];

		/* In another order, and with other ids, than the standby's own. */
		volume->id = (uint16_t)(STAGE_VOLUMES - 1 - i);
		volume->uuid = uuid_from_random_u64(5, 6 + volume->id);
		volume->size_bytes = stage->volume_bytes;
		snprintf(volume->name, sizeof(volume->name), "v%u", volume->id);
	}
	stage->next_seq = 1;
	stage->chain = segment_chain_root(&hello->group_uuid);
}

/* Volumes that hold something else than the primary's, a standby's directory, the engine started.
 */
static inline void stage_open(struct sim_world *world, void *context)
{
	struct stage *stage = context;
	struct link_events events = { .owner = stage,
				      .place = stage_on_place,
				      .frame = stage_on_frame,
				      .writable = stage_on_writable,
				      .ended = stage_on_ended };
	size_t out_bytes = stage->volume_bytes > STAGE_VOLUME_BYTES ? 32u << 20 : 3u << 20;
	uint8_t dirt[512];

	stage->world = world;
	stage->primary = sim_node_new(world, "primary");
	stage->standby = sim_node_new(world, "standby");
	memset(dirt, 0xdd, sizeof(dirt));
	for (unsigned i = 0; i < STAGE_VOLUMES; i++) {
		char path[16];

		snprintf(path, sizeof(path), "/vol/v%u", i);
		sim_file_make(stage->standby, path, stage->volume_bytes, false, false);
		stage->content[i] = sim_alloc(world, stage->volume_bytes);
		for (uint64_t off = 0; off < stage->volume_bytes; off += sizeof(dirt)) {
			sim_file_poke(stage->standby, path, off, dirt, sizeof(dirt));
			memcpy(stage->content[i] + off, dirt, sizeof(dirt));
		}
	}
	stage_make_conf(stage);
	stage_make_hello(stage);
	sim_check(world,
		  link_new(sim_node_io(stage->primary), out_bytes, &events, &stage->link) == 0);
	stage_init_group(stage);
	sim_check(world, stage_start_engine(stage) == 0);
	stage->body(stage);
}

/* A stage with its own numbers; 0 = the usual. */
static inline void stage_run_sized(void (*body)(struct stage *stage), uint64_t seed,
				   uint64_t volume_bytes, uint64_t slot_bytes, uint32_t slots)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	struct sim_options options;
	struct sim_world *world;
	bool held;

	log_set_level(LOG_LEVEL_ERROR);
	sim_options_calm(&options);
	world = sim_new(seed, &options);
	assert_non_null(stage);
	stage->body = body;
	stage->volume_bytes = volume_bytes ? volume_bytes : STAGE_VOLUME_BYTES;
	stage->slot_bytes = slot_bytes ? slot_bytes : STAGE_SLOT_BYTES;
	stage->slots = slots ? slots : STAGE_SLOTS;
	held = sim_run(world, stage_open, stage);
	sim_free(world);
	free(stage);
	assert_true(held);
}

static inline void stage_run(void (*body)(struct stage *stage))
{
	stage_run_sized(body, 1, 0, 0, 0);
}

/* First copy: every byte of both volumes, so that the standby is consistent; content `id`. */
static inline void stage_first_copy(struct stage *stage, uint64_t id)
{
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.empty);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq,
						      .sync = true,
						      .reset = true,
						      .base = { .epoch = stage->hello.epoch,
								.seq = stage->next_seq - 1,
								.chain = stage->chain,
								.bytes = stage->bytes },
						      .sync_bytes = 2 * stage->volume_bytes });
	stage->copied = 0;
	for (unsigned v = 0; v < STAGE_VOLUMES; v++) {
		for (uint64_t off = 0; off < stage->volume_bytes; off += STAGE_EXTENT_BYTES) {
			stage_send_extent(stage, v, off, STAGE_EXTENT_BYTES, id + off + v, v == 1);
			stage->copied++;
		}
	}
	stage_send_end(stage, stage->next_seq - 1);
	stage->copied++;
}

static inline bool stage_is_consistent(void *context)
{
	return stage_status(context)->consistent;
}

/* First copy, and wait until it is whole. */
static inline void stage_fill(struct stage *stage)
{
	stage_first_copy(stage, 1000);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == stage->copied);
	stage_check_volumes(stage, "first copy");
}

#endif
