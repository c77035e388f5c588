/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated disk of a host. Not for use outside tests/sim.
 *
 * A file has two images in chunks of 8 KiB: `now`, what reads return, and `durable`, what certainly
 * survives a power loss. Writes that have completed and are not durable wait in `pending`, each
 * with a version, the order in which they completed. A sector remembers the version of its durable
 * content, so an older write can never come back over a newer one that is durable.
 */
#ifndef HOLDFAST_TESTS_SIM_DISK_H
#define HOLDFAST_TESTS_SIM_DISK_H

#include "tests/sim/internal.h"

#define CHUNK_BYTES    8192u
#define CHUNK_SECTORS  (CHUNK_BYTES / SIM_SECTOR_BYTES)
#define CHUNK_ALL      ((1u << CHUNK_SECTORS) - 1u)
#define PATH_MAX_BYTES 256u

struct chunk {
	uint8_t now[CHUNK_BYTES], durable[CHUNK_BYTES];
	uint64_t durable_version[CHUNK_SECTORS];
	uint32_t now_alloc, durable_alloc; /* a clear bit is a hole */
	struct list diverged;		   /* `now` may differ from `durable` */
	struct chunk *next_free;
};

/* Chunks without a byte other than 0, all hole or all allocated, take no memory. */
extern struct chunk chunk_zero;
#define CHUNK_HOLE NULL
#define CHUNK_ZERO (&chunk_zero)

struct sim_file {
	struct list link; /* of the disk */
	struct sim_disk *disk;
	const char *path; /* the world's */
	uint64_t size_bytes, used_sectors, mtime_ns;
	bool device, removed, exclusive;
	unsigned handle_count;
	int sticky_read, sticky_write;
	struct chunk **chunks;
	uint64_t chunk_count;
	struct list pending;   /* struct version, oldest first */
	struct list diverged;  /* struct chunk */
	struct list in_flight; /* struct disk_request that change it */
};

enum version_kind {
	VERSION_DATA,
	VERSION_HOLE,
	VERSION_ZERO,
};

/* One write's effect. */
struct version {
	struct list link;
	uint64_t number;
	enum version_kind kind;
	uint64_t first_sector, sector_count;
	uint8_t *bytes;	  /* VERSION_DATA */
	uint8_t *skipped; /* one per sector, set: not part of it; NULL = none */
};

struct sim_dir {
	struct list link;
	const char *path;
};

struct sim_disk {
	struct sim_host *host;
	struct sim_world *world;
	struct list files, dirs, locks;
	uint64_t versions, used_bytes, limit_bytes;
	struct disk_request *free_requests;
};

struct io_file {
	struct io *io; /* first: struct io_handle */
	struct list of_node;
	struct sim_file *file;
	unsigned flags, in_flight;
};

struct io_lock {
	struct io *io;
	struct list of_node, of_disk;
	const char *path;
};

struct disk_request {
	struct list of_node, of_file;
	struct sim_node *node;
	struct sim_event *event;
	struct io_file *handle;
	struct sim_file *file;
	struct io_op *op;
	enum sim_what what; /* WHAT_READ ... WHAT_CREATE */
	uint64_t off, len;
	uint8_t *buf;	/* read */
	uint8_t *early; /* read: what the medium gave when it began; NULL = it read at the end */
	bool *ret_hole; /* map */
	bool dsync, lose;
	int error;
	uint64_t covers; /* flush: versions up to this one */
	struct version *version;
	const char *path; /* create */
	unsigned iov_count;
	struct iovec iov[IO_IOV_MAX];
	struct disk_request *next_free;
};

/* image.c */
/* What is new is a hole, durably: a file system keeps its sizes with what it flushes. */
void file_grow(struct sim_file *file, uint64_t size_bytes);
struct sim_file *file_new(struct sim_disk *disk, const char *path, uint64_t size_bytes, bool device,
			  bool hole);
void file_free(struct sim_file *file);
struct version *version_new(enum version_kind kind, uint64_t first_sector, uint64_t sector_count);
void version_free(struct version *version);
/* Leaves out each sector by chance: a write that happened in part. May leave out none or all. */
void version_tear(struct sim_world *world, struct version *version);
/* Makes a version part of `now`; it stays with the caller. */
void version_apply(struct sim_file *file, struct version *version);
/* Makes it part of `durable` where it is not older than what is there. */
void version_commit(struct sim_file *file, const struct version *version);
/* Sectors of it that a power loss could still decide about. */
uint64_t version_open_sectors(const struct sim_file *file, const struct version *version);
void file_copy_out(const struct sim_file *file, bool durable, uint64_t off, void *buf, size_t len);
void file_touch(struct sim_file *file); /* its content changes now */
void file_copy_in(struct sim_file *file, uint64_t off, const void *buf, size_t len);
bool file_sector_is_hole(const struct sim_file *file, uint64_t sector);
/* Sectors of the range that would have to be allocated. */
uint64_t file_holes(const struct sim_file *file, uint64_t first_sector, uint64_t sector_count);
void file_flush(struct sim_file *file, uint64_t covers);
/* The failed flush: of the versions it covers some are kept, some vanish now, some at power loss.
 */
void file_flush_failed(struct sim_file *file, uint64_t covers);
void file_power_lost(struct sim_file *file);

/* disk_files.c */
struct sim_file *disk_find(const struct sim_disk *disk, const char *path);
bool disk_parent_exists(const struct sim_disk *disk, const char *path);
const char *disk_keep_path(struct sim_disk *disk, const char *path);
void file_unlink(struct sim_file *file);
void handle_release(struct io_file *handle);

/* disk_faults.c */
struct fate {
	int error;
	bool lose;
	int64_t offset_delta;
	uint64_t delay_ns;
};
void disk_fate(struct sim_node *node, struct sim_file *file, const char *path, uint32_t op,
	       struct fate *ret_fate);
void request_free(struct disk_request *request);
struct disk_request *request_new(struct sim_node *node, struct io_op *op, enum sim_what what);

#endif
