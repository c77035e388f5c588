/* SPDX-License-Identifier: Apache-2.0 */
/* Block devices: a loop device over a file, where this machine lets us have one. */
#include <linux/loop.h>
#include <sys/ioctl.h>

#include "core/base/units.h"
#include "tests/unit/core/io/on_loop.h"

#define DEVICE_BYTES (16 * MIB)

struct fixture {
	struct temp_dir dir;
	struct io *io;
	char backing[512], device[64];
	int fd; /* the loop device, for its ioctls; -1: none to be had */
};

static void attach(struct fixture *f)
{
	struct loop_config config = { .block_size = 4096 };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);

	f->fd = -1;
	if (control >= 0)
		assert_int_equal(close(control), 0);
	if (number < 0)
		return;
	(void)snprintf(f->device, sizeof(f->device), "/dev/loop%d", number);
	config.fd = (unsigned)open(f->backing, O_RDWR | O_CLOEXEC);
	f->fd = open(f->device, O_RDWR | O_CLOEXEC);
	if (f->fd >= 0 && ioctl(f->fd, LOOP_CONFIGURE, &config) < 0) {
		(void)close(f->fd);
		f->fd = -1;
	}
	assert_int_equal(close((int)config.fd), 0);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	assert_non_null(f);
	temp_dir_make(&f->dir);
	f->io = new_loop();
	(void)snprintf(f->backing, sizeof(f->backing), "%s/backing", f->dir.path);
	fd = open(f->backing, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, (off_t)DEVICE_BYTES), 0);
	assert_int_equal(close(fd), 0);
	attach(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	uring_free(f->io);
	if (f->fd >= 0) {
		(void)ioctl(f->fd, LOOP_CLR_FD);
		(void)close(f->fd);
	}
	temp_dir_remove(&f->dir);
	free(f);
	return 0;
}

/* Flushes that the device has been sent, as the kernel counts them. */
static uint64_t flush_count(const struct fixture *f)
{
	uint64_t numbers[17] = { 0 };
	char path[128];
	FILE *file;

	(void)snprintf(path, sizeof(path), "/sys/block/%s/stat", f->device + strlen("/dev/"));
	file = fopen(path, "re");
	assert_non_null(file);
	for (size_t i = 0; i < array_len(numbers); i++)
		assert_int_equal(fscanf(file, "%lu", &numbers[i]), 1);
	assert_int_equal(fclose(file), 0);
	return numbers[15];
}

/* Durability is what cannot be seen without pulling the plug; that the flush is sent can be. */
static void durable_writes_flush_the_device(void **state)
{
	struct fixture *f = *state;
	const unsigned flags[] = { IO_OPEN_DIRECT, 0 };
	struct waited waited = { 0 };
	struct io_file *file;
	uint64_t before;
	uint8_t *buf;

	if (f->fd < 0)
		skip();
	buf = io_alloc(f->io, 4096, 4096);
	for (size_t i = 0; i < array_len(flags); i++) {
		assert_int_equal(io_file_open(f->io, f->device, flags[i], &file), 0);
		before = flush_count(f);
		io_write(file, buf, 4096, 0, 0, arm(&waited, f->io));
		assert_int_equal(finish(&waited), 4096);
		assert_int_equal(flush_count(f), before);
		io_write(file, buf, 4096, 4096, IO_DSYNC, arm(&waited, f->io));
		assert_int_equal(finish(&waited), 4096);
		assert_int_equal(flush_count(f), before + 1);
		io_flush(file, arm(&waited, f->io));
		assert_int_equal(finish(&waited), 0);
		assert_int_equal(flush_count(f), before + 2);
		io_write_zeroes(file, 0, 4096, IO_DSYNC, arm(&waited, f->io));
		assert_int_equal(finish(&waited), 0);
		assert_int_equal(flush_count(f), before + 3);
		io_file_close(file);
	}
	io_free(f->io, buf);
}

static void a_block_device(void **state)
{
	struct fixture *f = *state;
	struct waited waited = { 0 };
	struct io_file_info info;
	struct io_file *file, *second;
	uint8_t *buf;
	bool hole = true;
	struct stat before, after;

	if (f->fd < 0)
		skip();
	buf = io_alloc(f->io, MIB, 4096);
	assert_int_equal(io_file_open(f->io, f->device, IO_OPEN_DIRECT | IO_OPEN_EXCLUSIVE, &file),
			 0);
	assert_int_equal(io_file_open(f->io, f->device, IO_OPEN_EXCLUSIVE, &second), -EBUSY);
	io_file_info(file, &info);
	assert_true(info.is_device && info.direct && info.discards);
	assert_int_equal(info.size_bytes, DEVICE_BYTES);
	assert_int_equal(info.block_bytes, 4096);

	memset(buf, 0xab, MIB);
	io_write(file, buf, MIB, MIB, IO_DSYNC, arm(&waited, f->io));
	assert_int_equal(finish(&waited), MIB);
	io_write(file, buf, 512, 0, 0, arm(&waited, f->io)); /* less than its block */
	assert_int_equal(finish(&waited), -EINVAL);
	io_read(file, buf, 4096, DEVICE_BYTES, arm(&waited, f->io));
	assert_int_equal(finish(&waited), -EIO);

	/* A device cannot tell holes from data. */
	io_map(file, 0, DEVICE_BYTES, &hole, arm(&waited, f->io));
	assert_int_equal(finish(&waited), DEVICE_BYTES);
	assert_false(hole);

	/* Discarding reads as zeroes and gives the space back; zeroing without holes keeps it. */
	assert_int_equal(stat(f->backing, &before), 0);
	io_discard(file, MIB, MIB / 2, arm(&waited, f->io));
	assert_int_equal(finish(&waited), 0);
	assert_int_equal(stat(f->backing, &after), 0);
	assert_true(after.st_blocks < before.st_blocks);
	io_write_zeroes(file, MIB + MIB / 2, MIB / 4, IO_NO_HOLE, arm(&waited, f->io));
	assert_int_equal(finish(&waited), 0);
	io_flush(file, arm(&waited, f->io));
	assert_int_equal(finish(&waited), 0);
	io_read(file, buf, MIB, MIB, arm(&waited, f->io));
	assert_int_equal(finish(&waited), MIB);
	for (size_t i = 0; i < MIB; i++)
		assert_int_equal(buf[i], i < MIB / 4 * 3 ? 0 : 0xab);
	io_file_close(file);
	assert_int_equal(io_file_open(f->io, f->device, IO_OPEN_EXCLUSIVE, &second), 0);
	io_file_close(second);
	io_free(f->io, buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_block_device, set_up, tear_down),
		cmocka_unit_test_setup_teardown(durable_writes_flush_the_device, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
