/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/openings.h"

#include <string.h>

void openings_note(struct superblock *sb, uint64_t writer, uint64_t first_seq)
{
	while (sb->opening_count && sb->openings[sb->opening_count - 1].first_seq >= first_seq)
		sb->opening_count--;
	if (sb->opening_count && sb->openings[sb->opening_count - 1].writer == writer)
		return;
	if (sb->opening_count == OPENINGS_MAX) {
		memmove(sb->openings, sb->openings + 1,
			(OPENINGS_MAX - 1) * sizeof(sb->openings[0]));
		sb->opening_count--;
	}
	sb->openings[sb->opening_count++] = (struct opening){ writer, first_seq };
}

void openings_begin(struct superblock *sb, uint64_t writer, uint64_t seq)
{
	sb->opening_count = 0;
	if (writer && seq)
		openings_note(sb, writer, seq);
}

uint64_t openings_at(const struct superblock *sb, uint64_t seq)
{
	uint64_t writer = 0;

	for (uint32_t i = 0; i < sb->opening_count && sb->openings[i].first_seq <= seq; i++)
		writer = sb->openings[i].writer;
	return writer;
}
