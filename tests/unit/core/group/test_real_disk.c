/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a group directory once through io_uring; what can go wrong is the simulator's
 * matter. */
#include <stdlib.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/group/dirty.h"
#include "core/group/group_dir.h"
#include "core/group/init.h"
#include "core/group/volume.h"
#include "core/io/uring.h"
#include "tests/unit/unit.h"

#define JOURNAL_FILE_BYTES (2u << 20)

static struct group_init init;
static struct superblock sb;
static struct group_dir dir;

/* init, open, store, a dirty map and the volumes through io_uring, step by step. */
static struct {
	struct io *io;
	struct io_op op;
	struct group_dir_store store;
	struct dirty_map *map;
	struct volumes volumes;
	char state[128], data[160];
	unsigned step;
	int64_t res;
	char error[512];
} real;

static void real_stop(int64_t res)
{
	real.res = res;
	uring_stop(real.io);
}

static int real_open_volumes(void)
{
	struct volume_path path = { "data", real.data };

	return volumes_open(&real.volumes, real.io, &dir.sb, &path, 1, real.error,
			    sizeof(real.error));
}

static void real_step(struct io_op *op, int64_t res)
{
	static char path[200];

	if (res != 0) {
		real_stop(res);
		return;
	}
	switch (real.step++) {
	case 0:
		group_init_run(&init, op);
		break;
	case 1:
		if (group_dir_init(&dir, real.io, real.state, "db") != 0)
			must_not_reach();
		group_dir_open(&dir, op);
		break;
	case 2:
		dir.sb.durable_seq = 1;
		group_dir_store(&dir, &real.store, op);
		break;
	case 3:
		snprintf(path, sizeof(path), "%s/db/dirty.b", real.state);
		must(dirty_new(real.io, path, &dir.sb, &real.map) == 0);
		dirty_set(real.map, 0, 0, 1);
		dirty_create(real.map, op);
		break;
	case 4:
		dirty_set(real.map, 0, 512 * 1024, 1);
		dirty_save(real.map, op);
		break;
	case 5:
		real.map = dirty_free(real.map);
		must(dirty_new(real.io, path, &dir.sb, &real.map) == 0);
		dirty_load(real.map, op);
		break;
	case 6:
		must(dirty_bytes(real.map) == 2 * DIRTY_CHUNK_MIN_BYTES);
		must(dirty_remove(real.map) == 0);
		if (real_open_volumes() != 0)
			must_not_reach();
		real.volumes.list[0].dirty = true;
		volumes_flush(&real.volumes, op);
		break;
	case 7:
		group_dir_close(&dir);
		group_dir_peek(&dir, op);
		break;
	default:
		real_stop(dir.sb.durable_seq == 1 ? 0 : -EINVAL);
	}
}

UNIT(test_real_disk)
{
	struct uring_config config = { .name = "test" };
	struct group_init_volume volume = { "data", real.data };
	const char *tmp = getenv("TMPDIR");
	char command[200];
	FILE *file;

	memset(&real, 0, sizeof(real));
	snprintf(real.state, sizeof(real.state), "%.80s/holdfast-init-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(real.state));
	snprintf(real.data, sizeof(real.data), "%s/data", real.state);
	file = fopen(real.data, "we");
	assert_non_null(file);
	assert_int_equal(ftruncate(fileno(file), 1 << 20), 0);
	(void)fclose(file);
	assert_int_equal(uring_new(&config, &real.io), 0);
	init = (struct group_init){
		.io = real.io,
		.state_dir = real.state,
		.group = "db",
		.role = GROUP_PRIMARY,
		.journal_file_bytes = JOURNAL_FILE_BYTES,
		.journal_files = 2,
		.volumes = &volume,
		.volume_count = 1,
		.sb = &sb,
	};
	real.op.done = real_step;
	io_defer(real.io, &real.op, 0);
	assert_int_equal(uring_run(real.io), 0);
	assert_int_equal(real.res, 0);
	assert_int_equal(real.step, 9);
	dirty_free(real.map);
	volumes_close(&real.volumes);
	group_dir_deinit(&dir);
	uring_free(real.io);
	snprintf(command, sizeof(command), "rm -r '%s'", real.state);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
