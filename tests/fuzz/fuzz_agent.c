/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A primary, in a simulated world, and what somebody with its standby's certificate answers: the
 * input is a script of welcomes, acknowledgements, refusals, any frame, silence and cuts, between
 * writes of a client.
 *
 * Whatever comes: no invariant breaks, the primary goes on serving unless a higher epoch was named,
 * every write is answered, it stops cleanly, and serves again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "core/base/endian.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/group/group_dir.h"
#include "core/group/init.h"
#include "core/group/link.h"
#include "proto/link.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/sim.h"

#define VOLUME_BYTES (64u << 10)
#define SLOT_BYTES   98304u
#define SLOTS	     8u
#define WRITES_MAX   64u
#define STEPS_MAX    96u
#define LIMIT	     (60 * SIM_SECOND)

struct write {
	struct export_request request;
	bool done;
};

static struct play {
	struct sim_world *world;
	struct sim_node *alpha, *beta;
	struct conf conf;
	struct conf_group group_conf;
	struct conf_volume volume;
	struct conf_peer peer;
	struct io_tls *alpha_tls, *beta_tls;

	struct agent_group *group;
	int started, failed, stopped;
	bool is_started, has_failed, is_stopped;
	struct write writes[WRITES_MAX];
	unsigned write_count;
	uint8_t data[4096] __attribute__((aligned(4096)));

	struct link *link;
	struct io_listener *listener;
	struct io_stream *stream;
	struct io_op accept_op, tls_op;
	struct link_hello hello;
	uint64_t sent_seq, epoch_said;
	uint64_t asked, answered; /* ranges to compare, in this connection */
	uint8_t place[SEGMENT_TOTAL_MAX_BYTES];
	struct status_group status;
	struct group_init init;
	struct superblock sb;
	struct io_op init_op;
	bool init_done;
	int64_t init_res;
} play;

static struct {
	const uint8_t *at, *end;
} script;

static uint64_t take(unsigned bytes)
{
	uint64_t value = 0;

	for (; bytes > 0 && script.at < script.end; bytes--)
		value = value << 8 | *script.at++;
	return value;
}

static uint64_t number(void)
{
	switch (take(1) % 8) {
	case 0:
		return 0;
	case 1:
		return 1;
	case 2:
		return play.sent_seq;
	case 3:
		return play.sent_seq + 1;
	case 4:
		return play.hello.head.seq;
	case 5:
		return UINT64_MAX;
	case 6:
		return take(1);
	default:
		return take(8);
	}
}

/* ---- the standby by hand -----------------------------------------------------------------------
 */

static uint8_t *on_place(void *owner, const struct frame *frame)
{
	(void)owner;
	return frame->body_bytes <= sizeof(play.place) ? play.place : NULL;
}

static int on_frame(void *owner, const struct frame *frame, const uint8_t *body)
{
	(void)owner;
	switch (frame->type) {
	case FRAME_HELLO:
		sim_check(play.world, link_hello_unpack(body, frame->body_bytes, &play.hello) == 0);
		break;
	case FRAME_SEGMENT:
		play.sent_seq = frame->arg1;
		break;
	case FRAME_START:
		play.asked = play.answered = 0;
		break;
	case FRAME_SYNC_HASH:
		play.asked++;
		break;
	default:
		break;
	}
	return 0;
}

static void on_writable(void *owner)
{
	(void)owner;
}

static void on_ended(void *owner, int res, const char *text)
{
	(void)owner;
	(void)res;
	(void)text;
	link_close(play.link);
}

static void accept_next(void);

static void shaken(struct io_op *op, int64_t res)
{
	(void)op;
	if (res < 0)
		io_stream_close(play.stream);
	else
		link_start(play.link, play.stream);
	accept_next();
}

static void accepted(struct io_op *op, int64_t res)
{
	(void)op;
	if (res < 0)
		return;
	play.tls_op.done = shaken;
	io_start_tls(play.stream, play.beta_tls, true, NULL, &play.tls_op);
}

static void accept_next(void)
{
	play.accept_op.done = accepted;
	io_accept(play.listener, &play.stream, &play.accept_op);
}

static void say(struct frame *frame, const void *body)
{
	if (frame->epoch > play.epoch_said)
		play.epoch_said = frame->epoch;
	if (link_is_open(play.link))
		(void)link_send(play.link, frame, body);
}

