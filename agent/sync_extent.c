/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading extents of our volumes for a standby, and stamping them.
 *
 *   taken -> mapped (is it a hole?) -> read, overlaid by the write set -> stamped -> sent
 *
 * An extent is read from the volume, overlaid by the write set when the read completes, and so is
 * the history's content at the head of that moment: its stamp. It goes on the wire, as content or
 * as a question, behind the segment that contains its stamp and before the next one.
 *
 * Invariant Y1: no record behind an extent's stamp that overlaps it is sent before the extent. For
 * segments behind the stamp's that is the order above; inside the segment that is open at the stamp
 * it is ship_extents_before_write(), which seals before an overlapping record is appended.
 */
#include <errno.h>
#include <string.h>

#include "agent/sync.h"

static void extent_free(struct extent *extent)
{
	extent->state = EXTENT_FREE;
	extent->extents->busy--;
}

static bool all_zero(const uint8_t *buf, uint64_t len)
{
	return buf[0] == 0 && !memcmp(buf, buf + 1, len - 1);
}

static bool extent_current(const struct extent *extent)
{
	return extent->extents->user && extent->generation == extent->extents->generation;
}

/*
 * The content is final: it is what the history says at the head of this moment. Giving the ticket
 * back comes behind: it may make room for writes that waited, and those move the head.
 */
static void stamp(struct extent *extent)
{
	struct extents *extents = extent->extents;

	extent->stamp = extents->group->head_seq;
	extent->state = EXTENT_READY;
	list_push_back(&extents->ready, &extent->link);
	/* It is sent once the stamp is durable. For a copy that does not wait for its ordinary
	 * time; who is patient makes the journal flush no more often, unless nothing goes on
	 * without. */
	if (!extents->user->patient || extents->busy == EXTENTS)
		commit_flush(extents->group, extent->stamp);
	read_end(extents->group, &extent->ticket);
	ship_pump(extents->ship);
}

static void read_done(struct io_op *op, int64_t res)
{
	struct extent *extent = container_of(op, struct extent, op);
	struct extents *extents = extent->extents;
	struct agent_group *group = extents->group;

	if (res >= 0)
		writeset_overlay(&group->writeset, extent->volume_id, extent->off, extent->len,
				 extent->buf);
	if (group->volumes
		    .flush_res) /* what was just read may be the content before a lost write */
		res = -EIO;
	if (res < 0 || !extent_current(extent)) {
		bool current = extent_current(extent);

		read_end(group, &extent->ticket);
		extent_free(extent);
		if (current)
			extents->user->unreadable(extents->user->owner, extent);
		return;
	}
	extent->zero = all_zero(extent->buf, extent->len);
	stamp(extent);
}

static struct volume *extent_volume(const struct extent *extent)
{
	return volumes_by_id(&extent->extents->group->volumes, extent->volume_id);
}

static void read_volume(struct extent *extent)
{
	extent->state = EXTENT_READING;
	extent->hole = false;
	extent->op.done = read_done;
	io_read(extent_volume(extent)->file, extent->buf, extent->len, extent->off, &extent->op);
}

static void map_done(struct io_op *op, int64_t res)
{
	struct extent *extent = container_of(op, struct extent, op);
	struct extents *extents = extent->extents;
	const struct extents_user *user = extents->user;
	struct agent_group *group = extents->group;
	bool hole;

	if (extent->hole && res > 0) /* a hole counts in whole blocks */
		res = (int64_t)round_down((uint64_t)res, BLOCK_BYTES);
	hole = res > 0 && extent->hole &&
	       writeset_covers(&group->writeset, extent->volume_id, extent->off, (uint64_t)res) ==
		       WRITESET_NONE;

	if (!extent_current(extent)) {
		read_end(group, &extent->ticket);
		extent_free(extent);
		return;
	}
	if (hole) {
		extent->len = (uint64_t)res;
		extent->zero = true;
		user->measured(user->owner, extent);
		stamp(extent);
	} else {
		/* The ticket taken before the map covers the read as well. What is not known to be
		 * a hole may be read as far as it is wanted, so whole blocks are. */
		extent->len = min_u64(extent->len, EXTENT_BYTES);
		if (res > 0)
			extent->len = min_u64(extent->len, round_up((uint64_t)res, BLOCK_BYTES));
		extent->hole = false;
		user->measured(user->owner, extent);
		read_volume(extent);
	}
	if (extents->user)
		extents->user->go_on(extents->user->owner);
}

