/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A primary's group, inside: what the files of agent/ share. One loop thread, no locks.
 *
 *   export request -> capture.c -> commit.c (open segment, seal) -> journal
 *                                      | written / durable
 *              acknowledgements <------+------> drain.c (local apply, checkpoint, retire, floor)
 *                                      +------> ship.c, one per standby (sync.c: copy beside the
 * stream)
 *
 * Sequence numbers, always in this order:  applied <= durable <= written <= head (assigned).
 */
#ifndef HOLDFAST_AGENT_INTERNAL_H
#define HOLDFAST_AGENT_INTERNAL_H

#include "agent/agent.h"
#include "agent/handover.h"
#include "agent/held.h"
#include "core/group/apply.h"
#include "core/group/group_dir.h"
#include "core/group/journal.h"
#include "core/group/segring.h"
#include "core/group/stamp.h"
#include "core/group/tail.h"
#include "core/group/volume.h"
#include "core/group/writeset.h"

#define CAPTURE_OPS_MAX	    1024u /* reads and maps in flight per group */
#define JOURNAL_WRITES_MAX  4u	  /* segments in flight to the journal */
#define APPLY_BATCH_RECORDS 4096u

struct ship;
struct sync;

enum agent_state {
	AGENT_STARTING,
	AGENT_SETTLING, /* recovered; asking peers whether a higher epoch rules */
	AGENT_HELD,	/* not served before the operator accepts what was found: held.h */
	AGENT_SERVING,
	AGENT_STOPPING,
	AGENT_STOPPED,
	AGENT_FENCED,
	AGENT_FAILED,
};

struct agent_export {
	struct export export;
	struct agent_group *group;
	struct volume *volume;
	unsigned attached;
};

/* Somebody looks at a volume: what is applied from now on stays in the write set until read_end().
 */
struct read_ticket {
	struct list link; /* in group->reads, oldest first */
	uint64_t tick;
};

struct capture_op { /* a client's read or map that went to the volume */
	struct io_op op;
	struct list link; /* in group->free_ops */
	struct read_ticket ticket;
	struct agent_group *group;
	struct agent_export *export;
	struct export_request *request;
	bool hole;
};

/* Where in export_request.priv the agent keeps what. */
enum {
	REQUEST_EXPORT = 0, /* struct agent_export * */
	REQUEST_SEQ = 1,    /* the last record of a write; what a flush waits for */
	REQUEST_DONE = 2,   /* bytes of a large write that are records already */
	REQUEST_START = 3,  /* io_now() at submit */
};

enum syncmode_state {
	SYNCMODE_ASYNC,
	SYNCMODE_WAITING, /* acknowledgements wait: too few standbys are in sync, not for long yet
			   */
	SYNCMODE_IN_SYNC,
	SYNCMODE_LOST,	 /* they go on alone */
	SYNCMODE_FROZEN, /* they wait for as long as it takes */
};

#define SYNCMODE_MARKS 9u

struct syncmode { /* syncmode.c */
	enum syncmode_state state;
	uint64_t held_seq;	/* durable on as many standbys as the mode asks for */
	uint64_t alone_seq;	/* acknowledged without them, or not known with whom */
	uint64_t missing_ns;	/* since when too few are in sync; 0 = enough */
	uint64_t lost_since_ns; /* wall clock; 0 = not lost */
	uint64_t losses;
	struct syncmode_mark {
		uint64_t seq, since_ns; /* an acknowledgement up to seq has waited since then */
	} marks[SYNCMODE_MARKS];
	unsigned mark_first, mark_count;
	uint64_t marked_ns;
	uint64_t leave_ns; /* stopping: then who still waits is refused; 0 = not stopping */
	struct io_timer timer;
};

struct resize {			 /* resize.c */
	struct agent_task *task; /* NULL: none is under way */
	struct volume *volume;
	unsigned index; /* of the volume, in the superblock, too */
	uint64_t old_bytes, new_bytes, off, deadline_ns;
	struct io_op op;
	struct io_timer timer;
	struct group_dir_store store;
};

struct agent_group {
	struct io *io;
	struct agent_options options;
	const struct conf_group *conf;
	enum agent_state state;
	char detail[STATUS_TEXT_MAX];

	struct group_dir dir;
	struct volumes volumes;
	struct segring ring;
	struct journal journal;
	struct writeset writeset;
	struct apply apply;
	bool dir_open, volumes_open, journal_open, served;

	struct agent_export exports[GROUP_VOLUMES_MAX];

