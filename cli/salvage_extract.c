/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A salvage as files that other programs can read: for each volume a sparse image of its size that
 * holds the newest content of every range the salvage touched, and a map that says which ranges
 * those are, since the rest of the image means nothing. Or, raw, every record with its data.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/salvage.h"
#include "core/base/err.h"
#include "core/base/extmap.h"
#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"

#define VOLUME_IDS (UINT16_MAX + 1u)

static int fail(const struct salvage_view *view, int res, const char *path)
{
	if (res == -EEXIST)
		return cli_fail(view->cli, EXIT_CONFLICT, "exists",
				"name another directory with --out", "%s is there already", path);
	return cli_fail(view->cli, EXIT_FAILED, err_name(res), "", "%s: %s", path, err_text(res));
}

/* A new file in `out`; its path stays in `path`. */
static int new_file(const char *out, const char *name, const char *suffix, char path[1300])
{
	int fd;

	(void)snprintf(path, 1300, "%s/%s%s", out, name, suffix);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int close_file(int fd, int res)
{
	if (res == 0 && fsync(fd) < 0)
		res = -errno;
	if (close(fd) < 0 && res == 0)
		res = -errno;
	return res;
}

static int dump(const char *out, const char *name, json_t *json, char path[1300])
{
	int fd = new_file(out, name, ".json", path), res;

	if (fd < 0) {
		json_decref(json);
		return fd;
	}
	errno = EIO;
	res = json_dumpfd(json, fd, JSON_INDENT(2) | JSON_PRESERVE_ORDER) == 0 ? 0 : -errno;
	json_decref(json);
	return close_file(fd, res);
}

/* ---- the newest content of each range ---------------------------------------------------------
 */

/* Where the last range of each volume ends; 0: it has none. NULL: out of memory. */
static uint64_t *ends_of(const struct salvage_view *view)
{
	uint64_t *ends = calloc(VOLUME_IDS, sizeof(*ends));

	for (size_t i = 0; ends && i < view->count; i++) {
		const struct record *record = &view->items[i].record;

		if (record_has_range(record))
			ends[record->volume] = max_u64(ends[record->volume],
						       record->offset_bytes + record->length_bytes);
	}
	return ends;
}

static json_t *range_json(const struct extmap_piece *piece)
{
	const struct salvage_item *item = piece->value.owner;
	char time[TIMEFMT_BYTES];

	return json_pack("{s:I, s:I, s:I, s:s, s:s}", "offset_bytes",
			 (json_int_t)piece->offset_bytes, "length_bytes",
			 (json_int_t)piece->length_bytes, "seq", (json_int_t)item->seq, "time",
			 timefmt_ns(item->time_ns, time), "type", salvage_type(&item->record));
}

/* Which record every range is of. NULL: out of memory. */
static json_t *map_of(const struct salvage_view *view, unsigned id, uint64_t end,
		      uint64_t *ret_covered_bytes)
{
	size_t node_count = 2 * view->count + 2;
	struct extmap_node *nodes = calloc(node_count, sizeof(*nodes));
	json_t *ranges = nodes ? json_array() : NULL;
	struct extmap_piece piece;
	struct extmap map;

	if (!nodes)
		return NULL;
	extmap_init(&map, nodes, node_count, id);
	for (size_t i = 0; i < view->count; i++) {
		struct salvage_item *item = &view->items[i];
		const struct extmap_value value = { .owner = item, .seq = item->seq };

		/* Every insert takes at most two nodes. */
		if (record_has_range(&item->record) && item->record.volume == id)
			must(extmap_insert(&map, item->record.offset_bytes,
					   item->record.length_bytes, &value) == 0);
	}
	extmap_for_each (piece, &map, 0, end) {
		if (piece.covered)
			json_array_append_new(ranges, range_json(&piece));
	}
	*ret_covered_bytes = map.covered_bytes;
	free(nodes);
	return ranges;
}

static uint64_t size_of(const struct salvage_view *view, unsigned id)
{
	for (uint32_t i = 0; view->sb && i < view->sb->volume_count; i++) {
		if (view->sb->volumes[i].id == id)
			return view->sb->volumes[i].size_bytes;
	}
	return 0;
}

/* One volume's image; its entry of the map is appended to `volumes`. */
static int extract_volume(const struct salvage_view *view, const char *out, unsigned id,
			  uint64_t end, json_t *volumes)
{
	uint64_t size, covered_bytes = 0, written_bytes;
	char name[VOLUME_NAME_MAX + 1], path[1300], file[VOLUME_NAME_MAX + 8];
	char text[UNITS_TEXT_BYTES], error[1300];
	const char *volume = salvage_view_volume(view, id, name);
	json_t *ranges;
	int fd, res;

	size = max_u64(end, size_of(view, id));
	fd = new_file(out, volume, ".img", path);
	if (fd < 0)
		return fail(view, fd, path);
	res = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
	if (res == 0)
		res = salvage_extract(view->dir, view->id, id, fd, &written_bytes, error,
				      sizeof(error));
	res = close_file(fd, res);
	if (res < 0)
		return fail(view, res, path);
	ranges = map_of(view, id, end, &covered_bytes);
	if (!ranges)
		return fail(view, -ENOMEM, path);
	(void)snprintf(file, sizeof(file), "%s.img", volume);
	if (!view->cli->json)
		printf("%s: %s in %zu ranges\n", path, units_format_size(covered_bytes, text),
		       json_array_size(ranges));
	json_array_append_new(volumes, json_pack("{s:s, s:i, s:s, s:I, s:I, s:o}", "volume", volume,
						 "id", (int)id, "file", file, "size_bytes",
						 (json_int_t)size, "covered_bytes",
						 (json_int_t)covered_bytes, "ranges", ranges));
	return EXIT_OK;
}

static int extract_images(const struct salvage_view *view, const char *out)
{
	json_t *json = salvage_info_json(&view->info), *volumes = json_array();
	uint64_t *ends = ends_of(view);
	char path[1300];
	int code = ends ? EXIT_OK : fail(view, -ENOMEM, out), res;

	json_object_set_new(json, "group", json_string(view->group));
	json_object_set_new(json, "volumes", volumes);
	for (unsigned id = 0; code == EXIT_OK && id < VOLUME_IDS; id++) {
		if (ends[id] > 0)
			code = extract_volume(view, out, id, ends[id], volumes);
	}
	free(ends);
	if (code != EXIT_OK) {
		json_decref(json);
		return code;
	}
	json_incref(json);
	res = dump(out, "map", json, path);
	if (res < 0) {
		json_decref(json);
		return fail(view, res, path);
	}
	if (view->cli->json)
		return cli_print_json(json);
	printf("%s: which ranges of the images are of the salvage; the rest of them is empty\n",
	       path);
	json_decref(json);
	return EXIT_OK;
}

/* ---- every record ------------------------------------------------------------------------------
 */

struct raw {
	const struct salvage_view *view;
	json_t *records;
	uint64_t off;
	int fd;
};

static int add_raw(void *owner, const struct salvage_record *record)
{
	char name[VOLUME_NAME_MAX + 1], time[TIMEFMT_BYTES];
	struct raw *raw = owner;
	size_t length_bytes = record->data ? record->record.length_bytes : 0, done = 0;
	json_t *json =
		json_pack("{s:I, s:I, s:s, s:s}", "seq", (json_int_t)record->seq, "epoch",
			  (json_int_t)record->epoch, "time", timefmt_ns(record->time_ns, time),
			  "type", salvage_type(&record->record));

	if (record_has_range(&record->record)) {
		json_object_set_new(
			json, "volume",
			json_string(salvage_view_volume(raw->view, record->record.volume, name)));
		json_object_set_new(json, "offset_bytes",
				    json_integer((json_int_t)record->record.offset_bytes));
		json_object_set_new(json, "length_bytes",
				    json_integer((json_int_t)record->record.length_bytes));
	}
	json_object_set_new(json, "data_offset_bytes",
			    length_bytes ? json_integer((json_int_t)raw->off) : json_null());
	json_object_set_new(json, "data_bytes", json_integer((json_int_t)length_bytes));
	json_array_append_new(raw->records, json);
	while (done < length_bytes) {
		ssize_t n = write(raw->fd, record->data + done, length_bytes - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	raw->off += length_bytes;
	return 0;
}

static int extract_raw(const struct salvage_view *view, const char *out)
{
	struct raw raw = { .view = view, .records = json_array() };
	json_t *json = salvage_info_json(&view->info);
	char path[1300], error[1300] = "", text[UNITS_TEXT_BYTES];
	int res;

	json_object_set_new(json, "group", json_string(view->group));
	json_object_set_new(json, "items", raw.records);
	raw.fd = new_file(out, "records", ".data", path);
	if (raw.fd < 0) {
		json_decref(json);
		return fail(view, raw.fd, path);
	}
	res = close_file(raw.fd,
			 salvage_each(view->dir, view->id, add_raw, &raw, error, sizeof(error)));
	if (res < 0) {
		json_decref(json);
		return fail(view, res, error[0] ? error : path);
	}
	if (!view->cli->json)
		printf("%s: the data of %zu records, %s\n", path, json_array_size(raw.records),
		       units_format_size(raw.off, text));
	json_incref(json);
	res = dump(out, "records", json, path);
	if (res < 0) {
		json_decref(json);
		return fail(view, res, path);
	}
	if (view->cli->json)
		return cli_print_json(json);
	printf("%s: what each of them is, and where its data is\n", path);
	json_decref(json);
	return EXIT_OK;
}

int salvage_extract_to(const struct salvage_view *view, const char *out, bool raw)
{
	if (mkdir(out, 0700) < 0 && errno != EEXIST)
		return fail(view, -errno, out);
	return raw ? extract_raw(view, out) : extract_images(view, out);
}
