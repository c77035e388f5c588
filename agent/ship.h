/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A standby as its primary keeps it: the link, the position, the dirty map. Shared by ship.c
 * (dialogue and stream), ship_send.c (what goes over the link, and when) and sync.c (copy beside
 * the stream). Loop thread.
 */
#ifndef HOLDFAST_AGENT_SHIP_H
#define HOLDFAST_AGENT_SHIP_H

#include "agent/bandwidth.h"
#include "agent/internal.h"
#include "agent/timeline.h"
#include "core/group/dirty.h"
#include "core/group/link.h"
#include "proto/link.h"

#define SHIP_SENT_MAX  4096u /* segments sent and not acknowledged durable */
#define SHIP_OUT_BYTES (4u << 20)

enum ship_state {
	SHIP_OFF,	 /* before start, after stop */
	SHIP_WAITING,	 /* between attempts */
	SHIP_CONNECTING, /* TCP, then TLS */
	SHIP_HELLO,	 /* HELLO sent, the answer is awaited */
	SHIP_PREPARING,	 /* deciding where to start: journal look-up, dirty map */
	SHIP_STREAMING,
};

struct ship_sent {
	uint64_t last_seq, bytes_end, first_time_ns;
	uint32_t stored_bytes;
};

struct extents;
struct sync;
struct verify;

struct ship_catch { /* mode sync: whether it has caught up in this session */
	bool known, caught_up;
	uint64_t stream;     /* of this session */
	uint64_t target_seq; /* our end at since_ns */
	uint64_t since_ns;
};

struct coalesce {	       /* coalesce.c */
	struct dirty_map *map; /* counts; never in force, never saved */
	struct journal_reader reader;
	bool reader_open, busy;
	struct io_op op;
	uint64_t to_seq;
	uint64_t stored_bytes, written_bytes; /* of the backlog, as far as it was read */
	uint64_t again_bytes;		      /* not before head_bytes is there */
	uint64_t count;			      /* backlogs that a copy took the place of */
};

#define LADDER_SAMPLES 6u

struct ship_ladder { /* ladder.c */
	struct ladder_sample {
		uint64_t at_ns, lag_bytes, head_bytes, stored_bytes;
	} samples[LADDER_SAMPLES]; /* oldest first */
	unsigned count;
	bool told;
};

struct ship {
	struct agent_group *group;
	const struct conf_peer *conf;
	struct superblock_peer *peer; /* in the superblock */
	enum ship_state state;
	bool settled, refused, stopped;
	enum parted parted;				    /* found at its last answer */
	char error[STATUS_TEXT_MAX], told[STATUS_TEXT_MAX]; /* told: what the log says already */

	struct link *link;
	struct io_stream *stream; /* while connecting */
	struct io_op connect_op;
	bool connect_pending;
	struct io_timer retry_timer, heartbeat_timer;
	unsigned attempts; /* since the last good connection */

	struct link_hello hello;
	struct link_welcome welcome;
	struct link_start start;
	bool unreadable;      /* the journal was found damaged where it was to be sent from */
	uint64_t ranges_left; /* RANGES frames that are still to come */
	bool start_ready;     /* waits only for what lies before it to be durable */
	uint8_t control[FRAME_CONTROL_MAX_BYTES];

	struct tail tail;
	struct io_op tail_op, prepare_op;
	bool tail_pending, prepare_pending, pumping;
	uint64_t generation; /* of the connection; what an older one left in flight is dropped */
	uint64_t connect_generation, prepare_generation, tail_generation;
	uint64_t window_bytes;
	uint64_t sent_seq, unacked_bytes;
	uint64_t received_seq, durable_seq, applied_seq; /* as acknowledged */
	struct ship_sent sent[SHIP_SENT_MAX];
	unsigned sent_first, sent_count;

	struct dirty_map *dirty;
	struct extents *extents;
	struct sync *sync;
	struct verify *verify;
	struct io_op resync_op;
	struct group_dir_store store;

	/* release into the dirty map */
	struct io_op *release_user;
	bool decide_due; /* the standby has said where it stands, a release is under way */
	struct io_op release_op;
	struct journal_reader release_reader;
	bool release_reader_open;
	struct io_timer release_timer;
	uint64_t release_seq;
	uint64_t released_stored_seq; /* released_seq as the superblock on the disk has it: S1 */

	uint64_t missing_seq, missing_ns; /* the oldest record that it lacks, and its time */
	/* While it must be copied it holds no position: what it lacked when that began. After a
	 * restart the time is not known. */
	bool copy_noted;
	uint64_t copy_seq,
		copy_ns;     /* last seq that it held; time of the next one, UINT64_MAX unknown */
	uint64_t copy_bytes; /* bytes_end at copy_seq, or before it; 0 = not known */
	uint64_t durable_bytes;	    /* bytes_end at durable_seq, 0 = not known yet */
	uint64_t sent_record_bytes; /* in segments */
	uint64_t sent_segments, streams, reconnects, connected_ns, heard_ns;
	struct ship_catch catch;
	struct ship_ladder ladder;
	struct coalesce coalesce;
	struct bandwidth bandwidth;
	struct io_timer bandwidth_timer;
};

/* ship.c */
void ship_retry(struct ship *ship); /* at once, if it waits for its next attempt */
void ship_disconnect(struct ship *ship, const char *text); /* and try again later */
/* ship.c: the release that decide_due waited for is over. */
void ship_decide(struct ship *ship);
/* A stream that does not continue the standby's journal: from our present end, copying what it
 * lacks: everything, or what is in its map, with our own records behind `after_seq`. */