	/* capture and commit */
	struct segment *open;	   /* being filled; holds one hold of the group */
	uint32_t open_data;	   /* bytes in its data area */
	uint32_t segment_data_max; /* a segment must fit into a journal file */
	uint64_t writer;	   /* nonce of this opening of the journal */
	unsigned lz4_pause,
		lz4_step; /* segments stored raw without a try; how many after the last vain one */
	uint64_t flush_at_seal_seq; /* the segment that gets this seq is to be flushed when appended
				     */
	uint64_t head_seq, head_bytes; /* last assigned */
	struct io_op turn_op;	       /* end of turn: seal */
	bool turn_pending;
	struct list wait_written, wait_durable; /* export requests in seq order */
	struct list stalled;  /* requests that found no room, in order of arrival */
	struct list finished; /* completed requests, delivered at the end of the turn */
	struct io_op finished_op;
	bool finished_pending;
	uint64_t stalled_since_ns;
	struct io_timer flush_timer;
	struct list reads; /* of read_ticket, oldest first */
	struct capture_op *capture_ops;
	struct list free_ops;
	uint64_t tick;

	/* drain */
	struct list unapplied; /* segments in seq order: sealed .. */
	struct list applying;  /* the running batch */
	struct list applied;   /* applied, waiting for older reads */
	uint64_t unapplied_bytes, applied_seq;
	struct journal_position applied_at, checkpoint_at;
	struct io_op apply_op;
	struct io_timer apply_timer, checkpoint_timer;
	bool apply_now;
	enum {
		CHECKPOINT_IDLE,
		CHECKPOINT_FLUSHING,
		CHECKPOINT_STORING
	} checkpoint_state;
	bool checkpoint_again;
	struct io_op checkpoint_op;
	struct group_dir_store checkpoint_store;
	struct io_op release_op; /* journal space: into dirty maps */
	struct group_dir_store release_store;
	bool releasing;

	/* recovery */
	struct journal_reader replay;
	bool replay_open;
	struct io_op recover_op;
	struct group_dir_store recover_store;
	struct segment *replay_segment; /* read, did not fit into the batch */

	/* settle, stop, fail */
	unsigned unsettled;			  /* ships that have not said yet */
	bool clean_stored, reported, stop_wanted; /* stop_wanted: while starting */
	bool settle_over;			  /* settle_timeout has passed */
	struct io_timer settle_timer;
	struct io_op state_op, fence_op;
	struct group_dir_store state_store, fence_store;
	int fail_res;

	struct handover handover;
	struct held held;
	struct stamp stamp; /* of the volumes, at a clean stop and at the start behind it */
	struct superblock_stamp stamps[GROUP_VOLUMES_MAX];
	struct resize resize;

	/* marks */
	struct io_op *mark_op;
	uint64_t mark_seq;

	struct ship *ships[GROUP_PEERS_MAX];
	unsigned ship_count;
	struct syncmode syncmode;
	struct io_timer ladder_timer;

	/* counters */
	uint64_t writes, written_bytes, reads_done, read_bytes, flushes;
	uint64_t segments, raw_bytes, stored_bytes, checkpoints, stalls, stall_ns, errors;
};

/* Fenced or failed: nothing is acknowledged, applied or stored any more. */
static inline bool agent_is_out(const struct agent_group *group)
{
	return group->state == AGENT_FENCED || group->state == AGENT_FAILED;
}

/* Requests wait. */
static inline bool agent_holds(const struct agent_group *group)
{
	return handover_holds(&group->handover) || group->held.draining;
}

/* group.c */
void agent_fail(struct agent_group *group, int res, const char *text);
void agent_fenced(struct agent_group *group, uint64_t epoch, const char *node);
void agent_journal_failed(void *owner, int res, const char *text);
void agent_report_started(struct agent_group *group, int res);
/* Asks every standby anew, under a new epoch, before anything is served; one that serves goes on.
 */
void agent_settle_again(struct agent_group *group);
void agent_may_serve(struct agent_group *group); /* what a start waits for may be there */
void agent_settled(struct agent_group *group);	 /* a standby has said that no higher epoch rules */
void agent_step_stop(struct agent_group *group); /* something that a stop waits for has happened */

/* peers.c: entries for the standbys that are configured; before the store that a start makes. */
void peers_prepare(struct agent_group *group);

/* recover.c */
void recover_start(struct agent_group *group);
/* suspect.c has done its part. */
void recover_marked(struct agent_group *group, int res);
void recover_done(struct agent_group *group, int res); /* group.c */

