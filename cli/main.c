/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast: the operator's command.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int main(int argc, char **argv)
{
	struct cli cli = { .conf_path = CONF_PATH_DEFAULT };
	const struct cli_verb *verb;
	int code, skip = 1;

	(void)signal(SIGPIPE, SIG_IGN);
	/* Before the verb, too, as one is used to from other commands. */
	while (argc - skip >= 3) {
		if (strcmp(argv[skip], "-c") == 0 || strcmp(argv[skip], "--config") == 0)
			cli.conf_path = argv[skip + 1];
		else if (strcmp(argv[skip], "-o") == 0 || strcmp(argv[skip], "--output") == 0)
			cli.json = strcmp(argv[skip + 1], "json") == 0;
		else
			break;
		skip += 2;
	}
	if (argc <= skip) {
		cli_help(stderr, NULL);
		return EXIT_USAGE;
	}
	if (strcmp(argv[skip], "version") == 0 || strcmp(argv[skip], "--version") == 0) {
		printf("holdfast %s\n", HOLDFAST_VERSION);
		return EXIT_OK;
	}
	if (strcmp(argv[skip], "help") == 0 || strcmp(argv[skip], "--help") == 0 ||
	    strcmp(argv[skip], "-h") == 0) {
		verb = argc > skip + 1 ? cli_verb(argv[skip + 1]) : NULL;
		if (argc > skip + 1 && !verb)
			return cli_fail(&cli, EXIT_USAGE, "usage", "see holdfast help",
					"there is no verb '%s'", argv[skip + 1]);
		cli_help(stdout, verb);
		return EXIT_OK;
	}
	verb = cli_verb(argv[skip]);
	if (!verb)
		return cli_fail(&cli, EXIT_USAGE, "usage", "see holdfast help",
				"there is no verb '%s'", argv[skip]);
	code = verb->run(&cli, argc - skip, argv + skip);
	conf_free(cli.conf);
	if (fflush(stdout) != 0 && code == EXIT_OK)
		code = EXIT_FAILED;
	return code;
}
