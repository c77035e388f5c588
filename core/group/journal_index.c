/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a journal, last part: what was found becomes the slot index and durable; what was not
 * found to be part of the history is wiped, so that no later start takes it for something.
 */
#include <inttypes.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/group/journal_scan.h"

#define SKIPPED_MAX 2u /* slots in a row that a failure can leave without content */

static void flush_next(struct journal_scan *scan);
static void wipe_next(struct journal_scan *scan);

/* ---- the slot index ----------------------------------------------------------------------------
 */

static struct journal_slot slot_from(const struct journal_slot *slot, const struct scan_node *node)
{
	return (struct journal_slot){
		.file = slot->file,
		.lap = slot->lap + 1,
		.first_seq = node->first_seq,
		.first_chain = node->first_chain,
		.first_bytes = node->first_bytes,
		.first_time_ns = node->first_time_ns,
		.last_time_ns = node->first_time_ns,
	};
}

static void slot_ends(struct journal_slot *slot, const struct scan_place *end)
{
	slot->last_seq = end->at.seq - 1;
	slot->end_off = slot->durable_off = end->at.off;
	slot->last_time_ns = max_u64(slot->last_time_ns, end->last_time_ns);
}

/* The slot in which replay starts: what lies before the applied position is there, too. */
static void index_start(struct journal_scan *scan, const struct scan_place *end)
{
	const struct scan_place *start = &scan->nodes[scan_slots(scan)].start;
	const struct scan_node *node = &scan->nodes[start->at.slot];
	struct journal_slot *slot = &scan->journal->slots[start->at.slot];

	if (node->on_path || start->at.off == 0)
		return;
	if (node->valid && node->first_seq < start->at.seq) {
		*slot = slot_from(slot, node);
		/* How new the part before the applied position is, nobody knows: now at most. */
		if (end->last_time_ns == 0)
			slot->last_time_ns = io_wall(scan->journal->options.io);
		slot_ends(slot, end);
	} else if (end->at.seq > start->at.seq) {
		slot->first_seq = start->at.seq;
		slot->first_chain = start->at.chain;
		slot->first_bytes = start->at.bytes;
		slot->first_off = start->at.off;
		slot_ends(slot, end);
	}
}

/* From the end back to the applied position. Returns the slot in which the path begins. */
static uint32_t index_path(struct journal_scan *scan)
{
	const struct scan_place *end = &scan->nodes[scan->best].end;
	uint32_t i = scan->best, begin = scan->nodes[scan_slots(scan)].start.at.slot;

	for (; i != scan_slots(scan); i = scan->nodes[i].from) {
		struct journal_slot *slot = &scan->journal->slots[i];

		*slot = slot_from(slot, &scan->nodes[i]);
		slot->first_bytes = scan->nodes[i].start.at.bytes;
		slot_ends(slot, end);
		end = &scan->nodes[i].start;
		begin = i;
	}
	index_start(scan, end);
	i = scan->nodes[scan_slots(scan)].start.at.slot;
	return scan->journal->slots[i].first_seq != 0 && !scan->nodes[i].on_path ? i : begin;
}

/* ---- what is older than the path ----------------------------------------------------------------
 */

/*
 * The slots behind the end are the oldest. As a rule each of them leads up to its successor, and
 * their first blocks show it: from some slot on all are there, and their seqs grow. Failures leave
 * slots out, with a copy or with something from an earlier lap in them; then only a walk over the
 * slot tells.
 */
static bool retained_in_order(const struct journal_scan *scan, uint32_t begin)
{
	uint32_t slot = journal_slot_after(scan->journal, scan->nodes[scan->best].end.at.slot);
	uint64_t last_seq = 0;

	for (; slot != begin; slot = journal_slot_after(scan->journal, slot)) {
		const struct scan_node *node = &scan->nodes[slot];
		bool usable = node->valid && !node->on_path && node->first_seq < scan->limit_seq;

		if (last_seq > 0 && (!usable || node->first_seq <= last_seq))
			return false;
		if (usable)
			last_seq = node->first_seq;
	}
	/* Right at the beginning of a slot nothing says that its predecessor leads there. */
	return scan->nodes[scan_slots(scan)].start.at.off > 0;
}

/* The slot holds what leads up to the oldest known so far. */
static void retain(struct journal_scan *scan, uint32_t slot)
{
	struct journal_slot *retained = &scan->journal->slots[slot];

	*retained = slot_from(retained, &scan->nodes[slot]);
	retained->last_seq = scan->older.at.seq - 1;
	retained->end_off = retained->durable_off = scan->journal->options.slot_bytes;
	retained->last_time_ns = max_u64(retained->first_time_ns, scan->older.last_time_ns);
	scan->older.at.seq = retained->first_seq;
	scan->older.at.chain = retained->first_chain;
	scan->older.last_time_ns = retained->first_time_ns;
	scan->skipped = 0;
}

