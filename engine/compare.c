/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a range here what the primary holds there? Questions (SYNC_HASH) stand in the FIFO of copied
 * extents, in their place between segments, and are no part of a batch: each is read when what
 * comes before it is applied and nothing behind it, so both sides hash the same position, whatever
 * is written meanwhile. The answers go back in the order of the questions.
 *
 * Invariant Y4: "the same" is said only of content that a power loss leaves here. While the
 * volumes are being copied to, what an extent brought and no flush has covered is not: the answer
 * waits for a flush that began after it was compared; a former process's writes count as not
 * flushed, and once a flush has failed in a copy nothing counts as the same before it is done
 * (DISTRUST). On a consistent copy everything is covered by a flush or by the journal.
 *
 * What cannot be read is not the same: then it is written anew.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/hash64.h"
#include "core/base/log.h"
#include "engine/internal.h"

_Static_assert(HASH128_BYTES == FRAME_HASH_BYTES, "the hash of SYNC_HASH");

#define FLUSH_DELAY_NS	  100000000ull
#define FLUSH_ANSWERS	  32u
#define PROBE_BYTES	  4096u
#define PROBES_MAX	  256u /* of all volumes */
#define PROBES_VOLUME_MAX 32u

/* ---- answers ----------------------------------------------------------------------------------
 */

static bool is_durable(const struct compare_state *compare, const struct compare_answer *answer)
{
	return answer->cycle <= compare->cycles_done;
}

void compare_send(struct engine_group *group)
{
	struct compare_state *compare = &group->compare;

	while (compare->count) {
		const struct compare_answer *answer = &compare->answers[compare->first];
		struct frame frame = { .type = FRAME_HASH_RESULT,
				       .epoch = group->dir.sb.epoch,
				       .seq = compare->answered + 1,
				       .arg1 = answer->differs };

		if (!is_durable(compare, answer) || link_send(group->link, &frame, NULL))
			return;
		compare->answered++;
		compare->open--;
		compare->count--;
		compare->first = (compare->first + 1) % ENGINE_HASHES_MAX;
	}
}

static void answer(struct engine_group *group, const struct compare_read *read)
{
	struct compare_state *compare = &group->compare;
	struct compare_answer *answer;

	if (read->session != group->session.number)
		return;
	must(compare->count < ENGINE_HASHES_MAX);
	answer = &compare->answers[(compare->first + compare->count++) % ENGINE_HASHES_MAX];
	*answer = (struct compare_answer){
		.differs = !read->same || (group->dir.sb.flags & SUPERBLOCK_DISTRUST),
	};
	if (!answer->differs && (group->dir.sb.flags & SUPERBLOCK_SYNCING))
		answer->cycle = compare->cycles_begun + read->volume->dirty;
}

/* Sees to it that a flush comes that the answers wait for. */
static void want_flush(struct engine_group *group)
{
	struct compare_state *compare = &group->compare;
	unsigned waiting = 0;

	for (unsigned i = 0; i < compare->count; i++)
		waiting += !is_durable(compare,
				       &compare->answers[(compare->first + i) % ENGINE_HASHES_MAX]);
	if (waiting >= FLUSH_ANSWERS)
		checkpoint_run(group, false);
	else if (waiting && !group->sync_timer.deadline_ns)
		io_timer_start(group->io, &group->sync_timer, FLUSH_DELAY_NS);
}

void compare_cycle_begins(struct engine_group *group)
{
	group->compare.cycles_begun++;
}

void compare_cycle_flushed(struct engine_group *group)
{
	group->compare.cycles_done = group->compare.cycles_begun;
}

/* ---- comparing --------------------------------------------------------------------------------
 */

static void run_done(struct engine_group *group)
{
	struct compare_state *compare = &group->compare;

	for (unsigned i = 0; i < compare->running; i++)
		answer(group, &compare->reads[i]);
	compare->running = 0;
	want_flush(group);
	applier_go_on(group);
}

static void read_done(struct io_op *op, int64_t res)
{
	struct compare_read *read = container_of(op, struct compare_read, op);
	struct engine_group *group = read->group;
	uint8_t hash[FRAME_HASH_BYTES] = { 0 };

	if (res < 0) {
		group->errors++;
		log_warning("a range of a volume cannot be read, so it counts as different",
			    "group=%s volume=%s offset=%" PRIu64 " length=%" PRIu64,
			    group->conf->name, read->volume->id.name, read->off, read->len);
	} else {
		hash128(read->buf, read->len, hash);
	}
	read->same = res >= 0 && !memcmp(hash, read->hash, sizeof(hash));
	if (--group->compare.left == 0)
		run_done(group);
}

