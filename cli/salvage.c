/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast salvage: what a copy had and the ruling history has not, out of the group directory. No
 * daemon is asked: salvages are files that nobody changes.
 */
#include "cli/salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"
#include "core/conf/peek.h"

const char *salvage_type(const struct record *record)
{
	switch ((enum record_type)record->type) {
	case RECORD_WRITE:
		return "write";
	case RECORD_DISCARD:
		return "discard";
	case RECORD_WRITE_ZEROES:
		return "write-zeroes";
	case RECORD_MARK:
		return "mark";
	case RECORD_VOLUME:
		return "volume";
	}
	return "unknown";
}

const char *salvage_view_volume(const struct salvage_view *view, unsigned id,
				char text[VOLUME_NAME_MAX + 1])
{
	for (uint32_t i = 0; view->sb && i < view->sb->volume_count; i++) {
		if (view->sb->volumes[i].id == id)
			return view->sb->volumes[i].name;
	}
	(void)snprintf(text, VOLUME_NAME_MAX + 1, "volume-%u", id);
	return text;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static int add(void *owner, const struct salvage_record *record)
{
	struct salvage_view *view = owner;
	struct salvage_item *item;
	size_t length_bytes;

	if (view->count == view->room) {
		struct salvage_item *more;

		view->room = view->room ? 2 * view->room : 1024;
		more = realloc(view->items, view->room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		view->items = more;
	}
	item = &view->items[view->count++];
	*item = (struct salvage_item){ .seq = record->seq,
				       .epoch = record->epoch,
				       .time_ns = record->time_ns,
				       .record = record->record };
	if (record->record.type != RECORD_MARK || !record->data)
		return 0;
	length_bytes = min_u64(record->record.length_bytes, MARK_NAME_MAX);
	for (size_t i = 0; i < length_bytes; i++)
		item->mark[i] = record->data[i] >= ' ' && record->data[i] != 0x7f
					? (char)record->data[i]
					: '?';
	return 0;
}

static int fail(const struct salvage_view *view, int res)
{
	if (res == -ENOENT || res == -EINVAL)
		return cli_fail(view->cli, EXIT_NOT_FOUND, "no-such-salvage",
				"holdfast salvage list shows them", "group %s has no salvage '%s'",
				view->group, view->id);
	if (res == -EUCLEAN)
		return cli_fail(view->cli, EXIT_CHECK, "damaged",
				"what is before that place is sound; keep a copy of the file", "%s",
				view->error);
	return cli_fail(view->cli, EXIT_FAILED, err_name(res), "", "%s",
			view->error[0] ? view->error : err_text(res));
}

int salvage_view_read(struct salvage_view *view)
{
	int res = salvage_show(view->dir, view->id, &view->info);

	if (res == 0)
		res = salvage_each(view->dir, view->id, add, view, view->error,
				   sizeof(view->error));
	return res == 0 ? EXIT_OK : fail(view, res);
}

void salvage_view_free(struct salvage_view *view)
{
	free(view->items);
	free(view->sb);
}

/* ---- list --------------------------------------------------------------------------------------
 */

static json_t *time_json(uint64_t ns)
{
	char text[TIMEFMT_BYTES];

	return ns ? json_string(timefmt_ns(ns, text)) : json_null();
}

json_t *salvage_info_json(const struct salvage_info *info)
{
	return json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:b, s:s}", "id",
			 info->name, "lacks_seq",
			 info->lacks_seq ? json_integer((json_int_t)info->lacks_seq) : json_null(),
			 "epoch", (json_int_t)info->epoch, "first_seq", (json_int_t)info->first_seq,
			 "last_seq", (json_int_t)info->last_seq, "records",
			 (json_int_t)info->records, "bytes", (json_int_t)info->bytes, "file_bytes",
			 (json_int_t)info->file_bytes, "first_time", time_json(info->first_time_ns),
			 "last_time", time_json(info->last_time_ns), "whole", (int)info->whole,
			 "problem", info->problem);
}

static void add_line(struct libscols_table *table, const struct salvage_info *info)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);
	char text[64], lacks[64];

	(void)scols_line_set_data(line, 0, info->name);
	(void)snprintf(text, sizeof(text), "%" PRIu64, info->epoch);
	(void)scols_line_set_data(line, 1, text);
	(void)snprintf(text, sizeof(text), "%" PRIu64, info->first_seq);
	(void)scols_line_set_data(line, 2, text);
	(void)snprintf(text, sizeof(text), "%" PRIu64, info->last_seq);
	(void)scols_line_set_data(line, 3, text);
	(void)snprintf(text, sizeof(text), "%" PRIu64, info->records);
	(void)scols_line_set_data(line, 4, text);
	(void)scols_line_set_data(line, 5, units_format_size(info->bytes, text));
	(void)scols_line_set_data(
		line, 6, info->first_time_ns ? timefmt_ms(info->first_time_ns, text) : "-");
	(void)scols_line_set_data(line, 7,
				  info->last_time_ns ? timefmt_ms(info->last_time_ns, text) : "-");
	(void)snprintf(lacks, sizeof(lacks), "lacks %" PRIu64 " to %" PRIu64, info->lacks_seq,
		       info->first_seq - 1);
	(void)scols_line_set_data(line, 8,
				  !info->whole	    ? info->problem
				  : info->lacks_seq ? lacks
						    : "whole");
}

