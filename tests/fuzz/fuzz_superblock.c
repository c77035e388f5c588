/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A superblock from outside: the first byte says whether its checksums are made right (1), the rest
 * is the file, zeroes where the input ends. What is accepted encodes to the same bytes.
 */
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/must.h"
#include "proto/format.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static uint8_t file[SUPERBLOCK_FILE_BYTES], again[SUPERBLOCK_SLOT_BYTES];
	static struct superblock sb;
	unsigned i, chosen;

	if (size < 1 || size > 1 + sizeof(file))
		return 0;
	memset(file, 0, sizeof(file));
	memcpy(file, input + 1, size - 1);
	for (i = 0; i < 2; i++) {
		uint8_t *slot = file + i * SUPERBLOCK_SLOT_BYTES;
		struct superblock_le *le = (struct superblock_le *)(void *)slot;

		if (input[0] & 1)
			le->crc = le32_of(crc32c(0, le, offsetof(struct superblock_le, crc)));
		if (superblock_decode(slot, &sb) != 0)
			continue;
		superblock_encode(&sb, again);
		must(memcmp(again, slot, sizeof(again)) == 0);
	}
	if (superblock_choose(file, &sb, &chosen) == 0)
		must(chosen < 2);
	return 0;
}
