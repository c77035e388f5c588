/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/journal_read.h"
#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"
#include "core/base/uuid.h"
#include "core/conf/peek.h"

struct totals {
	uint64_t segments, records, raw_bytes, stored_bytes, lz4;
	uint64_t first_time_ns, last_time_ns;
};

static void add(void *arg, const struct journal_segment *segment)
{
	struct totals *totals = arg;
	const struct segment_header *header = &segment->header;

	if (totals->segments == 0)
		totals->first_time_ns = header->first_time_ns;
	totals->last_time_ns = header->last_time_ns;
	totals->segments++;
	totals->records += header->records;
	totals->raw_bytes += header->data_raw_bytes;
	totals->stored_bytes += header->total_bytes;
	totals->lz4 += (header->flags & SEGMENT_LZ4) != 0;
}

static void add_line(void *arg, const struct journal_segment *segment)
{
	struct libscols_line *line = scols_table_new_line(arg, NULL);
	const struct segment_header *header = &segment->header;
	char text[64];

	(void)snprintf(text, sizeof(text), "%" PRIu64, header->first_seq);
	(void)scols_line_set_data(line, 0, text);
	(void)snprintf(text, sizeof(text), "%" PRIu64, segment_last_seq(header));
	(void)scols_line_set_data(line, 1, text);
	(void)snprintf(text, sizeof(text), "%" PRIu64, header->epoch);
	(void)scols_line_set_data(line, 2, text);
	(void)snprintf(text, sizeof(text), "%08" PRIu32, segment->slot);
	(void)scols_line_set_data(line, 3, text);
	(void)snprintf(text, sizeof(text), "%" PRIu64, segment->off);
	(void)scols_line_set_data(line, 4, text);
	(void)snprintf(text, sizeof(text), "%" PRIu32, header->total_bytes);
	(void)scols_line_set_data(line, 5, text);
	(void)snprintf(text, sizeof(text), "%" PRIu32, header->data_raw_bytes);
	(void)scols_line_set_data(line, 6, text);
	(void)scols_line_set_data(line, 7, header->flags & SEGMENT_LZ4 ? "lz4" : "raw");
	(void)scols_line_set_data(line, 8, timefmt_ms(header->first_time_ns, text));
}

