/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look at a group directory's superblock without owning the group: who it belongs to, for control
 * threads and the command. Blocking; any thread that may block.
 */
#ifndef HOLDFAST_CORE_CONF_PEEK_H
#define HOLDFAST_CORE_CONF_PEEK_H

#include "core/conf/conf.h"
#include "core/conf/status.h"
#include "proto/superblock.h"

/* 0; -ENOENT no such group here; SUPERBLOCK_E_* (positive) damaged or too new; other errno. */
int peek_superblock(const char *state_dir, const char *group, struct superblock *ret_sb);

/* What a status can say of a group that no daemon here has open. */
void peek_status(const struct superblock *sb, const char *node, struct status_group *ret_status);

/* Volumes of the configuration that the group does not have, as "a, b" (as many as fit); "" when it
 * has them all. */
const char *peek_lacking(const struct conf_group *conf, const struct superblock *sb, char *text,
			 size_t text_max);

/* "primary", "standby", "fenced". */
const char *peek_role(const struct superblock *sb);

#endif
