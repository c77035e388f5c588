/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slot index, and the zeroing of first blocks: a slot whose first block is no segment holds
 * nothing.
 */
#include "core/base/macros.h"
#include "core/group/journal_internal.h"

void journal_slot_clear(struct journal_slot *slot)
{
	*slot = (struct journal_slot){
		.file = slot->file,
		.lap = slot->lap + 1,
		.zeroing = slot->zeroing,
	};
}

bool journal_slot_is_free(const struct journal *journal, uint32_t slot)
{
	return journal->slots[slot].last_seq <= journal->floor_seq && !journal->slots[slot].zeroing;
}

uint32_t journal_slot_of(const struct journal *journal, uint64_t seq)
{
	for (uint32_t i = 0; i < journal->options.slots; i++) {
		const struct journal_slot *slot = &journal->slots[i];

		if (slot->first_seq != 0 && slot->first_seq <= seq && seq <= slot->last_seq)
			return i;
	}
	return UINT32_MAX;
}

/* The slot with the lowest seqs above `seq`; NULL when there is none. */
static const struct journal_slot *oldest_above(const struct journal *journal, uint64_t seq)
{
	const struct journal_slot *oldest = NULL;

	for (uint32_t i = 0; i < journal->options.slots; i++) {
		const struct journal_slot *slot = &journal->slots[i];

		if (slot->first_seq != 0 && slot->last_seq > seq &&
		    (!oldest || slot->first_seq < oldest->first_seq))
			oldest = slot;
	}
	return oldest;
}

uint64_t journal_oldest_seq(const struct journal *journal)
{
	const struct journal_slot *oldest = oldest_above(journal, 0);

	return oldest ? oldest->first_seq : journal->appended_seq + 1;
}

uint64_t journal_oldest_time_ns(const struct journal *journal)
{
	const struct journal_slot *oldest = oldest_above(journal, 0);

	return oldest ? oldest->first_time_ns : 0;
}

uint64_t journal_used_bytes(const struct journal *journal)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < journal->options.slots; i++) {
		const struct journal_slot *slot = &journal->slots[i];

		if (slot->last_seq > journal->floor_seq)
			bytes += i == journal->head.slot ? slot->end_off
							 : journal->options.slot_bytes;
	}
	return bytes;
}

unsigned journal_free_slots(const struct journal *journal)
{
	uint32_t slot = journal_slot_after(journal, journal->head.slot);
	unsigned count = 0;

	for (; slot != journal->head.slot && journal_slot_is_free(journal, slot); count++)
		slot = journal_slot_after(journal, slot);
	return count;
}

uint64_t journal_next_release_seq(const struct journal *journal)
{
	const struct journal_slot *oldest = oldest_above(journal, journal->floor_seq);

	if (!oldest || oldest == &journal->slots[journal->head.slot])
		return 0;
	return oldest->last_seq;
}

uint64_t journal_time_floor_ns(const struct journal *journal, uint64_t seq)
{
	uint32_t slot = journal_slot_of(journal, seq + 1);

	return slot == UINT32_MAX ? 0 : journal->slots[slot].first_time_ns;
}

uint64_t journal_bytes_floor(const struct journal *journal, uint64_t seq)
{
	uint32_t slot = journal_slot_of(journal, seq);

	return slot == UINT32_MAX ? 0 : journal->slots[slot].first_bytes;
}

uint64_t journal_durable_bytes(const struct journal *journal)
{
	return journal->internal->durable_bytes;
}

/* ---- expiry ------------------------------------------------------------------------------------
 */

static void zero_next(struct journal *journal);
static void reset_start(struct journal *journal);

static void write_zeroes(struct journal *journal, uint32_t slot, io_done_fn done)
{
	struct journal_internal *internal = journal->internal;

	internal->zero_busy = true;
	internal->zero_op.done = done;
	io_write(journal->slots[slot].file, internal->zeroes, JOURNAL_BLOCK_BYTES, 0, IO_DSYNC,
		 &internal->zero_op);
}

static void expired_zeroed(struct io_op *op, int64_t res)
{
	struct journal_internal *internal = container_of(op, struct journal_internal, zero_op);
	struct journal *journal = internal->journal;

	/* A failure leaves old segments that a restart may find and keep: too long, never too
	 * short. */
	(void)res;
	internal->zero_busy = false;
	if (internal->reset_user) {
		reset_start(journal);
		return;
	}
	journal->slots[internal->zero_slot].zeroing = false;
	zero_next(journal);
	if (journal->blocked)
		journal_pump_soon(journal);
}

static void zero_next(struct journal *journal)
{
	struct journal_internal *internal = journal->internal;

	for (uint32_t i = 0; !internal->zero_busy && i < journal->options.slots; i++) {
		if (!journal->slots[i].zeroing)
			continue;
		internal->zero_slot = i;
		write_zeroes(journal, i, expired_zeroed);
	}
}

unsigned journal_expire(struct journal *journal, uint64_t before_ns)
{
	const struct journal_slot *oldest;
	unsigned count = 0;

	if (!journal->opened || journal->failed || journal->internal->reset_user)
		return 0;
	while ((oldest = oldest_above(journal, 0)) &&
	       oldest != &journal->slots[journal->head.slot] &&
	       oldest->last_seq <= journal->floor_seq && oldest->last_time_ns < before_ns) {
		struct journal_slot *slot = &journal->slots[oldest - journal->slots];

		journal_slot_clear(slot);
		slot->zeroing = true;
		count++;
	}
	zero_next(journal);
	return count;
}

/* ---- reset -------------------------------------------------------------------------------------
 */

static void reset_finish(struct journal *journal, int64_t res)
{
	struct journal_internal *internal = journal->internal;
	struct io_op *user = internal->reset_user;

	internal->zero_busy = false;
	internal->reset_user = NULL;
	if (res < 0) {
		journal_slot_error(journal, internal->zero_slot, "first block cannot be zeroed");
		journal->failed = true;
	} else {
		journal_start_at(journal, &internal->reset_base);
		/* Also when that lowers it: nothing below is there any more. */
		journal->floor_seq = journal->durable_seq;
	}
	io_defer(journal->options.io, user, res < 0 ? res : 0);
}

static void reset_zeroed(struct io_op *op, int64_t res)
{
	struct journal_internal *internal = container_of(op, struct journal_internal, zero_op);
	struct journal *journal = internal->journal;

	if (res < 0 || ++internal->zero_slot == journal->options.slots) {
		reset_finish(journal, res);
		return;
	}
	write_zeroes(journal, internal->zero_slot, reset_zeroed);
}

static void reset_start(struct journal *journal)
{
	for (uint32_t i = 0; i < journal->options.slots; i++) {
		journal->slots[i].zeroing = false;
		journal_slot_clear(&journal->slots[i]);
	}
	journal->internal->zero_slot = 0;
	write_zeroes(journal, 0, reset_zeroed);
}

void journal_reset(struct journal *journal, const struct journal_position *base, struct io_op *op)
{
	struct journal_internal *internal = journal->internal;

	must(!internal->reset_user && journal->slots[0].file);
	must(list_empty(&journal->queue) && list_empty(&journal->flight));
	internal->reset_user = op;
	internal->reset_base = *base;
	internal->reset_base.slot = 0;
	internal->reset_base.off = 0;
	/* Else it starts when the expiry that is under way has written its block. */
	if (!internal->zero_busy)
		reset_start(journal);
}
