/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request buffers of one NBD server: power-of-two blocks of 4 KiB and more out of one region (a
 * buddy system), so that many small and a few very large requests share one bound.
 *
 * Owner: the server's loop thread. Blocks are aligned to 4096 and not cleared.
 */
#ifndef HOLDFAST_CORE_BLOCK_NBD_BUFFERS_H
#define HOLDFAST_CORE_BLOCK_NBD_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

#include "core/io/io.h"

#define NBD_UNIT_BYTES	 4096u
#define NBD_ORDERS	 15u /* 4 KiB << 14 = 64 MiB */
#define NBD_HOT_ORDERS	 6u
#define NBD_HOT_MAX	 64u
#define NBD_UNIT_NO_LINK UINT32_MAX

struct nbd_buffers {
	struct io *io;
	uint8_t *base;
	uint32_t unit_count;
	uint32_t unit_used, unit_peak;
	/* Per unit: links of the free list and what the unit is (see nbd_buffers.c). */
	uint32_t *next, *prev;
	uint8_t *state;
	uint32_t free_head[NBD_ORDERS];
	/* Small blocks just given back, kept whole and warm: splitting and merging costs more than
	 * a small request. */
	uint32_t hot[NBD_HOT_ORDERS][NBD_HOT_MAX];
	unsigned hot_count[NBD_HOT_ORDERS];
};

/* 0, -ENOMEM, or -EINVAL when `size` is below 1 MiB or above 1 TiB. */
int nbd_buffers_init(struct nbd_buffers *buffers, struct io *io, size_t size);
void nbd_buffers_free(struct nbd_buffers *buffers);
/* The largest request that always finds room when nothing else is out. */
size_t nbd_buffers_max_bytes(const struct nbd_buffers *buffers);
/* A block of at least `size` (1 to 64 MiB) bytes, or NULL: none free now. */
uint8_t *nbd_buffers_get(struct nbd_buffers *buffers, size_t size);
/* `size` as it was asked for. */
void nbd_buffers_put(struct nbd_buffers *buffers, uint8_t *block, size_t size);

#endif
