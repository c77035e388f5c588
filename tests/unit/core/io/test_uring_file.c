/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the io_uring back end, on the real kernel. */
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#include "core/base/units.h"
#include "tests/unit/core/io/on_loop.h"

#define BLOCK 4096u

struct fixture {
	struct temp_dir dir;
	struct io *io;
	uint8_t *buf, *other; /* 1 MiB each, aligned */
};

#define BUF_BYTES (1u << 20)

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	temp_dir_make(&f->dir);
	f->io = new_loop();
	f->buf = io_alloc(f->io, BUF_BYTES, BLOCK);
	f->other = io_alloc(f->io, BUF_BYTES, BLOCK);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	io_free(f->io, f->buf);
	io_free(f->io, f->other);
	uring_free(f->io);
	temp_dir_remove(&f->dir);
	free(f);
	return 0;
}

static void fill(uint8_t *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		buf[i] = (uint8_t)(seed >> 56);
	}
}

/* A file of that size, made without the code under test. */
static const char *make_file(struct fixture *f, const char *name, uint64_t size)
{
	const char *path = in_dir(&f->dir, name);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(close(fd), 0);
	return path;
}

static struct io_file *open_file(struct fixture *f, const char *path, unsigned flags)
{
	struct io_file *file;

	assert_int_equal(io_file_open(f->io, path, flags, &file), 0);
	return file;
}

static int64_t do_write(struct fixture *f, struct io_file *file, const void *buf, size_t len,
			uint64_t off, unsigned flags)
{
	struct waited waited = { 0 };

	io_write(file, buf, len, off, flags, arm(&waited, f->io));
	return finish(&waited);
}

static int64_t do_read(struct fixture *f, struct io_file *file, void *buf, size_t len, uint64_t off)
{
	struct waited waited = { 0 };

	io_read(file, buf, len, off, arm(&waited, f->io));
	return finish(&waited);
}

static int64_t do_flush(struct fixture *f, struct io_file *file)
{
	struct waited waited = { 0 };

	io_flush(file, arm(&waited, f->io));
	return finish(&waited);
}

/* What another process would read. */
static void expect_content(const char *path, const void *expected, size_t len, uint64_t off)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *found = malloc(len);

	assert_non_null(found);
	assert_int_equal(pread(fd, found, len, (off_t)off), len);
	assert_memory_equal(found, expected, len);
	free(found);
	assert_int_equal(close(fd), 0);
}

static void write_read_with(struct fixture *f, unsigned open_flags, unsigned write_flags)
{
	const char *path =
		make_file(f, open_flags & IO_OPEN_DIRECT ? "direct" : "buffered", 4 * MIB);
	struct io_file *file = open_file(f, path, open_flags);
	struct io_file_info info;

	io_file_info(file, &info);
	assert_int_equal(info.size_bytes, 4 * MIB);
	assert_false(info.is_device);
	assert_int_equal(info.direct, (open_flags & IO_OPEN_DIRECT) != 0);
	assert_true(info.block_bytes >= 512 && info.block_bytes <= 4096);
	fill(f->buf, BUF_BYTES, 1);
	assert_int_equal(do_write(f, file, f->buf, BUF_BYTES, MIB, write_flags), BUF_BYTES);
	assert_int_equal(do_write(f, file, f->buf, BLOCK, 0, write_flags), BLOCK);
	assert_int_equal(do_flush(f, file), 0);
	assert_int_equal(do_read(f, file, f->other, BUF_BYTES, MIB), BUF_BYTES);
	assert_memory_equal(f->buf, f->other, BUF_BYTES);
	io_file_close(file);
	expect_content(path, f->buf, BUF_BYTES, MIB);
	expect_content(path, f->buf, BLOCK, 0);
	assert_int_equal(unlink(path), 0);
}

