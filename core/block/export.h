/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a block front end (NBD server; later ublk, kernel NBD) needs of whatever it serves (an
 * agent's volume; later an engine's view): one small table of asynchronous requests.
 *
 * Owner: all calls and callbacks happen on the export's loop thread. A front end validates a
 * request (range, alignment, flags against the export's limits) before it submits it; an export may
 * assert what was validated.
 */
#ifndef HOLDFAST_CORE_BLOCK_EXPORT_H
#define HOLDFAST_CORE_BLOCK_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/io/io.h"

struct export;
struct export_request;

enum export_op {
	EXPORT_READ = 1,
	EXPORT_WRITE,
	EXPORT_FLUSH,
	EXPORT_TRIM,
	EXPORT_WRITE_ZEROES,
	EXPORT_CACHE,
	EXPORT_MAP, /* completes with the length of one run; request->hole tells its kind */
};

enum export_flags {
	EXPORT_FUA = 1u << 0,
	EXPORT_NO_HOLE = 1u << 1,
	EXPORT_FAST_ZERO = 1u << 2,
};

/*
 * One request in flight. The front end owns the memory; from submit() until done() it and the
 * buffer belong to the export. `res` is 0 (for MAP the run's length) or a negative errno. `link`
 * and `priv` are the export's while the request is in flight.
 */
struct export_request {
	void (*done)(struct export_request *request, int64_t res);
	enum export_op op;
	unsigned flags;
	uint64_t offset_bytes;
	uint64_t length_bytes; /* READ, WRITE: at most limits.request_max_bytes */
	uint8_t *buf;	       /* READ: filled; WRITE: the data, aligned to 4096 */
	bool hole;	       /* MAP: result */
	struct list link;
	uint64_t priv[6];
};

struct export_limits {
	uint64_t size_bytes;
	uint32_t block_min_bytes; /* offsets and lengths are multiples of it */
	uint32_t block_preferred_bytes;
	uint32_t request_max_bytes; /* of READ and WRITE */
	bool read_only;
	bool volatile_cache; /* false: writes are durable when done, FLUSH is free */
	bool fast_zero;	     /* WRITE_ZEROES with EXPORT_FAST_ZERO is really fast */
};

struct export_ops {
	/* Completion is never from inside the call. */
	void (*submit)(struct export *export, struct export_request *request);
	/* A front end attaches before its first request and detaches after its last completed. */
	int (*attach)(struct export *export); /* 0, or -ESHUTDOWN while it is being stopped */
	void (*detach)(struct export *export);
};

struct export
{
	const struct export_ops *ops;
	const char *name;	 /* as clients ask for it, UTF-8, <= 255 bytes */
	const char *description; /* may be NULL */
	struct export_limits limits;
	struct list link; /* the owner's, or the NBD server's list of exports */
};

#endif