static void retain_next(struct journal_scan *scan)
{
	const struct scan_node *node;

	while (scan->index != scan->nodes[scan->best].end.at.slot && scan->skipped <= SKIPPED_MAX) {
		uint32_t slot = scan->index;

		node = &scan->nodes[slot];
		scan->index = slot == 0 ? scan_slots(scan) - 1 : slot - 1;
		if (!node->valid || node->on_path || node->first_seq >= scan->older.at.seq) {
			scan->skipped++;
		} else if (scan->in_order) {
			retain(scan, slot);
		} else {
			scan_walk_retained(scan, slot);
			return;
		}
	}
	scan->index = 0;
	flush_next(scan);
}

void scan_retained(struct journal_scan *scan, uint32_t slot, bool leads_up)
{
	if (leads_up)
		retain(scan, slot);
	else
		scan->skipped++;
	retain_next(scan);
}

static void retain_first(struct journal_scan *scan, uint32_t begin)
{
	const struct journal_slot *slot = &scan->journal->slots[begin];

	scan->older = scan->nodes[scan_slots(scan)].start;
	scan->older.last_time_ns = io_wall(scan->journal->options.io);
	if (slot->first_seq != 0) {
		scan->older.at.seq = slot->first_seq;
		scan->older.at.chain = slot->first_chain;
		scan->older.last_time_ns = slot->first_time_ns;
	}
	scan->limit_seq = scan->journal->unread_seq = scan->older.at.seq;
	scan->in_order = retained_in_order(scan, begin);
	scan->skipped = 0;
	scan->index = begin == 0 ? scan_slots(scan) - 1 : begin - 1;
	retain_next(scan);
}

/* ---- making it so ------------------------------------------------------------------------------
 */

static bool step_failed(struct journal_scan *scan, const char *what, int64_t res)
{
	if (res >= 0)
		return false;
	journal_slot_error(scan->journal, scan->index, "%s failed: %s (%s)", what,
			   err_text((int)res), err_name((int)res));
	scan_finish(scan, res);
	return true;
}

static void end_wiped(struct io_op *op, int64_t res)
{
	struct journal_scan *scan = container_of(op, struct journal_scan, op);

	if (step_failed(scan, "write behind the end", res))
		return;
	scan->journal->end_time_ns = scan->nodes[scan->best].end.last_time_ns;
	scan->journal->end_writer = scan->nodes[scan->best].end.last_writer;
	journal_start_at(scan->journal, &scan->nodes[scan->best].end.at);
	scan_finish(scan, 0);
}

/*
 * Half a segment at the end. What is written over it may be torn as well, and leave just those
 * sectors new that the old one lacks: padding is zero in both. Then a write would be back that was
 * lost before.
 */
static void wipe_end(struct journal_scan *scan)
{
	const struct scan_node *best = &scan->nodes[scan->best];
	struct journal *journal = scan->journal;

	scan->index = best->end.at.slot;
	scan->op.done = end_wiped;
	if (!best->torn) {
		end_wiped(&scan->op, 0);
		return;
	}
	io_write(journal->slots[scan->index].file, journal->internal->zeroes, JOURNAL_BLOCK_BYTES,
		 best->end.at.off, IO_DSYNC, &scan->op);
}

static void wiped(struct io_op *op, int64_t res)
{
	struct journal_scan *scan = container_of(op, struct journal_scan, op);

	if (step_failed(scan, "write at offset 0", res))
		return;
	scan->index++;
	wipe_next(scan);
}

/*
 * A first block that was in flight at a crash, or was abandoned after a failure: its seqs will be
 * given out again, and then it would look like an older part of the history.
 */
static void wipe_next(struct journal_scan *scan)
{
	struct journal *journal = scan->journal;

	for (; scan->index < scan_slots(scan); scan->index++) {
		const struct scan_node *node = &scan->nodes[scan->index];

		if (!node->valid || node->on_path || node->first_seq < scan->limit_seq ||
		    journal->slots[scan->index].first_seq == node->first_seq)
			continue;
		scan->op.done = wiped;
		io_write(journal->slots[scan->index].file, journal->internal->zeroes,
			 JOURNAL_BLOCK_BYTES, 0, IO_DSYNC, &scan->op);
		return;
	}
	wipe_end(scan);
}

static void flushed(struct io_op *op, int64_t res)
{
	struct journal_scan *scan = container_of(op, struct journal_scan, op);

	if (step_failed(scan, "flush", res))
		return;
	scan->index++;
	flush_next(scan);
}

/* What was found may still be in a cache: it counts once it is durable. */
static void flush_next(struct journal_scan *scan)
{
	const struct scan_node *start = &scan->nodes[scan_slots(scan)];

	for (; scan->index < scan_slots(scan); scan->index++) {
		if (!scan->nodes[scan->index].on_path && !(scan->index == start->start.at.slot &&
							   start->end.at.seq > start->start.at.seq))
			continue;
		scan->op.done = flushed;
		io_flush(scan->journal->slots[scan->index].file, &scan->op);
		return;
	}
	scan->index = 0;
	wipe_next(scan);
}

void scan_probed(struct journal_scan *scan)
{
	retain_first(scan, index_path(scan));
}