static void welcome(void)
{
	static struct link_welcome welcome;
	static uint8_t body[FRAME_CONTROL_MAX_BYTES];
	struct frame frame = { .type = FRAME_WELCOME, .epoch = 1 };
	uint64_t how = take(1);
	int len;

	memset(&welcome, 0, sizeof(welcome));
	welcome.protocol = PROTOCOL_VERSION;
	memcpy(welcome.node, "beta", 5);
	welcome.epoch = 1;
	welcome.durable.epoch = 1;
	welcome.durable.seq = how & 1 ? number() : 0;
	welcome.durable.chain = how & 2 ? number() : 0;
	welcome.applied_seq = min_u64(how & 4 ? number() : 0, welcome.durable.seq);
	welcome.syncing = how & 8;
	welcome.empty = how & 16;
	welcome.seeded = how & 4;
	welcome.window_bytes = how & 32 ? number() : 1u << 20;
	welcome.history_count = how & 64 ? (uint32_t)take(1) % 3 : 1;
	for (uint32_t i = 0; i < welcome.history_count; i++)
		welcome.history[i] = (struct history_entry){ i + 1, how & 128 ? number() : 1 };
	len = link_welcome_pack(&welcome, body, sizeof(body));
	if (len < 0)
		return;
	frame.body_bytes = (uint32_t)len;
	say(&frame, body);
}

/* What it holds otherwise: as many frames as WELCOME said, more or less. */
static void ranges(uint64_t frames)
{
	uint8_t body[8 * FRAME_RANGE_BYTES];

	while (frames-- > 0) {
		unsigned count = (unsigned)take(1) % 9;
		struct frame frame = { .type = FRAME_RANGES,
				       .epoch = 1,
				       .seq = frames == 0,
				       .body_bytes = count * FRAME_RANGE_BYTES };

		for (unsigned i = 0; i < count; i++) {
			uint8_t *entry = body + i * FRAME_RANGE_BYTES;

			le64_put(entry, take(1) % 8 ? take(1) % 16 * 4096 : number());
			le32_put(entry + 8, take(1) % 8 ? 8 : (uint32_t)number());
			le16_put(entry + 12,
				 take(1) % 8 ? play.hello.volumes[0].id : (uint16_t)take(2));
			le16_put(entry + 14, 0);
		}
		say(&frame, body);
	}
}

static void comes_back(void)
{
	static struct link_welcome welcome;
	static uint8_t body[FRAME_CONTROL_MAX_BYTES];
	struct frame frame = { .type = FRAME_WELCOME, .epoch = 1 };
	uint64_t how = take(1);

	memset(&welcome, 0, sizeof(welcome));
	welcome.protocol = PROTOCOL_VERSION;
	memcpy(welcome.node, "beta", 5);
	welcome.epoch = 1;
	welcome.durable.epoch = 1;
	welcome.durable.seq = how & 1 ? number() : play.hello.head.seq + how % 3;
	welcome.applied_seq = welcome.durable.seq;
	welcome.window_bytes = 1u << 20;
	welcome.diverged = true;
	welcome.common_seq = min_u64(how & 2 ? number() : how >> 6, welcome.durable.seq);
	welcome.common_chain = how & 4 ? play.hello.head.chain : number();
	welcome.ranges = how & 8 ? take(1) : how >> 4 & 3;
	welcome.history_count = 1;
	welcome.history[0] = (struct history_entry){ 1, 1 };
	frame.body_bytes = (uint32_t)link_welcome_pack(&welcome, body, sizeof(body));
	say(&frame, body);
	ranges(min_u64(welcome.ranges, 4));
}

static void refusal(void)
{
	static uint8_t body[FRAME_CONTROL_MAX_BYTES];
	struct link_refuse refuse = { .code = (uint32_t)take(1) % (LINK_REFUSE_MAX + 1),
				      .text = "no" };
	struct frame frame = { .type = FRAME_REFUSE, .epoch = take(1) % 3 };

	refuse.epoch = take(1) % 4 ? 1 : number();
	if (refuse.epoch > play.epoch_said)
		play.epoch_said = refuse.epoch;
	frame.body_bytes = (uint32_t)link_refuse_pack(&refuse, body, sizeof(body));
	say(&frame, body);
}

