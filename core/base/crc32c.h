/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC32C (Castagnoli), by ISA-L. Pure, any thread.
 */
#ifndef HOLDFAST_CORE_BASE_CRC32C_H
#define HOLDFAST_CORE_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * The CRC of `bytes`, continued from `seed`: 0 begins, the CRC of what came before continues, so
 * crc32c(crc32c(0, a), b) is the CRC of a followed by b. Another seed salts it.
 */
uint32_t crc32c(uint32_t seed, const void *bytes, size_t length_bytes);

#endif
