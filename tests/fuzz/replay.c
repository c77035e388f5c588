/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives a fuzz target every file of the named files and directories, so that what fuzzing once
 * found stays found without clang. No file at all is a failure.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_MAX_BYTES ((size_t)64 << 20)

static int replay_file(const char *path, size_t *count)
{
	FILE *file = fopen(path, "re");
	uint8_t *bytes = NULL;
	uint8_t *exact = NULL;
	int result = -1;
	size_t length;

	if (!file)
		goto out;
	bytes = malloc(INPUT_MAX_BYTES);
	if (!bytes)
		goto out;
	length = fread(bytes, 1, INPUT_MAX_BYTES, file);
	if (ferror(file))
		goto out;
	/* A block of its own, of exactly this size, lets AddressSanitizer see a read beyond the
	 * end. */
	exact = malloc(length > 0 ? length : 1);
	if (!exact)
		goto out;
	memcpy(exact, bytes, length);
	(void)LLVMFuzzerTestOneInput(exact, length);
	++*count;
	result = 0;
out:
	if (result < 0)
		(void)fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
	free(exact);
	free(bytes);
	if (file)
		(void)fclose(file);
	return result;
}

static int replay_path(const char *path, size_t *count)
{
	struct dirent **entries;
	struct stat status;
	int result = 0;
	int entry_count;
	int i;

	if (stat(path, &status) < 0) {
		(void)fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(status.st_mode))
		return replay_file(path, count);
	entry_count = scandir(path, &entries, NULL, alphasort);
	if (entry_count < 0) {
		(void)fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
		return -1;
	}
	for (i = 0; i < entry_count; i++) {
		char inner[4096];

		if (entries[i]->d_name[0] != '.') {
			(void)snprintf(inner, sizeof(inner), "%s/%s", path, entries[i]->d_name);
			if (replay_path(inner, count) < 0)
				result = -1;
		}
		free(entries[i]);
	}
	free(entries);
	return result;
}

int main(int argc, char **argv)
{
	size_t count = 0;
	int result = 0;
	int i;

	for (i = 1; i < argc; i++) {
		if (replay_path(argv[i], &count) < 0)
			result = 1;
	}
	(void)printf("%zu inputs replayed\n", count);
	return result != 0 || count == 0;
}
