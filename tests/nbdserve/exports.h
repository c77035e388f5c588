/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exports of nbdserve: memory, nothing at all, and a plain file. They live on one loop; free
 * them when that has ended.
 */
#ifndef HOLDFAST_TESTS_NBDSERVE_EXPORTS_H
#define HOLDFAST_TESTS_NBDSERVE_EXPORTS_H

#include "core/block/export.h"
#include "core/io/io.h"

/* Zeroes at first; remembers which blocks of 4 KiB were never written. Replies `delay_ns` late. */
struct export *ram_export_new(struct io *io, const char *name, uint64_t size_bytes,
			      uint64_t delay_ns);
/* Takes writes and forgets them, reads whatever the buffer holds: measures the server alone. */
struct export *null_export_new(struct io *io, const char *name, uint64_t size_bytes);
/* 0 or a negative errno. */
int file_export_new(struct io *io, const char *name, const char *path, struct export **ret_export);

#endif
