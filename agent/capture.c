/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capture: what clients of the volumes ask becomes records, reads are answered from write set and
 * volume.
 *
 * Invariant R1 (linearizable reads): a read is answered with volume content overlaid by the write
 * set as it is when the volume read completes; segments applied after it was submitted stay in the
 * write set until then (agent_drain_retire, write set invariant W1). Invariant R2: a FLUSH
 * completes after everything acknowledged before it, on any connection, is durable. Requests that
 * find no room wait in order of arrival; nothing is ever refused for lack of room.
 */
#include <errno.h>
#include <string.h>

#include "agent/internal.h"

static struct agent_export *request_export(const struct export_request *request)
{
	return (struct agent_export *)(uintptr_t)request->priv[REQUEST_EXPORT];
}

static void deliver(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, finished_op);
	struct list batch;
	struct export_request *request;

	(void)res;
	group->finished_pending = false;
	list_init(&batch);
	list_splice_back(&batch, &group->finished);
	while ((request = list_pop_front_as(&batch, struct export_request, link)))
		request->done(request, (int64_t)request->priv[REQUEST_SEQ]);
}

void capture_finish(struct agent_group *group, struct export_request *request, int64_t res)
{
	if (res < 0)
		group->errors++;
	request->priv[REQUEST_SEQ] = (uint64_t)res;
	list_push_back(&group->finished, &request->link);
	if (group->finished_pending)
		return;
	group->finished_pending = true;
	group->finished_op.done = deliver;
	io_defer(group->io, &group->finished_op, 0);
}

uint64_t capture_oldest_read_tick(const struct agent_group *group)
{
	struct read_ticket *oldest = list_first_as(&group->reads, struct read_ticket, link);

	return oldest ? oldest->tick : UINT64_MAX;
}

void read_begin(struct agent_group *group, struct read_ticket *ticket)
{
	ticket->tick = ++group->tick;
	list_push_back(&group->reads, &ticket->link);
}

void read_end(struct agent_group *group, struct read_ticket *ticket)
{
	list_remove(&ticket->link);
	agent_drain_retire(group);
}

static void op_free(struct agent_group *group, struct capture_op *op)
{
	list_push_front(&group->free_ops, &op->link);
	read_end(group, &op->ticket);
}

static void read_done(struct io_op *io_op, int64_t res)
{
	struct capture_op *op = container_of(io_op, struct capture_op, op);
	struct agent_group *group = op->group;
	struct export_request *request = op->request;

	/* The first volume that failed to flush may have lost what was written to it; the group
	 * fails as soon as the others have answered. */
	if (agent_is_out(group) ||
	    group->volumes.flush_res) /* invariant G2: what it saw may no longer be the truth */
		res = -EIO;
	if (res >= 0)
		writeset_overlay(&group->writeset, op->export->volume->id.id, request->offset_bytes,
				 request->length_bytes, request->buf);
	capture_finish(group, request, res < 0 ? res : 0);
	op_free(group, op);
	if (!list_empty(&group->stalled))
		capture_retry(group);
}

static struct capture_op *op_take(struct agent_group *group, struct export_request *request)
{
	struct capture_op *op = list_pop_front_as(&group->free_ops, struct capture_op, link);

	if (!op)
		return NULL;
	op->group = group;
	op->export = request_export(request);
	op->request = request;
	read_begin(group, &op->ticket);
	return op;
}

static bool do_read(struct agent_group *group, struct export_request *request)
{
	struct agent_export *export = request_export(request);
	unsigned id = export->volume->id.id;
	struct capture_op *op;

	if (writeset_covers(&group->writeset, id, request->offset_bytes, request->length_bytes) ==
	    WRITESET_ALL) {
		writeset_overlay(&group->writeset, id, request->offset_bytes, request->length_bytes,
				 request->buf);
		capture_finish(group, request, 0);
	} else {
		op = op_take(group, request);
		if (!op)
			return false;
		op->op.done = read_done;
		io_read(export->volume->file, request->buf, request->length_bytes,
			request->offset_bytes, &op->op);
	}
	group->reads_done++;
	group->read_bytes += request->length_bytes;
	return true;
}

static void map_done(struct io_op *io_op, int64_t res)
{
	struct capture_op *op = container_of(io_op, struct capture_op, op);
	struct agent_group *group = op->group;
	struct export_request *request = op->request;

	/* What the write set has gained meanwhile only ever turns a reported hole into data: report
	 * data. */
	request->hole = op->hole;
	if (res > 0 && writeset_covers(&group->writeset, op->export->volume->id.id,
				       request->offset_bytes, (uint64_t)res) != WRITESET_NONE)
		request->hole = false;
	capture_finish(group, request, res);
	op_free(group, op);
	if (!list_empty(&group->stalled))
		capture_retry(group);
}

