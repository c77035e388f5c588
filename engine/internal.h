/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A standby's group, inside: what the files of engine/ share. One loop thread, no locks.
 *
 *   link -> session.c (dialogue) -> receive.c (segments) -> journal
 *                                -> copy.c (copied extents, in their place between segments)
 *                 acknowledgements <- applier.c (apply, flush, checkpoint, floor) <- journal
 *                                       `-> kept.c (while a copy runs: undo first)
 *
 * Sequence numbers, always in this order:  applied <= durable <= received (appended).
 */
#ifndef HOLDFAST_ENGINE_INTERNAL_H
#define HOLDFAST_ENGINE_INTERNAL_H

#include "core/group/apply.h"
#include "core/group/dirty.h"
#include "core/group/group_dir.h"
#include "core/group/journal.h"
#include "core/group/link.h"
#include "core/group/salvage.h"
#include "core/group/segring.h"
#include "core/group/stamp.h"
#include "core/group/tail.h"
#include "core/group/undo.h"
#include "core/group/volume.h"
#include "engine/engine.h"
#include "proto/frame.h"

/* Each is synchronous: as many as J5 allows, or a primary that is not would run away. */
#define ENGINE_JOURNAL_WRITES_MAX JOURNAL_WINDOW_MAX
#define ENGINE_APPLY_RECORDS	  4096u
#define ENGINE_BATCH_SEGMENTS	  256u	     /* of one apply batch */
#define ENGINE_ARENA_BYTES	  (4u << 20) /* data of segments read back for apply */
#define ENGINE_SYNC_BUFFERS	  8u	     /* of FRAME_SYNC_MAX_BYTES */
#define ENGINE_SYNC_ITEMS	  1024u	     /* copied extents received and not yet applied */
#define ENGINE_HASH_READS	  4u   /* ranges compared at a time; FRAME_SYNC_MAX_BYTES each */
#define ENGINE_HASHES_MAX	  256u /* questions of a session that are not answered */
#define ENGINE_LINK_OUT_BYTES	  (2u * (FRAME_BYTES + SEGMENT_TOTAL_MAX_BYTES))
#define ENGINE_STEP_NS		  2000000ull /* how often a state that waits looks again */

enum engine_state {
	ENGINE_STOPPED,
	ENGINE_STARTING,
	ENGINE_FOREIGN, /* primary or fenced here: nothing is open, HELLOs are answered by the
			   superblock */
	ENGINE_READY,
	ENGINE_PROMOTING,
	ENGINE_STOPPING,
	ENGINE_FAILED, /* everything is closed, then it starts over by itself */
};

enum session_state {
	SESSION_NONE,
	SESSION_CHECKING, /* accepted; waits until what was received before is durable */
	SESSION_WELCOMED,
	SESSION_STARTING, /* START is being made durable */
	SESSION_STREAMING,
};

struct session {
	enum session_state state;
	uint64_t number;	  /* grows with every session */
	struct io_stream *stream; /* CHECKING: not yet the link's */
	struct link_hello hello;
	struct link_start start;
	bool sync_open;	      /* SYNC frames may come */
	bool diverged;	      /* what is here behind the common seq is given up: V2 */
	bool probed;	      /* CHECKING: it is known whether there is content to compare with */
	uint64_t readable_ns; /* when we last were willing to read */
};

enum copy_kind {
	COPY_DATA,
	COPY_ZERO,
	COPY_END,
	COPY_VOID,
	COPY_HASH, /* no content: a question, compare.c */
};

struct copy_item {
	uint64_t after_seq; /* goes behind the segment with this last seq, before the next one */
	uint64_t off, len, stamp;
	uint16_t volume;
	uint8_t kind;
	uint8_t buffer;			/* DATA */
	uint8_t hash[FRAME_HASH_BYTES]; /* HASH */
	bool counted;			/* belongs to the present session, so SYNC_ACK counts it */
};

struct copy_state {
	struct copy_item *items; /* circular, in order of arrival */
	unsigned first, count;
	unsigned added; /* of the first ones: in the running batch */
	uint8_t *buffers[ENGINE_SYNC_BUFFERS];
	bool used[ENGINE_SYNC_BUFFERS];
	uint8_t *packed;  /* where the body of an LZ4 frame lands */
	int placing;	  /* buffer that the frame under way goes to; -1 none */
	bool end_reached; /* SYNC_END was reached; consistent once applied_seq >= end_seq */
	bool end_counted;
	uint64_t end_seq;
	uint64_t applied_frames, durable_frames, acked_frames; /* of the present session */
	unsigned unflushed; /* items applied since the last flush began */
	uint64_t total_bytes, done_bytes, left_bytes, started_ns;
};

struct compare_read { /* of a question that is being answered */
	struct io_op op;
	struct engine_group *group;
	struct volume *volume;
	uint64_t session, off, len;
	uint8_t hash[FRAME_HASH_BYTES];
	uint8_t *buf;
	bool same;
};

struct compare_answer {
	uint64_t cycle; /* to be said once that many cycles have flushed */
	bool differs;
};

struct compare_state {
	struct compare_read reads[ENGINE_HASH_READS];
	unsigned running, left;
	struct compare_answer answers[ENGINE_HASHES_MAX]; /* circular, of the present session */
	unsigned first, count;
	unsigned open;	   /* questions of the present session without an answer sent */
	uint64_t answered; /* answers sent in it */
	uint64_t cycles_begun, cycles_done;
	bool seeded;   /* an empty standby's volumes hold something */
	int flush_res; /* of the last flush that failed in a copy; 0 again when the copy is done */
	unsigned probe_at;
	uint8_t *probe;
};

/* What is known of the primary. */
struct heard {
	bool ever;	  /* anything, also before a restart */
	bool live;	  /* since this start: at_ns is valid */
	uint64_t at_ns;	  /* io_now() of the last report */
	uint64_t wall_ns; /* our wall clock then */
	uint64_t any_ns;  /* io_now() of the last byte; 0 = none since the start */
	uint64_t head_seq, head_bytes;
	bool behind_known;
	uint64_t behind_ns; /* as the primary told with that report */
	uint32_t mode;	    /* enum link_mode: what it promised then; LINK_ASYNC when not known */
};

enum cycle_state {
	CYCLE_IDLE,
	CYCLE_FLUSHING,
	CYCLE_STORING
};

/* rejoin.c: a copy that holds what the ruling history does not. */
struct rejoin {
	bool diverged;		    /* a primary has come that lacks what is here */
	uint64_t common_seq, epoch; /* of that primary */
	char node[NODE_NAME_MAX + 1];
	uint64_t parted_epoch; /* its primary says that nothing is known to be common; 0 = none */
	char parted_node[NODE_NAME_MAX + 1]; /* who said so; another one may be the right one */
	enum {
		REJOIN_IDLE,
		REJOIN_RUNNING,
		REJOIN_READY
	} state;
	int res;
	struct salvage *salvage;
	struct dirty_map *ranges;
	uint64_t first_seq, last_seq; /* that were salvaged */
	uint64_t chain;		      /* at first_seq; 0 = not known */
	bool everything;	      /* the ranges do not say all */
	/* sending the ranges */
	uint64_t gap, left;
	uint32_t held;
	struct io_op op;
	/* the ruling epoch on its way to the disk */
	bool storing;
	struct io_op store_op;
	struct group_dir_store store;
};

struct grow { /* resize.c */
	bool busy;
	unsigned index;
	uint64_t off, end;
	uint64_t theirs[GROUP_VOLUMES_MAX]; /* the size that the last START brought; 0 = none yet */
	uint64_t ready[GROUP_VOLUMES_MAX]; /* zeroed up to here, durably; 0 = not beyond its size */
	struct io_op op;
};

struct engine_group {
	struct io *io;
	struct engine_options options;
	const struct conf_group *conf;
	enum engine_state state;
	char detail[STATUS_TEXT_MAX];

	struct group_dir dir;
	struct volumes volumes;
	struct segring ring;
	struct journal journal;
	struct tail tail;
	struct apply apply;
	bool dir_open, volumes_open, journal_open, tail_open;

	/* life */
	struct io_op state_op; /* start, peek, START, promote: one at a time */
	struct group_dir_store state_store;
	bool op_busy;
	bool reported, stop_wanted;
	int fail_res;
	char told[STATUS_TEXT_MAX]; /* the last failure in the log, until it is over */
	struct io_timer step_timer;
	uint64_t retry_ns, retry_at_ns, ready_ns, stop_since_ns;
	bool closed; /* FAILED: everything is closed */
	enum {
		STOP_DRAIN,
		STOP_FINAL,
		STOP_CLOSE
	} stop_phase;

	/* session */
	struct session session;
	struct link_hello offer; /* of a connection that is being judged */
	struct io_stream *offer_stream;
	struct link *link, *refuse_link;
	struct io_timer watch_timer;
	uint8_t control[FRAME_CONTROL_MAX_BYTES];
	struct link_welcome welcome;
	struct io_op turn_op; /* end of turn: acknowledge */
	bool turn_pending;
	struct session_begin { /* START on its way to the disk; goes on when the session ends */
		uint64_t session;
		bool reset;
		struct journal_position base;
	} begin;
	char source[NODE_NAME_MAX + 1];
	struct heard heard;

	/* receive */
	struct segment *receiving; /* block that the SEGMENT frame under way goes to */
	bool place_wanted;	   /* the link waits for room */
	struct list held;	   /* of segment: received, kept in memory for apply; seq order */
	uint64_t durable_bytes, durable_time_ns;
	uint64_t last_writer; /* of the segment with the last durable seq; 0 = not known */

	struct copy_state copy;
	struct compare_state compare;

	/* drain */
	bool hold;     /* no new batch, no new cycle: START changes what they rely on */
	bool draining; /* a batch is being gathered or runs */
	struct segment *batch[ENGINE_BATCH_SEGMENTS];
	unsigned batch_count;
	size_t arena_used;
	uint8_t *arena;
	uint64_t applied_seq;
	struct journal_position applied_at, batch_at;
	struct io_op drain_op;
	struct io_timer checkpoint_timer, sync_timer;

	/* a cycle: flush the volumes, then (if it is a checkpoint) store the superblock */
	enum cycle_state cycle;
	bool cycle_store, again, again_store;
	bool cycle_end; /* this cycle makes the copy consistent */
	struct io_op cycle_op;
	struct group_dir_store cycle_group_store;
	struct journal_position cycle_at, checkpoint_at;
	uint64_t cycle_frames, cycle_session, stored_heard_ns;

	/* promote */
	struct engine_promote *promote;
	bool promote_over;
	uint64_t promote_since_ns;
	struct io_timer promote_timer;
	struct {
		struct engine_promote promote;
		bool active; /* the promote under way, or its answer, is that of a HANDOVER */
	} handover;

	struct rejoin rejoin;
	struct grow grow;
	struct stamp stamp; /* of a start or a clean stop: suspect.c */
	struct superblock_stamp stamps[GROUP_VOLUMES_MAX];

	/* the position that a copy keeps: kept.c, rollback.c */
	struct undo *undo; /* while the volumes are open */
	struct {
		uint64_t id; /* of the log that begins */
		struct io_op op;
		struct io_timer timer; /* running: a batch waits for room */
		bool saving;	       /* a batch is being saved */
		bool over;	       /* the log goes as soon as that is done */
		bool dropped;	       /* by the start, as a task asked */
		bool told_full;
		char lost[STATUS_TEXT_MAX]; /* a position was given up, and why */
	} kept;
	struct {
		bool wanted;  /* by the promote under way */
		bool running; /* check or roll back */
		bool anew;    /* K5: the log is damaged, why is in text */
		char text[STATUS_TEXT_MAX];
		struct io_timer timer;
	} rollback;

	/* task */
	struct engine_task *task;
	bool task_over, task_storing;
	char task_text[64];
	struct io_timer task_timer;
	struct io_op task_op;
	struct group_dir_store task_dir_store;

	/* counters */
	uint64_t received_segments, received_bytes, raw_bytes, stored_bytes, writes, written_bytes;
	uint64_t rejected_epoch, rejected_corrupt, checkpoints, errors;
};

/* group.c */
void standby_fail(struct engine_group *group, int res, const char *text);
void standby_journal_failed(void *owner, int res, const char *text);
void standby_step(
	struct engine_group *group); /* something that a waiting state waits for has happened */
void standby_poke(struct engine_group *group);	/* look again soon, and until it is done */
void standby_ready(struct engine_group *group); /* open.c: everything is open */
void standby_foreign(
	struct engine_group *group); /* nothing is open; dir.sb says who it belongs to */
/* STARTING was cut short by a stop. */
void standby_stop_start(struct engine_group *group);
/* No operation of the group is in flight, and none starts by itself. */
bool standby_quiet(const struct engine_group *group);
void standby_close(struct engine_group *group); /* only when quiet */
/* Whether segments may still be applied in the present state. */
bool standby_applies(const struct engine_group *group);

/* resize.c */
void resize_look(struct engine_group *group); /* how large the files and devices are now */
/* No position is kept any more: into dir.sb, and the open volumes (Z4). */
void resize_end(struct engine_group *group);
/* Makes room for volumes that have grown. 0: there is; 1: under way, session_step() follows;
 * negative errno with `error`. */
int resize_prepare(struct engine_group *group, const struct link_hello *hello, char *error,
		   size_t error_max);

/* open.c */
void open_start(struct engine_group *group);
void open_peek(
	struct engine_group *group); /* FOREIGN: reads the superblock, then answers who waits */
void open_go_on(struct engine_group *group);  /* the volumes were looked at */
void open_finish(struct engine_group *group); /* the journal is open: the last step */

/* suspect.c */
void suspect_look(struct engine_group *group); /* of a start; then open_go_on() */
/* Of a clean stop, nothing writes to the volumes any more: true when it has begun, under op_busy.
 */
bool suspect_stamp(struct engine_group *group);

/* session.c */
int session_init(struct engine_group *group);
void session_deinit(struct engine_group *group);
void session_step(struct engine_group *group);
void session_offer(struct engine_group *group); /* judge the connection in group->offer */
void session_decline(struct engine_group *group, enum link_refuse_code code, const char *text);
/* Ends the present session in words for the other side: BYE, and close. Nothing when there is none.
 */
void session_end(struct engine_group *group, const char *text);
/* The link was closed or finished already. */
void session_drop(struct engine_group *group, const char *why);
/* The same with REFUSE. */
void session_refuse(struct engine_group *group, enum link_refuse_code code, const char *text);
/* What the peer sent cannot be: counts as an error, ends the session. */
__attribute__((format(printf, 2, 3))) void session_error(struct engine_group *group,
							 const char *format, ...);
void session_ack(struct engine_group *group); /* at the end of this turn */
bool session_connected(const struct engine_group *group);
bool session_alive(const struct engine_group *group); /* connected and heard lately */
void session_room(struct engine_group *group);	      /* memory came back: the link may go on */
/* Last seq that comes before whatever is received next. */
uint64_t session_received_seq(const struct engine_group *group);

/* admit.c */
struct refusal {
	enum link_refuse_code code;
	uint64_t epoch;
	char node[NODE_NAME_MAX + 1];
	char text[LINK_TEXT_MAX + 1];
};
/* 0, or a positive value with *ret filled: the HELLO cannot be accepted by a standby that is open.
 */
/* The size of its volume of that name; 0: it has none. */
uint64_t admit_size(const struct link_hello *hello, const char *name);
int admit_hello(struct engine_group *group, const struct link_hello *hello, struct refusal *ret);
/* By the superblock of a group that is no standby here. */
void admit_foreign(struct engine_group *group, const struct link_hello *hello, struct refusal *ret);
/* NULL, or why a START cannot be accepted. */
const char *admit_start(const struct engine_group *group, const struct link_start *start);
/* Takes over what HELLO and START say into dir.sb (in memory) and the open volumes. */
void admit_adopt(struct engine_group *group);
/* The epoch under which `seq` was written according to a history; 0 before its first entry. */
uint64_t history_epoch_at(const struct history_entry *history, unsigned count, uint64_t seq);

/* receive.c */
uint8_t *receive_place(struct engine_group *group, const struct frame *frame);
void receive_segment(struct engine_group *group, const struct frame *frame);
void receive_drop(struct engine_group *group); /* what is under way will not come */
void receive_durable(void *owner, uint64_t seq);
void receive_written(void *owner, uint64_t seq);
void receive_release(
	struct engine_group *group);		 /* lets go of memory that is not needed any more */
void receive_forget(struct engine_group *group); /* lets go of all of it; nothing may use it */

/* copy.c */
int copy_init(struct engine_group *group);
void copy_deinit(struct engine_group *group);
void copy_reset(struct engine_group *group); /* nothing in flight: forgets everything */
void copy_begin(struct engine_group *group); /* a session that copies has been accepted */
void copy_session(
	struct engine_group *group);	    /* a session has been accepted: counting starts anew */
void copy_drop(struct engine_group *group); /* forgets what is not in the running batch */
uint8_t *copy_place(struct engine_group *group, const struct frame *frame);
void copy_place_drop(struct engine_group *group);
void copy_frame(struct engine_group *group, const struct frame *frame, const uint8_t *body);
struct copy_item *copy_next(struct engine_group *group); /* first one not in the batch, or NULL */
int copy_add(struct engine_group *group);		 /* it joins the batch; 0 or APPLY_E_* */
void copy_applied(struct engine_group *group);		 /* the batch has completed */
bool copy_end_due(const struct engine_group *group);
bool copy_waiting(const struct engine_group *group); /* items or a flush are outstanding */
void copy_status(const struct engine_group *group, struct status_sync *ret_status);

/* compare.c */
int compare_init(struct engine_group *group);
void compare_deinit(struct engine_group *group);
void compare_reset(struct engine_group *group);	  /* with copy_reset() */
void compare_session(struct engine_group *group); /* with copy_session() */
/* A question has come; false: more than may be open at a time. */
bool compare_asked(struct engine_group *group);
/* Compares what is next in the FIFO; then applier_go_on(). */
void compare_run(struct engine_group *group);
void compare_send(struct engine_group *group); /* answers that are due */
/* VERIFIED: what was found, and where. */
void compare_verified(struct engine_group *group, const struct frame *frame);
void compare_cycle_begins(struct engine_group *group);	/* a flush of the volumes is submitted */
void compare_cycle_flushed(struct engine_group *group); /* it has succeeded */
/* Finds out whether the volumes hold anything but zeroes (compare.seeded); op_busy meanwhile. */
void compare_probe(struct engine_group *group);

/* applier.c */
int applier_init(struct engine_group *group);
void applier_deinit(struct engine_group *group);
void applier_begin(struct engine_group *group, const struct journal_position *at);
void applier_kick(struct engine_group *group);
/* What was taken from the FIFO for comparing is done with: goes on behind it. */
/* A batch that was gathered and will not be written: what is gathered next begins anew only after
 * everything was closed or the journal emptied. */
void applier_give_up(struct engine_group *group);
void applier_write(struct engine_group *group); /* the batch that was gathered */
void applier_go_on(struct engine_group *group);
bool applier_idle(const struct engine_group *group); /* no batch, no cycle */

/* checkpoint.c */
void checkpoint_init(struct engine_group *group);
/* Flushes; with `store` also moves the superblock's applied position. */
void checkpoint_run(struct engine_group *group, bool store);
void checkpoint_space(void *owner, bool blocked);
void checkpoint_stop(struct engine_group *group); /* timers */
void checkpoint_start(struct engine_group *group);

/* promote.c */
void promote_begin(struct engine_group *group);
void promote_step(struct engine_group *group);
/* A promote without refusals, inside the session that asks for it. */
void promote_hand_over(struct engine_group *group, struct engine_promote *promote);
void promote_foreign(
	struct engine_group *group); /* the superblock was read: the group is no standby */
/* Gives the waiting promote its answer; nothing when there is none. */
__attribute__((format(printf, 3, 4))) void promote_finish(struct engine_group *group, int res,
							  const char *format, ...);

/* handover.c */
void take_over(struct engine_group *group, const struct frame *frame);
void take_over_stored(struct engine_group *group); /* the new epoch is durable: the answer */
/* What is on the disk is not known: H6, no answer. */
void take_over_failed(struct engine_group *group);

/* rejoin.c */
enum {
	REJOIN_E_WAIT = 1
};
/* The last seq that the history of HELLO and ours share. */
uint64_t rejoin_common(const struct engine_group *group, const struct link_hello *hello);
/* Whether a primary that lacks what we hold may have us follow it all the same. */
bool rejoin_approved(const struct engine_group *group, const struct link_hello *hello);
/* Records behind `common_seq` that the journal no longer holds: their content is on the volumes
 * only, mixed with what came later. */
uint64_t rejoin_missing(const struct engine_group *group, uint64_t common_seq);
/* Remembers for the status that a primary came which lacks what is here, if that is so. */
void rejoin_note(struct engine_group *group, const struct link_hello *hello);
/* What the journal holds may yet become salvage: nothing of it expires. */
bool rejoin_keeps_journal(const struct engine_group *group);
/* Before WELCOME to session.hello: 0, REJOIN_E_WAIT (comes back by standby_poke()), or a negative
 * errno with `error`. */
int rejoin_prepare(struct engine_group *group, char *error, size_t error_max);
bool rejoin_busy(const struct engine_group *group);
void rejoin_session_over(struct engine_group *group);
void rejoin_over(struct engine_group *group); /* there is nothing to be given up any more */
void rejoin_welcome(struct engine_group *group, struct link_welcome *welcome);
void rejoin_send_ranges(struct engine_group *group); /* right behind WELCOME */
/* The primary has seen by the chain that histories differ which look the same. */
void rejoin_refused(struct engine_group *group, const uint8_t *body, uint32_t len);
void rejoin_task(struct engine_group *group);

/* task.c */
bool task_waits(const struct engine_group *group);
void task_step(struct engine_group *group);
void task_foreign(struct engine_group *group);
/* Gives the task its answer; nothing when there is none. */
__attribute__((format(printf, 3, 4))) void task_finish(struct engine_group *group, int res,
						       const char *format, ...);
/* The superblock was changed for the task: its store ends it. `text` for the log. */
void task_store(struct engine_group *group, const char *text);

/* kept.c */
int kept_init(struct engine_group *group); /* volumes are open */
void kept_close(struct engine_group *group);
bool kept_quiet(const struct engine_group *group);
/* Before a log begins: it covers the volumes as they are now. 0 or -ENOMEM. */
int kept_renew(struct engine_group *group);
/* Whether that START begins a copy on what is consistent now. */
bool kept_begins(const struct engine_group *group, const struct link_start *start);
void kept_begin(struct engine_group *group, struct io_op *op); /* a new log */
void kept_note(struct engine_group *group); /* into dir.sb, before START is adopted */
/* Saves what the batch will overwrite; applier_write() follows. False: nothing is kept. */
bool kept_save(struct engine_group *group);
void kept_look(struct engine_group *group); /* a batch that waits for room looks again */
/* What a checkpoint stores; `end`: the copy is over. */
void kept_checkpoint(struct engine_group *group, bool end);
void kept_end(struct engine_group *group); /* K2: the superblock durably names no log */
/* Into dir.sb. */
void kept_give_up(struct engine_group *group, const char *why);
bool kept_drop_wanted(const struct engine_group *group); /* a task asks for it */
void kept_task(struct engine_group *group);
void kept_status(const struct engine_group *group, struct status_group *ret_status);

/* rollback.c */
void rollback_begin(struct engine_group *group); /* of a promote */
/* open.c: ROLLBACK is stored, log and journal are open. */
void rollback_resume(struct engine_group *group);
void rollback_anew(struct engine_group *group, const char *why); /* before that: there is no log */
void rollback_cancel(struct engine_group *group);		 /* it ends soon, and fails */

/* heard.c */
void heard_begin(struct engine_group *group); /* from the superblock */
void heard_hello(struct engine_group *group, const struct link_hello *hello);
void heard_beat(struct engine_group *group, const struct link_heartbeat *beat);
/* ns since anything was heard; UINT64_MAX = never. */
uint64_t heard_ago_ns(const struct engine_group *group);
/* How far a copy that ends at `seq`/`bytes`, with a last write of wall time `time_ns`, is behind.
 */
void heard_lag(const struct engine_group *group, uint64_t seq, uint64_t bytes, uint64_t time_ns,
	       struct status_lag *ret_lag);
/* The same of the position that a copy keeps; not known while there is none. */
void heard_lag_kept(const struct engine_group *group, struct status_lag *ret_lag);
/* This copy is not on the history that is known to rule: no lag can be told. */
bool heard_parted(const struct engine_group *group);

#endif
