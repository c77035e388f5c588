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

struct agent_group;

struct agent_events {
	void *owner;
	/* start finished: 0 = serving; else the group is not served and status says why (positive
	 * or negative errno: -ESTALE fenced by a higher epoch, -EBUSY somebody else owns the
	 * directory, -EUCLEAN damaged) */
	void (*started)(void *owner, struct agent_group *group, int res);
	/* the group stopped serving by itself: fenced, or its journal failed. Exports must go away
	 * at once. */
	void (*failed)(void *owner, struct agent_group *group, int res);
	/* after agent_group_stop(): 0 = clean, volumes current; else not clean. The group may be
	 * freed. */
	void (*stopped)(void *owner, struct agent_group *group, int res);
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
/* Stops serving, drains journal and apply, checkpoints, says BYE to standbys. */
void agent_group_stop(struct agent_group *group);
/* The export of a volume; NULL when there is no such volume or the group is not served. */
struct export *agent_group_export(struct agent_group *group, const char *volume);
struct export *agent_group_export_at(struct agent_group *group,
				     unsigned index); /* NULL past the end */
/* Puts a named mark into the stream. `done` gets its seq, or a negative errno. One at a time. */
void agent_group_mark(struct agent_group *group, const char *name, struct io_op *op);
void agent_group_status(struct agent_group *group, struct status_group *ret_status);

#endif