static bool do_map(struct agent_group *group, struct export_request *request)
{
	struct agent_export *export = request_export(request);
	struct capture_op *op;
	uint64_t run;

	switch (writeset_run_at(&group->writeset, export->volume->id.id, request->offset_bytes,
				request->length_bytes, &run)) {
	case WRITESET_DATA:
	case WRITESET_ZERO:
		request->hole = writeset_run_at(&group->writeset, export->volume->id.id,
						request->offset_bytes, request->length_bytes,
						&run) == WRITESET_ZERO;
		capture_finish(group, request, (int64_t)run);
		return true;
	case WRITESET_GAP:
		break;
	}
	op = op_take(group, request);
	if (!op)
		return false;
	op->op.done = map_done;
	io_map(export->volume->file, request->offset_bytes, run, &op->hole, &op->op);
	return true;
}

/* Queues a request whose records are all appended until they are written, or durable. */
static void wait_for_commit(struct agent_group *group, struct export_request *request)
{
	bool durable = group->conf->cache == CONF_WRITETHROUGH || (request->flags & EXPORT_FUA);

	request->priv[REQUEST_SEQ] = group->head_seq;
	list_push_back(durable ? &group->wait_durable : &group->wait_written, &request->link);
	if (durable && group->conf->cache != CONF_WRITETHROUGH)
		commit_flush(group, group->head_seq);
}

static void before_write(struct agent_group *group, const struct record *record)
{
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_before_write(group->ships[i], record->volume, record->offset_bytes,
				  record->length_bytes);
}

static bool do_write(struct agent_group *group, struct export_request *request)
{
	struct agent_export *export = request_export(request);
	uint64_t *done = &request->priv[REQUEST_DONE];

	while (*done < request->length_bytes) {
		struct record record = { .type = RECORD_WRITE, .volume = export->volume->id.id };
		uint64_t left = request->length_bytes - *done;
		uint64_t room = commit_room(group);

		if (!room)
			return false;
		/* A write that a whole segment can hold is one record, so that it stays in one
		 * piece. */
		record.length_bytes = (uint32_t)min_u64(
			left, left <= group->segment_data_max ? group->segment_data_max : room);
		record.offset_bytes = request->offset_bytes + *done;
		record.flags = request->flags & EXPORT_FUA ? RECORD_FUA : 0;
		before_write(group, &record);
		if (commit_record(group, &record, request->buf + *done))
			return false;
		*done += record.length_bytes;
	}
	group->writes++;
	group->written_bytes += request->length_bytes;
	wait_for_commit(group, request);
	return true;
}

static bool do_zeroes(struct agent_group *group, struct export_request *request)
{
	struct agent_export *export = request_export(request);
	bool trim = request->op == EXPORT_TRIM;
	struct record record = {
		.type = trim ? RECORD_DISCARD : RECORD_WRITE_ZEROES,
		.flags = !trim && (request->flags & EXPORT_NO_HOLE) ? RECORD_NO_HOLE : 0,
		.volume = export->volume->id.id,
		.offset_bytes = request->offset_bytes,
		.length_bytes = (uint32_t)request->length_bytes,
	};

	if (!commit_room(group))
		return false;
	before_write(group, &record);
	if (commit_record(group, &record, NULL))
		return false;
	group->writes++;
	wait_for_commit(group, request);
	return true;
}

static void do_flush(struct agent_group *group, struct export_request *request)
{
	uint64_t acked = group->journal.written_seq;

	group->flushes++;
	if (acked <= commit_promised_seq(group)) {
		capture_finish(group, request, 0);
		return;
	}
	request->priv[REQUEST_SEQ] = acked;
	list_push_back(&group->wait_durable, &request->link);
	commit_flush(group, acked);
}

/* False: no room, the request must wait. */
static bool execute(struct agent_group *group, struct export_request *request)
{
	switch (request->op) {
	case EXPORT_READ:
		return do_read(group, request);
	case EXPORT_WRITE:
		return do_write(group, request);
	case EXPORT_FLUSH:
		do_flush(group, request);
		return true;
	case EXPORT_TRIM:
	case EXPORT_WRITE_ZEROES:
		return do_zeroes(group, request);
	case EXPORT_CACHE:
		capture_finish(group, request, 0);
		return true;
	case EXPORT_MAP:
		return do_map(group, request);
	}
	must_not_reach();
}

/* What takes the room must become durable and be applied: none of it waits for its ordinary time.
 */
static void make_room(struct agent_group *group)
{
	commit_flush(group, group->journal.appended_seq);
	agent_drain_kick(group, true);
}

static void stall(struct agent_group *group, struct export_request *request)
{
	if (list_empty(&group->stalled)) {
		group->stalls++;
		group->stalled_since_ns = io_now(group->io);
	}
	list_push_back(&group->stalled, &request->link);
	make_room(group);
}

