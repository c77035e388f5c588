/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One group on its primary: capture, journal, local apply, shipping to standbys.
 *
 * Owner: the group's loop thread (`io`). Everything here is called there; callbacks come there.
 * agent/main.c makes the loop and its thread; the simulator makes a simulated one.
 */
#ifndef HOLDFAST_AGENT_AGENT_H
#define HOLDFAST_AGENT_AGENT_H

#include "core/block/export.h"
#include "core/conf/conf.h"
#include "core/conf/status.h"
#include "core/io/io.h"
#include "proto/superblock.h"

struct agent_group;

struct agent_events {
	void *owner;
	/* start finished: 0 = serving; else the group is not served and status says why (positive
	 * or negative errno: -ESTALE fenced by a higher epoch, -EBUSY somebody else owns the
	 * directory, -EUCLEAN damaged). -EPERM: it is held (status: held, agent/held.h); called
	 * again, with 0, when it is served after all. */
	void (*started)(void *owner, struct agent_group *group, int res);
	/* the group stopped serving by itself: fenced, or its journal failed. Exports must go away
	 * at once. */
	void (*failed)(void *owner, struct agent_group *group, int res);
	/* after agent_group_stop(): 0 = clean, volumes current; else not clean. The group may be
	 * freed. */
	void (*stopped)(void *owner, struct agent_group *group, int res);
	/* after the group was fenced, or found not to be this agent's at its start (`started` or
	 * `failed` has said so): everything is closed and the directory's lock is free, so that the
	 * engine can have it. The group may be freed. May be NULL. */
	void (*released)(void *owner, struct agent_group *group);
};

struct agent_options {
	struct io *io;
	const struct conf *conf;
	const struct conf_group *group;
	struct io_tls *tls;
	struct agent_events events;
};

/* Takes all memory the group will ever need (bounded by conf: memory_bytes). 0 or -ENOMEM. */
int agent_group_new(const struct agent_options *options, struct agent_group **ret_group);
struct agent_group *agent_group_free(struct agent_group *group);
void agent_group_start(struct agent_group *group);
/* A stop will come when the clients are gone: in mode sync, what waits for a standby does not wait
 * longer than sync_timeout from here on, then it fails. */
void agent_group_leave(struct agent_group *group);
/* Stops serving, drains journal and apply, checkpoints, says BYE to standbys. */
void agent_group_stop(struct agent_group *group);
/* The export of a volume; NULL when there is no such volume or the group is not served. */
struct export *agent_group_export(struct agent_group *group, const char *volume);
struct export *agent_group_export_at(struct agent_group *group,
				     unsigned index); /* NULL past the end */
/* Puts a named mark into the stream. `done` gets its seq, or a negative errno. One at a time. */
void agent_group_mark(struct agent_group *group, const char *name, struct io_op *op);
void agent_group_status(struct agent_group *group, struct status_group *ret_status);

/*
 * Planned hand-over to a standby: hold new writes, drain, the standby takes the next epoch, this
 * copy follows it. One at a time. Nothing is lost whatever dies: until the standby has taken over,
 * abort (a timeout, a refusal) leaves everything as it was; from the moment it was asked to, only
 * its own word decides, also across restarts.
 */
struct agent_switchover {
	/* in */
	const char *node;    /* the standby; NULL: the only one */
	uint64_t timeout_ns; /* how long writes may be held before it is given up */
	bool has_expect_epoch;
	uint64_t expect_epoch;
	/* out */
	int res; /* 0; -EAGAIN the standby is not ready (not connected, copying, too far behind);
		    -ETIMEDOUT given up, serving goes on; -EBUSY; -ESTALE epoch; -EINPROGRESS asked,
		    and no answer yet: the outcome is unknown and settles itself; other errno */
	char text[512];
	char to[NODE_NAME_MAX + 1];
	uint64_t epoch, seq;	   /* the new epoch; the last seq of the old one */
	uint64_t held_ns, took_ns; /* writes were held; all of it */
	void (*done)(struct agent_switchover *switchover);
};
void agent_group_switchover(struct agent_group *group, struct agent_switchover *switchover);

enum agent_task_kind {
	AGENT_RESYNC, /* copy to a standby again: what is known to differ, or `everything` */
	AGENT_VERIFY, /* compare a standby with this copy; progress and result in its status */
	AGENT_VERIFY_STOP,
	AGENT_ACCEPT, /* go on in spite of what holds the group (status: held): a higher epoch */
	AGENT_VOLUME_ADD,    /* volume, path */
	AGENT_VOLUME_REMOVE, /* volume */
	AGENT_VOLUME_RESIZE, /* volume: to what its file or device has become */
};
struct agent_task {
	/* in */
	enum agent_task_kind kind;
	const char *node; /* RESYNC, VERIFY: NULL = every standby */
	bool everything;  /* RESYNC: not only what is known to differ */
	bool compare;	  /* RESYNC: ranges are compared first, only what differs is sent */
	bool repair;	  /* VERIFY: what differs is sent */
	const char *volume, *path;
	uint64_t rate_bytes; /* VERIFY: per second; 0 = as configured */
	bool has_expect_epoch;
	uint64_t expect_epoch;
	/* out */
	int res; /* 0: done, or begun (RESYNC, VERIFY); -ENOENT no such standby or volume; -EAGAIN
		    not now; -EINVAL; -ESTALE epoch; other errno */
	char text[512]; /* what, where, what to do, when res != 0 */
	uint64_t seq;	/* of the record, where the task made one */
	void (*done)(struct agent_task *task);
};
void agent_group_task(struct agent_group *group, struct agent_task *task);

#endif
