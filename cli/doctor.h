/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast doctor: what its checks share.
 */
#ifndef HOLDFAST_CLI_DOCTOR_H
#define HOLDFAST_CLI_DOCTOR_H

#include "cli/cli.h"

enum finding {
	FINDING_OK,
	FINDING_WARN,
	FINDING_FAIL
};

#define FINDINGS_MAX 1024u

struct doctor_line {
	enum finding finding;
	char check[64], detail[256], remedy[200];
};

struct doctor {
	const struct conf *conf;
	struct doctor_line *lines;
	unsigned count;
};

/* `remedy` is not shown with FINDING_OK. */
void doctor_say(struct doctor *doctor, enum finding finding, const char *check, const char *remedy,
		const char *format, ...) __attribute__((format(printf, 5, 6)));

/* doctor_host.c: kernel, limits, clock */
void doctor_check_kernel(struct doctor *doctor);
void doctor_check_limits(struct doctor *doctor);
void doctor_check_clock(struct doctor *doctor);
/* doctor_site.c: what the configuration names */
void doctor_check_directories(struct doctor *doctor);
void doctor_check_certificates(struct doctor *doctor);
void doctor_check_volumes(struct doctor *doctor);
void doctor_check_peers(struct doctor *doctor);
void doctor_check_daemons(struct doctor *doctor, const struct cli *cli);

#endif