void capture_retry(struct agent_group *group)
{
	struct export_request *request;

	if (agent_holds(group)) /* H1, A3 */
		return;
	while ((request = list_first_as(&group->stalled, struct export_request, link))) {
		list_remove(&request->link);
		if (execute(group, request))
			continue;
		list_push_front(&group->stalled, &request->link);
		/* A half-full segment must not keep the room that it waits for. */
		commit_schedule(group);
		make_room(group);
		return;
	}
	if (group->stalled_since_ns)
		group->stall_ns += io_now(group->io) - group->stalled_since_ns;
	group->stalled_since_ns = 0;
}

static bool needs_order(const struct export_request *request)
{
	return request->op == EXPORT_WRITE || request->op == EXPORT_TRIM ||
	       request->op == EXPORT_WRITE_ZEROES;
}

static void submit(struct export *export, struct export_request *request)
{
	struct agent_export *self = container_of(export, struct agent_export, export);
	struct agent_group *group = self->group;

	request->priv[REQUEST_EXPORT] = (uintptr_t)self;
	request->priv[REQUEST_DONE] = 0;
	request->priv[REQUEST_START] = io_now(group->io);
	if (group->state != AGENT_SERVING) {
		capture_finish(group, request, group->state == AGENT_STOPPING ? -ESHUTDOWN : -EIO);
		return;
	}
	if (request->length_bytes == 0 && request->op != EXPORT_FLUSH) {
		capture_finish(group, request, 0);
		return;
	}
	if (agent_holds(group)) { /* H1, A3 */
		list_push_back(&group->stalled, &request->link);
		return;
	}
	if ((needs_order(request) && !list_empty(&group->stalled)) || !execute(group, request))
		stall(group, request);
}

static int attach(struct export *export)
{
	struct agent_export *self = container_of(export, struct agent_export, export);

	if (self->group->state != AGENT_SERVING)
		return -ESHUTDOWN;
	self->attached++;
	return 0;
}

static void detach(struct export *export)
{
	struct agent_export *self = container_of(export, struct agent_export, export);

	must(self->attached);
	self->attached--;
}

const struct export_ops agent_export_ops = {
	.submit = submit,
	.attach = attach,
	.detach = detach,
};

void capture_exports(struct agent_group *group)
{
	uint32_t block_bytes = 512;

	/* One size for all: records of all volumes share the segments, so what one volume aligns
	 * less, another one's direct I/O would not accept. */
	for (unsigned i = 0; i < group->volumes.count; i++)
		block_bytes = max_u32(block_bytes, group->volumes.list[i].info.block_bytes);
	for (unsigned i = 0; i < group->volumes.count; i++) {
		struct agent_export *self = &group->exports[i];
		struct volume *volume = &group->volumes.list[i];

		self->group = group;
		self->volume = volume;
		self->export.ops = &agent_export_ops;
		/* A client may hold the export a little longer than the volumes are open. */
		self->export.name = group->dir.sb.volumes[i].name;
		self->export.description = "Holdfast replicated volume";
		self->export.limits = (struct export_limits){
			.size_bytes = volume->id.size_bytes,
			.block_min_bytes = block_bytes,
			.block_preferred_bytes = 4096,
			.request_max_bytes = 64u << 20,
			.volatile_cache = group->conf->cache == CONF_WRITEBACK,
			.fast_zero = true,
		};
	}
}

static void fail_list(struct agent_group *group, struct list *list, int res)
{
	struct export_request *request;

	while ((request = list_pop_front_as(list, struct export_request, link)))
		capture_finish(group, request, res);
}

void capture_fail_stalled(struct agent_group *group, int res)
{
	fail_list(group, &group->stalled, res);
}

void capture_fail_all(struct agent_group *group, int res)
{
	struct list *pos;

	/* Invariant G2 holds for what is done and not told yet, too. */
	list_for_each (pos, &group->finished) {
		struct export_request *request = container_of(pos, struct export_request, link);

		request->priv[REQUEST_SEQ] = (uint64_t)(int64_t)res;
	}
	capture_fail_stalled(group, res);
	fail_list(group, &group->wait_written, res);
	fail_list(group, &group->wait_durable, res);
}

int capture_init(struct agent_group *group)
{
	list_init(&group->wait_written);
	list_init(&group->wait_durable);
	list_init(&group->stalled);
	list_init(&group->finished);
	list_init(&group->reads);
	list_init(&group->free_ops);
	group->capture_ops = io_alloc(group->io, CAPTURE_OPS_MAX * sizeof(*group->capture_ops), 64);
	if (!group->capture_ops)
		return -ENOMEM;
	for (unsigned i = 0; i < CAPTURE_OPS_MAX; i++)
		list_push_back(&group->free_ops, &group->capture_ops[i].link);
	return 0;
}

void capture_deinit(struct agent_group *group)
{
	if (group->capture_ops)
		io_free(group->io, group->capture_ops);
	group->capture_ops = NULL;
}
