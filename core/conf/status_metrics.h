/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prometheus text of one daemon and the groups that it owns. Names and meanings are in
 * docs/reference.md. Pure, any thread.
 */
#ifndef HOLDFAST_CORE_CONF_STATUS_METRICS_H
#define HOLDFAST_CORE_CONF_STATUS_METRICS_H

#include "core/conf/status.h"

/* Whether an engine has the copy open: a standby, or a fenced copy that is to become one. */
bool status_is_follower(const struct status_group *status);
/* Whether a group could be promoted (seen from its standby), or its standby could be (seen from its
 * primary), with its objective kept, now. */
bool status_is_protected(const struct status_group *status);
/* Whether a verification has found a difference that is neither repaired nor gone. */
bool status_differs(const struct status_group *status);

/* The text, to be freed; NULL when out of memory. `groups` are pointers: a status is large. */
char *status_metrics(const char *daemon, const char *node, const struct status_group *const *groups,
		     unsigned group_count);

#define STATUS_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
