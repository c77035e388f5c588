/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/volume.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/macros.h"

static const char *advice(int res)
{
	switch (res) {
	case -ENOENT:
	case -ENXIO:
		return "create it, attach the device, or correct the path";
	case -EBUSY:
		return "unmount it or stop the program that uses it";
	case -EACCES:
	case -EPERM:
		return "give the daemon's user read and write permission";
	case -EROFS:
		return "make it writable";
	default:
		return "see the kernel log";
	}
}

int volume_open_path(struct io *io, const char *name, const char *path, struct io_file **ret_file,
		     struct io_file_info *ret_info, char *error, size_t error_max)
{
	int res = io_file_open(io, path, IO_OPEN_DIRECT | IO_OPEN_EXCLUSIVE, ret_file);

	if (res != 0) {
		snprintf(error, error_max, "volume \"%s\": cannot open %s: %s; %s", name, path,
			 err_text(res), advice(res));
		return res;
	}
	io_file_info(*ret_file, ret_info);
	return 0;
}

static const char *path_of(const struct volume_path *paths, unsigned path_count, const char *name)
{
	unsigned i;

	for (i = 0; i < path_count; i++) {
		if (strcmp(paths[i].name, name) == 0)
			return paths[i].path;
	}
	return NULL;
}

/* The volume before `index` that lies at `path` too; NULL when none does. */
static const struct volume *twin_of(const struct volumes *volumes, unsigned index, const char *path)
{
	unsigned i;

	for (i = 0; i < index; i++) {
		if (strcmp(volumes->list[i].path, path) == 0)
			return &volumes->list[i];
	}
	return NULL;
}

static int volumes_open_one(struct volumes *volumes, unsigned index, const char *path, char *error,
			    size_t error_max)
{
	struct volume *volume = &volumes->list[index];
	const struct volume *twin = path ? twin_of(volumes, index, path) : NULL;
	const char *name = volume->id.name;
	int res;

	if (!path) {
		snprintf(error, error_max,
			 "volume \"%s\" of the group has no path here; add it to the group's "
			 "section of the configuration",
			 name);
		return -ENOENT;
	}
	if (twin) {
		snprintf(error, error_max,
			 "volumes \"%s\" and \"%s\" both lie at %s; give each a path of its own",
			 twin->id.name, name, path);
		return -EINVAL;
	}
	if (volume->id.id > VOLUME_ID_MAX || volume->id.size_bytes > VOLUME_KEY_BYTES_MAX) {
		snprintf(error, error_max,
			 "volume \"%s\" has id %u and %" PRIu64
			 " bytes; more than id %u and 256 TiB are not supported",
			 name, volume->id.id, volume->id.size_bytes, VOLUME_ID_MAX);
		return -EFBIG;
	}
	if (strlen(path) >= sizeof(volume->path)) {
		snprintf(error, error_max,
			 "volume \"%s\": its path is longer than %zu bytes; use a shorter one",
			 name, sizeof(volume->path) - 1);
		return -ENAMETOOLONG;
	}
	memcpy(volume->path, path, strlen(path) + 1);
	res = volume_open_path(volumes->io, name, path, &volume->file, &volume->info, error,
			       error_max);
	if (res != 0)
		return res;
	if (volume->info.size_bytes < volume->id.size_bytes) {
		snprintf(error, error_max,
			 "volume \"%s\" has %" PRIu64 " bytes, %s only %" PRIu64
			 "; correct the path, or enlarge it to at least the volume's size",
			 name, volume->id.size_bytes, path, volume->info.size_bytes);
		return -EINVAL;
	}
	return 0;
}

static void volume_flushed(struct io_op *op, int64_t res);

int volumes_open(struct volumes *volumes, struct io *io, const struct superblock *sb,
		 const struct volume_path *paths, unsigned path_count, char *error,
		 size_t error_max)
{
	unsigned i;
	int res = 0;

	*volumes = (struct volumes){ .io = io };
	volumes->list = io_alloc(io, sizeof(*volumes->list) * max_u32(sb->volume_count, 1),
				 _Alignof(struct volume));
	if (!volumes->list) {
		snprintf(error, error_max, "no memory for the list of volumes");
		return -ENOMEM;
	}
	volumes->count = sb->volume_count;
	for (i = 0; i < volumes->count; i++) {
		volumes->list[i].id = sb->volumes[i];
		volumes->list[i].volumes = volumes;
		volumes->list[i].flush_op.done = volume_flushed;
	}
	for (i = 0; i < volumes->count && res == 0; i++)
		res = volumes_open_one(volumes, i,
				       path_of(paths, path_count, volumes->list[i].id.name), error,
				       error_max);
	if (res != 0)
		volumes_close(volumes);
	return res;
}

void volumes_close(struct volumes *volumes)
{
	unsigned i;

	must(!volumes->flush_user);
	if (!volumes->list)
		return;
	for (i = 0; i < volumes->count; i++)
		io_file_close(volumes->list[i].file);
	io_free(volumes->io, volumes->list);
	volumes->list = NULL;
	volumes->count = 0;
}

struct volume *volumes_by_id(struct volumes *volumes, unsigned id)
{
	unsigned i;

	/* Ids are given out from 0 in order, so the place is nearly always the id. */
	if (id < volumes->count && volumes->list[id].id.id == id)
		return &volumes->list[id];
	for (i = 0; i < volumes->count; i++) {
		if (volumes->list[i].id.id == id)
			return &volumes->list[i];
	}
	return NULL;
}

static void volume_flushed(struct io_op *op, int64_t res)
{
	struct volumes *volumes = container_of(op, struct volume, flush_op)->volumes;
	struct io_op *user = volumes->flush_user;

	if (res < 0 && volumes->flush_res == 0)
		volumes->flush_res = (int)res;
	if (--volumes->flush_left > 0)
		return;
	volumes->flush_user = NULL;
	user->done(user, volumes->flush_res);
}

void volumes_flush(struct volumes *volumes, struct io_op *op)
{
	unsigned i;

	must(!volumes->flush_user);
	for (i = 0; i < volumes->count && volumes->flush_res == 0; i++) {
		struct volume *volume = &volumes->list[i];

		if (!volume->dirty)
			continue;
		volume->dirty = false;
		volumes->flush_left++;
		io_flush(volume->file, &volume->flush_op);
	}
	if (volumes->flush_left > 0)
		volumes->flush_user = op;
	else
		io_defer(volumes->io, op, volumes->flush_res);
}