static int list_table(const struct salvage_view *view, const struct salvage_info *list,
		      unsigned count)
{
	static const char *const names[] = { "ID",   "EPOCH", "FIRST", "LAST", "RECORDS",
					     "SIZE", "FROM",  "TO",    "STATE" };
	struct libscols_table *table;

	if (count == 0) {
		printf("group %s has no salvage\n", view->group);
		return EXIT_OK;
	}
	table = scols_new_table();
	if (!table)
		return cli_fail(view->cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	for (size_t i = 0; i < array_len(names); i++)
		(void)scols_table_new_column(table, names[i], 0,
					     i >= 1 && i <= 5 ? SCOLS_FL_RIGHT : 0);
	for (unsigned i = 0; i < count; i++)
		add_line(table, &list[i]);
	(void)scols_print_table(table);
	scols_unref_table(table);
	return EXIT_OK;
}

static int list(const struct salvage_view *view)
{
	struct salvage_info *list = NULL;
	unsigned count = 0, broken = 0;
	int res = salvage_list(view->dir, &list, &count), code;
	json_t *all;

	if (res < 0)
		return cli_fail(view->cli, EXIT_FAILED, err_name(res), "", "%s/salvage: %s",
				view->dir, err_text(res));
	if (view->cli->json) {
		all = json_array();
		for (unsigned i = 0; i < count; i++)
			json_array_append_new(all, salvage_info_json(&list[i]));
		code = cli_print_json(
			json_pack("{s:s, s:o}", "group", view->group, "salvages", all));
	} else {
		code = list_table(view, list, count);
	}
	(void)fflush(stdout);
	for (unsigned i = 0; i < count; i++)
		broken += !list[i].whole;
	free(list);
	if (code == EXIT_OK && broken)
		code = cli_fail(view->cli, EXIT_CHECK, "damaged", "keep a copy of the files",
				"group %s: %u of its salvages cannot be read to the end",
				view->group, broken);
	return code;
}

/* ---- show --------------------------------------------------------------------------------------
 */

static json_t *item_json(const struct salvage_view *view, const struct salvage_item *item)
{
	char name[VOLUME_NAME_MAX + 1];
	json_t *json = json_pack("{s:I, s:I, s:o, s:s}", "seq", (json_int_t)item->seq, "epoch",
				 (json_int_t)item->epoch, "time", time_json(item->time_ns), "type",
				 salvage_type(&item->record));

	if (item->record.type == RECORD_MARK) {
		json_t *mark = json_string(item->mark);

		json_object_set_new(json, "mark", mark ? mark : json_null());
		return json;
	}
	json_object_set_new(json, "volume",
			    json_string(salvage_view_volume(view, item->record.volume, name)));
	if (record_has_range(&item->record)) {
		json_object_set_new(json, "offset_bytes",
				    json_integer((json_int_t)item->record.offset_bytes));
		json_object_set_new(json, "length_bytes",
				    json_integer((json_int_t)item->record.length_bytes));
	}
	return json;
}

static void show_table(const struct salvage_view *view)
{
	char name[VOLUME_NAME_MAX + 1], at[TIMEFMT_BYTES];

	if (view->count)
		printf("%12s  %-24s  %-16s  %-12s  %16s  %10s\n", "SEQ", "TIME", "VOLUME", "TYPE",
		       "OFFSET", "LENGTH");
	for (size_t i = 0; i < view->count; i++) {
		const struct salvage_item *item = &view->items[i];

		printf("%12" PRIu64 "  %-24s  ", item->seq, timefmt_ms(item->time_ns, at));
		if (item->record.type == RECORD_MARK)
			printf("%-16s  %-12s  %s\n", "-", "mark", item->mark);
		else if (!record_has_range(&item->record))
			printf("%-16s  %s\n", salvage_view_volume(view, item->record.volume, name),
			       salvage_type(&item->record));
		else
			printf("%-16s  %-12s  %16" PRIu64 "  %10" PRIu32 "\n",
			       salvage_view_volume(view, item->record.volume, name),
			       salvage_type(&item->record), item->record.offset_bytes,
			       item->record.length_bytes);
	}
}

static int show(struct salvage_view *view)
{
	int code = salvage_view_read(view);
	json_t *json, *records;

	/* What is before damage is shown in any case. */
	if (code != EXIT_OK && code != EXIT_CHECK)
		return code;
	if (!view->cli->json) {
		show_table(view);
		(void)fflush(stdout);
		return code;
	}
	json = salvage_info_json(&view->info);
	records = json_array();
	for (size_t i = 0; i < view->count; i++)
		json_array_append_new(records, item_json(view, &view->items[i]));
	json_object_set_new(json, "group", json_string(view->group));
	json_object_set_new(json, "items", records);
	return cli_print_json(json) == EXIT_OK ? code : EXIT_FAILED;
}

/* ---- drop --------------------------------------------------------------------------------------
 */

/* The name is gone durably, or the operator hears of it. */
static int remove_file(const struct salvage_view *view)
{
	char path[1200];
	int fd, res = 0;

	(void)snprintf(path, sizeof(path), "%s/salvage", view->dir);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || unlinkat(fd, view->id, 0) < 0 || fsync(fd) < 0)
		res = -errno;
	if (fd >= 0)
		(void)close(fd);
	return res;
}