/* Enlarged by somebody else, and by ourselves; what is new reads as zeroes. */
static void grows(void **state)
{
	struct fixture *f = *state;
	const char *path = make_file(f, "grows", MIB);
	struct io_file *file = open_file(f, path, IO_OPEN_DIRECT);
	struct io_file_info info;

	assert_int_equal(io_file_grow(file, 0), 0);
	io_file_info(file, &info);
	assert_int_equal(info.size_bytes, MIB);
	assert_int_equal(truncate(path, 2 * MIB), 0);
	io_file_info(file, &info);
	assert_int_equal(info.size_bytes, MIB);
	assert_int_equal(io_file_grow(file, MIB), 0);
	io_file_info(file, &info);
	assert_int_equal(info.size_bytes, 2 * MIB);
	assert_int_equal(io_file_grow(file, 3 * MIB), 0);
	io_file_info(file, &info);
	assert_int_equal(info.size_bytes, 3 * MIB);
	fill(f->buf, BUF_BYTES, 1);
	assert_int_equal(do_read(f, file, f->buf, BLOCK, 3 * MIB - BLOCK), BLOCK);
	memset(f->other, 0, BLOCK);
	assert_memory_equal(f->buf, f->other, BLOCK);
	io_file_close(file);
	assert_int_equal(unlink(path), 0);
}

static void writes_and_reads(void **state)
{
	write_read_with(*state, 0, 0);
	write_read_with(*state, 0, IO_DSYNC);
	write_read_with(*state, IO_OPEN_DIRECT, 0);
	write_read_with(*state, IO_OPEN_DIRECT, IO_DSYNC);
}

/* Pieces of odd sizes through the page cache; the iovec may go as soon as the call returned. */
static void writev_takes_the_iovec_by_value(void **state)
{
	struct fixture *f = *state;
	const char *path = make_file(f, "iov", MIB);
	struct io_file *file = open_file(f, path, 0);
	struct waited waited = { 0 };
	struct iovec iov[IO_IOV_MAX];
	size_t total = 0;

	fill(f->buf, BUF_BYTES, 2);
	for (unsigned i = 0; i < IO_IOV_MAX; i++) {
		iov[i] = (struct iovec){ f->buf + total, i % 7 == 3 ? 0 : 100 + i };
		total += iov[i].iov_len;
	}
	io_writev(file, iov, IO_IOV_MAX, 5, 0, arm(&waited, f->io));
	memset(iov, 0xff, sizeof(iov));
	assert_int_equal(finish(&waited), total);
	expect_content(path, f->buf, total, 5);
	io_file_close(file);
}

static void operations_before_the_first_run(void **state)
{
	struct fixture *f = *state;
	const char *path = make_file(f, "early", MIB);
	struct io_file *file = open_file(f, path, IO_OPEN_DIRECT);
	struct waited many[300]; /* more than the submission queue holds */

	memset(many, 0, sizeof(many));
	assert_int_equal(io_buffers(f->io, f->buf, BUF_BYTES), 0);
	for (size_t i = 0; i < array_len(many); i++) {
		size_t place = i % 256 * BLOCK;

		memset(f->buf + place, (int)(i % 256), BLOCK);
		io_write(file, f->buf + place, BLOCK, place, 0, arm(&many[i], f->io));
		assert_false(many[i].done);
	}
	for (size_t i = 0; i < array_len(many); i++)
		assert_int_equal(finish(&many[i]), BLOCK);
	expect_content(path, f->buf, BUF_BYTES, 0);
	io_file_close(file);
}

static void beyond_the_end_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct io_file *file = open_file(f, make_file(f, "short", 10000), 0);

	assert_int_equal(do_read(f, file, f->buf, 10000, 0), 10000);
	assert_int_equal(do_read(f, file, f->buf, 10001, 0), -EIO);
	assert_int_equal(do_read(f, file, f->buf, 1, 10000), -EIO);
	assert_int_equal(do_read(f, file, f->buf, 0, 0), 0);
	assert_int_equal(do_read(f, file, f->buf, 1, UINT64_MAX), -EINVAL);
	io_file_close(file);
	/* Direct: the last block is there in part. */
	file = open_file(f, in_dir(&f->dir, "short"), IO_OPEN_DIRECT);
	assert_int_equal(do_read(f, file, f->buf, 8192, 0), 8192);
	assert_int_equal(do_read(f, file, f->buf, 3 * BLOCK, 0), -EIO);
	assert_int_equal(do_read(f, file, f->buf, BLOCK, 4 * BLOCK), -EIO);
	io_file_close(file);
}