void extent_map(struct extent *extent)
{
	extent->state = EXTENT_MAPPING;
	extent->op.done = map_done;
	read_begin(extent->extents->group, &extent->ticket);
	io_map(extent_volume(extent)->file, extent->off, extent->len, &extent->hole, &extent->op);
}

void extent_read(struct extent *extent)
{
	must(extent->len <= EXTENT_BYTES);
	read_begin(extent->extents->group, &extent->ticket);
	read_volume(extent);
}

struct extent *extents_take(struct extents *extents)
{
	for (unsigned i = 0; i < EXTENTS; i++) {
		struct extent *extent = &extents->list[i];

		if (extent->state != EXTENT_FREE)
			continue;
		extents->busy++;
		extent->generation = extents->generation;
		extent->zero = extent->hole = extent->ask = false;
		return extent;
	}
	return NULL;
}

bool extents_mapping(const struct extents *extents)
{
	for (unsigned i = 0; i < EXTENTS; i++)
		if (extents->list[i].state == EXTENT_MAPPING)
			return true;
	return false;
}

bool extents_pump(struct extents *extents, uint64_t sent_seq)
{
	const struct extents_user *user = extents->user;
	struct extent *extent;
	bool sent = false;

	while ((extent = list_first_as(&extents->ready, struct extent, link)) &&
	       extent->stamp <= sent_seq) {
		if (!user->send(user->owner, extent))
			return false;
		list_remove(&extent->link);
		extent_free(extent);
		sent = true;
	}
	if (sent)
		user->go_on(user->owner);
	return true;
}

static void lower(struct place *low, unsigned volume_index, uint64_t off, uint64_t order)
{
	if (order < low->order)
		*low = (struct place){ volume_index, off, order };
}

void extents_low(const struct extents *extents, struct place *low)
{
	for (unsigned i = 0; i < EXTENTS; i++) {
		const struct extent *extent = &extents->list[i];

		if (extent->state != EXTENT_FREE && extent->generation == extents->generation)
			lower(low, extent->volume_index, extent->off, extent->order);
	}
	for (unsigned i = 0; i < extents->question_count; i++) {
		const struct question *question =
			&extents->questions[(extents->question_first + i) % QUESTIONS_MAX];

		if (question->generation == extents->generation)
			lower(low, question->volume_index, question->off, question->order);
	}
}

void ship_extents_before_write(struct extents *extents, unsigned volume_id, uint64_t off,
			       uint64_t len)
{
	const struct segment *open = extents->group->open;
	struct list *pos;

	if (!open || !open->header.records)
		return;
	list_for_each (pos, &extents->ready) {
		struct extent *extent = container_of(pos, struct extent, link);

		if (extent->stamp >= open->header.first_seq && extent->volume_id == volume_id &&
		    off < extent->off + extent->len && extent->off < off + len) {
			commit_seal(extents->group);
			return;
		}
	}
}

void extents_begin(struct extents *extents, const struct extents_user *user)
{
	must(!extents->user);
	extents->generation++;
	extents->user = user;
}

void extents_end(struct extents *extents)
{
	struct extent *extent;

	extents->user = NULL;
	extents->generation++;
	while ((extent = list_pop_front_as(&extents->ready, struct extent, link)))
		extent_free(extent);
}

bool ship_extents_quiet(const struct extents *extents)
{
	return extents->busy == 0;
}

int ship_extents_new(struct ship *ship, struct extents **ret_extents)
{
	struct io *io = ship->group->io;
	struct extents *extents = io_alloc(io, sizeof(*extents), 64);

	if (!extents)
		return -ENOMEM;
	*ret_extents = extents;
	extents->ship = ship;
	extents->group = ship->group;
	list_init(&extents->ready);
	for (unsigned i = 0; i < EXTENTS; i++) {
		extents->list[i].extents = extents;
		extents->list[i].buf = io_alloc(io, EXTENT_BYTES, 4096);
		if (!extents->list[i].buf)
			return -ENOMEM;
	}
	return 0;
}

struct extents *ship_extents_free(struct extents *extents)
{
	struct io *io = extents->group->io;

	for (unsigned i = 0; i < EXTENTS; i++)
		if (extents->list[i].buf)
			io_free(io, extents->list[i].buf);
	io_free(io, extents);
	return NULL;
}