static int drop(struct salvage_view *view)
{
	char question[300], size[UNITS_TEXT_BYTES];
	int res = salvage_show(view->dir, view->id, &view->info);

	if (res < 0)
		return fail(view, res);
	(void)snprintf(question, sizeof(question),
		       "Remove salvage %s of group %s, %" PRIu64 " records, %s, for good?",
		       view->id, view->group, view->info.records,
		       units_format_size(view->info.bytes, size));
	if (!cli_confirm(view->cli, question))
		return cli_fail(view->cli, EXIT_REFUSED, "declined", "", "nothing was done");
	res = remove_file(view);
	if (res < 0)
		return fail(view, res);
	if (view->cli->json)
		return cli_print_json(
			json_pack("{s:s, s:s}", "group", view->group, "dropped", view->id));
	printf("salvage %s of group %s is removed\n", view->id, view->group);
	return EXIT_OK;
}

/* ---- the verb ----------------------------------------------------------------------------------
 */

static int extract(struct salvage_view *view, const char *out, bool raw)
{
	char preset[200];
	int code = salvage_view_read(view);

	if (code != EXIT_OK && code != EXIT_CHECK)
		return code;
	if (!out) {
		(void)snprintf(preset, sizeof(preset), "%s-%s", view->group, view->id);
		out = preset;
	}
	return code == EXIT_OK ? salvage_extract_to(view, out, raw) : code;
}

static int run(struct salvage_view *view, const char *action, const char *out, bool raw)
{
	int res;

	view->sb = calloc(1, sizeof(*view->sb));
	res = view->sb ? peek_superblock(view->cli->conf->state_dir, view->group, view->sb)
		       : -ENOMEM;
	if (res == -ENOENT)
		return cli_fail(view->cli, EXIT_NOT_FOUND, "no-group-directory",
				"make the group with holdfast init",
				"group '%s' has no directory in %s", view->group,
				view->cli->conf->state_dir);
	if (res != 0) {
		/* The names of its volumes are not known then; the salvages are. */
		free(view->sb);
		view->sb = NULL;
	}
	if (strcmp(action, "list") == 0)
		return list(view);
	if (strcmp(action, "show") == 0)
		return show(view);
	if (strcmp(action, "extract") == 0)
		return extract(view, out, raw);
	return drop(view);
}

int cli_salvage(struct cli *cli, int argc, char **argv)
{
	bool raw = false, is_list;
	const char *out = NULL, *action;
	const struct cli_option options[] = {
		{ "out", 0, CLI_TEXT, NULL, &out },
		{ "raw", 0, CLI_FLAG, &raw, NULL },
	};
	struct salvage_view *view;
	int first, code;

	if (cli_parse(cli, argc, argv, options, array_len(options), 2, 3, &first, &code) ==
	    CLI_STOP)
		return code;
	action = argv[first];
	is_list = strcmp(action, "list") == 0;
	if (!is_list && strcmp(action, "show") != 0 && strcmp(action, "extract") != 0 &&
	    strcmp(action, "drop") != 0)
		return cli_fail(cli, EXIT_USAGE, "usage", "use list, show, extract or drop",
				"salvage: '%s' is unknown", action);
	if ((argc - first == 3) == is_list)
		return cli_fail(cli, EXIT_USAGE, "usage", "see holdfast help salvage",
				is_list ? "salvage: list takes a group only"
					: "salvage: name one, as list shows it");
	if ((out || raw) && strcmp(action, "extract") != 0)
		return cli_fail(cli, EXIT_USAGE, "usage", "see holdfast help salvage",
				"salvage: --out and --raw go with extract only");
	if (!cli_group(cli, argv[first + 1], &code))
		return code;
	view = calloc(1, sizeof(*view));
	if (!view)
		return cli_fail(cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	view->cli = cli;
	view->group = argv[first + 1];
	view->id = is_list ? "" : argv[first + 2];
	(void)snprintf(view->dir, sizeof(view->dir), "%s/%s", cli->conf->state_dir, view->group);
	code = run(view, action, out, raw);
	salvage_view_free(view);
	free(view);
	return code;
}
