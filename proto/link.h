/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages of the replication stream as plain C structures: the bodies of HELLO, WELCOME,
 * REFUSE, START, HEARTBEAT and BYE frames. proto/link.proto is their wire form; only proto/pb.c
 * knows protobuf-c.
 *
 * Structures hold no pointers: packing borrows the structure, unpacking copies everything out of
 * the message. hello and welcome are several KiB: keep them in the connection's state rather than
 * on the stack. Unpacking is bounded (LINK_ARENA_BYTES of a thread-local arena, no heap), so a
 * hostile body costs at most that. No I/O, no allocation, any thread.
 *
 * Packing takes structures that their owner keeps within the limits below (an own invariant).
 * Unpacking checks all of it: counts, names, lengths, order of the history, and that what every
 * version must send is there. Unknown fields are skipped. Texts for people come out as printable
 * ASCII, cut to their limit; other bytes became '?'.
 */
#ifndef HOLDFAST_PROTO_LINK_H
#define HOLDFAST_PROTO_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/uuid.h"
#include "proto/superblock.h"

#define LINK_TEXT_MAX	  511u /* bytes of a text without the terminator */
#define LINK_SOFTWARE_MAX 63u  /* "holdfast 0.1.0" */
#define LINK_ARENA_BYTES  (256u << 10)

struct link_position {
	uint64_t epoch;
	uint64_t seq;	/* 0: before everything */
	uint64_t chain; /* chain value that the segment with seq + 1 carries; 0 where not known */
	uint64_t bytes; /* bytes_end at seq */
};

struct link_hello {
	uint32_t protocol_min, protocol_max; /* 1 <= min <= max */
	uint64_t features_required, features_optional;
	char software[LINK_SOFTWARE_MAX + 1];
	char node[NODE_NAME_MAX + 1]; /* for messages; the certificate is what counts */
	char group[GROUP_NAME_MAX + 1];
	struct uuid group_uuid;	   /* never all zero */
	uint64_t epoch;		   /* >= 1 */
	struct link_position head; /* durable */
	uint64_t oldest_seq;	   /* first seq that the primary's journal still holds */
	uint64_t wall_time_ns;
	uint64_t session;
	uint32_t mode; /* enum link_mode: what an acknowledgement of the primary promises */
	uint32_t history_count, volume_count;
	struct history_entry history[HISTORY_MAX];	     /* epochs and first seqs grow */
	struct superblock_volume volumes[GROUP_VOLUMES_MAX]; /* ids and names differ */
};

enum link_mode { /* HELLO: configured; HEARTBEAT: in force now */
	LINK_ASYNC = 0,
	LINK_SYNC_ONE = 1,  /* acknowledged as durable: durable on a standby, too */
	LINK_SYNC_ALL = 2,  /* on all of them; HEARTBEAT: on this one, whoever else there is */
	LINK_SYNC_LOST = 3, /* HEARTBEAT: should be, and is not (not here) */
	LINK_SYNC_HELD =
		4, /* HEARTBEAT: on this one, and never without it, however long it takes */
};
#define LINK_MODE_MAX 4u

struct link_welcome {
	uint32_t protocol; /* the one chosen, >= 1 */
	char software[LINK_SOFTWARE_MAX + 1];
	char node[NODE_NAME_MAX + 1];
	uint64_t epoch;
	struct link_position durable;
	uint64_t applied_seq; /* <= durable.seq */
	bool syncing;
	bool empty;
	uint64_t window_bytes; /* >= 1 */
	uint64_t wall_time_ns;
	bool seeded;   /* its volumes hold content that may be equal: comparing may pay */
	bool diverged; /* what it holds behind common_seq is of another history, given up there */
	uint64_t common_seq;   /* diverged: the last seq that both histories share */
	uint64_t common_chain; /* diverged: chain value behind it; 0 = not known, then the RANGES do
				  not say all that differs either */
	uint64_t ranges;       /* RANGES frames that follow */
	/* of the segment with durable.seq (diverged: common_seq), as its header has it; 0 = not
	 * known */
	uint64_t copy_id; /* syncing: of which copy, as START named it; 0 = not known */
	uint64_t writer;
	bool kept; /* syncing: it holds a consistent position */
	uint64_t kept_seq;
	uint32_t history_count;
	struct history_entry history[HISTORY_MAX];
};

