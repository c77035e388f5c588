/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The superblock: who a group directory belongs to, what it holds, and where replay starts.
 *
 * Two slots of SUPERBLOCK_SLOT_BYTES in one file; the valid slot with the higher generation rules;
 * writes alternate, so a torn write leaves the older one. Everything in it changes together or not
 * at all. Pure codec: no I/O, any thread.
 */
#ifndef HOLDFAST_PROTO_SUPERBLOCK_H
#define HOLDFAST_PROTO_SUPERBLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/uuid.h"
#include "proto/segment.h"

#define SUPERBLOCK_MAGIC      0x42534648u /* "HFSB" */
#define SUPERBLOCK_VERSION    1u
#define SUPERBLOCK_SLOT_BYTES 32768u
#define SUPERBLOCK_FILE_BYTES (2u * SUPERBLOCK_SLOT_BYTES)
#define GROUP_NAME_MAX                                                                             \
	63u /* bytes without the terminator: [A-Za-z0-9._-], not starting with . or - */
#define VOLUME_NAME_MAX	  63u
#define NODE_NAME_MAX	  127u /* an identity (SAN) */
#define GROUP_VOLUMES_MAX 128u
#define GROUP_PEERS_MAX	  8u
#define HISTORY_MAX	  128u
#define OPENINGS_MAX	  64u

enum group_role {
	GROUP_PRIMARY = 1, /* the agent may serve it */
	GROUP_STANDBY = 2, /* the engine receives into it */
	GROUP_FENCED =
		3, /* was primary, learned of a higher epoch: nobody serves, nothing is discarded */
};

enum superblock_flags {
	SUPERBLOCK_CLEAN =
		1u << 0, /* stopped cleanly: volumes current at head_seq, journal ends there */
	SUPERBLOCK_EVER_CONSISTENT = 1u << 1, /* standby: was consistent at least once */
	SUPERBLOCK_SYNCING =
		1u << 2, /* standby: volumes are being copied, consistent past sync_end_seq */
	SUPERBLOCK_PROMOTING =
		1u << 3, /* promote began: a position is chosen, the epoch not yet raised */
	SUPERBLOCK_REJOIN = 1u << 4,   /* fenced or diverged: the operator has agreed that what the
					  ruling history does not have becomes salvage here */
	SUPERBLOCK_HANDOVER = 1u << 5, /* primary: not served before handover_node has said whether
					  it took over */
	SUPERBLOCK_HELD = 1u << 6,     /* primary: not served before the operator accepts what was
					  found */
	SUPERBLOCK_SELF_DIRTY = 1u << 7, /* standby: it was rolled back, so it is not what the
					    primary takes it for: all of it is copied or compared */
	SUPERBLOCK_ROLLBACK = 1u << 8, /* standby: its volumes go back to the kept position; nothing
					  else happens before that is done */
	SUPERBLOCK_DISTRUST = 1u << 9, /* standby: a volume failed to flush while it was copied to,
					  so what a read shows need not be on the medium: nothing is
					  taken for equal before the copy is done */
	SUPERBLOCK_SUSPECT = 1u << 10, /* a volume was changed behind the daemon's back: the content
					  is not known to be that of the position, until a copy
					  of everything has ended or the operator accepts it */
	SUPERBLOCK_REJOIN_LOSS = 1u << 11, /* REJOIN, and what no salvage can hold is given up, too
					    */
};

struct history_entry {
	uint64_t epoch;
	uint64_t first_seq; /* the first seq of that epoch */
};

/* A primary's opening of its journal: what it wrote from there on carries `writer`. */
struct opening {
	uint64_t writer; /* as in the segments' headers; 0 = not known */
	uint64_t first_seq;
};

struct superblock_volume {
	uint16_t id;
	struct uuid uuid;
	uint64_t size_bytes;
	char name[VOLUME_NAME_MAX + 1];
};

/* Primary: what it must remember of a standby across restarts. */
struct superblock_peer {
	char node[NODE_NAME_MAX + 1];
	uint64_t durable_seq;  /* last acknowledged; segments up to here may be recycled */
	uint64_t released_seq; /* segments up to here went into its dirty map; 0 = none: journal
				  serves it */
	bool needs_sync;       /* its dirty map (file dirty.NODE) is in force */
	bool needs_compare; /* and most of what is set there may be equal: compared by hash first */
	/* the last verification that found it equal: position and wall clock; 0 = none */
	uint64_t verified_seq, verified_time_ns;
	/* needs_sync: the last seq up to which it held a position, and the time of the next record;
	 * 0 = not known */
	uint64_t copy_seq, copy_time_ns;
	uint64_t copy_id; /* of the copy that the dirty map is of: see superblock.copy_id */
	/* what a verification found to differ and nothing has sent again or found equal since */
	uint64_t differing_ranges, differing_bytes;
};

/*
 * Standby: the last consistent position, kept whole by an undo log while the volumes are being
 * copied to (core/group/undo.h).
 */
