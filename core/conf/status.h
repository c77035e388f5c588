/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a group as people and programs see it: filled on the group's loop, then plain values
 * that any thread may render: JSON (control API, `-o json`), Prometheus text (/metrics), tables
 * (cli).
 */
#ifndef HOLDFAST_CORE_CONF_STATUS_H
#define HOLDFAST_CORE_CONF_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#define STATUS_TEXT_MAX	   256u
#define STATUS_PEERS_MAX   8u
#define STATUS_VOLUMES_MAX 128u

/* How far behind: RPO as writes, bytes, time; from the position to which a promote would go.
 * UINT64_MAX = not known, of each by itself. */
struct status_lag {
	uint64_t writes;
	uint64_t bytes;
	uint64_t ns; /* age of the oldest write not held durably; grows while nothing is heard */
};
#define STATUS_LAG_UNKNOWN                                                                         \
	{                                                                                          \
		UINT64_MAX, UINT64_MAX, UINT64_MAX                                                 \
	}

struct status_sync { /* initial copy or resync */
	bool active;
	uint64_t total_bytes, done_bytes;
	uint64_t rate_bytes_per_s;
	uint64_t left_ns; /* 0 = unknown */
};

struct status_verify { /* a comparison with a standby */
	bool active;
	uint64_t total_bytes, done_bytes;
	uint64_t rate_bytes_per_s;
	uint64_t left_ns; /* 0 = unknown */
	/* of the present or last one since the start */
	uint64_t differing_ranges, differing_bytes, repaired_bytes;
	struct status_range {
		char volume[64];
		uint64_t off, len;
	} ranges[16]; /* the first of them */
	unsigned range_count;
	bool failed; /* the last one did not come to its end */
	/* found by any, also before a restart, and neither sent again nor found equal since */
	uint64_t known_ranges, known_bytes;
	/* the last one that found no difference; also from before a restart; 0 = never */
	uint64_t verified_seq, verified_time_ns;
};

struct status_peer { /* a standby as its primary sees it */
	char node[128];
	char address[128];
	char state[32]; /* connecting, streaming, catching-up, syncing, refused, disconnected */
	bool connected;
	uint64_t received_seq, durable_seq, applied_seq;
	struct status_lag lag;
	struct status_sync sync;
	uint64_t sent_bytes, sent_segments, reconnects;
	uint64_t heard_ns_ago;				   /* UINT64_MAX = never */
	bool needs_sync;				   /* the journal no longer serves it */
	uint64_t dirty_bytes;				   /* in its dirty map */
	uint64_t resync_sent_bytes, resync_compared_bytes; /* of the present or last copy */
	bool in_sync; /* mode sync: its acknowledgements are waited for */
	uint64_t sent_rate_bytes_per_s, bandwidth_bytes; /* limit in force now; 0 = none */
	struct status_verify verify;
	char error[STATUS_TEXT_MAX]; /* last failure, "" when none */
	char parted[16]; /* "standby": it holds what this primary's history does not; "rival": it is
			    primary under the same epoch; "" = neither */
};

struct status_volume {
	char name[64];
	char path[STATUS_TEXT_MAX];
	uint64_t size_bytes;
	char uri[STATUS_TEXT_MAX + 64]; /* NBD URI when served, else "" */
};

struct status_group {
	char name[64];
	char uuid[40];
	char node[128];
	char role[16];	/* primary, standby, fenced */
	char state[32]; /* primary: starting, settling, serving, stopping, stopped, failed; standby:
			   waiting, receiving, syncing, promoting, failed */
	char detail[STATUS_TEXT_MAX]; /* why, when the state is not the good one */
	uint64_t epoch, fenced_by_epoch;
	char fenced_by[128];
	uint64_t head_seq, durable_seq, applied_seq, head_bytes, durable_bytes;
	/* counters since the daemon opened the group */
	uint64_t writes, written_bytes, reads, read_bytes, flushes;
	uint64_t segments, segment_raw_bytes, segment_stored_bytes;
	uint64_t applied_bytes, checkpoints, stalls, stall_ns, errors;
	/* journal */
	uint64_t journal_size_bytes, journal_used_bytes, journal_oldest_seq, journal_oldest_time_ns;
	uint64_t journal_full_ns; /* primary: until records must be released into dirty maps, as
				     things go; UINT64_MAX = not in sight */
	uint64_t released_seq;	  /* primary: the highest seq that was */
	/* mode */
	char mode[16];		/* async, sync, sync-all */
	char mode_state[16];	/* async; in-sync, waiting (not for sync_timeout yet), lost (goes on
				   alone), frozen (waits) */
	uint64_t lost_since_ns; /* wall clock; 0 = it is not lost */
	uint64_t sync_losses;
	char held[STATUS_TEXT_MAX]; /* primary: why it is not served before the operator accepts */
	/* standby: the position that a resync keeps */
	bool kept;
	uint64_t kept_seq, kept_time_ns;
	uint64_t undo_bytes, undo_saved_bytes, undo_limit_bytes;
	bool undo_full;
	uint64_t rollback_done_bytes, rollback_total_bytes; /* while it goes back there */
	bool diverged; /* it holds what the ruling history does not, and waits for the operator's
			  word */
	uint64_t common_seq;
	uint64_t salvage_missing; /* diverged: so many of those are no longer in the journal */
	bool suspect;		  /* a volume was changed behind the daemon's back */
	uint64_t salvages;	  /* kept in the group directory */
	uint64_t verified_seq, verified_time_ns;
	uint64_t differing_ranges; /* from its primary, known and not repaired */
	/* memory */
	uint64_t write_set_bytes, write_set_max_bytes;
	/* standby only */
	bool consistent, syncing, ever_consistent, connected;
	char source[128];			     /* the primary it follows, as last met */
	uint64_t source_head_seq, source_head_bytes; /* as last heard */
	uint64_t heard_ns_ago;	/* since anything was heard; UINT64_MAX = never */
	uint64_t heard_time_ns; /* wall clock of that */
	struct status_lag lag;	/* standby's own view */
	struct status_sync sync;
	uint64_t received_bytes, received_segments, rejected_epoch, rejected_corrupt;
	uint64_t rpo_objective_ns, rto_objective_ns;
	char lacking[STATUS_TEXT_MAX]; /* volumes of the configuration that it does not have */
	struct status_volume volumes[STATUS_VOLUMES_MAX];
	unsigned volume_count;
	struct status_peer peers[STATUS_PEERS_MAX];
	unsigned peer_count;
};

#endif