/* capture.c */
int capture_init(struct agent_group *group);
void capture_deinit(struct agent_group *group);
void capture_exports(struct agent_group *group);
void capture_retry(struct agent_group *group); /* room may have come */
void capture_finish(struct agent_group *group, struct export_request *request, int64_t res);
void capture_fail_all(struct agent_group *group, int res);
void capture_fail_stalled(struct agent_group *group, int res);
uint64_t capture_oldest_read_tick(const struct agent_group *group); /* UINT64_MAX: none */
void read_begin(struct agent_group *group, struct read_ticket *ticket);
void read_end(struct agent_group *group, struct read_ticket *ticket);
extern const struct export_ops agent_export_ops;

/* commit.c */
enum {
	COMMIT_OK = 0,
	COMMIT_NO_ROOM = 1
};
/* Appends one record (a WRITE carries `data`); COMMIT_NO_ROOM changes nothing. */
int commit_record(struct agent_group *group, struct record *record, const uint8_t *data);
/* Bytes of a write that the next record can take: 1..segment_data_max; 0 = no room now. */
uint64_t commit_room(struct agent_group *group);
void commit_schedule(
	struct agent_group *group); /* seal at the end of this turn if the journal is not busy */
void commit_seal(struct agent_group *group); /* now; nothing when there is no open segment */
void commit_flush(struct agent_group *group, uint64_t seq);
void commit_written(void *owner, uint64_t seq);
void commit_durable(void *owner, uint64_t seq);
void commit_stop(struct agent_group *group);
/* Acknowledges what is durable here and where the mode asks for it. */
void commit_promise(struct agent_group *group);
/* Everything up to here may be acknowledged as durable. */
uint64_t commit_promised_seq(const struct agent_group *group);

/* ladder.c */
void ladder_start(struct agent_group *group); /* the ships start */
void ladder_stop(struct agent_group *group);
void ladder_status(const struct agent_group *group, struct status_group *ret_status);

/* syncmode.c */
void syncmode_start(struct agent_group *group); /* recovered; the ships start */
void syncmode_stop(struct agent_group *group);
/* What a standby holds, or whether it does, has changed; acknowledges what may be. */
void syncmode_step(struct agent_group *group);
/* Acknowledgements may go up to here as far as standbys are concerned. */
uint64_t syncmode_limit(const struct agent_group *group);
/* Everything up to `seq` has been acknowledged as durable. */
void syncmode_promised(struct agent_group *group, uint64_t seq);
/* The group is to stop: what waits for a standby does not wait longer than sync_timeout. */
void syncmode_leave(struct agent_group *group);
bool syncmode_has_left(const struct agent_group *group); /* nobody waits any more */
bool syncmode_in_sync(const struct ship *ship);
uint32_t syncmode_report(const struct ship *ship); /* enum link_mode, for its heartbeat */
void syncmode_status(const struct agent_group *group, struct status_group *ret_status);

/* drain.c */
int agent_drain_init(struct agent_group *group);
void agent_drain_deinit(struct agent_group *group);
void agent_drain_kick(struct agent_group *group,
		      bool now); /* durable segments may be there to apply */
void agent_drain_retire(struct agent_group *group);
void agent_drain_checkpoint(struct agent_group *group);
void agent_drain_floor(struct agent_group *group); /* recomputes what the journal must keep */
void agent_drain_space(void *owner, bool blocked);
bool agent_drain_idle(const struct agent_group *group); /* all applied and checkpointed */

/* ship.c */
int ship_new(struct agent_group *group, const struct conf_peer *peer, struct ship **ret_ship);
struct ship *ship_free(struct ship *ship);
void ship_start(struct ship *ship);
void ship_stop(struct ship *ship); /* BYE, close; at once */
void ship_kick(struct ship *ship); /* the durable head moved */
/* Everything up to here needs not be kept in the journal for this standby. */
uint64_t ship_floor(const struct ship *ship);
/* Records up to `seq` must be released into the dirty map; completes when that is durable.
 * -EALREADY: nothing to do. */
void ship_release(struct ship *ship, uint64_t seq, struct io_op *op);
/* A write is about to be appended: keep copied extents in order (may seal the open segment). */
void ship_before_write(struct ship *ship, unsigned volume_id, uint64_t off, uint64_t len);
void ship_status(struct ship *ship, struct status_peer *ret_peer);
bool ship_quiet(const struct ship *ship); /* stopped, and no operation of it in flight */

#endif
