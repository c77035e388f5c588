/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a journal, last part: what was found becomes the slot index and durable; what was not
 * found to be part of the history is wiped, so that no later start takes it for something.
 */
#include <inttypes.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/group/journal_scan.h"

#define NO_SLOT	    UINT32_MAX
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

/*
 * The slots behind the end are the oldest: what they hold can still be read where it leads up to
 * the path. Their first seqs grow towards the path. One that is lower than the first of them was
 * skipped in an earlier lap; one that is not lower than its successor's was abandoned after a
 * failure.
 */
static uint32_t stack_retained(struct journal_scan *scan, uint32_t begin)
{
	uint32_t slot = journal_slot_after(scan->journal, scan->nodes[scan->best].end.at.slot);
	uint32_t top = NO_SLOT;
	uint64_t lowest_seq = 0;

	for (; slot != begin; slot = journal_slot_after(scan->journal, slot)) {
		struct scan_node *node = &scan->nodes[slot];

		if (!node->valid || node->first_seq >= scan->limit_seq || node->on_path ||
		    node->first_seq < lowest_seq)
			continue;
		while (top != NO_SLOT && scan->nodes[top].first_seq >= node->first_seq)
			top = scan->nodes[top].below;
		if (top == NO_SLOT)
			lowest_seq = node->first_seq;
		node->below = top;
		top = slot;
	}
	return top;
}

static void index_retained(struct journal_scan *scan, uint32_t begin)
{
	struct journal *journal = scan->journal;
	uint64_t next_seq = journal->slots[begin].first_seq;
	uint64_t next_time_ns = journal->slots[begin].first_time_ns;
	uint32_t slot, next = begin;

	if (next_seq == 0) {
		next_seq = scan->nodes[scan_slots(scan)].start.at.seq;
		next_time_ns = io_wall(journal->options.io);
	}
	scan->limit_seq = next_seq;
	slot = stack_retained(scan, begin);
	for (; slot != NO_SLOT; slot = scan->nodes[slot].below) {
		struct journal_slot *retained = &journal->slots[slot];

		if ((next + scan_slots(scan) - slot) % scan_slots(scan) > SKIPPED_MAX + 1)
			break;
		*retained = slot_from(retained, &scan->nodes[slot]);
		retained->last_seq = next_seq - 1;
		retained->end_off = retained->durable_off = journal->options.slot_bytes;
		retained->last_time_ns = max_u64(retained->first_time_ns, next_time_ns);
		next_seq = retained->first_seq;
		next_time_ns = retained->first_time_ns;
		next = slot;
	}
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
	index_retained(scan, index_path(scan));
	scan->index = 0;
	flush_next(scan);
}