static int show_table(const struct cli *cli, const struct journal_view *view)
{
	static const char *const names[] = { "FIRST",  "LAST", "EPOCH", "FILE", "OFFSET",
					     "STORED", "DATA", "FORM",	"TIME" };
	struct libscols_table *table = scols_new_table();

	if (!table)
		return cli_fail(cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	for (size_t i = 0; i < array_len(names); i++)
		(void)scols_table_new_column(table, names[i], 0, i < 7 ? SCOLS_FL_RIGHT : 0);
	journal_view_each(view, add_line, table);
	if (view->path_count > 0)
		(void)scols_print_table(table);
	scols_unref_table(table);
	return EXIT_OK;
}

static void add_json(void *arg, const struct journal_segment *segment)
{
	const struct segment_header *header = &segment->header;
	char file[32], first[TIMEFMT_BYTES], last[TIMEFMT_BYTES];
	json_t *json;

	(void)snprintf(file, sizeof(file), "journal/%08" PRIu32, segment->slot);
	json = json_pack(
		"{s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:b, s:s, s:s}", "first_seq",
		(json_int_t)header->first_seq, "last_seq", (json_int_t)segment_last_seq(header),
		"records", (json_int_t)header->records, "epoch", (json_int_t)header->epoch, "file",
		file, "offset", (json_int_t)segment->off, "stored_bytes",
		(json_int_t)header->total_bytes, "data_bytes", (json_int_t)header->data_raw_bytes,
		"lz4", (header->flags & SEGMENT_LZ4) != 0, "first_time",
		timefmt_ns(header->first_time_ns, first), "last_time",
		timefmt_ns(header->last_time_ns, last));
	json_array_append_new(arg, json);
}

static json_t *summary(const struct journal_view *view, const struct totals *totals)
{
	const struct superblock *sb = view->sb;
	char uuid[UUID_TEXT_BYTES];
	json_t *damage = json_array(), *json;

	for (unsigned i = 0; i < view->damage_count; i++)
		json_array_append_new(damage,
				      json_pack("{s:s, s:I, s:s}", "file", view->damage[i].file,
						"offset", (json_int_t)view->damage[i].off, "reason",
						view->damage[i].reason));
	json = json_pack("{s:s, s:s, s:s, s:s, s:I, s:b}", "directory", view->dir, "group",
			 sb->name, "uuid", uuid_format(&sb->group, uuid), "role", peek_role(sb),
			 "epoch", (json_int_t)sb->epoch, "ok", view->damage_count == 0);
	json_object_set_new(json, "applied_seq", json_integer((json_int_t)sb->applied_seq));
	json_object_set_new(json, "first_seq", json_integer((json_int_t)view->first_seq));
	json_object_set_new(json, "last_seq", json_integer((json_int_t)view->end_seq - 1));
	json_object_set_new(json, "segment_count", json_integer((json_int_t)totals->segments));
	json_object_set_new(json, "record_count", json_integer((json_int_t)totals->records));
	json_object_set_new(json, "stored_bytes", json_integer((json_int_t)totals->stored_bytes));
	json_object_set_new(json, "data_bytes", json_integer((json_int_t)totals->raw_bytes));
	json_object_set_new(json, "void_segments", json_integer((json_int_t)view->void_segments));
	json_object_set_new(json, "damage", damage);
	return json;
}

static void show_summary(const struct journal_view *view, const struct totals *totals)
{
	const struct superblock *sb = view->sb;
	char stored[UNITS_TEXT_BYTES], raw[UNITS_TEXT_BYTES];
	char first[TIMEFMT_BYTES], last[TIMEFMT_BYTES];

	printf("%s: group %s, %s, epoch %" PRIu64 "\n", view->dir, sb->name, peek_role(sb),
	       sb->epoch);
	if (totals->segments == 0) {
		printf("  holds no segment; applied up to seq %" PRIu64 "\n", sb->applied_seq);
		return;
	}
	printf("  seq %" PRIu64 " to %" PRIu64 ", applied up to %" PRIu64 "\n", view->first_seq,
	       view->end_seq - 1, sb->applied_seq);
	printf("  %" PRIu64 " records in %" PRIu64 " segments, %s of data stored as %s\n",
	       totals->records, totals->segments, units_format_size(totals->raw_bytes, raw),
	       units_format_size(totals->stored_bytes, stored));
	printf("  written from %s to %s\n", timefmt_ms(totals->first_time_ns, first),
	       timefmt_ms(totals->last_time_ns, last));
	if (view->void_segments)
		printf("  %" PRIu64 " segments were written a second time after a failed write\n",
		       view->void_segments);
}

/* Damage is told in every case: whoever lists a journal must not take it for whole. */
static int verdict(const struct cli *cli, const struct journal_view *view)
{
	if (view->damage_count == 0)
		return EXIT_OK;
	for (unsigned i = 0; !cli->json && i < view->damage_count; i++)
		(void)fprintf(stderr, "%s/%s: offset %" PRIu64 ": %s\n", view->dir,
			      view->damage[i].file, view->damage[i].off, view->damage[i].reason);
	return cli_fail(cli, EXIT_CHECK, "damaged",
			"keep a copy of the directory; a standby can be made anew from its primary",
			"%s: the journal is damaged in %u place%s", view->dir, view->damage_count,
			view->damage_count == 1 ? "" : "s");
}

struct reading {
	struct journal_view view;
	struct cli_progress progress;
};

static void show_progress(void *owner, uint64_t done_bytes, uint64_t total_bytes)
{
	struct reading *reading = owner;

	cli_progress_show(&reading->progress, done_bytes, total_bytes);
}

/* A directory by its path, or a group of the configuration by its name. */
static int find_directory(struct cli *cli, const char *argument, char *dir, size_t dir_max)
{
	int code;

	if (strchr(argument, '/')) {
		(void)snprintf(dir, dir_max, "%s", argument);
		return EXIT_OK;
	}
	if (!cli_group(cli, argument, &code))
		return code;
	(void)snprintf(dir, dir_max, "%s/%s", cli->conf->state_dir, argument);
	return EXIT_OK;
}

static int show(const struct cli *cli, const struct journal_view *view, bool list)
{
	struct totals totals = { .segments = 0 };
	json_t *json, *segments;
	int code = EXIT_OK;

	journal_view_each(view, add, &totals);
	if (cli->json) {
		json = summary(view, &totals);
		if (list) {
			segments = json_array();
			journal_view_each(view, add_json, segments);
			json_object_set_new(json, "segments", segments);
		}
		code = cli_print_json(json);
	} else if (list) {
		code = show_table(cli, view);
	} else {
		show_summary(view, &totals);
	}
	(void)fflush(stdout);
	if (code == EXIT_OK)
		code = verdict(cli, view);
	if (code == EXIT_OK && !list && !cli->json)
		printf("  nothing is damaged\n");
	return code;
}

int cli_journal(struct cli *cli, int argc, char **argv)
{
	struct reading *reading;
	char dir[1024], error[1300];
	int first, code, res;
	bool list;

	if (cli_parse(cli, argc, argv, NULL, 0, 2, 2, &first, &code) == CLI_STOP)
		return code;
	list = strcmp(argv[first], "list") == 0;
	if (!list && strcmp(argv[first], "check") != 0)
		return cli_fail(cli, EXIT_USAGE, "usage", "use list or check",
				"journal: '%s' is unknown", argv[first]);
	code = find_directory(cli, argv[first + 1], dir, sizeof(dir));
	if (code != EXIT_OK)
		return code;
	reading = calloc(1, sizeof(*reading));
	if (!reading)
		return cli_fail(cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	reading->view.unpack = !list;
	reading->view.progress = show_progress;
	reading->view.owner = reading;
	cli_progress_start(&reading->progress, "reading the journal", cli->json);
	res = journal_view_read(&reading->view, dir, error, sizeof(error));
	cli_progress_end(&reading->progress);
	if (res < 0)
		code = cli_fail(cli,
				res == -ENOENT	  ? EXIT_NOT_FOUND
				: res == -EUCLEAN ? EXIT_CHECK
						  : EXIT_FAILED,
				err_name(res), "name a group, or the path of its directory", "%s",
				error);
	else
		code = show(cli, &reading->view, list);
	journal_view_free(&reading->view);
	free(reading);
	return code;
}
