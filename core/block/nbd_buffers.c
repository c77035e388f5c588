/* SPDX-License-Identifier: Apache-2.0 */
#include "core/block/nbd_buffers.h"

#include <errno.h>
#include <string.h>

#include "core/base/must.h"

/*
 * state[unit]: the first unit of a free block holds FREE + order, the first of a block that is out
 * OUT + order, every other unit INSIDE. Two buddies of one order differ in one bit of their index.
 */
#define STATE_INSIDE 0u
#define STATE_FREE   0x40u
#define STATE_OUT    0x80u

static unsigned order_of(size_t size)
{
	unsigned order = 0;

	while (((size_t)NBD_UNIT_BYTES << order) < size)
		order++;
	return order;
}

static void free_push(struct nbd_buffers *b, uint32_t unit, unsigned order)
{
	uint32_t head = b->free_head[order];

	b->state[unit] = (uint8_t)(STATE_FREE + order);
	b->next[unit] = head;
	b->prev[unit] = NBD_UNIT_NO_LINK;
	if (head != NBD_UNIT_NO_LINK)
		b->prev[head] = unit;
	b->free_head[order] = unit;
}

static void free_remove(struct nbd_buffers *b, uint32_t unit, unsigned order)
{
	must(b->state[unit] == STATE_FREE + order);
	if (b->prev[unit] == NBD_UNIT_NO_LINK)
		b->free_head[order] = b->next[unit];
	else
		b->next[b->prev[unit]] = b->next[unit];
	if (b->next[unit] != NBD_UNIT_NO_LINK)
		b->prev[b->next[unit]] = b->prev[unit];
	b->state[unit] = STATE_INSIDE;
}

/* Gives a block back to the free lists and joins it with its buddy as far up as that is free. */
static void merge(struct nbd_buffers *b, uint32_t unit, unsigned order)
{
	while (order + 1 < NBD_ORDERS) {
		uint32_t buddy = unit ^ (1u << order);

		if (buddy >= b->unit_count || b->state[buddy] != STATE_FREE + order)
			break;
		free_remove(b, buddy, order);
		b->state[unit] = STATE_INSIDE;
		unit &= ~(1u << order);
		order++;
	}
	free_push(b, unit, order);
}

static void cool_down(struct nbd_buffers *b)
{
	for (unsigned order = 0; order < NBD_HOT_ORDERS; order++) {
		while (b->hot_count[order] > 0)
			merge(b, b->hot[order][--b->hot_count[order]], order);
	}
}

static uint32_t split_out(struct nbd_buffers *b, unsigned order)
{
	unsigned from = order;
	uint32_t unit;

	while (from < NBD_ORDERS && b->free_head[from] == NBD_UNIT_NO_LINK)
		from++;
	if (from == NBD_ORDERS)
		return NBD_UNIT_NO_LINK;
	unit = b->free_head[from];
	free_remove(b, unit, from);
	while (from > order) {
		from--;
		free_push(b, unit + (1u << from), from);
	}
	return unit;
}

int nbd_buffers_init(struct nbd_buffers *b, struct io *io, size_t size)
{
	uint32_t unit = 0;

	if (size < (1u << 20) || size > (1ull << 40))
		return -EINVAL;
	memset(b, 0, sizeof(*b));
	b->io = io;
	b->unit_count = (uint32_t)(size / NBD_UNIT_BYTES);
	b->base = io_alloc(io, (size_t)b->unit_count * NBD_UNIT_BYTES, NBD_UNIT_BYTES);
	b->next = io_alloc(io, b->unit_count * sizeof(*b->next), 8);
	b->prev = io_alloc(io, b->unit_count * sizeof(*b->prev), 8);
	b->state = io_alloc(io, b->unit_count, 8);
	if (!b->base || !b->next || !b->prev || !b->state) {
		nbd_buffers_free(b);
		return -ENOMEM;
	}
	for (unsigned order = 0; order < NBD_ORDERS; order++)
		b->free_head[order] = NBD_UNIT_NO_LINK;
	/* The region as the largest aligned blocks that fit. */
	while (unit < b->unit_count) {
		unsigned order = NBD_ORDERS - 1;

		while ((unit & ((1u << order) - 1)) != 0 || unit + (1u << order) > b->unit_count)
			order--;
		free_push(b, unit, order);
		unit += 1u << order;
	}
	/* Not registered with io_buffers(): that would pin every page of a region that is mostly
	 * idle, and untouched where the allocator is lazy. */
	return 0;
}

void nbd_buffers_free(struct nbd_buffers *b)
{
	if (b->base)
		io_free(b->io, b->base);
	if (b->next)
		io_free(b->io, b->next);
	if (b->prev)
		io_free(b->io, b->prev);
	if (b->state)
		io_free(b->io, b->state);
	memset(b, 0, sizeof(*b));
}

size_t nbd_buffers_max_bytes(const struct nbd_buffers *b)
{
	size_t max = (size_t)NBD_UNIT_BYTES << (NBD_ORDERS - 1);

	while (max > NBD_UNIT_BYTES && max > (size_t)b->unit_count * NBD_UNIT_BYTES / 2)
		max /= 2;
	return max;
}

uint8_t *nbd_buffers_get(struct nbd_buffers *b, size_t size)
{
	unsigned order = order_of(size);
	uint32_t unit;

	must(size > 0 && order < NBD_ORDERS);
	if (order < NBD_HOT_ORDERS && b->hot_count[order] > 0) {
		unit = b->hot[order][--b->hot_count[order]];
	} else {
		unit = split_out(b, order);
		if (unit == NBD_UNIT_NO_LINK) {
			cool_down(b);
			unit = split_out(b, order);
		}
		if (unit == NBD_UNIT_NO_LINK)
			return NULL;
		b->state[unit] = (uint8_t)(STATE_OUT + order);
	}
	b->unit_used += 1u << order;
	if (b->unit_used > b->unit_peak)
		b->unit_peak = b->unit_used;
	return b->base + (size_t)unit * NBD_UNIT_BYTES;
}

void nbd_buffers_put(struct nbd_buffers *b, uint8_t *block, size_t size)
{
	size_t offset = (size_t)(block - b->base);
	unsigned order = order_of(size);
	uint32_t unit = (uint32_t)(offset / NBD_UNIT_BYTES);

	must(unit < b->unit_count && offset % NBD_UNIT_BYTES == 0);
	must(b->state[unit] == STATE_OUT + order);
	b->unit_used -= 1u << order;
	if (order < NBD_HOT_ORDERS && b->hot_count[order] < NBD_HOT_MAX)
		b->hot[order][b->hot_count[order]++] = unit;
	else
		merge(b, unit, order);
}
