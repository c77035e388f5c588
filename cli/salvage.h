/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One salvage as the command reads it: its records without their data, and the names of its
 * volumes. Private to the verb salvage. One thread.
 */
#ifndef HOLDFAST_CLI_SALVAGE_H
#define HOLDFAST_CLI_SALVAGE_H

#include "cli/cli.h"
#include "core/conf/salvage_read.h"
#include "proto/superblock.h"

struct salvage_item {
	uint64_t seq, epoch, time_ns;
	struct record record;
	char mark[MARK_NAME_MAX + 1]; /* of a mark, as far as it is printable */
};

struct salvage_view {
	const struct cli *cli;
	const char *group, *id;
	char dir[1024]; /* of the group */
	struct superblock *sb;
	struct salvage_info info;
	struct salvage_item *items;
	size_t count, room;
	char error[1300];
};

/* EXIT_OK, or the exit code after it complained. What was read before damage stays in `items`. */
int salvage_view_read(struct salvage_view *view);
void salvage_view_free(struct salvage_view *view);
/* The volume's name, or volume-ID when the group has it no more. */
const char *salvage_view_volume(const struct salvage_view *view, unsigned id,
				char text[VOLUME_NAME_MAX + 1]);
const char *salvage_type(const struct record *record);
json_t *salvage_info_json(const struct salvage_info *info);

/* Writes VOLUME.img for each volume and map.json into the directory `out`; or, `raw`, records.json
 * and records.data. Overwrites nothing. EXIT_OK, or the exit code after it complained. */
int salvage_extract_to(const struct salvage_view *view, const char *out, bool raw);

#endif
