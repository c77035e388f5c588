/* SPDX-License-Identifier: Apache-2.0 */
/* Names on the simulated disk: folders, locks, files and their handles; what scenarios see of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/disk.h"
#include "tests/sim/ops.h"

struct sim_disk *disk_new(struct sim_host *host)
{
	struct sim_disk *disk = calloc(1, sizeof(*disk));

	must(disk);
	disk->host = host;
	disk->world = host->world;
	disk->limit_bytes = UINT64_MAX;
	list_init(&disk->files);
	list_init(&disk->dirs);
	list_init(&disk->locks);
	return disk;
}

static void disk_empty(struct sim_disk *disk)
{
	struct list *pos;

	while ((pos = list_first(&disk->files))) {
		struct sim_file *file = container_of(pos, struct sim_file, link);

		must(!file->handle_count);
		file_free(file);
	}
	while ((pos = list_pop_front(&disk->dirs)))
		free(container_of(pos, struct sim_dir, link));
}

void disk_free(struct sim_disk *disk)
{
	struct disk_request *request;

	disk_empty(disk);
	while ((request = disk->free_requests)) {
		disk->free_requests = request->next_free;
		free(request);
	}
	free(disk);
}

const char *disk_keep_path(struct sim_disk *disk, const char *path)
{
	size_t bytes = strlen(path) + 1;
	char *kept = sim_alloc(disk->world, bytes);

	memcpy(kept, path, bytes);
	return kept;
}

struct sim_file *disk_find(const struct sim_disk *disk, const char *path)
{
	struct list *pos;

	list_for_each (pos, &disk->files) {
		struct sim_file *file = container_of(pos, struct sim_file, link);

		if (!file->removed && strcmp(file->path, path) == 0)
			return file;
	}
	return NULL;
}

static bool dir_exists(const struct sim_disk *disk, const char *path, size_t len)
{
	struct list *pos;

	if (len == 0 || (len == 1 && (path[0] == '/' || path[0] == '.')))
		return true;
	list_for_each (pos, &disk->dirs) {
		const struct sim_dir *dir = container_of(pos, struct sim_dir, link);

		if (strlen(dir->path) == len && memcmp(dir->path, path, len) == 0)
			return true;
	}
	return false;
}

bool disk_parent_exists(const struct sim_disk *disk, const char *path)
{
	const char *slash = strrchr(path, '/');

	return dir_exists(disk, path, slash ? (size_t)(slash - path) : 0);
}

static void dir_add(struct sim_disk *disk, const char *path)
{
	struct sim_dir *dir = calloc(1, sizeof(*dir));

	must(dir);
	dir->path = disk_keep_path(disk, path);
	list_push_back(&disk->dirs, &dir->link);
}

int disk_mkdir(struct io *io, const char *path)
{
	struct sim_node *node = node_of(io);
	struct sim_disk *disk = node->host->disk;

	node_must_be_up(node, "io_mkdir");
	if (disk_find(disk, path))
		return -ENOTDIR;
	if (!disk_parent_exists(disk, path))
		return -ENOENT;
	if (!dir_exists(disk, path, strlen(path)))
		dir_add(disk, path);
	return 0;
}

/* ---- locks ------------------------------------------------------------------------------------
 */

int disk_lock(struct io *io, const char *path, struct io_lock **ret_lock)
{
	struct sim_node *node = node_of(io);
	struct sim_disk *disk = node->host->disk;
	struct io_lock *lock;
	struct list *pos;

	node_must_be_up(node, "io_lock");
	if (!disk_parent_exists(disk, path))
		return -ENOENT;
	list_for_each (pos, &disk->locks) {
		if (strcmp(container_of(pos, struct io_lock, of_disk)->path, path) == 0) {
			trace_add(disk->world, node, WHAT_LOCK, NULL, 0, 0, -EWOULDBLOCK);
			return -EWOULDBLOCK;
		}
	}
	lock = calloc(1, sizeof(*lock));
	must(lock);
	lock->io = io;
	lock->path = disk_keep_path(disk, path);
	list_push_back(&node->locks, &lock->of_node);
	list_push_back(&disk->locks, &lock->of_disk);
	trace_add(disk->world, node, WHAT_LOCK, lock->path, 0, 0, 0);
	*ret_lock = lock;
	return 0;
}

void disk_unlock(struct io_lock *lock)
{
	list_remove(&lock->of_node);
	list_remove(&lock->of_disk);
	free(lock);
}