void compare_run(struct engine_group *group)
{
	struct compare_state *compare = &group->compare;
	const struct copy_item *item;

	must(!compare->running);
	while (compare->running < ENGINE_HASH_READS && (item = copy_next(group)) &&
	       item->kind == COPY_HASH && item->after_seq < group->applied_at.seq) {
		struct compare_read *read = &compare->reads[compare->running++];

		read->session = group->session.number;
		read->volume = volumes_by_id(&group->volumes, item->volume);
		must(read->volume); /* copy_frame() saw it */
		read->off = item->off;
		read->len = item->len;
		memcpy(read->hash, item->hash, sizeof(read->hash));
		group->copy.added++;
	}
	compare->left = compare->running;
	for (unsigned i = 0; i < compare->running; i++) {
		struct compare_read *read = &compare->reads[i];

		read->op.done = read_done;
		io_read(read->volume->file, read->buf, read->len, read->off, &read->op);
	}
}

void compare_verified(struct engine_group *group, const struct frame *frame)
{
	struct superblock *sb = &group->dir.sb;

	if (frame->seq > session_received_seq(group)) {
		session_error(group, "the primary verified a position that it has not sent");
		return;
	}
	log_info("verified", "group=%s seq=%" PRIu64 " differing_ranges=%" PRIu64,
		 group->conf->name, frame->seq, frame->arg2);
	sb->differing_ranges = frame->arg2;
	if (!frame->arg2) {
		sb->verified_seq = frame->seq;
		sb->verified_time_ns = frame->arg1;
	}
	checkpoint_run(group, true);
}

bool compare_asked(struct engine_group *group)
{
	if (group->compare.open == ENGINE_HASHES_MAX)
		return false;
	group->compare.open++;
	return true;
}

void compare_session(struct engine_group *group)
{
	struct compare_state *compare = &group->compare;

	compare->count = compare->open = 0;
	compare->answered = 0;
}

void compare_reset(struct engine_group *group)
{
	must(!group->compare.running);
	group->compare.cycles_done = group->compare.cycles_begun;
	compare_session(group);
}

/* ---- is there anything to compare with? -------------------------------------------------------
 */

static void probe_next(struct engine_group *group);

static void probe_over(struct engine_group *group, bool seeded)
{
	group->compare.seeded = seeded;
	group->op_busy = false;
	standby_poke(group);
}

static void probe_done(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);
	const uint8_t *buf = group->compare.probe;

	if (group->session.state != SESSION_CHECKING)
		probe_over(group, false);
	else if (res >= 0 && (buf[0] != 0 || memcmp(buf, buf + 1, PROBE_BYTES - 1) != 0))
		probe_over(group, true);
	else
		probe_next(group);
}

static void probe_next(struct engine_group *group)
{
	struct compare_state *compare = &group->compare;
	const struct volumes *volumes = &group->volumes;
	unsigned each = (unsigned)min_u64(max_u64(PROBES_MAX / max_u32(volumes->count, 1), 1),
					  PROBES_VOLUME_MAX);

	for (; compare->probe_at < volumes->count * each; compare->probe_at++) {
		const struct volume *volume = &volumes->list[compare->probe_at / each];
		uint64_t off = volume->id.size_bytes / each * (compare->probe_at % each);

		off = round_down(off, PROBE_BYTES);
		if (off + PROBE_BYTES > volume->id.size_bytes)
			continue;
		compare->probe_at++;
		group->state_op.done = probe_done;
		io_read(volume->file, compare->probe, PROBE_BYTES, off, &group->state_op);
		return;
	}
	probe_over(group, false);
}

void compare_probe(struct engine_group *group)
{
	must(!group->op_busy);
	group->op_busy = true;
	group->compare.probe_at = 0;
	probe_next(group);
}

/* ---- life -------------------------------------------------------------------------------------
 */

int compare_init(struct engine_group *group)
{
	struct compare_state *compare = &group->compare;

	compare->probe = io_alloc(group->io, PROBE_BYTES, 4096);
	if (!compare->probe)
		return -ENOMEM;
	for (unsigned i = 0; i < ENGINE_HASH_READS; i++) {
		compare->reads[i].group = group;
		compare->reads[i].buf = io_alloc(group->io, FRAME_SYNC_MAX_BYTES, 4096);
		if (!compare->reads[i].buf)
			return -ENOMEM;
	}
	return 0;
}

void compare_deinit(struct engine_group *group)
{
	struct compare_state *compare = &group->compare;

	if (compare->probe)
		io_free(group->io, compare->probe);
	for (unsigned i = 0; i < ENGINE_HASH_READS; i++)
		if (compare->reads[i].buf)
			io_free(group->io, compare->reads[i].buf);
}