struct superblock_kept {
	uint64_t undo_id;    /* names and salts the log; 0 = there is none, nothing is kept */
	uint64_t undo_bytes; /* of the log, known to be durable */
	uint64_t seq, chain, bytes; /* like applied_*: last seq, chain value and bytes_end there */
	uint64_t epoch;		    /* that ruled here when it was kept */
	uint64_t time_ns;	    /* wall clock of its last record; 0 = not known */
	uint32_t history_count;
	struct history_entry history[HISTORY_MAX]; /* up to that position */
};

/* What a volume's file looked like at a clean stop; all zero = not known. */
struct superblock_stamp {
	uint64_t mtime_ns; /* 0: a device, which has none */
	uint64_t sample;   /* XXH3-64 of blocks at fixed places */
};

struct superblock {
	uint64_t generation;
	uint64_t features_compat; /* kept as read: features that older programs may ignore */
	struct uuid group;	  /* all zero on a standby that has not met its primary yet */
	char name[GROUP_NAME_MAX + 1];
	uint8_t role;	/* enum group_role */
	uint32_t flags; /* enum superblock_flags */
	uint64_t epoch;
	uint64_t fenced_by_epoch; /* FENCED: the epoch that rules elsewhere */
	char fenced_by[NODE_NAME_MAX + 1];
	/* journal geometry */
	uint64_t slot_bytes; /* size of one journal file */
	uint32_t slots;	     /* how many, file names journal/00000000 .. */
	/* where replay starts: everything up to applied_seq is on the volumes, durably */
	uint64_t applied_seq;
	uint64_t applied_bytes; /* bytes_end at applied_seq */
	uint64_t applied_chain; /* chain value that segment applied_seq + 1 carries */
	uint32_t applied_slot;	/* journal file and offset of the segment with applied_seq + 1 */
	uint64_t applied_off;
	/* the journal is known to be whole up to here (clean stop, acknowledged to a peer) */
	uint64_t durable_seq;
	/* standby */
	uint64_t sync_end_seq; /* SYNCING: consistent once applied beyond; UINT64_MAX while unknown
				*/
	uint64_t heard_head_seq; /* the primary's head as last heard, and when (wall clock) */
	uint64_t heard_head_bytes;
	uint64_t heard_time_ns;
	uint64_t promoted_time_ns; /* when this node last became primary */
	/* what that promote knew to be lost; ns UINT64_MAX = not known */
	uint64_t lost_writes, lost_bytes, lost_ns;
	/* standby: the last verification that found it equal; 0 = none */
	uint64_t verified_seq, verified_time_ns;
	uint64_t differing_ranges; /* standby: as its primary found, and has not sent again */
	uint64_t durable_time_ns;  /* wall clock of the record durable_seq; 0 = not known */
	/* SYNCING: random, given by the primary to the copy that is under way. A dirty map says
	 * what is missing in that copy, and nothing of any other. */
	uint64_t copy_id;
	struct superblock_kept kept;
	/* HANDOVER */
	char handover_node[NODE_NAME_MAX + 1];
	uint64_t handover_seq; /* the last seq of the epoch that is handed over */
	uint32_t volume_count, history_count, peer_count, opening_count;
	struct superblock_volume volumes[GROUP_VOLUMES_MAX];
	struct superblock_stamp stamps[GROUP_VOLUMES_MAX]; /* CLEAN: of volumes[i] */
	struct history_entry history[HISTORY_MAX];	   /* oldest first */
	struct superblock_peer peers[GROUP_PEERS_MAX];
	/* who wrote what is here, oldest first: each up to the next one (core/group/openings.h) */
	struct opening openings[OPENINGS_MAX];
};

enum superblock_condition {
	SUPERBLOCK_E_NONE_VALID = 1, /* neither slot holds a superblock */
	SUPERBLOCK_E_VERSION,	     /* newer than this program, or unknown incompatible feature */
	SUPERBLOCK_E_FIELD,	     /* checksum right, content impossible */
};
const char *superblock_condition_text(int condition);

/* Whether the content is possible: what decode accepts and encode insists on. */
bool superblock_valid(const struct superblock *sb);
/* `out` has SUPERBLOCK_SLOT_BYTES. */
void superblock_encode(const struct superblock *sb, uint8_t *out);
/* One slot. 0 or SUPERBLOCK_E_*. */
int superblock_decode(const uint8_t *slot, struct superblock *ret_sb);
/* Both slots of the file: the newest valid one, and its index. A slot with a right checksum and an
 * unknown version is an error even when the other one is readable: never run an old program over a
 * newer one's state. */
int superblock_choose(const uint8_t *file, struct superblock *ret_sb, unsigned *ret_slot);
/* The group's name rule above; volumes follow the same. */
bool group_name_valid(const char *name);
bool volume_name_valid(const char *name);
/* 1..NODE_NAME_MAX printable ASCII bytes without space, quote or backslash. It may hold '/' (a
 * URI). */
bool node_name_valid(const char *name);
/* At most HISTORY_MAX entries, epochs >= 1 and growing, first seqs >= 1 and not shrinking. */
bool history_valid(const struct history_entry *history, uint32_t count);
/* At most OPENINGS_MAX entries, first seqs >= 1 and growing. */
bool openings_valid(const struct opening *openings, uint32_t count);
/* No two of `count` volumes share an id, a uuid or a name. */
bool volumes_distinct(const struct superblock_volume *volumes, uint32_t count);

#endif