static void misaligned_direct_io_fails(void **state)
{
	struct fixture *f = *state;
	struct io_file *file = open_file(f, make_file(f, "align", MIB), IO_OPEN_DIRECT);

	assert_int_equal(do_write(f, file, f->buf, 2 * BLOCK, 0, 0), 2 * BLOCK);
	assert_int_equal(do_write(f, file, f->buf, BLOCK, 100, 0), -EINVAL);
	assert_int_equal(do_write(f, file, f->buf, 100, 0, 0), -EINVAL);
	assert_int_equal(do_read(f, file, f->buf, BLOCK, 1), -EINVAL);
	assert_int_equal(do_read(f, file, f->buf + 1, BLOCK, 0), -EINVAL);
	io_file_close(file);
}

static void write_errors_come_through(void **state)
{
	struct fixture *f = *state;
	struct io_file *file = open_file(f, make_file(f, "read-only", MIB), IO_OPEN_READ_ONLY);

	assert_int_equal(do_write(f, file, f->buf, BLOCK, 0, 0), -EBADF);
	assert_int_equal(do_read(f, file, f->buf, BLOCK, 0), BLOCK);
	io_file_close(file);
}

/* RLIMIT_FSIZE cuts a write short in the middle: what fits is written, the rest is the error. */
static void a_short_write_is_continued_until_it_fails(void **state)
{
	struct fixture *f = *state;
	const char *path = make_file(f, "limited", 0);
	struct io_file *file = open_file(f, path, 0);
	struct rlimit before, limit;
	struct stat st;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = (struct rlimit){ 100000, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	fill(f->buf, BUF_BYTES, 3);
	assert_int_equal(do_write(f, file, f->buf, BUF_BYTES, 0, 0), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_true(signal(SIGXFSZ, SIG_DFL) != SIG_ERR);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 100000);
	expect_content(path, f->buf, 100000, 0);
	io_file_close(file);
}

static void opening(void **state)
{
	struct fixture *f = *state;
	struct io_file *file;

	assert_int_equal(io_file_open(f->io, in_dir(&f->dir, "missing"), 0, &file), -ENOENT);
	assert_int_equal(io_file_open(f->io, f->dir.path, 0, &file), -EISDIR);
	assert_int_equal(mkfifo(in_dir(&f->dir, "fifo"), 0600), 0);
	assert_int_equal(io_file_open(f->io, in_dir(&f->dir, "fifo"), 0, &file), -ENOTBLK);
	assert_int_equal(io_file_open(f->io, "/dev/null", 0, &file), -ENOTBLK);
	io_file_close(NULL);
}

/* proc has regular files without direct I/O. */
static void direct_falls_back_to_the_page_cache(void **state)
{
	struct fixture *f = *state;
	struct io_file *file =
		open_file(f, "/proc/self/status", IO_OPEN_DIRECT | IO_OPEN_READ_ONLY);
	struct io_file_info info;

	io_file_info(file, &info);
	assert_false(info.direct);
	assert_int_equal(do_read(f, file, f->buf, 5, 0), 5);
	assert_memory_equal(f->buf, "Name:", 5);
	io_file_close(file);
}

static void creating(void **state)
{
	struct fixture *f = *state;
	const uint64_t sizes[] = { 0, 1, 4095, 4096, MIB, 3 * MIB + 4096, 5 * MIB + 77 };

	memset(f->other, 0, BUF_BYTES);
	for (size_t i = 0; i < array_len(sizes); i++) {
		struct waited waited = { 0 };
		const char *path = in_dir(&f->dir, "created");
		struct stat st;

		io_file_create(f->io, path, sizes[i], arm(&waited, f->io));
		assert_false(waited.done);
		assert_int_equal(finish(&waited), 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, sizes[i]);
		assert_int_equal(st.st_mode & 07777, 0600);
		/* Really written: nothing of it is a hole. */
		assert_true((uint64_t)st.st_blocks * 512 >= sizes[i]);
		if (sizes[i])
			expect_content(path, f->other, min_size(sizes[i], BUF_BYTES), 0);
	}
	for (size_t i = 0; i < array_len(sizes); i++) {
		struct waited waited = { 0 };
		const char *path = in_dir(&f->dir, "created");
		struct stat st;

		io_file_reserve(f->io, path, sizes[i], arm(&waited, f->io));
		assert_int_equal(finish(&waited), 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, sizes[i]);
		/* Nobody else gets that room. */
		assert_true((uint64_t)st.st_blocks * 512 >= sizes[i]);
		if (sizes[i])
			expect_content(path, f->other, min_size(sizes[i], BUF_BYTES), 0);
	}
	/* Replaces what was there. */
	assert_int_equal(io_file_remove(f->io, in_dir(&f->dir, "created")), 0);
	assert_int_equal(io_file_remove(f->io, in_dir(&f->dir, "created")), -ENOENT);
}

static void creating_replaces_and_reports(void **state)
{
	struct fixture *f = *state;
	struct waited waited = { 0 };
	const char *path = make_file(f, "old", MIB);
	struct io_file *file = open_file(f, path, 0);

	fill(f->buf, BUF_BYTES, 4);
	assert_int_equal(do_write(f, file, f->buf, BUF_BYTES, 0, 0), BUF_BYTES);
	io_file_close(file);
	io_file_create(f->io, path, MIB, arm(&waited, f->io));
	assert_int_equal(finish(&waited), 0);
	memset(f->other, 0, BUF_BYTES);
	expect_content(path, f->other, BUF_BYTES, 0);

	io_file_create(f->io, in_dir(&f->dir, "no/such/folder"), MIB, arm(&waited, f->io));
	assert_int_equal(finish(&waited), -ENOENT);
	io_file_reserve(f->io, in_dir(&f->dir, "more than there is"), 1ull << 56,
			arm(&waited, f->io));
	assert_true(finish(&waited) == -ENOSPC || waited.res == -EFBIG);
	io_file_create(f->io, in_dir(&f->dir, "huge"), UINT64_MAX, arm(&waited, f->io));
	assert_int_equal(finish(&waited), -EFBIG);
}

static void directories_and_locks(void **state)
{
	struct fixture *f = *state;
	const char *path = in_dir(&f->dir, "group"), *lock_path = in_dir(&f->dir, "lock");
	struct io_lock *lock, *second;

	assert_int_equal(io_mkdir(f->io, path), 0);
	assert_int_equal(io_mkdir(f->io, path), 0);
	assert_int_equal(io_mkdir(f->io, in_dir(&f->dir, "a/b")), -ENOENT);
	(void)make_file(f, "plain", 0);
	assert_int_equal(io_mkdir(f->io, in_dir(&f->dir, "plain")), -ENOTDIR);

	assert_int_equal(io_lock(f->io, lock_path, &lock), 0);
	assert_int_equal(io_lock(f->io, lock_path, &second), -EWOULDBLOCK);
	io_unlock(lock);
	assert_int_equal(io_lock(f->io, lock_path, &second), 0);
	io_unlock(second);
}

static int64_t do_map(struct fixture *f, struct io_file *file, uint64_t off, uint64_t len,
		      bool *ret_hole)
{
	struct waited waited = { 0 };

	io_map(file, off, len, ret_hole, arm(&waited, f->io));
	return finish(&waited);
}

static int64_t do_zeroes(struct fixture *f, struct io_file *file, uint64_t off, uint64_t len,
			 unsigned flags)
{
	struct waited waited = { 0 };

	io_write_zeroes(file, off, len, flags, arm(&waited, f->io));
	return finish(&waited);
}

static int64_t do_discard(struct fixture *f, struct io_file *file, uint64_t off, uint64_t len)
{
	struct waited waited = { 0 };

	io_discard(file, off, len, arm(&waited, f->io));
	return finish(&waited);
}

static void expect_run(struct fixture *f, struct io_file *file, uint64_t off, uint64_t len,
		       bool hole, uint64_t run)
{
	bool found = !hole;

	assert_int_equal(do_map(f, file, off, len, &found), run);
	assert_int_equal(found, hole);
}

static void expect_zeroes(struct fixture *f, struct io_file *file, uint64_t off, size_t len)
{
	memset(f->other, 0xee, len);
	assert_int_equal(do_read(f, file, f->other, len, off), len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(f->other[i], 0);
}

static void holes(void **state)
{
	struct fixture *f = *state;
	struct io_file *file = open_file(f, make_file(f, "sparse", 8 * MIB), IO_OPEN_DIRECT);
	struct io_file_info info;
	struct stat st;

	io_file_info(file, &info);
	assert_true(info.discards);
	expect_run(f, file, 0, 8 * MIB, true, 8 * MIB);
	fill(f->buf, BUF_BYTES, 5);
	assert_int_equal(do_write(f, file, f->buf, BUF_BYTES, 2 * MIB, 0), BUF_BYTES);
	expect_run(f, file, 0, 8 * MIB, true, 2 * MIB);
	expect_run(f, file, 0, MIB, true, MIB);
	expect_run(f, file, 2 * MIB, 8 * MIB, false, MIB);
	expect_run(f, file, 2 * MIB + BLOCK, BLOCK, false, BLOCK);
	expect_run(f, file, 3 * MIB, 5 * MIB, true, 5 * MIB);

	assert_int_equal(do_discard(f, file, 2 * MIB + 4 * BLOCK, 8 * BLOCK), 0);
	expect_zeroes(f, file, 2 * MIB + 4 * BLOCK, 8 * BLOCK);
	expect_run(f, file, 2 * MIB, MIB, false, 4 * BLOCK);
	expect_run(f, file, 2 * MIB + 4 * BLOCK, MIB, true, 8 * BLOCK);
	assert_int_equal(do_read(f, file, f->other, BLOCK, 2 * MIB), BLOCK);
	assert_memory_equal(f->other, f->buf, BLOCK);

	assert_int_equal(do_zeroes(f, file, 2 * MIB, BLOCK, 0), 0);
	expect_zeroes(f, file, 2 * MIB, BLOCK);
	expect_run(f, file, 2 * MIB, MIB, true, BLOCK);
	/* Keeps the space. */
	assert_int_equal(do_zeroes(f, file, 4 * MIB, MIB, IO_NO_HOLE | IO_DSYNC), 0);
	expect_zeroes(f, file, 4 * MIB, MIB);
	assert_int_equal(stat(in_dir(&f->dir, "sparse"), &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 >= MIB + MIB / 2);
	/* Never changes the size. */
	assert_int_equal(do_discard(f, file, 7 * MIB, 4 * MIB), 0);
	assert_int_equal(do_zeroes(f, file, 7 * MIB, 4 * MIB, IO_NO_HOLE), 0);
	assert_int_equal(stat(in_dir(&f->dir, "sparse"), &st), 0);
	assert_int_equal(st.st_size, 8 * MIB);

	assert_int_equal(do_discard(f, file, 0, 0), 0);
	assert_int_equal(do_discard(f, file, UINT64_MAX, 1), -EINVAL);
	assert_int_equal(do_zeroes(f, file, 1, UINT64_MAX, 0), -EINVAL);
	io_file_close(file);
}

/* tmpfs punches holes but does not zero ranges: the bytes are written, or refused when that has to
 * be fast. */
static void zeroes_are_written_where_nothing_else_works(void **state)
{
	struct fixture *f = *state;
	struct temp_dir saved = f->dir;
	struct io_file *file;
	char shm[] = "/dev/shm/holdfast-test-XXXXXX";

	if (!mkdtemp(shm))
		skip();
	(void)snprintf(f->dir.path, sizeof(f->dir.path), "%s", shm);
	file = open_file(f, make_file(f, "tmpfs", 4 * MIB), 0);
	fill(f->buf, BUF_BYTES, 6);
	for (uint64_t off = 0; off < 4 * MIB; off += MIB)
		assert_int_equal(do_write(f, file, f->buf, BUF_BYTES, off, 0), BUF_BYTES);
	assert_int_equal(do_zeroes(f, file, BLOCK, BLOCK, IO_NO_HOLE | IO_FAST), -EOPNOTSUPP);
	assert_int_equal(do_read(f, file, f->other, BUF_BYTES, 0), BUF_BYTES);
	assert_memory_equal(f->buf, f->other, BUF_BYTES);
	/* More than one write's worth, and not aligned to anything. */
	assert_int_equal(do_zeroes(f, file, 1001, 2 * MIB + 77, IO_NO_HOLE), 0);
	expect_zeroes(f, file, 1001, BUF_BYTES);
	expect_zeroes(f, file, 1001 + 2 * MIB + 77 - 4096, 4096);
	assert_int_equal(do_read(f, file, f->other, 2000, 0), 2000);
	assert_memory_equal(f->buf, f->other, 1001);
	assert_int_equal(do_read(f, file, f->other, 100, 1001 + 2 * MIB + 77), 100);
	assert_memory_equal(f->buf + 1001 + 77, f->other, 100);
	assert_int_equal(do_discard(f, file, 3 * MIB, MIB), 0);
	expect_zeroes(f, file, 3 * MIB, BUF_BYTES);
	io_file_close(file);
	temp_dir_remove(&f->dir);
	f->dir = saved;
}

/* I/O by registered buffer, and what happens to the registration when the memory goes. */
static void registered_buffers(void **state)
{
	struct fixture *f = *state;
	struct io_file *file = open_file(f, make_file(f, "fixed", 4 * MIB), IO_OPEN_DIRECT);
	struct uring_stats before, after;
	uint8_t *region;

	assert_int_equal(io_buffers(f->io, f->buf, BUF_BYTES), 0);
	uring_stats(f->io, &before);
	fill(f->buf, BUF_BYTES, 7);
	assert_int_equal(do_write(f, file, f->buf, BUF_BYTES, 0, 0), BUF_BYTES);
	assert_int_equal(do_read(f, file, f->buf + BLOCK, BLOCK, 0), BLOCK);
	assert_memory_equal(f->buf, f->buf + BLOCK, BLOCK);
	uring_stats(f->io, &after);
	assert_int_equal(after.fixed_buffer_ops - before.fixed_buffer_ops, 2);
	/* Outside of it. */
	assert_int_equal(do_write(f, file, f->other, BLOCK, 0, 0), BLOCK);
	uring_stats(f->io, &before);
	assert_int_equal(after.fixed_buffer_ops, before.fixed_buffer_ops);

	for (int round = 0; round < 100; round++) {
		region = io_alloc(f->io, 64 * KIB, BLOCK);
		assert_int_equal(io_buffers(f->io, region, 64 * KIB), 0);
		memset(region, round, 64 * KIB);
		assert_int_equal(do_write(f, file, region, 64 * KIB, MIB, 0), 64 * KIB);
		assert_int_equal(do_read(f, file, f->other, 64 * KIB, MIB), 64 * KIB);
		assert_memory_equal(region, f->other, 64 * KIB);
		io_free(f->io, region); /* its address comes back in the next round */
	}
	uring_stats(f->io, &after);
	assert_int_equal(after.fixed_buffer_ops - before.fixed_buffer_ops, 100);
	io_file_close(file);
}

/* Many operations at a time on many files, some of them closed and opened again meanwhile. */
static void many_in_flight(void **state)
{
	struct fixture *f = *state;
	struct io_file *files[8];
	static struct waited writes[8][64];

	for (unsigned i = 0; i < 8; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "many-%u", i);
		files[i] = open_file(f, make_file(f, name, MIB), i % 2 ? IO_OPEN_DIRECT : 0);
	}
	fill(f->buf, BUF_BYTES, 8);
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 8; i++) {
			for (unsigned k = 0; k < 64; k++)
				io_write(files[i], f->buf + k * BLOCK, BLOCK, k * BLOCK,
					 k % 8 ? 0 : IO_DSYNC, arm(&writes[i][k], f->io));
		}
		for (unsigned i = 0; i < 8; i++) {
			for (unsigned k = 0; k < 64; k++)
				assert_int_equal(finish(&writes[i][k]), BLOCK);
			assert_int_equal(do_read(f, files[i], f->other, 64 * BLOCK, 0), 64 * BLOCK);
			assert_memory_equal(f->buf, f->other, 64 * BLOCK);
		}
	}
	for (unsigned i = 0; i < 8; i++)
		io_file_close(files[i]);
}

