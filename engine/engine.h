/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One group on a standby: receive, verify, journal, acknowledge, apply, promote.
 *
 * Owner: the group's loop thread (`io`). engine/main.c makes loops; its lobby accepts connections,
 * does TLS, reads the HELLO frame, and hands stream and message to the group that it names.
 */
#ifndef HOLDFAST_ENGINE_ENGINE_H
#define HOLDFAST_ENGINE_ENGINE_H

#include "core/conf/conf.h"
#include "core/conf/status.h"
#include "core/io/io.h"
#include "proto/link.h"

struct engine_group;

struct engine_events {
	void *owner;
	/* start finished: 0 = ready to receive; 1 = the group is not a standby here (its superblock
	 * says primary or fenced): not opened, HELLOs are answered by role and epoch; negative
	 * errno: failed */
	void (*started)(void *owner, struct engine_group *group, int res);
	/* after engine_group_stop() */
	void (*stopped)(void *owner, struct engine_group *group, int res);
	/* the primary has handed the group over: it is primary here under `epoch`, its directory is
	 * closed and unlocked, the agent may adopt it. May be NULL. */
	void (*handed)(void *owner, struct engine_group *group, uint64_t epoch);
};

struct engine_options {
	struct io *io;
	const struct conf *conf;
	const struct conf_group *group;
	struct engine_events events;
};

int engine_group_new(const struct engine_options *options, struct engine_group **ret_group);
struct engine_group *engine_group_free(struct engine_group *group);
void engine_group_start(struct engine_group *group);
void engine_group_stop(struct engine_group *group);

/*
 * A primary (its identity verified by TLS) said HELLO for this group on `stream`, which has no
 * operation pending. The group owns the stream from here: answers WELCOME and receives, or REFUSEs
 * and closes.
 */
void engine_group_connect(struct engine_group *group, struct io_stream *stream,
			  const struct link_hello *hello);

/* What the primary's mode says of acknowledged writes (acknowledged as durable: written through, or
 * flushed) that a promote loses. */
enum engine_loss {
	ENGINE_LOSS_UNKNOWN, /* mode async, or not in sync when it was last heard */
	/* there were none when it was last heard; it may have gone on alone since, after its
	 * sync_timeout */
	ENGINE_LOSS_NONE_THEN,
	/* there are none: it acknowledges nothing that is not here (on_sync_loss = freeze) */
	ENGINE_LOSS_NONE,
};

struct engine_promote {
	/* in */
	bool force; /* although the primary is connected and alive */
	bool has_expect_epoch;
	uint64_t expect_epoch; /* refuse unless this is the current epoch */
	/* out */
	int res; /* 0; -EAGAIN primary alive, -EUCLEAN never consistent, -ESTALE epoch, -EALREADY is
		    primary, other errno */
	char text[512];		   /* the reason of a refusal, what to do */
	uint64_t epoch, seq;	   /* the new epoch; the last seq of the old one */
	uint64_t position_time_ns; /* wall-clock time of the last write that is there */
	struct status_lag lost;	   /* known to be lost */
	enum engine_loss loss;	   /* what its mode says of it */
	uint64_t differing_ranges; /* from the old primary's content, as a verification found */
	uint64_t heard_ns_ago;	   /* for how long nothing was heard; UINT64_MAX = never */
	uint64_t took_ns;
	void (*done)(struct engine_promote *promote);
};
/* Stops receiving, applies to the standby's position, writes the new epoch durably and closes the
 * group: afterwards its directory is a primary's and unlocked. May be called again after a crash at
 * any step. */
void engine_group_promote(struct engine_group *group, struct engine_promote *promote);
void engine_group_status(struct engine_group *group, struct status_group *ret_status);

enum engine_task_kind {
	/* The operator's word: what this copy holds and the ruling history does not becomes
	 * salvage, and the copy follows. For a fenced or diverged copy; a primary is demoted first
	 * (it must not be served). */
	ENGINE_REJOIN,
	/* Gives up the kept position of a resync that has no room to go on. */
	ENGINE_DROP_KEPT,
	ENGINE_VOLUME_PATH, /* volume, path: of a volume that the primary has added or will add */
};
struct engine_task {
	/* in */
	enum engine_task_kind kind;
	const char *volume, *path;
	bool without_salvage; /* ENGINE_REJOIN: also what the journal no longer holds is given up */
	bool has_expect_epoch;
	uint64_t expect_epoch;
	/* out */
	int res; /* 0; -EALREADY nothing to do; -EPERM; -ESTALE epoch; -EAGAIN; other errno */
	char text[512];
	uint64_t epoch, seq; /* of the copy */
	void (*done)(struct engine_task *task);
};
void engine_group_task(struct engine_group *group, struct engine_task *task);

#endif