void ship_prepare_reset(struct ship *ship, bool everything, uint64_t after_seq);
/* The place behind our last durable segment. */
struct journal_position ship_durable_end(struct ship *ship);

/* ship_return.c */
int ship_return_ranges(struct ship *ship, const struct frame *frame, const uint8_t *body);
void ship_return_decide(struct ship *ship); /* WELCOME said diverged */
/* The epochs agree, the chain does not: tells the standby, which cannot see it by itself. */
void ship_return_refuse(struct ship *ship);

/* peers.c: the file of its dirty map. -ENAMETOOLONG. */
int ship_dirty_path(const struct agent_group *group, const char *node, char path[GROUP_PATH_MAX]);

/* ship_release.c: dirty map in force from here on, for the records behind `after_seq` up to `seq`;
 * durable when op completes. */
void ship_needs_sync(struct ship *ship, uint64_t after_seq, uint64_t seq, bool everything,
		     struct io_op *op);
/* Makes the map durable as it is now, in a new file where there is no good one. */
void ship_save_map(struct ship *ship, struct io_op *op);
/* The dirty map is in force with what is set in memory now; durable when op completes. */
void ship_mark_sync(struct ship *ship, struct io_op *op);
/* All of it has to be copied; whether comparing may pay is noted with it. */
void ship_set_everything(struct ship *ship);
/* The standby holds everything: the dirty map is no longer in force. */
void ship_synced(struct ship *ship, struct io_op *op);

/* ship_send.c */
void ship_pump(struct ship *ship);
/* Its copy becomes due: remembers since when it is behind. */
void ship_note_copy(struct ship *ship);
/* WELCOME of a standby in the middle of a copy: the position that it keeps is what it is behind
 * from, whoever began the copy; without one, that is not known. */
void ship_note_kept(struct ship *ship);
/* False: no room for such a frame now, or the bandwidth is used up; ship_pump() is called when
 * there is. */
bool ship_has_room(struct ship *ship, size_t body_bytes);
void ship_acked(struct ship *ship, const struct frame *frame);
void ship_heartbeat(struct ship *ship);
uint64_t ship_behind_ns(struct ship *ship);
/* Bytes of records that it does not hold. */
uint64_t ship_lag_bytes(const struct ship *ship);

/* sync_extent.c */
int ship_extents_new(struct ship *ship, struct extents **ret_extents);
struct extents *ship_extents_free(struct extents *extents);
bool ship_extents_quiet(const struct extents *extents); /* nothing in flight */
void ship_extents_before_write(struct extents *extents, unsigned volume_id, uint64_t off,
			       uint64_t len);

/* compare.c */
void compare_begin(struct extents *extents); /* of a connection */
void compare_answer(struct extents *extents, const struct frame *frame);

/* resync.c */
/* A copy of everything, or of what is set in the dirty map, in a session of its own. 0 begun; or
 * -EAGAIN; -EINVAL nothing is known to differ. */
int ship_resync(struct ship *ship, bool everything, bool compare);

/* verify.c */
int ship_verify_new(struct ship *ship, struct verify **ret_verify);
struct verify *ship_verify_free(struct verify *verify);
/* Begins anew. rate_bytes: per second, 0 = as configured. -EAGAIN: it is not streaming. */
int ship_verify(struct verify *verify, bool repair, uint64_t rate_bytes);
bool ship_verify_stop(struct verify *verify);		      /* false: none is under way */
void ship_verify_session(struct verify *verify, bool copies); /* a session has begun */
void ship_verify_pause(struct verify *verify);		      /* it is over */
void ship_verify_synced(struct verify *verify);		      /* a copy has ended */
void ship_verify_everything(struct verify *verify);	      /* the dirty map has everything */
/* A copy of the dirty map has ended; the superblock is about to be stored. */
void ship_verify_copied(struct verify *verify);
bool ship_verify_pump(struct verify *verify, uint64_t sent_seq); /* as ship_sync_pump() */
bool ship_verify_quiet(const struct verify *verify);
void ship_verify_status(const struct verify *verify, struct status_verify *ret_status);

/* coalesce.c */
int coalesce_init(struct ship *ship, const char *path);
void coalesce_deinit(struct ship *ship);
void coalesce_look(struct ship *ship); /* once a second */

/* sync.c */
int ship_sync_new(struct ship *ship, struct sync **ret_sync);
struct sync *ship_sync_free(struct sync *sync);
/* A session in which the standby is copied to begins / is over. */
void ship_sync_begin(struct sync *sync);
void ship_sync_end(struct sync *sync);
bool ship_sync_active(const struct sync *sync);
bool ship_sync_quiet(const struct sync *sync);	/* no save in flight */
bool ship_sync_saving(const struct sync *sync); /* the dirty map is being saved */
/* Sends what is due before the segment behind `sent_seq`. False: something is due and the link has
 * no room. */
bool ship_sync_pump(struct sync *sync, uint64_t sent_seq);
void ship_sync_acked(struct sync *sync, uint64_t count);
uint64_t ship_sync_sent_bytes(const struct sync *sync);	    /* of the present or last copy: sent, */
uint64_t ship_sync_compared_bytes(const struct sync *sync); /* or found equal */
void ship_sync_status(const struct sync *sync, struct status_sync *ret_status);

#endif