static unsigned delivered_count;

static void count_delivered(struct io_op *op, int64_t res)
{
	assert_int_equal(res, op->priv[7]);
	delivered_count++;
}

/*
 * uring_run() returns with the kernel's hands off the buffers. What completed meanwhile is
 * delivered by the next run, and by no call in between.
 */
static void stopping_waits_for_the_files(void **state)
{
	struct fixture *f = *state;
	struct io_file *file = open_file(f, make_file(f, "stop", 32 * MIB), IO_OPEN_DIRECT);
	struct io_op reads[32] = { 0 };
	uint8_t *buf = io_alloc(f->io, 32 * MIB, BLOCK);
	unsigned before;

	memset(f->buf, 0x5a, BUF_BYTES);
	for (uint64_t off = 0; off < 32 * MIB; off += MIB)
		assert_int_equal(do_write(f, file, f->buf, BUF_BYTES, off, 0), BUF_BYTES);
	delivered_count = 0;
	for (unsigned i = 0; i < 32; i++) {
		reads[i].done = count_delivered;
		io_read(file, buf + i * MIB, MIB, i * MIB, &reads[i]);
		reads[i].priv[7] = MIB;
	}
	uring_stop(f->io);
	assert_int_equal(uring_run(f->io), 0); /* one turn */
	before = delivered_count;
	for (size_t i = 0; i < 32 * MIB; i++) {
		if (buf[i] != 0x5a)
			fail_msg("byte %zu was not there yet", i);
	}
	run_for_ms(f->io, 1);
	assert_true(before <= 32);
	assert_int_equal(delivered_count, 32);
	io_file_close(file);
	io_free(f->io, buf);
}

