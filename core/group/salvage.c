/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   seek -> read all (sizes, ranges) -> a file of that name? -> compare -> the same: done
 *                                          | none, or unfinished          `-> other content: next
 *                                          v                                  name
 *                                       create -> read all again, write -> flush -> done
 */
#include "core/group/salvage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/group/group_dir.h"

#define NAMES_MAX 99u

struct salvage {
	struct salvage_options options;
	struct journal_reader reader;
	bool reader_open;
	struct salvage_result result;
	char error[256];
	struct io_op op;
	struct io_op *user;
	uint64_t asked_seq, last_seq, epoch;
	struct journal_position start; /* of the first segment kept */
	uint64_t total_bytes, off;     /* of the file */
	struct io_file *file;
	uint8_t *buf; /* what the file has */
	unsigned names;
	bool comparing;
};

int salvage_new(const struct salvage_options *options, struct salvage **ret_salvage)
{
	struct salvage *salvage = io_alloc(options->io, sizeof(*salvage), 64);
	int r;

	if (!salvage)
		return -ENOMEM;
	salvage->options = *options;
	salvage->buf = io_alloc(options->io, SEGMENT_TOTAL_MAX_BYTES, 4096);
	r = salvage->buf ? journal_reader_init(&salvage->reader, options->journal) : -ENOMEM;
	salvage->reader_open = !r;
	if (r) {
		salvage_free(salvage);
		return r;
	}
	*ret_salvage = salvage;
	return 0;
}

struct salvage *salvage_free(struct salvage *salvage)
{
	if (!salvage)
		return NULL;
	must(!salvage->user);
	io_file_close(salvage->file);
	if (salvage->reader_open)
		journal_reader_deinit(&salvage->reader);
	if (salvage->buf)
		io_free(salvage->options.io, salvage->buf);
	io_free(salvage->options.io, salvage);
	return NULL;
}

bool salvage_busy(const struct salvage *salvage)
{
	return salvage && salvage->user;
}

const struct salvage_result *salvage_result(const struct salvage *salvage)
{
	return &salvage->result;
}

const char *salvage_error(const struct salvage *salvage)
{
	return salvage->error;
}

static void finish(struct salvage *salvage, int64_t res)
{
	struct io_op *user = salvage->user;

	io_file_close(salvage->file);
	salvage->file = NULL;
	salvage->user = NULL;
	user->done(user, res);
}

static void fail_reading(struct salvage *salvage, int64_t res)
{
	snprintf(salvage->error, sizeof(salvage->error),
		 "salvage: the journal cannot be read: %.180s",
		 salvage->options.journal->error[0] ? salvage->options.journal->error
						    : err_text((int)res));
	finish(salvage, res);
}

static void fail_writing(struct salvage *salvage, int64_t res)
{
	snprintf(salvage->error, sizeof(salvage->error),
		 "salvage/%s cannot be written: %s; make room in the state directory",
		 salvage->result.name, err_text((int)res));
	finish(salvage, res);
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static void name_file(struct salvage *salvage, char path[GROUP_PATH_MAX])
{
	struct salvage_result *result = &salvage->result;
	int len = snprintf(result->name, sizeof(result->name), "%" PRIu64 "-%" PRIu64 "-%" PRIu64,
			   salvage->epoch, result->first_seq, salvage->last_seq);

	if (result->first_seq > salvage->asked_seq)
		len += snprintf(result->name + len, sizeof(result->name) - (size_t)len,
				"-lacks-%" PRIu64, salvage->asked_seq);
	if (salvage->names > 0)
		snprintf(result->name + len, sizeof(result->name) - (size_t)len, ".%u",
			 salvage->names + 1);
	snprintf(path, GROUP_PATH_MAX, "%s/salvage/%s", salvage->options.dir, result->name);
}

static void each_again(struct salvage *salvage);

static void flushed(struct io_op *op, int64_t res)
{
	struct salvage *salvage = container_of(op, struct salvage, op);

	if (res < 0)
		fail_writing(salvage, res);
	else
		finish(salvage, 0);
}

static void written(struct io_op *op, int64_t res)
{
	struct salvage *salvage = container_of(op, struct salvage, op);

	if (res < 0) {
		fail_writing(salvage, res);
		return;
	}
	salvage->off += salvage->reader.header.total_bytes;
	each_again(salvage);
}

static void created(struct io_op *op, int64_t res)
{
	struct salvage *salvage = container_of(op, struct salvage, op);
	char path[GROUP_PATH_MAX];

	name_file(salvage, path);
	if (res >= 0)
		res = io_file_open(salvage->options.io, path, IO_OPEN_DIRECT, &salvage->file);
	if (res < 0) {
		fail_writing(salvage, res);
		return;
	}
	salvage->comparing = false;
	salvage->off = 0;
	journal_reader_set(&salvage->reader, &salvage->start);
	each_again(salvage);
}

static void create(struct salvage *salvage)
{
	char path[GROUP_PATH_MAX];

	io_file_close(salvage->file);
	salvage->file = NULL;
	name_file(salvage, path);
	salvage->op.done = created;
	io_file_create(salvage->options.io, path, salvage->total_bytes, &salvage->op);
}

static void try_name(struct salvage *salvage);

static void next_name(struct salvage *salvage)
{
	io_file_close(salvage->file);
	salvage->file = NULL;
	salvage->names++;
	try_name(salvage);
}

/* A file of another length: its making was interrupted, and then it holds no segment yet, or it is
 * of other content. */
static void other_read(struct io_op *op, int64_t res)
{
	struct salvage *salvage = container_of(op, struct salvage, op);
	struct segment_header header;

	if (res >= 0 && !segment_header_decode(salvage->buf, SEGMENT_ALIGN_BYTES, &header) &&
	    salvage->names < NAMES_MAX)
		next_name(salvage);
	else
		create(salvage);
}

static void try_name(struct salvage *salvage)
{
	char path[GROUP_PATH_MAX];
	struct io_file_info info;
	int r;

	name_file(salvage, path);
	r = io_file_open(salvage->options.io, path, IO_OPEN_DIRECT | IO_OPEN_READ_ONLY,
			 &salvage->file);
	if (r) { /* none, or one that cannot be opened: creating it tells */
		create(salvage);
		return;
	}
	io_file_info(salvage->file, &info);
	if (info.size_bytes != salvage->total_bytes) {
		salvage->op.done = other_read;
		if (info.size_bytes < SEGMENT_ALIGN_BYTES)
			create(salvage);
		else
			io_read(salvage->file, salvage->buf, SEGMENT_ALIGN_BYTES, 0, &salvage->op);
		return;
	}
	salvage->comparing = true;
	salvage->off = 0;
	journal_reader_set(&salvage->reader, &salvage->start);
	each_again(salvage);
}

/* The file holds something else at this place: a segment of its own, or what a crash left. */
static void compared(struct io_op *op, int64_t res)
{
	struct salvage *salvage = container_of(op, struct salvage, op);
	uint32_t len = salvage->reader.header.total_bytes;
	struct segment_header header;

	if (res >= 0 && !memcmp(salvage->buf, salvage->reader.stored, len)) {
		salvage->off += len;
		each_again(salvage);
		return;
	}
	if (res >= 0 && !segment_header_decode(salvage->buf, len, &header) &&
	    !segment_verify(salvage->buf, len, &header) && salvage->names < NAMES_MAX) {
		next_name(salvage);
		return;
	}
	create(salvage);
}

/* A segment, the second time: to be compared or written. */
static void read_again(struct io_op *op, int64_t res)
{
	struct salvage *salvage = container_of(op, struct salvage, op);
	uint32_t len = salvage->reader.header.total_bytes;

	if (res <= 0) {
		fail_reading(salvage, res ? res : -ESTALE);
		return;
	}
	must(salvage->off + len <= salvage->total_bytes);
	if (salvage->comparing) {
		salvage->op.done = compared;
		io_read(salvage->file, salvage->buf, len, salvage->off, &salvage->op);
	} else {
		salvage->op.done = written;
		io_write(salvage->file, salvage->reader.stored, len, salvage->off, 0, &salvage->op);
	}
}

static void each_again(struct salvage *salvage)
{
	if (salvage->off < salvage->total_bytes) {
		salvage->op.done = read_again;
		journal_reader_next(&salvage->reader, &salvage->op);
		return;
	}
	/* Also what was there before: a process that was killed had not flushed it. */
	salvage->op.done = flushed;
	io_flush(salvage->file, &salvage->op);
}

/* ---- the journal ------------------------------------------------------------------------------
 */

static void all_read(struct salvage *salvage)
{
	char path[GROUP_PATH_MAX];
	int r;

	if (!salvage->total_bytes) {
		finish(salvage, 0);
		return;
	}
	snprintf(path, sizeof(path), "%s/salvage", salvage->options.dir);
	r = io_mkdir(salvage->options.io, path);
	name_file(salvage, path);
	if (r)
		fail_writing(salvage, r);
	else
		try_name(salvage);
}

static void count(struct salvage *salvage)
{
	const struct segment_header *header = &salvage->reader.header;
	const uint8_t *table = salvage->reader.stored + SEGMENT_HEADER_BYTES;
	struct salvage_result *result = &salvage->result;

	if (!result->first_seq) {
		result->first_seq = header->first_seq;
		salvage->epoch = header->epoch;
	}
	salvage->total_bytes += header->total_bytes;
	result->records += header->records;
	for (uint32_t i = 0; i < header->records; i++) {
		struct record record;

		if (!record_decode(table + (size_t)i * RECORD_BYTES, header, &record) &&
		    record_has_range(&record))
			result->bytes += record.length_bytes;
	}
	if (salvage->options.segment)
		salvage->options.segment(salvage->options.owner, header, table);
}

static void read_first_time(struct io_op *op, int64_t res)
{
	struct salvage *salvage = container_of(op, struct salvage, op);

	if (res < 0) {
		fail_reading(salvage, res);
		return;
	}
	if (res > 0) {
		count(salvage);
		if (segment_last_seq(&salvage->reader.header) < salvage->last_seq) {
			journal_reader_next(&salvage->reader, &salvage->op);
			return;
		}
	}
	all_read(salvage);
}

static void found(struct io_op *op, int64_t res)
{
	struct salvage *salvage = container_of(op, struct salvage, op);

	if (res < 0) {
		fail_reading(salvage, res);
		return;
	}
	salvage->start = salvage->reader.at;
	if (salvage->start.seq == salvage->asked_seq)
		salvage->result.chain = salvage->start.chain;
	salvage->op.done = read_first_time;
	journal_reader_next(&salvage->reader, &salvage->op);
}

static void nothing(struct io_op *op, int64_t res)
{
	finish(container_of(op, struct salvage, op), res);
}

void salvage_run(struct salvage *salvage, uint64_t first_seq, uint64_t last_seq, struct io_op *op)
{
	const struct journal *journal = salvage->options.journal;
	uint64_t oldest_seq = journal_oldest_seq(journal),
		 from_seq = max_u64(first_seq, oldest_seq);

	must(!salvage->user && first_seq >= 1 && last_seq <= journal->durable_seq);
	salvage->user = op;
	salvage->error[0] = 0;
	salvage->result = (struct salvage_result){ .missing = min_u64(from_seq, last_seq + 1) -
							      min_u64(first_seq, last_seq + 1) };
	salvage->asked_seq = first_seq;
	salvage->last_seq = last_seq;
	salvage->total_bytes = 0;
	salvage->names = 0;
	if (from_seq > last_seq) {
		salvage->op.done = nothing;
		io_defer(salvage->options.io, &salvage->op, 0);
		return;
	}
	salvage->op.done = found;
	journal_reader_seek(&salvage->reader, from_seq, &salvage->op);
}
