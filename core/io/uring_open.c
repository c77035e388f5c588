/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control calls on files: open, create, remove, lock, mkdir.
 *
 * Facts about the file (real block size, whether the page cache is bypassed, whether it discards)
 * are asked of the kernel, not assumed: see kernel-notes/direct-io.md.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/base/units.h"

#define BLOCK_BYTES_MIN	   512u
#define BLOCK_BYTES_MAX	   4096u
#define CREATE_CHUNK_BYTES (1u << 20)

struct uring_lock {
	struct io_handle handle;
	int fd;
};

/* Makes the directory entry of `path` durable. */
static int sync_parent(const char *path)
{
	char parent[PATH_MAX];
	char *slash;
	int fd, err = 0;

	if (snprintf(parent, sizeof(parent), "%s", path) >= (int)sizeof(parent))
		return -ENAMETOOLONG;
	for (size_t len = strlen(parent); len > 1 && parent[len - 1] == '/'; len--)
		parent[len - 1] = 0;
	slash = strrchr(parent, '/');
	if (!slash)
		(void)snprintf(parent, sizeof(parent), ".");
	else
		slash[slash == parent ? 1 : 0] = 0;
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		err = -errno;
	(void)close(fd);
	return err;
}

int uring_mkdir(struct io *io, const char *path)
{
	struct stat st;

	(void)io;
	if (mkdir(path, 0700) < 0) {
		if (errno != EEXIST)
			return -errno;
		if (stat(path, &st) < 0)
			return -errno;
		if (!S_ISDIR(st.st_mode))
			return -ENOTDIR;
	}
	/* Also when it was there: whoever made it may have crashed before this. */
	return sync_parent(path);
}

int uring_lock(struct io *io, const char *path, struct io_lock **ret_lock)
{
	struct uring_lock *lock;
	int err;
	int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		err = -errno;
		(void)close(fd);
		return err;
	}
	lock = calloc(1, sizeof(*lock));
	if (!lock) {
		(void)close(fd);
		return -ENOMEM;
	}
	lock->handle.io = io;
	lock->fd = fd;
	*ret_lock = (struct io_lock *)lock;
	return 0;
}

void uring_unlock(struct io_lock *lock)
{
	struct uring_lock *held = (struct uring_lock *)lock;

	(void)close(held->fd);
	free(held);
}

/* A number of the device's request queue in sysfs; 0 when it is not there. Partitions have no queue
 * of their own. */
static uint64_t queue_limit(dev_t device, const char *name)
{
	static const char *const places[] = { "queue", "../queue" };
	uint64_t value = 0;

	for (size_t i = 0; i < array_len(places); i++) {
		char path[128], text[32];
		ssize_t len;
		int fd;

		(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(device),
			       minor(device), places[i], name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		len = read(fd, text, sizeof(text) - 1);
		(void)close(fd);
		if (len <= 0)
			return 0;
		text[len] = 0;
		text[strcspn(text, "\n")] = 0;
		return units_parse_u64(text, &value) == 0 ? value : 0;
	}
	return 0;
}

static int ask_device(struct uring_file *file, dev_t device)
{
	int block_bytes;

	if (ioctl(file->fd, BLKGETSIZE64, &file->info.size_bytes) < 0 ||
	    ioctl(file->fd, BLKSSZGET, &block_bytes) < 0)
		return -errno;
	if (block_bytes < (int)BLOCK_BYTES_MIN || block_bytes > (int)BLOCK_BYTES_MAX)
		return -EMEDIUMTYPE;
	file->info.is_device = true;
	file->info.block_bytes = (uint32_t)block_bytes;
	file->info.discards = !file->read_only && queue_limit(device, "discard_max_bytes") > 0;
	file->fast_zeroes = queue_limit(device, "write_zeroes_max_bytes") > 0;
	return 0;
}

/* The smallest block that direct reads take, for kernels that cannot be asked (before 6.1, or a
 * file system without an answer). 0: none. KERNEL: statx(STATX_DIOALIGN) made this unnecessary. */
static uint32_t probe_block_bytes(int fd)
{
	static __thread uint8_t page[BLOCK_BYTES_MAX] __attribute__((aligned(4096)));

	for (uint32_t bytes = BLOCK_BYTES_MIN; bytes <= BLOCK_BYTES_MAX; bytes *= 2) {
		if (pread(fd, page, bytes, 0) >= 0)
			return bytes;
		if (errno != EINVAL)
			return 0;
	}
	return 0;
}

/* 0: no direct I/O with blocks that we use. */
static uint32_t direct_block_bytes(int fd)
{
	struct statx stx = { 0 };
	uint32_t bytes;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 ||
	    !(stx.stx_mask & STATX_DIOALIGN))
		return probe_block_bytes(fd);
	if (stx.stx_dio_offset_align == 0)
		return 0;
	bytes = max_u32(stx.stx_dio_mem_align, stx.stx_dio_offset_align);
	bytes = max_u32(bytes, BLOCK_BYTES_MIN);
	return bytes <= BLOCK_BYTES_MAX && is_power_of_two(bytes) ? bytes : 0;
}