static void any_frame(void)
{
	static uint8_t body[8192];
	struct frame frame = {
		.type = (uint16_t)(take(1) % (FRAME_TYPE_MAX + 2)),
		.flags = (uint16_t)take(1) & 3,
		.epoch = take(1) % 3,
		.body_bytes = (uint32_t)(take(1) * 32),
		.seq = number(),
		.arg1 = number(),
		.arg2 = number(),
	};

	for (uint32_t i = 0; i < frame.body_bytes && i < 32; i++)
		body[i] = (uint8_t)take(1);
	/* A refusal's body may name any epoch. */
	if (frame.type == FRAME_REFUSE)
		return;
	say(&frame, body);
}

/* ---- the primary -------------------------------------------------------------------------------
 */

static void on_started(void *owner, struct agent_group *group, int res)
{
	(void)owner;
	(void)group;
	play.is_started = true;
	play.started = res;
}

static void on_failed(void *owner, struct agent_group *group, int res)
{
	(void)owner;
	(void)group;
	play.has_failed = true;
	play.failed = res;
}

static void on_stopped(void *owner, struct agent_group *group, int res)
{
	(void)owner;
	(void)group;
	play.is_stopped = true;
	play.stopped = res;
}

static bool is_true(void *context)
{
	return *(bool *)context;
}

static void wait_for(bool *flag)
{
	sim_check(play.world, sim_run_until(play.world, is_true, flag, LIMIT));
}

static void start(void)
{
	const struct agent_options options = {
		.io = sim_node_io(play.alpha),
		.conf = &play.conf,
		.group = &play.group_conf,
		.tls = play.alpha_tls,
		.events = { &play, on_started, on_failed, on_stopped },
	};

	play.is_started = play.has_failed = play.is_stopped = false;
	sim_check(play.world, agent_group_new(&options, &play.group) == 0);
	agent_group_start(play.group);
}

static void stop(void)
{
	agent_group_stop(play.group);
	wait_for(&play.is_stopped);
	play.group = agent_group_free(play.group);
}

static void written(struct export_request *request, int64_t res)
{
	struct write *write = container_of(request, struct write, request);

	(void)res;
	write->done = true;
}

static void write_some(void)
{
	struct export *export = play.has_failed || !play.is_started || play.started != 0
					? NULL
					: agent_group_export(play.group, "v");
	struct write *write;

	if (!export || play.write_count == WRITES_MAX)
		return;
	write = &play.writes[play.write_count++];
	memset(write, 0, sizeof(*write));
	write->request.op = EXPORT_WRITE;
	write->request.flags = take(1) & 1 ? EXPORT_FUA : 0;
	write->request.offset_bytes = take(1) % 16 * 4096;
	write->request.length_bytes = 4096;
	write->request.buf = play.data;
	write->request.done = written;
	export->ops->submit(export, &write->request);
}

static void task_done(struct agent_task *task)
{
	(void)task;
}

static void ask(struct agent_task task)
{
	if (play.has_failed || !play.is_started || play.started != 0)
		return;
	task.done = task_done;
	agent_group_task(play.group, &task);
}

static void step(void)
{
	switch (take(1) % 16) {
	case 0:
	case 1:
		welcome();
		break;
	case 2:
		say(&(struct frame){ .type = FRAME_ACK,
				     .epoch = 1,
				     .seq = number(),
				     .arg1 = number(),
				     .arg2 = number() },
		    NULL);
		break;
	case 3:
		say(&(struct frame){ .type = FRAME_ACK,
				     .epoch = 1,
				     .seq = play.sent_seq,
				     .arg2 = play.sent_seq },
		    NULL);
		break;
	case 4:
		say(&(struct frame){ .type = FRAME_SYNC_ACK, .epoch = 1, .seq = number() }, NULL);
		break;
	case 5:
		refusal();
		break;
	case 6:
		any_frame();
		break;
	case 7:
	case 8:
		write_some();
		break;
	case 9:
		sim_run_for(play.world, take(1) * SIM_MS * 4);
		agent_group_status(play.group, &play.status);
		break;
	case 10: /* as they are due, most of them */
		say(&(struct frame){ .type = FRAME_HASH_RESULT,
				     .epoch = 1,
				     .seq = take(1) % 8 ? ++play.answered : number(),
				     .arg1 = take(1) & 1 },
		    NULL);
		break;
	case 11:
		ask((struct agent_task){ .kind = AGENT_VERIFY, .repair = take(1) & 1 });
		break;
	case 12:
		ask((struct agent_task){ .kind = take(1) & 1 ? AGENT_RESYNC : AGENT_VERIFY_STOP,
					 .everything = take(1) & 1,
					 .compare = take(1) & 1 });
		break;
	case 13:
		comes_back();
		break;
	case 14:
		ranges(take(1) % 3);
		break;
	default:
		link_close(play.link);
	}
}