/* ---- handles ----------------------------------------------------------------------------------
 */

int disk_file_open(struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
	struct sim_node *node = node_of(io);
	struct sim_file *file = disk_find(node->host->disk, path);
	struct io_file *handle;
	int err = !file ? -ENOENT : file->exclusive && (flags & IO_OPEN_EXCLUSIVE) ? -EBUSY : 0;

	node_must_be_up(node, "io_file_open");
	trace_add(node->world, node, WHAT_OPEN, file ? file->path : NULL, 0, 0, err);
	if (err)
		return err;
	handle = calloc(1, sizeof(*handle));
	must(handle);
	handle->io = io;
	handle->file = file;
	handle->flags = flags;
	file->handle_count++;
	file->exclusive |= (flags & IO_OPEN_EXCLUSIVE) != 0;
	list_push_back(&node->files, &handle->of_node);
	*ret_file = handle;
	return 0;
}

void handle_release(struct io_file *handle)
{
	struct sim_file *file = handle->file;

	list_remove(&handle->of_node);
	file->handle_count--;
	if (handle->flags & IO_OPEN_EXCLUSIVE)
		file->exclusive = false;
	if (file->removed && !file->handle_count)
		file_free(file);
	free(handle);
}

void disk_file_close(struct io_file *handle)
{
	struct sim_node *node = node_of(handle->io);

	node_must_be_up(node, "io_file_close");
	if (handle->in_flight)
		sim_fail(node->world, "%s: io_file_close of %s with %u operations in flight",
			 node->name, handle->file->path, handle->in_flight);
	handle_release(handle);
}

void disk_file_info(struct io_file *handle, struct io_file_info *ret_info)
{
	*ret_info = (struct io_file_info){
		.size_bytes = handle->file->size_bytes,
		.mtime_ns = handle->file->device ? 0 : handle->file->mtime_ns,
		.block_bytes = SIM_SECTOR_BYTES,
		.is_device = handle->file->device,
		.direct = (handle->flags & IO_OPEN_DIRECT) != 0,
		.discards = true,
	};
}

int disk_file_grow(struct io_file *handle, uint64_t size)
{
	node_must_be_up(node_of(handle->io), "io_file_grow");
	if (size <= handle->file->size_bytes)
		return 0;
	if (handle->file->device)
		return -ENOSPC;
	file_grow(handle->file, size);
	return 0;
}

/* The name goes; the file lives on for those who have it open. */
void file_unlink(struct sim_file *file)
{
	file->removed = true;
	if (!file->handle_count)
		file_free(file);
}

int disk_file_remove(struct io *io, const char *path)
{
	struct sim_node *node = node_of(io);
	struct sim_file *file = disk_find(node->host->disk, path);

	node_must_be_up(node, "io_file_remove");
	trace_add(node->world, node, WHAT_REMOVE, file ? file->path : NULL, 0, 0,
		  file ? 0 : -ENOENT);
	if (!file)
		return -ENOENT;
	file_unlink(file);
	return 0;
}

/* ---- what scenarios do to a disk --------------------------------------------------------------
 */

static struct sim_file *must_find(struct sim_node *node, const char *path)
{
	struct sim_file *file = disk_find(node->host->disk, path);

	if (!file)
		sim_fail(node->world, "scenario: %s has no file %s", node->host->name, path);
	return file;
}

void sim_file_make(struct sim_node *node, const char *path, uint64_t size, bool device, bool hole)
{
	struct sim_disk *disk = node->host->disk;
	char part[PATH_MAX_BYTES];
	struct sim_file *old = disk_find(disk, path);

	must(strlen(path) < sizeof(part));
	for (size_t i = 1; path[i]; i++) {
		if (path[i] != '/')
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (!dir_exists(disk, part, i))
			dir_add(disk, part);
	}
	if (old)
		file_unlink(old);
	file_new(disk, disk_keep_path(disk, path), size, device, hole);
}

void sim_file_grow(struct sim_node *node, const char *path, uint64_t size)
{
	file_grow(must_find(node, path), size);
}

static void host_must_be_down(struct sim_node *node)
{
	struct sim_world *world = node->world;

	for (unsigned i = 0; i < world->node_count; i++)
		must(world->nodes[i]->host != node->host || !world->nodes[i]->up);
}

void sim_disk_wipe(struct sim_node *node)
{
	host_must_be_down(node);
	disk_empty(node->host->disk);
}

