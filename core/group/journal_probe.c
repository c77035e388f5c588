/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Torn tail or damaged middle (J3): behind the end that the walks found, is there anything that
 * could only have been written after the missing segment had been durable?
 *
 * Looked at: the superblock; the first block of every slot; every 4096-byte boundary behind the end
 * in its slot and in the slots behind it, as far as a writer can have gone on after failures. What
 * lies there is mostly older than the end, or was in flight with the missing segment: neither says
 * anything.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/base/macros.h"
#include "core/group/journal_scan.h"

#define PROBE_SLOTS 2u /* beside the slot that holds the end */

static void probe_next(struct journal_scan *scan);

static uint64_t expected_seq(const struct journal_scan *scan)
{
	return scan->nodes[scan->best].end.at.seq;
}

/* `witness`: where it is written that everything up to `durable_seq` was durable. */
static void damaged(struct journal_scan *scan, const char *witness, uint64_t durable_seq)
{
	const struct scan_node *end = &scan->nodes[scan->best];
	struct journal *journal = scan->journal;
	uint32_t slot = end->end.at.slot, next = journal_slot_after(journal, slot);
	uint64_t off = end->end.at.off;
	const char *reason = end->reason;
	char also[48] = "";

	/* A slot that begins right but whose first segment is broken is the place. */
	for (uint32_t i = 0; i < journal->options.slots; i++) {
		if (!scan->nodes[i].walked || scan->nodes[i].end.at.off > 0 ||
		    scan->nodes[i].end.at.seq != end->end.at.seq)
			continue;
		slot = i;
		off = 0;
		reason = scan->nodes[i].reason;
	}
	if (off == journal->options.slot_bytes) {
		slot = next;
		off = 0;
	} else if (off > 0) {
		snprintf(also, sizeof(also), " (or journal/%08u offset 0)", next);
	}
	journal_slot_error(journal, slot,
			   "damaged at offset %" PRIu64 "%s: seq %" PRIu64
			   " must be there (%s): %s says that all up to seq %" PRIu64
			   " was durable",
			   off, also, expected_seq(scan), reason, witness, durable_seq);
	scan_finish(scan, JOURNAL_E_DAMAGED);
}

/* A header of this node's own: what it calls durable was durable here. */
static bool sealed_here(const struct journal_scan *scan, uint64_t epoch)
{
	return scan->sb.role != GROUP_STANDBY && epoch == scan->sb.epoch;
}

/* Whether a header behind the end proves the end wrong. */
static bool proves(struct journal_scan *scan, const uint8_t *bytes,
		   const struct segment_header *header)
{
	const struct scan_place *end = &scan->nodes[scan->best].end;

	if (!uuid_equal(&header->group, &scan->journal->options.group) ||
	    header->first_seq <= end->at.seq || header->epoch < end->epoch ||
	    !scan_epoch_rules(scan, header->epoch, header->first_seq))
		return false;
	if (sealed_here(scan, header->epoch))
		return header->durable_seq >= end->at.seq;
	/* Received: its durable_seq is another node's. But only so many can be in flight (J5). */
	scan->run_count = header->chain == scan->run_chain ? scan->run_count + 1 : 1;
	scan->run_chain = segment_chain(bytes);
	return scan->run_count >= JOURNAL_WINDOW_MAX;
}

static void probe_read(struct io_op *op, int64_t res)
{
	struct journal_scan *scan = container_of(op, struct journal_scan, op);
	struct segment_header header;
	char witness[64];

	if (res < 0) {
		scan_read_failed(scan, res);
		return;
	}
	for (uint32_t i = 0; i < scan->buf_len; i += SEGMENT_ALIGN_BYTES) {
		if (segment_header_decode(scan->buf + i, SEGMENT_HEADER_BYTES, &header) != 0 ||
		    !proves(scan, scan->buf + i, &header))
			continue;
		snprintf(witness, sizeof(witness), "journal/%08u offset %" PRIu64, scan->buf_slot,
			 scan->buf_off + i);
		damaged(scan, witness,
			sealed_here(scan, header.epoch) ? header.durable_seq : expected_seq(scan));
		return;
	}
	scan->probe_off += scan->buf_len;
	probe_next(scan);
}

static void probe_next(struct journal_scan *scan)
{
	struct journal *journal = scan->journal;

	while (scan->probe_off == journal->options.slot_bytes) {
		if (scan->probe_left == 0) {
			scan_probed(scan);
			return;
		}
		scan->probe_left--;
		scan->probe_slot = journal_slot_after(journal, scan->probe_slot);
		if (!scan->nodes[scan->probe_slot].on_path)
			scan->probe_off = 0;
	}
	scan_read(scan, scan->probe_slot, scan->probe_off, probe_read);
}

void scan_probe(struct journal_scan *scan)
{
	const struct scan_place *end = &scan->nodes[scan->best].end;
	char witness[48];

	if (scan->sb.durable_seq >= end->at.seq) {
		damaged(scan, "the superblock", scan->sb.durable_seq);
		return;
	}
	for (uint32_t i = 0; i < scan->journal->options.slots; i++) {
		const struct scan_node *node = &scan->nodes[i];

		if (!node->valid || !sealed_here(scan, node->first_epoch) ||
		    node->first_seq <= end->at.seq || node->first_durable_seq < end->at.seq)
			continue;
		snprintf(witness, sizeof(witness), "journal/%08u offset 0", i);
		damaged(scan, witness, node->first_durable_seq);
		return;
	}
	if ((scan->sb.flags & SUPERBLOCK_CLEAN) && scan->sb.durable_seq + 1 == end->at.seq) {
		scan_probed(scan); /* stopped cleanly, exactly here */
		return;
	}
	scan->probe_slot = end->at.slot;
	scan->probe_off = end->at.off;
	scan->probe_left = (uint32_t)min_u64(PROBE_SLOTS, scan->journal->options.slots - 1);
	scan->run_count = 0;
	probe_next(scan);
}
