/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/volume.h"

#include "core/base/err.h"
#include "tests/unit/core/group/waiting.h"

static struct volumes volumes;
static struct superblock sb;
static char error[512];
static struct waiting wait;

static const struct volume_path paths[] = { { "log", "/vol/log" },
					    { "unrelated", "/vol/x" },
					    { "data", "/vol/data" } };

static void two_volumes(struct waiting_world *w)
{
	waiting_make_volumes(w->node);
	memset(&sb, 0, sizeof(sb));
	memset(&volumes, 0, sizeof(volumes));
	sb.volume_count = 2;
	sb.volumes[0] = (struct superblock_volume){ .id = 7,
						    .size_bytes = WAITING_VOLUME_SIZE,
						    .name = "data" };
	sb.volumes[1] = (struct superblock_volume){ .id = 1,
						    .size_bytes = WAITING_VOLUME_SIZE,
						    .name = "log" };
}

static int open_all(struct waiting_world *w, const struct volume_path *list, unsigned count)
{
	error[0] = '\0';
	return volumes_open(&volumes, w->io, &sb, list, count, error, sizeof(error));
}

static int64_t flush(struct waiting_world *w)
{
	volumes_flush(&volumes, waiting_op(&wait));
	sim_check(w->world, !wait.done);
	return waiting_for(w->world, &wait);
}

static void write_byte(struct waiting_world *w, struct volume *volume, uint8_t byte)
{
	uint8_t *buf = io_alloc(w->io, 4096, 4096);

	memset(buf, byte, 4096);
	io_write(volume->file, buf, 4096, 8192, 0, waiting_op(&wait));
	volume->dirty = true;
	sim_check(w->world, waiting_for(w->world, &wait) == 4096);
	io_free(w->io, buf);
}

/* ---- open -------------------------------------------------------------------------------------
 */

static void body_open(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct io_file *file;

	two_volumes(w);
	volumes_close(&volumes);
	sim_check(world, open_all(w, paths, 3) == 0 && error[0] == '\0');
	sim_check(world, volumes.count == 2);
	sim_check(world, strcmp(volumes.list[0].path, "/vol/data") == 0);
	sim_check(world, volumes_by_id(&volumes, 7) == &volumes.list[0]);
	sim_check(world, volumes_by_id(&volumes, 1) == &volumes.list[1]);
	sim_check(world, volumes_by_id(&volumes, 0) == NULL);
	sim_check(world, volumes_by_id(&volumes, UINT32_MAX) == NULL);
	sim_check(world, volumes.list[1].info.is_device);
	/* It is ours alone. */
	sim_check(world, io_file_open(w->io, "/vol/log", IO_OPEN_EXCLUSIVE, &file) == -EBUSY);
	volumes_close(&volumes);
	volumes_close(&volumes);
	sim_check(world, io_file_open(w->io, "/vol/log", IO_OPEN_EXCLUSIVE, &file) == 0);
	sim_check(world, open_all(w, paths, 3) == -EBUSY);
	sim_check(world, strstr(error, "\"log\"") && strstr(error, "/vol/log"));
	io_file_close(file);
	sim_check(world, sim_node_alloc_bytes(w->node) == 0);
}

static void body_open_errors(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	static char longer[600];
	const struct volume_path twin[] = { { "data", "/vol/data" }, { "log", "/vol/data" } };
	const struct volume_path gone[] = { { "data", "/vol/data" }, { "log", "/vol/gone" } };
	const struct volume_path too_long[] = { { "data", longer } };

	two_volumes(w);
	memset(longer, 'x', sizeof(longer) - 1);
	sim_check(world, open_all(w, paths, 2) == -ENOENT);
	sim_check(world, strstr(error, "\"data\"") && strstr(error, "path"));
	sim_check(world, open_all(w, twin, 2) == -EINVAL);
	sim_check(world, strstr(error, "\"data\"") && strstr(error, "\"log\""));
	sim_check(world, open_all(w, gone, 2) == -ENOENT);
	sim_check(world, strstr(error, "/vol/gone") && strstr(error, "\"log\""));
	sim_check(world, open_all(w, too_long, 1) == -ENAMETOOLONG);
	sb.volumes[1].size_bytes++;
	sim_check(world, open_all(w, paths, 3) == -EINVAL);
	sim_check(world, strstr(error, "8388609") && strstr(error, "8388608"));
	sim_node_fail_alloc(w->node, 1);
	sim_check(world, open_all(w, paths, 3) == -ENOMEM && error[0] != '\0');
	/* Nothing stayed open or locked. */
	sim_check(world, sim_node_alloc_bytes(w->node) == 0);
	sb.volumes[1].size_bytes--;
	sim_check(world, open_all(w, paths, 3) == 0);
	volumes_close(&volumes);
	/* A group without volumes. */
	sb.volume_count = 0;
	sim_check(world, open_all(w, paths, 3) == 0 && flush(w) == 0);
	volumes_close(&volumes);
}

UNIT(test_open)
{
	struct waiting_world w;

	waiting_calm(1, body_open, &w, NULL);
	waiting_calm(1, body_open_errors, &w, NULL);
}

/* ---- flush ------------------------------------------------------------------------------------
 */

static void body_flush(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t ops;
	uint8_t byte;

	two_volumes(w);
	sim_check(world, open_all(w, paths, 3) == 0);
	ops = sim_disk_ops(world);
	sim_check(world, flush(w) == 0);
	sim_check(world, sim_disk_ops(world) == ops);
	write_byte(w, &volumes.list[0], 0x11);
	write_byte(w, &volumes.list[1], 0x22);
	ops = sim_disk_ops(world);
	sim_check(world, flush(w) == 0);
	sim_check(world, sim_disk_ops(world) == ops + 2);
	sim_check(world, !volumes.list[0].dirty && !volumes.list[1].dirty);
	write_byte(w, &volumes.list[1], 0x33);
	ops = sim_disk_ops(world);
	sim_check(world, flush(w) == 0);
	sim_check(world, sim_disk_ops(world) == ops + 1);
	sim_node_crash(w->node, SIM_POWER);
	sim_file_peek(w->node, "/vol/data", 8192, &byte, 1);
	sim_check(world, byte == 0x11);
	sim_file_peek(w->node, "/vol/log", 8192 + 4095, &byte, 1);
	sim_check(world, byte == 0x33);
}

static void body_flush_fails(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct sim_fault fault = { .ops = SIM_FLUSH,
				   .pattern = "/vol/data",
				   .action = SIM_ERROR,
				   .error = -EIO,
				   .count = 1 };

	two_volumes(w);
	sim_check(world, open_all(w, paths, 3) == 0);
	write_byte(w, &volumes.list[0], 0x11);
	write_byte(w, &volumes.list[1], 0x22);
	sim_fault_add(world, &fault);
	sim_check(world, flush(w) == -EIO);
	/* The disk is well again, but what was written may be gone: that is never called durable.
	 */
	sim_check(world, flush(w) == -EIO);
	write_byte(w, &volumes.list[1], 0x44);
	sim_check(world, flush(w) == -EIO);
	volumes_close(&volumes);
	sim_check(world, open_all(w, paths, 3) == 0);
	write_byte(w, &volumes.list[0], 0x55);
	sim_check(world, flush(w) == 0);
	volumes_close(&volumes);
}

UNIT(test_flush)
{
	struct waiting_world w;

	waiting_calm(1, body_flush, &w, NULL);
	waiting_calm(1, body_flush_fails, &w, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_flush),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
