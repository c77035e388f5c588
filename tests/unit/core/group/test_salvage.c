/* SPDX-License-Identifier: Apache-2.0 */
/* Records kept aside: what is written is what the journal held, whatever crashes in between. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/conf/salvage_read.h"
#include "core/group/salvage.h"
#include "tests/unit/core/group/journal_bench.h"

#define FILE_MAX (2u << 20)

static struct {
	uint64_t segments, records;
} seen;

static void on_segment(void *owner, const struct segment_header *header, const uint8_t *table)
{
	struct record record;

	(void)owner;
	must(record_decode(table, header, &record) == 0);
	seen.segments++;
	seen.records += header->records;
}

static void make(struct journal_model *model, struct salvage **ret)
{
	struct salvage_options options = { .io = sim_node_io(model->node),
					   .dir = JOURNAL_MODEL_DIR,
					   .journal = &model->run->journal,
					   .segment = on_segment };

	sim_check(model->world, salvage_new(&options, ret) == 0);
}

static int64_t keep(struct journal_model *model, uint64_t first_seq, struct salvage_result *ret)
{
	struct salvage *salvage;
	struct waiting waiting;
	int64_t res;

	memset(&seen, 0, sizeof(seen));
	make(model, &salvage);
	salvage_run(salvage, first_seq, model->run->journal.durable_seq, waiting_op(&waiting));
	res = waiting_for(model->world, &waiting);
	*ret = *salvage_result(salvage);
	sim_check(model->world, (res < 0) == (salvage_error(salvage)[0] != 0));
	salvage_free(salvage);
	return res;
}

static const char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), JOURNAL_MODEL_DIR "/salvage/%s", name);
	return path;
}

/* Takes a file of the simulated disk, as it is durable there, out to a real folder. */
static void take_out(struct journal_model *model, const char *folder, const char *name)
{
	static uint8_t bytes[FILE_MAX];
	int64_t size = sim_file_size(model->node, path_of(name));
	char path[256];
	FILE *file;

	sim_check(model->world, size > 0 && size <= (int64_t)sizeof(bytes));
	sim_file_peek_durable(model->node, path_of(name), 0, bytes, (size_t)size);
	snprintf(path, sizeof(path), "%s/salvage", folder);
	(void)mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/salvage/%s", folder, name);
	file = fopen(path, "wb");
	sim_check(model->world, file && fwrite(bytes, (size_t)size, 1, file) == 1);
	fclose(file);
}

struct walked {
	struct journal_model *model;
	uint64_t next_seq;
};

static int on_record(void *owner, const struct salvage_record *record)
{
	struct walked *walked = owner;

	sim_check(walked->model->world, record->seq == walked->next_seq);
	walked->next_seq++;
	return 0;
}

static char folder[64];

/* The file holds exactly first_seq..last. */
static void check_file(struct journal_model *model, const struct salvage_result *result,
		       uint64_t last_seq)
{
	struct walked walked = { model, result->first_seq };
	struct salvage_info info;
	char error[256];

	take_out(model, folder, result->name);
	sim_check(model->world, salvage_show(folder, result->name, &info) == 0);
	sim_check(model->world,
		  info.whole && info.records == result->records && info.bytes == result->bytes);
	sim_check(model->world, info.first_seq == result->first_seq && info.last_seq == last_seq);
	sim_check(model->world, salvage_each(folder, result->name, on_record, &walked, error,
					     sizeof(error)) == 0);
	sim_check(model->world, walked.next_seq == last_seq + 1);
}

