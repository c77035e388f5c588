/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/core/block/fake_export.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/must.h"

static struct fake_export *fake_export_of(struct export *export)
{
	return container_of(export, struct fake_export, export);
}

static int64_t execute(struct fake_export *fe, struct export_request *request)
{
	uint64_t first = request->offset_bytes / FAKE_BLOCK_BYTES;
	uint64_t blocks = (request->length_bytes + FAKE_BLOCK_BYTES - 1) / FAKE_BLOCK_BYTES;
	uint64_t run = 1;

	if (fe->fail)
		return fe->fail;
	switch (request->op) {
	case EXPORT_READ:
		memcpy(request->buf, fe->data + request->offset_bytes, request->length_bytes);
		return 0;
	case EXPORT_WRITE:
		memcpy(fe->data + request->offset_bytes, request->buf, request->length_bytes);
		for (uint64_t i = 0; i < blocks; i++)
			fe->hole[first + i] = false;
		return 0;
	case EXPORT_TRIM:
	case EXPORT_WRITE_ZEROES:
		memset(fe->data + request->offset_bytes, 0, request->length_bytes);
		for (uint64_t i = 0; i < blocks; i++)
			fe->hole[first + i] = !(request->flags & EXPORT_NO_HOLE);
		return 0;
	case EXPORT_MAP:
		if (fe->map_fail_after > 0 && --fe->map_fail_after == 0)
			return -EIO;
		request->hole = fe->hole[first];
		while (run < blocks && fe->hole[first + run] == request->hole)
			run++;
		run *= FAKE_BLOCK_BYTES;
		return (int64_t)(run < request->length_bytes ? run : request->length_bytes);
	case EXPORT_FLUSH:
	case EXPORT_CACHE:
		return 0;
	}
	return -EINVAL;
}

void fake_export_release(struct fake_export *fe, bool backwards)
{
	struct list now;
	struct list *entry;

	list_init(&now);
	list_splice_back(&now, &fe->held);
	while ((entry = backwards ? list_last(&now) : list_first(&now)) != NULL) {
		struct export_request *request = container_of(entry, struct export_request, link);

		list_remove(entry);
		request->done(request, execute(fe, request));
	}
}

unsigned fake_export_held(const struct fake_export *fe)
{
	unsigned count = 0;
	struct list *pos;

	list_for_each (pos, &fe->held)
		count++;
	return count;
}

static void tick(struct io_op *op, int64_t res)
{
	struct fake_export *fe = container_of(op, struct fake_export, tick);

	(void)res;
	fe->ticking = false;
	if (!fe->hold)
		fake_export_release(fe, fake_random(fe->fake) % 2 == 0);
}

static void submit(struct export *export, struct export_request *request)
{
	struct fake_export *fe = fake_export_of(export);

	must(fe->attached > 0 && request->done);
	must(request->offset_bytes + request->length_bytes <= export->limits.size_bytes);
	must(request->offset_bytes % export->limits.block_min_bytes == 0);
	must(request->length_bytes % export->limits.block_min_bytes == 0);
	must(request->op == EXPORT_FLUSH || request->length_bytes > 0);
	if (request->op == EXPORT_READ || request->op == EXPORT_WRITE)
		must(request->buf && (uintptr_t)request->buf % 4096 == 0 &&
		     request->length_bytes <= export->limits.request_max_bytes);
	if (request->op == EXPORT_WRITE || request->op == EXPORT_TRIM ||
	    request->op == EXPORT_WRITE_ZEROES)
		must(!export->limits.read_only);
	fe->submitted[request->op]++;
	fe->last_flags = request->flags;
	list_push_back(&fe->held, &request->link);
	if (!fe->ticking) {
		fe->ticking = true;
		io_defer(&fe->fake->io, &fe->tick, 0);
	}
}

static int attach(struct export *export)
{
	struct fake_export *fe = fake_export_of(export);

	if (fe->attach_result == 0)
		fe->attached++;
	return fe->attach_result;
}

static void detach(struct export *export)
{
	struct fake_export *fe = fake_export_of(export);

	must(fe->attached > 1 || (fe->attached == 1 && list_empty(&fe->held)));
	fe->attached--;
}

static const struct export_ops fake_export_ops = {
	.submit = submit,
	.attach = attach,
	.detach = detach,
};

void fake_export_init(struct fake_export *fe, struct fake_io *fake, const char *name)
{
	memset(fe, 0, sizeof(*fe));
	fe->fake = fake;
	fe->data = calloc(1, FAKE_EXPORT_BYTES);
	must(fe->data);
	memset(fe->hole, true, sizeof(fe->hole));
	list_init(&fe->held);
	fe->tick.done = tick;
	fe->export.ops = &fake_export_ops;
	fe->export.name = name;
	fe->export.limits = (struct export_limits){
		.size_bytes = FAKE_EXPORT_BYTES,
		.block_min_bytes = 512,
		.block_preferred_bytes = 4096,
		.request_max_bytes = 64u << 20,
		.volatile_cache = true,
		.fast_zero = true,
	};
}

void fake_export_done(struct fake_export *fe)
{
	must(fe->attached == 0);
	free(fe->data);
}