void sim_disk_lose(struct sim_node *node, const char *prefix)
{
	struct list *pos, *next;

	host_must_be_down(node);
	for (pos = node->host->disk->files.next; pos != &node->host->disk->files; pos = next) {
		struct sim_file *file = container_of(pos, struct sim_file, link);

		next = pos->next;
		if (!file->removed && !strncmp(file->path, prefix, strlen(prefix)))
			file_unlink(file);
	}
}

void sim_disk_set_free(struct sim_node *node, uint64_t bytes)
{
	struct sim_disk *disk = node->host->disk;

	disk->limit_bytes =
		bytes > UINT64_MAX - disk->used_bytes ? UINT64_MAX : disk->used_bytes + bytes;
}

uint64_t sim_disk_used(const struct sim_node *node)
{
	return node->host->disk->used_bytes;
}

int64_t sim_file_size(struct sim_node *node, const char *path)
{
	const struct sim_file *file = disk_find(node->host->disk, path);

	return file ? (int64_t)file->size_bytes : -ENOENT;
}

void sim_file_peek(struct sim_node *node, const char *path, uint64_t off, void *buf, size_t len)
{
	file_copy_out(must_find(node, path), false, off, buf, len);
}

void sim_file_peek_durable(struct sim_node *node, const char *path, uint64_t off, void *buf,
			   size_t len)
{
	file_copy_out(must_find(node, path), true, off, buf, len);
}

void sim_file_poke(struct sim_node *node, const char *path, uint64_t off, const void *buf,
		   size_t len)
{
	struct sim_file *file = must_find(node, path);

	file_copy_in(file, off, buf, len);
	file_touch(file);
}

void sim_file_flip(struct sim_node *node, const char *path, uint64_t bit)
{
	struct sim_file *file = must_find(node, path);
	uint8_t byte;

	file_copy_out(file, false, bit / 8, &byte, 1);
	byte = (uint8_t)(byte ^ 1u << bit % 8);
	file_copy_in(file, bit / 8, &byte, 1);
	trace_add(node->world, node, WHAT_FAULT, file->path, bit / 8, 1, 0);
}

uint64_t sim_file_unflushed(struct sim_node *node, const char *path)
{
	const struct sim_file *file = must_find(node, path);
	uint64_t count = 0;
	struct list *pos;

	list_for_each (pos, &file->pending)
		count += version_open_sectors(file, container_of(pos, struct version, link));
	return count;
}

void sim_file_each(struct sim_node *node, void (*fn)(void *context, const char *path),
		   void *context)
{
	struct list *pos;

	list_for_each (pos, &node->host->disk->files) {
		const struct sim_file *file = container_of(pos, struct sim_file, link);

		if (!file->removed)
			fn(context, file->path);
	}
}

/* ---- copies of a whole disk -------------------------------------------------------------------
 */

struct file_copy {
	struct file_copy *next;
	const char *path;
	uint64_t size_bytes;
	uint64_t mtime_ns;
	bool device;
	uint8_t *bytes;
};

struct sim_disk_copy {
	struct file_copy *files;
};

struct sim_disk_copy *sim_disk_save(struct sim_node *node)
{
	struct sim_world *world = node->world;
	struct sim_disk_copy *copy = sim_alloc(world, sizeof(*copy));
	struct list *pos;

	list_for_each (pos, &node->host->disk->files) {
		struct sim_file *file = container_of(pos, struct sim_file, link);
		struct file_copy *saved;

		if (file->removed)
			continue;
		saved = sim_alloc(world, sizeof(*saved));
		saved->path = file->path;
		saved->size_bytes = file->size_bytes;
		saved->mtime_ns = file->mtime_ns;
		saved->device = file->device;
		saved->bytes = sim_alloc(world, file->size_bytes);
		file_copy_out(file, false, 0, saved->bytes, file->size_bytes);
		saved->next = copy->files;
		copy->files = saved;
	}
	return copy;
}

void sim_disk_restore(struct sim_node *node, const struct sim_disk_copy *copy)
{
	sim_disk_wipe(node);
	for (const struct file_copy *saved = copy->files; saved; saved = saved->next) {
		sim_file_make(node, saved->path, saved->size_bytes, saved->device, false);
		sim_file_poke(node, saved->path, 0, saved->bytes, saved->size_bytes);
		must_find(node, saved->path)->mtime_ns = saved->mtime_ns;
	}
}