static uint64_t fill(struct journal_model *model, unsigned segments)
{
	for (unsigned i = 0; i < segments; i++)
		bench_append_durably(model, 20000);
	return model->segments[model->appended - 1].last_seq;
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static void whole(struct journal_model *model)
{
	uint64_t last = fill(model, 12), first = model->segments[4].first_seq;
	struct salvage_result result, again;
	char name[SALVAGE_NAME_MAX + 1];

	sim_check(model->world, keep(model, first, &result) == 0);
	snprintf(name, sizeof(name), "1-%lu-%lu", (unsigned long)first, (unsigned long)last);
	sim_check(model->world, !strcmp(result.name, name));
	sim_check(model->world, result.chain == model->segments[4].chain && !result.missing);
	sim_check(model->world, seen.segments == 8 && result.records == last - first + 1);
	check_file(model, &result, last);
	/* Once more: the same file. */
	sim_check(model->world, keep(model, first, &again) == 0);
	sim_check(model->world, !memcmp(&result, &again, sizeof(result)));
	/* Nothing behind the journal's end. */
	sim_check(model->world, keep(model, last + 1, &again) == 0);
	sim_check(model->world, !again.name[0] && !again.records && !again.missing);
}

UNIT(test_whole)
{
	bench_run(whole, &bench_dsync);
}

/* What the journal no longer holds is said. */
static void reaches_back(struct journal_model *model)
{
	struct salvage_result result;
	uint64_t oldest;

	for (unsigned i = 0; i < 6; i++) {
		bench_append_durably(model, BENCH_LARGE);
		journal_model_apply(model, model->durable_seq);
		journal_model_floor(model, model->durable_seq);
	}
	(void)fill(model, 2);
	oldest = journal_oldest_seq(&model->run->journal);
	sim_check(model->world, oldest > 2);
	sim_check(model->world, keep(model, 2, &result) == 0);
	sim_check(model->world, result.missing == oldest - 2 && result.first_seq == oldest);
	sim_check(model->world, result.chain == 0);
}

UNIT(test_reaches_back)
{
	bench_run(reaches_back, &bench_dsync);
}

/* A file that holds something else under the same name stays as it is (V1). */
static void others(struct journal_model *model)
{
	uint64_t last = fill(model, 6), first = model->segments[2].first_seq;
	struct salvage_result result, again;
	uint8_t byte = 0x5a;

	sim_check(model->world, keep(model, first, &result) == 0);
	take_out(model, folder, result.name);
	/* Another history's first segment: what is in its header is another writer's. */
	{
		uint8_t block[SEGMENT_HEADER_BYTES];
		static uint8_t stored[SEGMENT_TOTAL_MAX_BYTES];
		struct segment_header header;

		sim_file_peek(model->node, path_of(result.name), 0, block, sizeof(block));
		sim_check(model->world, !segment_header_decode(block, sizeof(block), &header));
		header.writer++;
		segment_header_encode(&header, block);
		sim_file_poke(model->node, path_of(result.name), 0, block, sizeof(block));
		sim_check(model->world, keep(model, first, &again) == 0);
		sim_check(model->world, strlen(again.name) == strlen(result.name) + 2 &&
						!strcmp(again.name + strlen(result.name), ".2"));
		sim_file_peek(model->node, path_of(result.name), 0, stored, sizeof(block));
		sim_check(model->world, !memcmp(stored, block, sizeof(block)));
		check_file(model, &again, last);
	}
	/* One that is torn is no other content: it is made anew. */
	sim_file_poke(model->node, path_of(again.name), 5000, &byte, 1);
	sim_check(model->world, keep(model, first, &result) == 0);
	sim_check(model->world, !strcmp(result.name, again.name));
	check_file(model, &result, last);
}

UNIT(test_others)
{
	bench_run(others, &bench_dsync);
}

/* The power goes at any step; the next run ends with the whole file (V1). */
static unsigned crash_at;
static bool ran_through;

static void crashed(struct journal_model *model)
{
	uint64_t last = fill(model, 5), first = model->segments[1].first_seq;
	struct salvage_result result;
	struct waiting waiting;
	struct salvage *salvage;
	unsigned steps = 0;

	make(model, &salvage);
	salvage_run(salvage, first, last, waiting_op(&waiting));
	while (!waiting.done && steps++ < crash_at)
		sim_check(model->world, sim_step(model->world));
	ran_through = waiting.done;
	if (ran_through)
		result = *salvage_result(salvage);
	bench_crash(model, SIM_POWER);
	if (ran_through) /* it said so: it stays */
		check_file(model, &result, last);
	sim_check(model->world, bench_restart(model));
	sim_check(model->world, keep(model, first, &result) == 0);
	sim_check(model->world, !strchr(result.name, '.'));
	check_file(model, &result, last);
}

UNIT(test_crashed)
{
	ran_through = false;
	for (crash_at = 0; !ran_through; crash_at++)
		bench_run(crashed, &bench_dsync);
	assert_in_range(crash_at, 10, 10000);
}

UNIT(test_list)
{
	struct salvage_info *list;
	unsigned count, fd_count;
	char path[128], error[256] = "";
	uint64_t bytes;
	int fd;

	/* What the tests above took out, and two files that are none. */
	snprintf(path, sizeof(path), "%s/salvage/notes", folder);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	snprintf(path, sizeof(path), "%s/salvage/7-5-9", folder);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && write(fd, path, 100) == 100);
	(void)close(fd);
	assert_int_equal(salvage_list(folder, &list, &count), 0);
	fd_count = salvage_count(folder);
	assert_int_equal(count, fd_count);
	assert_true(count >= 3);
	for (unsigned i = 1; i < count; i++)
		assert_true(list[i - 1].epoch < list[i].epoch ||
			    list[i - 1].first_seq <= list[i].first_seq);
	assert_string_equal(list[count - 1].name, "7-5-9");
	assert_false(list[count - 1].whole);
	assert_true(list[count - 1].problem[0]);
	assert_int_equal(salvage_extract(folder, "7-5-9", 0, -1, &bytes, error, sizeof(error)),
			 -EUCLEAN);
	assert_non_null(strstr(error, "7-5-9"));
	assert_int_equal(salvage_extract(folder, "../x", 0, -1, &bytes, error, sizeof(error)),
			 -EINVAL);
	assert_int_equal(salvage_extract(folder, "7-5-8", 0, -1, &bytes, error, sizeof(error)),
			 -ENOENT);
	free(list);
	assert_int_equal(salvage_list("/nowhere", &list, &count), 0);
	assert_int_equal(count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),  cmocka_unit_test(test_reaches_back),
		cmocka_unit_test(test_others), cmocka_unit_test(test_crashed),
		cmocka_unit_test(test_list),
	};
	char command[128];
	int res;

	snprintf(folder, sizeof(folder), "/tmp/hf-salvage.XXXXXX");
	if (!mkdtemp(folder))
		return 1;
	res = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) ? 1 : res;
}
