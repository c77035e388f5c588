/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/journal_read.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/macros.h"

#define NO_RUN	      SIZE_MAX
#define SKIPPED_SLOTS 2u  /* that a writer may pass over after failures */
#define WITNESSES     16u /* segments that follow each other: more than are ever under way */

/* A place in the history: what the segment there has to continue. */
struct place {
	uint64_t seq, chain, epoch;
};

__attribute__((format(printf, 4, 5))) static void damaged(struct journal_view *view, uint32_t slot,
							  uint64_t off, const char *format, ...)
{
	struct journal_damage *damage;
	va_list args;

	if (view->damage_count == JOURNAL_DAMAGE_MAX)
		return;
	damage = &view->damage[view->damage_count++];
	(void)snprintf(damage->file, sizeof(damage->file), "journal/%08" PRIu32, slot);
	damage->off = off;
	va_start(args, format);
	(void)vsnprintf(damage->reason, sizeof(damage->reason), format, args);
	va_end(args);
}

/* ---- bytes -------------------------------------------------------------------------------------
 */

static int read_at(int fd, uint8_t *bytes, size_t length_bytes, uint64_t off)
{
	size_t done = 0;

	while (done < length_bytes) {
		ssize_t n = pread(fd, bytes + done, length_bytes - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		done += (size_t)n;
	}
	return 0;
}

static int open_slot(struct journal_view *view, uint32_t slot)
{
	char path[1100];

	(void)snprintf(path, sizeof(path), "%s/journal/%08" PRIu32, view->dir, slot);
	view->fd = open(path, O_RDONLY | O_CLOEXEC);
	return view->fd < 0 ? -errno : 0;
}

static void close_slot(struct journal_view *view)
{
	if (view->fd >= 0)
		(void)close(view->fd);
	view->fd = -1;
}

/*
 * The segment at an offset of the open slot. 0; SEGMENT_E_*; SEGMENT_E_SHORT also where the slot
 * ends; or a negative errno. *ret_chain is the chain value behind it. The header is filled when it
 * is right, even if the rest is not.
 */
static int read_segment(struct journal_view *view, uint64_t off, bool whole,
			struct segment_header *ret_header, uint64_t *ret_chain)
{
	uint64_t left = view->sb->slot_bytes - off;
	int res;

	memset(ret_header, 0, sizeof(*ret_header));
	if (left < SEGMENT_ALIGN_BYTES)
		return SEGMENT_E_SHORT;
	res = read_at(view->fd, view->stored, SEGMENT_ALIGN_BYTES, off);
	if (res == 0)
		res = segment_header_decode(view->stored, SEGMENT_ALIGN_BYTES, ret_header);
	if (res != 0) {
		memset(ret_header, 0, sizeof(*ret_header));
		return res;
	}
	*ret_chain = segment_chain(view->stored);
	if (ret_header->total_bytes > left)
		return SEGMENT_E_FIELD;
	if (!whole)
		return 0;
	res = read_at(view->fd, view->stored, ret_header->total_bytes, off);
	view->read_bytes += ret_header->total_bytes;
	if (res == 0)
		res = segment_verify(view->stored, ret_header->total_bytes, ret_header);
	if (res == 0 && view->unpack)
		res = segment_unpack(view->stored, ret_header, view->data);
	return res;
}

/* ---- runs --------------------------------------------------------------------------------------
 */

static uint64_t epoch_at(const struct superblock *sb, uint64_t seq)
{
	for (uint32_t i = sb->history_count; i > 0; i--) {
		if (sb->history[i - 1].first_seq <= seq)
			return sb->history[i - 1].epoch;
	}
	return 0;
}

static bool is_ours(const struct journal_view *view, const struct segment_header *header)
{
	return uuid_equal(&header->group, &view->sb->group) &&
	       header->epoch >= epoch_at(view->sb, header->first_seq);
}

static bool follows(const struct journal_view *view, const struct segment_header *header,
		    const struct place *place)
{
	return is_ours(view, header) && header->first_seq == place->seq &&
	       header->chain == place->chain && header->epoch >= place->epoch;
}

static int keep_segment(struct journal_view *view, const struct journal_segment *segment)
{
	if (view->segment_count == view->segment_room) {
		size_t room = view->segment_room ? 2 * view->segment_room : 1024;
		struct journal_segment *more =
			realloc(view->segments, room * sizeof(*view->segments));

		if (!more)
			return -ENOMEM;
		view->segments = more;
		view->segment_room = room;
	}
	view->segments[view->segment_count++] = *segment;
	return 0;
}

static bool is_blank(const uint8_t *bytes)
{
	for (size_t i = 0; i < SEGMENT_ALIGN_BYTES; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

/* Reads a run of the open slot. `place` may be NULL: then the first segment is taken as it is. */
static int read_run(struct journal_view *view, struct journal_run *run, const struct place *place)
{
	struct place at = place ? *place : (struct place){ .seq = 0 };
	int res;

	run->first = view->segment_count;
	run->end_off = run->off;
	run->from = NO_RUN;
	for (;;) {
		struct journal_segment segment = { .slot = run->slot, .off = run->end_off };

		res = read_segment(view, run->end_off, true, &segment.header, &segment.chain_after);
		if (run->count == 0)
			run->blank = res > 0 && is_blank(view->stored);
		run->why = res;
		if (res < 0 && res != -ENODATA)
			return res;
		if (res == -ENODATA)
			run->why = SEGMENT_E_SHORT;
		if (res == 0 && (place || run->count > 0) && !follows(view, &segment.header, &at))
			return 0;
		if (res == 0 && !is_ours(view, &segment.header))
			return 0;
		if (res != 0)
			return 0;
		res = keep_segment(view, &segment);
		if (res < 0)
			return res;
		run->count++;
		run->end_off += segment.header.total_bytes;
		at = (struct place){ segment_last_seq(&segment.header) + 1, segment.chain_after,
				     segment.header.epoch };
	}
}

static int read_slots(struct journal_view *view)
{
	const struct superblock *sb = view->sb;
	uint64_t total = sb->slot_bytes * sb->slots;
	struct journal_run *applied = &view->runs[sb->slots];
	const struct place place = { sb->applied_seq + 1, sb->applied_chain, 0 };
	int res;

	for (uint32_t i = 0; i < sb->slots; i++) {
		struct journal_run *run = &view->runs[i];

		run->slot = i;
		res = open_slot(view, i);
		if (res < 0) {
			damaged(view, i, 0, "cannot be opened: %s", err_text(res));
			continue;
		}
		res = read_run(view, run, NULL);
		if (res < 0 && res != -ENOMEM) {
			damaged(view, i, run->end_off, "cannot be read: %s", err_text(res));
			res = 0;
		}
		if (res == 0 && i == sb->applied_slot && sb->applied_off > 0) {
			applied->slot = i;
			applied->off = sb->applied_off;
			res = read_run(view, applied, &place);
		}
		close_slot(view);
		if (res == -ENOMEM)
			return res;
		if (view->progress)
			view->progress(view->owner, (i + 1) * sb->slot_bytes, total);
	}
	if (sb->applied_off == 0) {
		applied->slot = sb->applied_slot;
		applied->from = NO_RUN;
	}
	return 0;
}

/* ---- the way through ---------------------------------------------------------------------------
 */

static struct place place_behind(const struct journal_view *view, const struct journal_run *run,
				 size_t index)
{
	const struct journal_segment *segment = &view->segments[run->first + index];

	return (struct place){ segment_last_seq(&segment->header) + 1, segment->chain_after,
			       segment->header.epoch };
}

/* Whether the first segment of `run` follows a place in `before`; *ret_keep: how many segments of
 * `before` come before it. `start` is the place at which `before` begins, or NULL. */
static bool continues(const struct journal_view *view, const struct journal_run *run,
		      const struct journal_run *before, const struct place *start, size_t *ret_keep)
{
	const struct segment_header *header;

	if (run->count == 0)
		return false;
	header = &view->segments[run->first].header;
	if (start && follows(view, header, start)) {
		*ret_keep = 0;
		return true;
	}
	for (size_t i = 0; i < before->count; i++) {
		const struct place at = place_behind(view, before, i);

		if (at.seq == header->first_seq && follows(view, header, &at)) {
			*ret_keep = i + 1;
			return true;
		}
	}
	return false;
}

static uint64_t run_end(const struct journal_view *view, const struct journal_run *run)
{
	return place_behind(view, run, run->count - 1).seq;
}

/* Marks what can be reached from the applied place; returns the run that reaches furthest. */
static size_t find_end(struct journal_view *view)
{
	const struct superblock *sb = view->sb;
	const struct place start = { sb->applied_seq + 1, sb->applied_chain, 0 };
	size_t root = sb->slots, best = root, *queue, head = 0, tail = 0, keep;

	queue = calloc(view->run_count + 1, sizeof(*queue));
	if (!queue)
		return root;
	view->runs[root].used = true;
	queue[tail++] = root;
	while (head < tail) {
		size_t at = queue[head++];
		const struct journal_run *from = &view->runs[at];

		for (size_t i = 0; i < sb->slots; i++) {
			struct journal_run *run = &view->runs[i];

			if (run->used ||
			    !continues(view, run, from, at == root ? &start : NULL, &keep))
				continue;
			run->used = true;
			run->from = at;
			queue[tail++] = i;
		}
		if (from->count > 0 && (view->runs[best].count == 0 ||
					run_end(view, from) > run_end(view, &view->runs[best])))
			best = at;
	}
	free(queue);
	return best;
}

/* The run whose content comes right before segment `first`, among those not used yet. */
static size_t find_before(struct journal_view *view, const struct journal_run *run,
			  size_t *ret_keep)
{
	for (size_t i = 0; i < view->sb->slots; i++) {
		if (!view->runs[i].used && continues(view, run, &view->runs[i], NULL, ret_keep))
			return i;
	}
	return NO_RUN;
}

static void push_front(struct journal_view *view, size_t run)
{
	memmove(view->path + 1, view->path, view->path_count * sizeof(*view->path));
	view->path[0] = run;
	view->path_count++;
}

/* The run that ends, or has a place, at the applied place: what is older than it. */
static size_t find_older(struct journal_view *view, size_t *ret_keep)
{
	for (size_t i = 0; i < view->sb->slots; i++) {
		const struct journal_run *run = &view->runs[i];

		for (size_t j = 0; !run->used && j < run->count; j++) {
			const struct place at = place_behind(view, run, j);

			if (at.seq != view->sb->applied_seq + 1 ||
			    at.chain != view->sb->applied_chain)
				continue;
			*ret_keep = j + 1;
			return i;
		}
	}
	return NO_RUN;
}

/* Puts the path together: back from the end to the applied place, then as far as anything is kept.
 */
static void build_path(struct journal_view *view, size_t best)
{
	size_t root = view->sb->slots, at = best, before, keep;

	for (size_t i = 0; i < view->run_count; i++) {
		view->runs[i].keep = view->runs[i].count;
		view->runs[i].used = false;
	}
	while (at != NO_RUN) {
		struct journal_run *run = &view->runs[at];
		const struct place start = { view->sb->applied_seq + 1, view->sb->applied_chain,
					     0 };

		run->used = true;
		if (run->count > 0)
			push_front(view, at);
		if (run->from != NO_RUN && continues(view, run, &view->runs[run->from],
						     run->from == root ? &start : NULL, &keep)) {
			view->void_segments += view->runs[run->from].count - keep;
			view->runs[run->from].keep = keep;
		}
		at = run->from;
	}
	view->runs[root].used = true;
	at = find_older(view, &keep);
	if (at != NO_RUN)
		view->runs[at].keep = keep;
	while (at != NO_RUN) {
		view->runs[at].used = true;
		push_front(view, at);
		before = find_before(view, &view->runs[at], &keep);
		if (before != NO_RUN)
			view->runs[before].keep = keep;
		at = before;
	}
}

/* ---- what is missing ---------------------------------------------------------------------------
 */

static const char *why_text(const struct journal_run *run)
{
	return run->why > 0 ? segment_condition_text(run->why) : "another segment lies there";
}

/* A right segment that could only be where it is if seq `end` had been durable. */
static bool is_witness(const struct journal_view *view, const struct segment_header *header)
{
	return is_ours(view, header) && header->first_seq > view->end_seq &&
	       header->durable_seq >= view->end_seq && view->sb->role != GROUP_STANDBY &&
	       header->epoch == view->sb->epoch;
}

/* From an offset of the open slot on: a witness, or a row of segments longer than any writer has
 * under way. */
static bool probe_slot(struct journal_view *view, uint64_t off)
{
	struct segment_header header;
	struct place next = { .seq = 0 };
	unsigned row = 0;
	uint64_t chain;

	while (off < view->sb->slot_bytes) {
		if (read_segment(view, off, false, &header, &chain) != 0 ||
		    !is_ours(view, &header) || header.first_seq <= view->end_seq) {
			off += SEGMENT_ALIGN_BYTES;
			row = 0;
			continue;
		}
		if (is_witness(view, &header))
			return true;
		row = row > 0 && follows(view, &header, &next) ? row + 1 : 1;
		if (row >= WITNESSES)
			return true;
		next = (struct place){ segment_last_seq(&header) + 1, chain, header.epoch };
		off += header.total_bytes;
	}
	return false;
}

/* Torn tail or damage: does anything show that what is missing at the end had been durable? */
static void judge_end(struct journal_view *view, const struct journal_run *end)
{
	const struct superblock *sb = view->sb;
	uint32_t slot = end->slot;
	bool shown = false;

	for (uint32_t i = 0; i < sb->slots && !shown; i++)
		shown = view->runs[i].count > 0 &&
			is_witness(view, &view->segments[view->runs[i].first].header);
	for (uint32_t i = 0; i <= SKIPPED_SLOTS && !shown && i < sb->slots; i++) {
		if (open_slot(view, (slot + i) % sb->slots) == 0)
			shown = probe_slot(view, i == 0 ? end->end_off : 0);
		close_slot(view);
	}
	if (sb->durable_seq >= view->end_seq)
		damaged(view, slot, end->end_off,
			"seq %" PRIu64 " must be here (%s): the superblock says that all up to seq "
			"%" PRIu64 " was durable",
			view->end_seq, why_text(end), sb->durable_seq);
	else if (shown)
		damaged(view, slot, end->end_off,
			"seq %" PRIu64
			" must be here (%s): later segments show that it was durable",
			view->end_seq, why_text(end));
}

/* Whether a slot's first segment is what the history's end was torn at. */
static bool is_torn_end(const struct journal_view *view, const struct journal_run *end,
			uint32_t slot)
{
	uint32_t ahead = (slot + view->sb->slots - end->slot) % view->sb->slots;

	return ahead <= SKIPPED_SLOTS;
}

/* A slot that a writer passed over after a failure keeps what an earlier lap left there. */
static bool was_skipped(const struct journal_view *view, const struct journal_run *end,
			uint32_t slot)
{
	for (uint32_t i = 1; i <= SKIPPED_SLOTS; i++) {
		uint32_t before = (slot + view->sb->slots - i) % view->sb->slots;

		if (before == end->slot)
			return false;
		if (view->runs[before].used)
			return true;
	}
	return false;
}

static bool leads_on(const struct journal_view *view, const struct journal_run *run)
{
	size_t keep;

	for (size_t i = 0; i < view->sb->slots; i++) {
		if (continues(view, &view->runs[i], run, NULL, &keep))
			return true;
	}
	return false;
}

/* Older content that a follower may still be served from: it has to be whole, too. */
static void judge_rest(struct journal_view *view, const struct journal_run *end)
{
	for (uint32_t i = 0; i < view->sb->slots; i++) {
		const struct journal_run *run = &view->runs[i];

		if (run->used || i == view->runs[view->sb->slots].slot)
			continue;
		if (run->count == 0 && !run->blank && run->why > 0 && !is_torn_end(view, end, i))
			damaged(view, i, 0, "no right segment begins the file (%s)", why_text(run));
		/* Content that is newer, or of a way given up, misses nothing. */
		if (run->count > 0 && run_end(view, run) < view->first_seq &&
		    !leads_on(view, run) && !was_skipped(view, end, i))
			damaged(view, i, run->end_off,
				"seq %" PRIu64 " must be here (%s): the journal goes on with seq "
				"%" PRIu64,
				run_end(view, run), why_text(run), view->first_seq);
	}
}

static void judge(struct journal_view *view, size_t best)
{
	const struct journal_run *end = &view->runs[best];

	view->end_seq = end->count ? run_end(view, end) : view->sb->applied_seq + 1;
	view->first_seq = view->end_seq;
	if (view->path_count > 0)
		view->first_seq = view->segments[view->runs[view->path[0]].first].header.first_seq;
	judge_end(view, end);
	if (view->path_count > 0)
		judge_rest(view, end);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static int read_superblock(struct journal_view *view, char *error, size_t error_max)
{
	char path[1100];
	uint8_t *bytes = malloc(SUPERBLOCK_FILE_BYTES);
	unsigned slot;
	int fd, res = bytes && view->sb ? 0 : -ENOMEM;

	(void)snprintf(path, sizeof(path), "%s/superblock", view->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		res = -errno;
	if (res == 0)
		res = read_at(fd, bytes, SUPERBLOCK_FILE_BYTES, 0);
	if (res < 0)
		(void)snprintf(error, error_max, "%s: %s", path, err_text(res));
	if (res == 0) {
		res = superblock_choose(bytes, view->sb, &slot);
		if (res > 0)
			(void)snprintf(error, error_max, "%s: %s", path,
				       superblock_condition_text(res));
		res = res > 0 ? -EUCLEAN : res;
	}
	if (fd >= 0)
		(void)close(fd);
	free(bytes);
	return res;
}

int journal_view_read(struct journal_view *view, const char *dir, char *error, size_t error_max)
{
	size_t best;
	int res;

	view->fd = -1;
	(void)snprintf(view->dir, sizeof(view->dir), "%s", dir);
	view->sb = calloc(1, sizeof(*view->sb));
	res = read_superblock(view, error, error_max);
	if (res < 0)
		return res;
	view->run_count = (size_t)view->sb->slots + 1;
	view->runs = calloc(view->run_count, sizeof(*view->runs));
	view->path = calloc(view->run_count + 1, sizeof(*view->path));
	view->stored = aligned_alloc(SEGMENT_ALIGN_BYTES,
				     round_up(SEGMENT_TOTAL_MAX_BYTES, SEGMENT_ALIGN_BYTES));
	view->data = malloc(SEGMENT_DATA_MAX_BYTES);
	if (!view->runs || !view->path || !view->stored || !view->data)
		res = -ENOMEM;
	if (res == 0)
		res = read_slots(view);
	if (res < 0) {
		(void)snprintf(error, error_max, "%s: %s", dir, err_text(res));
		return res;
	}
	best = find_end(view);
	build_path(view, best);
	judge(view, best);
	return 0;
}

void journal_view_free(struct journal_view *view)
{
	free(view->sb);
	free(view->segments);
	free(view->runs);
	free(view->path);
	free(view->stored);
	free(view->data);
}

void journal_view_each(const struct journal_view *view,
		       void (*visit)(void *arg, const struct journal_segment *segment), void *arg)
{
	for (size_t i = 0; i < view->path_count; i++) {
		const struct journal_run *run = &view->runs[view->path[i]];

		for (size_t j = 0; j < run->keep; j++)
			visit(arg, &view->segments[run->first + j]);
	}
}