static void finish(void)
{
	bool fenced = play.epoch_said > 1, held;

	wait_for(&play.is_started);
	sim_run_for(play.world, SIM_SECOND);
	/* A standby may say that it holds more than we do: then nothing is served. */
	agent_group_status(play.group, &play.status);
	held = play.status.held[0] && play.started != 0;
	if (!fenced && !held)
		sim_check(play.world, play.started == 0 && !play.has_failed);
	for (unsigned i = 0; i < play.write_count; i++)
		sim_check(play.world, play.writes[i].done);
	stop();
	if (!fenced && !held)
		sim_check(play.world, play.stopped == 0);
	link_close(play.link);
	io_listener_close(play.listener);
	start();
	wait_for(&play.is_started);
	sim_check(play.world, play.started == 0 || (fenced && play.started == -ESTALE) || held);
	stop();
}

/* ---- making it ---------------------------------------------------------------------------------
 */

static void init_over(struct io_op *op, int64_t res)
{
	(void)op;
	play.init_done = true;
	play.init_res = res;
}

static void make_group(void)
{
	static char node[] = "alpha", state_dir[] = "/state", name[] = "g", volume[] = "v";
	static char path[] = "/vol/v", peer[] = "beta", address[] = "beta:7400";
	const struct group_init_volume volumes[] = { { volume, path } };

	play.volume = (struct conf_volume){ volume, path };
	play.peer =
		(struct conf_peer){ .node = peer, .address = address, .window_bytes = 1u << 20 };
	play.conf = (struct conf){
		.node = node, .state_dir = state_dir, .groups = &play.group_conf, .group_count = 1
	};
	play.group_conf = (struct conf_group){
		.name = name,
		.cache = CONF_WRITEBACK,
		.journal_file_bytes = SLOT_BYTES,
		.journal_size_bytes = (uint64_t)SLOT_BYTES * SLOTS,
		.memory_bytes = 1u << 20,
		.checkpoint_interval_ns = 100 * SIM_MS,
		.flush_interval_ns = 5 * SIM_MS,
		.settle_timeout_ns = 500 * SIM_MS,
		.heartbeat_interval_ns = 200 * SIM_MS,
		.peer_timeout_ns = 2 * SIM_SECOND,
		.volumes = &play.volume,
		.volume_count = 1,
		.peers = &play.peer,
		.peer_count = 1,
	};
	play.init = (struct group_init){ .io = sim_node_io(play.alpha),
					 .state_dir = state_dir,
					 .group = name,
					 .role = GROUP_PRIMARY,
					 .journal_file_bytes = SLOT_BYTES,
					 .journal_files = SLOTS,
					 .volumes = volumes,
					 .volume_count = 1,
					 .sb = &play.sb };
	play.init_op.done = init_over;
	group_init_run(&play.init, &play.init_op);
	wait_for(&play.init_done);
	sim_check(play.world, play.init_res == 0);
}

static void run(struct sim_world *world, void *context)
{
	const struct link_events events = { .owner = &play,
					    .place = on_place,
					    .frame = on_frame,
					    .writable = on_writable,
					    .ended = on_ended };
	struct io_address address = { .text = "beta:7400" };
	unsigned steps = 0;

	(void)context;
	play.world = world;
	play.alpha = sim_node_new(world, "alpha");
	play.beta = sim_node_new(world, "beta");
	play.alpha_tls = sim_tls(play.alpha, "alpha", "ca");
	play.beta_tls = sim_tls(play.beta, "beta", "ca");
	sim_file_make(play.alpha, "/vol/v", VOLUME_BYTES, false, true);
	make_group();
	sim_check(world, link_new(sim_node_io(play.beta), 3u << 20, &events, &play.link) == 0);
	sim_check(world, io_listen(sim_node_io(play.beta), &address, &play.listener) == 0);
	accept_next();
	start();
	sim_run_for(world, 50 * SIM_MS);
	while (script.at < script.end && steps++ < STEPS_MAX)
		step();
	finish();
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct sim_options options;
	struct sim_world *world;
	bool held;

	log_set_level(LOG_LEVEL_ERROR);
	script.at = input;
	script.end = input + size;
	memset(&play, 0, sizeof(play));
	sim_options_calm(&options);
	world = sim_new(size, &options);
	held = sim_run(world, run, NULL);
	sim_free(world);
	must(held);
	return 0;
}