static void ask_file(struct uring_file *file, const struct stat *st)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, st->st_mtim };
	uint64_t behind = round_up((uint64_t)st->st_size, BLOCK_BYTES_MAX);

	file->info.size_bytes = (uint64_t)st->st_size;
	file->info.block_bytes = BLOCK_BYTES_MIN;
	/* Asked behind the end of the file, where there is nothing to lose. */
	file->info.discards =
		!file->read_only && fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					      (off_t)behind, BLOCK_BYTES_MAX) == 0;
	/* A question is no change: the time tells who has really written to the file. */
	if (file->info.discards)
		(void)futimens(file->fd, times);
	file->fast_zeroes = true;
}

static int open_fd(const char *path, unsigned flags, bool is_device, bool direct)
{
	int how = O_CLOEXEC | O_NOCTTY | (flags & IO_OPEN_READ_ONLY ? O_RDONLY : O_RDWR);
	int fd;

	/* O_EXCL without O_CREAT means "nobody else has it" on block devices only. */
	if (is_device && (flags & IO_OPEN_EXCLUSIVE))
		how |= O_EXCL;
	if (direct)
		how |= O_DIRECT;
	do {
		fd = open(path, how | O_CLOEXEC);
	} while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

static int open_file(struct uring_file *file, const char *path, unsigned flags)
{
	bool direct = flags & IO_OPEN_DIRECT;
	struct stat st;
	uint32_t bytes;
	int err;

	/* Before open(), which would wait for the other end of a FIFO. */
	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -ENOTBLK;
	file->fd = open_fd(path, flags, S_ISBLK(st.st_mode), direct);
	if (file->fd == -EINVAL && direct) { /* the file system has no direct I/O */
		direct = false;
		file->fd = open_fd(path, flags, S_ISBLK(st.st_mode), false);
	}
	if (file->fd < 0)
		return file->fd;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	if (S_ISBLK(st.st_mode)) {
		err = ask_device(file, st.st_rdev);
		if (err < 0)
			return err;
	} else if (S_ISREG(st.st_mode)) {
		ask_file(file, &st);
	} else {
		return -ENOTBLK;
	}
	if (direct && !file->info.is_device) {
		bytes = direct_block_bytes(file->fd);
		if (bytes)
			file->info.block_bytes = bytes;
		else if (fcntl(file->fd, F_SETFL, 0) == 0)
			direct = false;
		else
			return -errno;
	}
	file->info.direct = direct;
	return 0;
}

static void fixed_file_set(struct uring *loop, struct uring_file *file)
{
	if (!loop->ring_ready || !loop->fixed_files_enabled)
		return;
	for (int i = 0; i < (int)FIXED_FILES_MAX; i++) {
		if (loop->fixed_file_used[i])
			continue;
		if (io_uring_register_files_update(&loop->ring, (unsigned)i, &file->fd, 1) != 1)
			return;
		loop->fixed_file_used[i] = true;
		file->fixed_index = i;
		return;
	}
}

void fixed_files_start(struct uring *loop)
{
	struct list *pos;

	loop->fixed_files_enabled =
		io_uring_register_files_sparse(&loop->ring, FIXED_FILES_MAX) == 0;
	list_for_each (pos, &loop->files)
		fixed_file_set(loop, container_of(pos, struct uring_file, link));
}

int uring_file_open(struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
	struct uring *loop = uring_of(io);
	struct uring_file *file = calloc(1, sizeof(*file));
	int err;

	if (!file)
		return -ENOMEM;
	file->handle.io = io;
	file->fd = -1;
	file->fixed_index = -1;
	file->read_only = flags & IO_OPEN_READ_ONLY;
	err = open_file(file, path, flags);
	if (err < 0) {
		if (file->fd >= 0)
			(void)close(file->fd);
		free(file);
		return err;
	}
	list_push_back(&loop->files, &file->link);
	fixed_file_set(loop, file);
	*ret_file = (struct io_file *)file;
	return 0;
}

static void file_free(struct uring_file *file)
{
	list_remove(&file->link);
	(void)close(file->fd);
	free(file);
}

void uring_file_close(struct io_file *handle)
{
	struct uring_file *file = (struct uring_file *)handle;
	struct uring *loop = file_loop(file);
	int none = -1;

	must(file->in_flight == 0);
	if (file->fixed_index >= 0 &&
	    io_uring_register_files_update(&loop->ring, (unsigned)file->fixed_index, &none, 1) == 1)
		loop->fixed_file_used[file->fixed_index] = false;
	file_free(file);
}

void uring_file_info(struct io_file *handle, struct io_file_info *ret_info)
{
	const struct uring_file *file = (struct uring_file *)handle;
	struct stat st;

	*ret_info = file->info;
	if (!file->info.is_device && fstat(file->fd, &st) == 0)
		ret_info->mtime_ns =
			(uint64_t)st.st_mtim.tv_sec * 1000000000ull + (uint64_t)st.st_mtim.tv_nsec;
}

int uring_file_grow(struct io_file *handle, uint64_t size)
{
	struct uring_file *file = (struct uring_file *)handle;
	struct stat st;

	if (file->info.is_device) {
		if (ioctl(file->fd, BLKGETSIZE64, &file->info.size_bytes) < 0)
			return -errno;
		return file->info.size_bytes < size ? -ENOSPC : 0;
	}
	if (fstat(file->fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < size) {
		if (ftruncate(file->fd, (off_t)size) < 0)
			return -errno;
		st.st_size = (off_t)size;
	}
	file->info.size_bytes = (uint64_t)st.st_size;
	return 0;
}

void files_free(struct uring *loop)
{
	while (!list_empty(&loop->files))
		file_free(container_of(list_first(&loop->files), struct uring_file, link));
}

int uring_file_remove(struct io *io, const char *path)
{
	(void)io;
	if (unlink(path) < 0)
		return -errno;
	return sync_parent(path);
}

/* Creating: minutes of writing for a big file, so it is a worker's job. */
struct create_job {
	struct list link;
	struct io_op op;
	struct uring *loop;
	struct io_op *user_op;
	uint64_t size;
	bool reserve;
	char path[PATH_MAX];
};

/* Writes [0, size) with zeroes; the tail that is no whole block goes through the page cache. */
static int write_zero_file(struct create_job *job, int fd, const uint8_t *zeroes)
{
	uint64_t off = 0;

	while (off < job->size) {
		size_t len = (size_t)min_u64(CREATE_CHUNK_BYTES, job->size - off);
		ssize_t res;

		if (atomic_load(&job->loop->closing))
			return -ECANCELED;
		if (!is_aligned(len, BLOCK_BYTES_MAX) && len > BLOCK_BYTES_MAX)
			len = (size_t)round_down(len, BLOCK_BYTES_MAX);
		if (!is_aligned(len, BLOCK_BYTES_MAX) && fcntl(fd, F_SETFL, 0) < 0)
			return -errno;
		res = pwrite(fd, zeroes, len, (off_t)off);
		if (res < 0 && errno == EINTR)
			continue;
		if (res <= 0)
			return res < 0 ? -errno : -EIO;
		off += (uint64_t)res;
		if (!is_aligned(off, BLOCK_BYTES_MAX) && fcntl(fd, F_SETFL, 0) < 0)
			return -errno;
	}
	return 0;
}

static int create_file(struct create_job *job, const uint8_t *zeroes)
{
	int how = O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW;
	bool reserved = false;
	int err = 0;
	int fd = open(job->path, how | O_DIRECT | O_CLOEXEC, 0600);

	if (fd == -1 && errno == EINVAL)
		fd = open(job->path, how | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	/* Contiguous space first, and ENOSPC before any writing. */
	if (job->size > 0 && fallocate(fd, 0, 0, (off_t)job->size) == 0)
		reserved = job->reserve;
	else if (job->size > 0 && errno != EOPNOTSUPP)
		err = -errno;
	if (err == 0 && !reserved)
		err = write_zero_file(job, fd, zeroes);
	if (err == 0 && fsync(fd) < 0)
		err = -errno;
	if (close(fd) < 0 && err == 0)
		err = -errno;
	return err < 0 ? err : sync_parent(job->path);
}

static void create_work(struct io_op *op)
{
	struct create_job *job = container_of(op, struct create_job, op);
	void *zeroes;

	if (posix_memalign(&zeroes, BLOCK_BYTES_MAX, CREATE_CHUNK_BYTES) != 0) {
		op->res = -ENOMEM;
		return;
	}
	memset(zeroes, 0, CREATE_CHUNK_BYTES);
	op->res = create_file(job, zeroes);
	free(zeroes);
}

static void create_done(struct io_op *op, int64_t res)
{
	struct create_job *job = container_of(op, struct create_job, op);
	struct io_op *user_op = job->user_op;
	struct uring *loop = job->loop;

	list_remove(&job->link);
	free(job);
	loop_complete(loop, user_op, res);
}

void creates_free(struct uring *loop)
{
	while (!list_empty(&loop->creates)) {
		struct create_job *job =
			container_of(list_first(&loop->creates), struct create_job, link);

		list_remove(&job->link);
		free(job);
	}
}

static void create(struct io *io, const char *path, uint64_t size, bool reserve, struct io_op *op)
{
	struct uring *loop = uring_of(io);
	struct create_job *job = NULL;

	op_begin(op);
	if (strlen(path) >= PATH_MAX || size > INT64_MAX) {
		loop_ready(loop, op, strlen(path) >= PATH_MAX ? -ENAMETOOLONG : -EFBIG);
		return;
	}
	job = calloc(1, sizeof(*job));
	if (!job) {
		loop_ready(loop, op, -ENOMEM);
		return;
	}
	list_push_back(&loop->creates, &job->link);
	job->loop = loop;
	job->user_op = op;
	job->size = size;
	job->reserve = reserve;
	(void)snprintf(job->path, sizeof(job->path), "%s", path);
	job->op.done = create_done;
	uring_work(io, create_work, &job->op);
}

void uring_file_create(struct io *io, const char *path, uint64_t size, struct io_op *op)
{
	create(io, path, size, false, op);
}

void uring_file_reserve(struct io *io, const char *path, uint64_t size, struct io_op *op)
{
	create(io, path, size, true, op);
}
