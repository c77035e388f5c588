/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timex.h>
#include <unistd.h>

#include "cli/doctor.h"
#include "core/base/err.h"
#include "core/base/units.h"
#include "core/io/uring.h"

#define FILES_MIN 1024u

void doctor_check_kernel(struct doctor *doctor)
{
	struct uring_features features = { .available = false };

	uring_probe(&features);
	if (!features.available) {
		doctor_say(doctor, FINDING_FAIL, "io_uring",
			   "use Linux 6.1 or newer and allow io_uring (sysctl "
			   "kernel.io_uring_disabled=0, seccomp of the container)",
			   "not available: %s", err_text(features.available_errno));
		return;
	}
	doctor_say(doctor, FINDING_OK, "io_uring", "", "kernel %s, available", features.kernel);
	doctor_say(doctor, features.defer_taskrun ? FINDING_OK : FINDING_WARN, "io_uring modes",
		   "a newer kernel would be faster",
		   "single issuer %s, deferred work %s, registered files %s, registered buffers %s",
		   features.single_issuer ? "yes" : "no", features.defer_taskrun ? "yes" : "no",
		   features.registered_files ? "yes" : "no",
		   features.registered_buffers ? "yes" : "no");
}

static const char *limit_text(rlim_t value, char text[UNITS_TEXT_BYTES])
{
	if (value == RLIM_INFINITY)
		return "unlimited";
	return units_format_size(value, text);
}

void doctor_check_limits(struct doctor *doctor)
{
	struct rlimit limit;
	uint64_t memory = 0, pages, have;
	char want[UNITS_TEXT_BYTES], text[UNITS_TEXT_BYTES];

	for (unsigned i = 0; i < doctor->conf->group_count; i++)
		memory += doctor->conf->groups[i].memory_bytes;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		doctor_say(doctor, limit.rlim_max < FILES_MIN ? FINDING_FAIL : FINDING_OK,
			   "open files", "raise LimitNOFILE (the units set 65536)",
			   "at most %llu here; the units set their own",
			   (unsigned long long)limit.rlim_max);
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0)
		doctor_say(doctor,
			   limit.rlim_max != RLIM_INFINITY && limit.rlim_max < memory ? FINDING_WARN
										      : FINDING_OK,
			   "locked memory",
			   "set LimitMEMLOCK=infinity (the units do); without it I/O is slower",
			   "%s here, buffers of all groups take %s",
			   limit_text(limit.rlim_max, text), units_format_size(memory, want));
	pages = (uint64_t)sysconf(_SC_PHYS_PAGES);
	have = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	doctor_say(doctor, memory > have / 2 ? FINDING_WARN : FINDING_OK, "memory",
		   "lower memory of the groups, or add some", "%s of %s are for groups",
		   units_format_size(memory, want), units_format_size(have, text));
}

void doctor_check_clock(struct doctor *doctor)
{
	struct timex now = { .modes = 0 };
	int state = adjtimex(&now);
	uint64_t error_us;

	if (state < 0) {
		doctor_say(doctor, FINDING_WARN, "clock", "check the time service by hand",
			   "cannot be asked: %s", err_text(errno));
		return;
	}
	error_us = now.maxerror > 0 ? (uint64_t)now.maxerror : 0;
	if (state == TIME_ERROR || (now.status & STA_UNSYNC))
		doctor_say(doctor, FINDING_WARN, "clock",
			   "run chrony or systemd-timesyncd: times of positions and of the RPO "
			   "compare clocks of two sites",
			   "not synchronised");
	else
		doctor_say(doctor, error_us > 1000000 ? FINDING_WARN : FINDING_OK, "clock",
			   "check the time service", "synchronised, at most %" PRIu64 " ms off",
			   error_us / 1000);
}
