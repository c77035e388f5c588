/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Salvage files read back: GROUPDIR/salvage/EPOCH-FIRST-LAST[-lacks-ASKED][.NUMBER], journal
 * segments one behind the other (core/group/salvage.h writes them). For the command and for
 * daemons' control threads: blocking file reads, any thread, no state between calls.
 */
#ifndef HOLDFAST_CORE_CONF_SALVAGE_READ_H
#define HOLDFAST_CORE_CONF_SALVAGE_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/segment.h"

struct salvage_info {
	char name[128];			     /* of the file */
	uint64_t epoch, first_seq, last_seq; /* by its name */
	uint64_t
		lacks_seq; /* from here to first_seq - 1 nothing could be kept; 0 = nothing lacks */
	uint64_t records, bytes; /* that are there; bytes of volume content */
	uint64_t file_bytes;
	uint64_t first_time_ns, last_time_ns; /* wall clock of the writer; 0 = none */
	bool whole;			      /* everything up to last_seq is there and sound */
	char problem[128];		      /* why not, "" when whole */
};

struct salvage_record {
	uint64_t seq, epoch, time_ns;
	struct record record;
	const uint8_t *data; /* unpacked content or mark's name, record.length_bytes; NULL without;
				valid during the call */
};

/* The salvages of a group directory, by epoch and first seq. 0, also when there are none; negative
 * errno. *ret_list is freed by the caller. A file that cannot be read is listed with its problem.
 */
int salvage_list(const char *group_dir, struct salvage_info **ret_list, unsigned *ret_count);
/* How many there are; nothing of them is read. */
unsigned salvage_count(const char *group_dir);
/* One of them, by name. -ENOENT; -EINVAL: no name of a salvage. */
int salvage_show(const char *group_dir, const char *name, struct salvage_info *ret_info);
/* Calls for every record, in order of seq. `visit` returns 0 to go on; anything else ends the walk
 * and is returned. -EUCLEAN where the file is damaged or unfinished, with `error`. */
int salvage_each(const char *group_dir, const char *name,
		 int (*visit)(void *owner, const struct salvage_record *record), void *owner,
		 char *error, size_t error_max);
/* Writes what the records made of one volume's ranges to `fd`, each at its offset on the volume, in
 * order; what they did not touch is not written. *ret_bytes: written, overwritten ones again. */
int salvage_extract(const char *group_dir, const char *name, unsigned volume_id, int fd,
		    uint64_t *ret_bytes, char *error, size_t error_max);

#endif
