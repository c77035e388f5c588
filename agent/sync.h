/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the copy to a standby (sync.c) and its verification (verify.c) share: extents that are read
 * and stamped, and questions whether the standby holds the same. One walk at a time has them.
 * Loop thread; the buffers are the extents' own.
 */
#ifndef HOLDFAST_AGENT_SYNC_H
#define HOLDFAST_AGENT_SYNC_H

#include "agent/ship.h"

#define EXTENT_BYTES  (256u << 10)
#define EXTENTS	      8u
#define QUESTIONS_MAX 128u  /* without an answer; the standby takes 256 */
#define BLOCK_BYTES   4096u /* what every device takes; volumes and chunks are multiples */

enum extent_state {
	EXTENT_FREE,
	EXTENT_MAPPING,
	EXTENT_READING,
	EXTENT_READY, /* stamped, in extents->ready */
};

struct extents;

struct extent {
	struct list link; /* in extents->ready, by stamp */
	struct io_op op;
	struct read_ticket ticket;
	struct extents *extents;
	enum extent_state state;
	uint64_t generation;
	/* for who takes it to fill in */
	unsigned volume_id, volume_index;
	uint64_t off, len; /* len: at most; less once it is measured */
	uint64_t order;	   /* of the walk */
	bool ask;	   /* it goes out as a question, and not its content */

	uint64_t stamp;
	bool zero, hole; /* hole: known without reading; buf is not filled */
	uint8_t *buf;
};

struct place { /* on a walk */
	unsigned volume_index;
	uint64_t off, order;
};

struct question {
	unsigned volume_id, volume_index;
	uint64_t off, len, order, generation;
};

struct extents_user { /* whose walk it is */
	void *owner;
	bool patient; /* what it reads may be sent later */
	/* Its length is known: the walk may go on behind it. `ask` may still be changed. */
	void (*measured)(void *owner, struct extent *extent);
	/* It cannot be read; it is free again. */
	void (*unreadable)(void *owner, const struct extent *extent);
	/* Its turn on the wire. False: no room. */
	bool (*send)(void *owner, struct extent *extent);
	/* Some were sent: there is room to read more. */
	void (*go_on)(void *owner);
	void (*answered)(void *owner, const struct question *question, bool differs);
};

struct extents {
	struct ship *ship;
	struct agent_group *group;
	const struct extents_user *user; /* NULL: nobody walks */
	uint64_t generation;
	struct extent list[EXTENTS];
	struct list ready;
	unsigned busy; /* not free */
	struct question questions[QUESTIONS_MAX];
	unsigned question_first, question_count;
	uint64_t answered; /* of this connection */
};

/* How fast is read: bytes per second, and what turned out to cost less is given back. */
struct pace {
	struct io *io;
	uint64_t rate_bytes; /* per second; 0 = no limit */
	uint64_t allowed_ns;
	struct io_timer timer;
	void (*due)(void *owner); /* after pace_allows() said no */
	void *owner;
};

/* What part of what is sent may be copied content while records wait. */
struct share {
	uint64_t copied_bytes, records_bytes;
	bool waits; /* the last share_allows() said no */
};

/* sync_pace.c */
void pace_init(struct pace *pace, struct io *io, void *owner, void (*due)(void *owner));
void pace_begin(struct pace *pace, uint64_t rate_bytes);
void pace_end(struct pace *pace);
bool pace_allows(struct pace *pace);
void pace_count(struct pace *pace, uint64_t bytes);
void pace_refund(struct pace *pace, uint64_t bytes);
void share_begin(struct share *share, const struct ship *ship);
/* False: ship_sync_pump() asks again as records go out. */
bool share_allows(struct share *share, const struct ship *ship);

/* sync_extent.c */
void extents_begin(struct extents *extents, const struct extents_user *user);
/* What is being read comes back to nothing; questions without an answer are nobody's. */
void extents_end(struct extents *extents);
struct extent *extents_take(struct extents *extents); /* NULL: none is free */
/* Begins; `measured` comes, also when only the beginning turns out to be a hole. */
void extent_map(struct extent *extent);
/* Reads it as it is; no `measured`. At most EXTENT_BYTES. */
void extent_read(struct extent *extent);
bool extents_mapping(const struct extents *extents);
/* Sends what is due before the segment behind `sent_seq`. False: the link has no room. */
bool extents_pump(struct extents *extents, uint64_t sent_seq);
/* Lowers `low` to the first place of the walk that is in an extent or a question. */
void extents_low(const struct extents *extents, struct place *low);

/* compare.c */
/* Questions that are somebody's. */
unsigned compare_open(const struct extents *extents);
/* Sends the extent as a question. False: no room. */
bool compare_ask(struct extents *extents, const struct extent *extent);

#endif
