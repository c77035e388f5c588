/* SPDX-License-Identifier: Apache-2.0 */
/* Stamps of volumes: the same while nobody writes, another one when somebody has. */
#include <errno.h>

#include "core/group/stamp.h"
#include "tests/sim/sim.h"
#include "tests/unit/unit.h"

#define SMALL (256u << 10)
#define LARGE (96u << 20)

struct scene {
	struct sim_world *world;
	struct sim_node *node;
	struct superblock sb;
	struct volumes volumes;
	struct stamp stamp;
	struct superblock_stamp first[3], second[3];
};

struct wait {
	struct io_op op;
	bool done;
	int64_t res;
};

static void waited(struct io_op *op, int64_t res)
{
	struct wait *wait = container_of(op, struct wait, op);

	wait->done = true;
	wait->res = res;
}

static bool is_done(void *context)
{
	return ((struct wait *)context)->done;
}

static int take(struct scene *scene, struct superblock_stamp *stamps)
{
	struct wait wait = { .op.done = waited };

	stamp_take(&scene->stamp, &scene->volumes, stamps, &wait.op);
	sim_check(scene->world, stamp_is_running(&scene->stamp) && !wait.done);
	sim_check(scene->world, sim_run_until(scene->world, is_done, &wait, 60 * SIM_SECOND));
	sim_check(scene->world, !stamp_is_running(&scene->stamp));
	return (int)wait.res;
}

static void expect(struct scene *scene, bool same0, bool same1, bool same2)
{
	const bool same[] = { same0, same1, same2 };

	sim_check(scene->world, take(scene, scene->second) == 0);
	for (unsigned i = 0; i < 3; i++)
		sim_check(scene->world, stamp_same(&scene->first[i], &scene->second[i]) == same[i]);
	memcpy(scene->first, scene->second, sizeof(scene->first));
}

static void poke(struct scene *scene, const char *path, uint64_t off)
{
	uint8_t byte = 0x5a;

	sim_file_poke(scene->node, path, off, &byte, 1);
}

static void scene_run(struct sim_world *world, void *context)
{
	struct scene *scene = context;
	static const struct volume_path paths[] = { { "v0", "/v0" },
						    { "v1", "/v1" },
						    { "v2", "/v2" } };
	static const uint64_t sizes[] = { SMALL, LARGE, LARGE };
	char error[512];

	scene->world = world;
	scene->node = sim_node_new(world, "node");
	scene->sb.volume_count = 3;
	for (uint16_t i = 0; i < 3; i++) {
		sim_file_make(scene->node, paths[i].path, sizes[i], i == 2, true);
		scene->sb.volumes[i] =
			(struct superblock_volume){ .id = i, .size_bytes = sizes[i] };
		snprintf(scene->sb.volumes[i].name, sizeof(scene->sb.volumes[i].name), "v%u", i);
	}
	sim_check(world, volumes_open(&scene->volumes, sim_node_io(scene->node), &scene->sb, paths,
				      3, error, sizeof(error)) == 0);
	sim_check(world, take(scene, scene->first) == 0);
	for (unsigned i = 0; i < 3; i++)
		sim_check(world, scene->first[i].sample != 0);
	sim_check(world, scene->first[2].mtime_ns == 0);
	sim_run_for(world, SIM_SECOND);
	expect(scene, true, true, true);
	poke(scene, "/v0", SMALL - 1);
	poke(scene, "/v2", 4095);
	expect(scene, false, true, false);
	poke(scene, "/v1", LARGE / 2 + 12345); /* at no place that is looked at */
	poke(scene, "/v2", LARGE - 1);
	expect(scene, true, false, false);
	poke(scene, "/v2", LARGE / 2 + 12345); /* a device has no time of change */
	expect(scene, true, true, true);
	/* What is not known shows no change. */
	memset(scene->first, 0, sizeof(scene->first));
	poke(scene, "/v0", 0);
	expect(scene, true, true, true);
	volumes_close(&scene->volumes);
}

UNIT(test_stamps)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	struct sim_options options;
	struct sim_world *world;
	bool held;

	assert_non_null(scene);
	sim_options_calm(&options);
	world = sim_new(1, &options);
	held = sim_run(world, scene_run, scene);
	sim_free(world);
	free(scene);
	assert_true(held);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_stamps) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
