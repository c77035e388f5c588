/* SPDX-License-Identifier: Apache-2.0 */
/* Runs tests/decoder/hfdecode.py in a directory of the test's own. Header only, one thread. */
#ifndef HOLDFAST_TESTS_UNIT_PROTO_DECODER_H
#define HOLDFAST_TESTS_UNIT_PROTO_DECODER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[256];
static char output[8u << 20];

static inline void write_file(const char *name, const void *bytes, size_t len)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "we");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

static inline size_t read_file(const char *name, void *bytes, size_t max)
{
	char path[512];
	FILE *file;
	size_t len;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "re");
	assert_non_null(file);
	len = fread(bytes, 1, max, file);
	fclose(file);
	return len;
}

/* Runs the decoder in the test's directory; `output` gets what it prints. Returns its exit status.
 */
static inline int decoder(const char *args)
{
	const char *source = getenv("HOLDFAST_SOURCE");
	char here[2048], command[4096];
	int status, r;
	size_t len;
	FILE *pipe;

	if (source == NULL)
		source = getcwd(here, sizeof(here));
	r = snprintf(command, sizeof(command),
		     "cd '%s' && exec python3 -BIS '%s/tests/decoder/hfdecode.py' %s 2>errors", dir,
		     source, args);
	assert_true(r > 0 && (size_t)r < sizeof(command));
	pipe = popen(command, "re");
	assert_non_null(pipe);
	len = fread(output, 1, sizeof(output) - 1, pipe);
	output[len] = '\0';
	status = pclose(pipe);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static inline void decoder_well(const char *args)
{
	static char errors[4096];

	if (decoder(args) != 0) {
		errors[read_file("errors", errors, sizeof(errors) - 1)] = '\0';
		fail_msg("hfdecode %s: %s", args, errors);
	}
}

static inline int setup(void **state)
{
	const char *base = getenv("TMPDIR");
	char path[512];

	(void)state;
	snprintf(dir, sizeof(dir), "%s/holdfast-decoder-XXXXXX", base ? base : "/tmp");
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(path, sizeof(path), "%s/journal", dir);
	return mkdir(path, 0700);
}

static inline int teardown(void **state)
{
	char command[512];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

#endif