static uint64_t mtime_of(struct io_file *file)
{
	struct io_file_info info;

	io_file_info(file, &info);
	return info.mtime_ns;
}

/* The time of the last change is of what was written; looking is none. */
static void opening_is_no_change(void **state)
{
	struct fixture *f = *state;
	const char *path = make_file(f, "stamped", BUF_BYTES);
	struct io_file *file = open_file(f, path, IO_OPEN_DIRECT | IO_OPEN_EXCLUSIVE);
	uint64_t first = mtime_of(file), written;

	assert_int_not_equal(first, 0);
	(void)poll(NULL, 0, 20); /* more than a tick of the kernel's coarse clock */
	io_file_close(file);
	file = open_file(f, path, IO_OPEN_DIRECT | IO_OPEN_EXCLUSIVE);
	assert_int_equal(mtime_of(file), first);
	assert_true(do_write(f, file, f->buf, BLOCK, 0, IO_DSYNC) >= 0);
	written = mtime_of(file);
	assert_true(written > first);
	(void)poll(NULL, 0, 20);
	io_file_close(file);
	file = open_file(f, path, IO_OPEN_READ_ONLY);
	assert_int_equal(mtime_of(file), written);
	io_file_close(file);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(grows),
		TEST(writes_and_reads),
		TEST(writev_takes_the_iovec_by_value),
		TEST(operations_before_the_first_run),
		TEST(beyond_the_end_is_an_error),
		TEST(misaligned_direct_io_fails),
		TEST(write_errors_come_through),
		TEST(a_short_write_is_continued_until_it_fails),
		TEST(opening),
		TEST(direct_falls_back_to_the_page_cache),
		TEST(creating),
		TEST(creating_replaces_and_reports),
		TEST(directories_and_locks),
		TEST(holes),
		TEST(zeroes_are_written_where_nothing_else_works),
		TEST(registered_buffers),
		TEST(many_in_flight),
		TEST(opening_is_no_change),
		TEST(stopping_waits_for_the_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
