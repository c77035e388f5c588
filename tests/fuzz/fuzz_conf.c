/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file: accepted or refused with words, never anything else. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/must.h"
#include "core/conf/conf.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static char error[32768];
	char path[32];
	struct conf *conf = NULL;
	int fd, res;

	fd = memfd_create("fuzz", MFD_CLOEXEC);
	must(fd >= 0 && write(fd, input, size) == (ssize_t)size);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	memset(error, 'x', sizeof(error) - 1);
	res = conf_load(path, &conf, error, sizeof(error));
	(void)close(fd);
	if (res < 0) {
		/* It says something, and where. */
		must(strnlen(error, sizeof(error)) < sizeof(error) && strstr(error, path));
		return 0;
	}
	must(res == 0 && conf && conf->node && conf->state_dir && conf->run_dir);
	for (unsigned i = 0; i < conf->group_count; i++)
		must(conf->groups[i].name && conf->groups[i].volume_count > 0);
	conf_free(conf);
	return 0;
}