enum link_refuse_code { /* values of Refuse.Code */
	LINK_REFUSE_UNSPECIFIED = 0,
	LINK_REFUSE_VERSION = 1,
	LINK_REFUSE_UNKNOWN_GROUP = 2,
	LINK_REFUSE_STALE_EPOCH = 3,
	LINK_REFUSE_WRONG_GROUP = 4,
	LINK_REFUSE_VOLUMES = 5,
	LINK_REFUSE_DIVERGED = 6,
	LINK_REFUSE_BUSY = 7,
	LINK_REFUSE_NOT_STANDBY = 8,
	LINK_REFUSE_ERROR = 9, /* also what codes of a newer program come out as */
};
#define LINK_REFUSE_MAX 9u
/* "stale epoch", ...: a word for logs and documents. */
const char *link_refuse_text(uint32_t code);

struct link_refuse {
	uint32_t code; /* enum link_refuse_code */
	uint64_t epoch;
	char node[NODE_NAME_MAX + 1]; /* may be empty */
	char text[LINK_TEXT_MAX + 1];
};

struct link_start {
	uint64_t from_seq; /* >= 1 */
	bool sync;
	bool reset;
	struct link_position base; /* with reset: seq == from_seq - 1 */
	uint64_t sync_bytes;
	bool compare;	  /* ranges are compared before they are copied */
	uint64_t writer;  /* with reset: of the segment with base.seq; 0 = not known */
	uint64_t copy_id; /* sync: which copy this is, or goes on with */
};

struct link_heartbeat {
	struct link_position head; /* last assigned */
	struct link_position durable;
	uint64_t wall_time_ns;
	uint64_t behind_ns;
	uint64_t sync_left_bytes;
	uint32_t mode; /* enum link_mode */
};

struct link_bye {
	char text[LINK_TEXT_MAX + 1];
};

enum link_condition {	   /* positive results of unpacking */
	LINK_E_SYNTAX = 1, /* not a message of this kind */
	LINK_E_LIMIT,	   /* too many entries, too long, or more than LINK_ARENA_BYTES to hold */
	LINK_E_MISSING,	   /* a field that every version sends is absent */
	LINK_E_NAME,	   /* a name breaks its rule or stands twice */
	LINK_E_VALUE,	   /* a number or uuid that cannot be */
};
const char *link_condition_text(int condition);

/* Each packs into `out` and returns the length, or -EMSGSIZE when it is longer than `max`. */
int link_hello_pack(const struct link_hello *hello, uint8_t *out, size_t max);
int link_welcome_pack(const struct link_welcome *welcome, uint8_t *out, size_t max);
int link_refuse_pack(const struct link_refuse *refuse, uint8_t *out, size_t max);
int link_start_pack(const struct link_start *start, uint8_t *out, size_t max);
int link_heartbeat_pack(const struct link_heartbeat *heartbeat, uint8_t *out, size_t max);
int link_bye_pack(const struct link_bye *bye, uint8_t *out, size_t max);

/* Each returns 0 and fills *ret, or a positive LINK_E_*; *ret is then unspecified. */
int link_hello_unpack(const uint8_t *bytes, size_t len, struct link_hello *ret);
int link_welcome_unpack(const uint8_t *bytes, size_t len, struct link_welcome *ret);
int link_refuse_unpack(const uint8_t *bytes, size_t len, struct link_refuse *ret);
int link_start_unpack(const uint8_t *bytes, size_t len, struct link_start *ret);
int link_heartbeat_unpack(const uint8_t *bytes, size_t len, struct link_heartbeat *ret);
int link_bye_unpack(const uint8_t *bytes, size_t len, struct link_bye *ret);

#endif
