/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cli/cli.h"

const struct cli_verb cli_verbs[] = {
	{ "status", cli_status, "[-w [SECONDS]] [--check] [GROUP]",
	  "show every group: role, state, position, how far behind",
	  "  -w, --watch [SECONDS]  draw again every 2 s, or every SECONDS\n"
	  "      --check            exit with 4 when a group is not protected\n" },
	{ "init", cli_init, "GROUP --role primary|standby",
	  "make a group's directory and journal on this node",
	  "      --role ROLE        primary serves the volumes, standby receives into them\n" },
	{ "promote", cli_promote, "GROUP [--force] [--expect-epoch N] [--timeout SECONDS]",
	  "make this node's standby the primary and serve it",
	  "      --force            although the primary is alive and connected\n"
	  "      --expect-epoch N   refuse unless N is the current epoch\n"
	  "      --timeout SECONDS  wait at most that long for the answer (600)\n" },
	{ "mark", cli_mark, "GROUP NAME", "give the current position of the history a name", "" },
	{ "journal", cli_journal, "list|check GROUP|DIRECTORY",
	  "read a journal offline: list its segments, or check all of it",
	  "  list   one line for each segment\n"
	  "  check  every checksum and the whole chain; exits with 4 where something is "
	  "damaged\n" },
	{ "config", cli_config, "check|show", "check the configuration, or show what is in force",
	  "" },
	{ "pki", cli_pki, "init|issue NODE|show [FILE]|revoke NODE|SERIAL|crl",
	  "the private certificate authority of the nodes",
	  "      --dir DIRECTORY    of the authority (/etc/holdfast/pki)\n"
	  "      --out DIRECTORY    issue: where certificate and key go (the current one)\n"
	  "      --days N           validity (init 3650, issue 825)\n"
	  "      --name NAME        init: the authority's name\n"
	  "      --algorithm A      p256 (default) or ed25519\n"
	  "      --dns NAME         issue: one more host name in the certificate\n"
	  "      --ip ADDRESS       issue: one more address in the certificate\n" },
	{ "doctor", cli_doctor, "", "check kernel, limits, files, certificates, clock, peers",
	  "  exits with 4 when something fails\n" },
	{ 0 },
};

const struct cli_verb *cli_verb(const char *name)
{
	for (const struct cli_verb *verb = cli_verbs; verb->name; verb++) {
		if (strcmp(verb->name, name) == 0)
			return verb;
	}
	return NULL;
}

void cli_help(FILE *out, const struct cli_verb *verb)
{
	if (verb) {
		(void)fprintf(out, "usage: holdfast %s %s\n\n%s.\n\n", verb->name, verb->synopsis,
			      verb->summary);
		(void)fprintf(out,
			      "%s"
			      "  -c, --config FILE      configuration (%s)\n"
			      "  -o, --output FORMAT    table or json\n"
			      "      --yes              do not ask\n"
			      "  -h, --help             this\n",
			      verb->help, CONF_PATH_DEFAULT);
		return;
	}
	(void)fputs("usage: holdfast VERB [ARGUMENTS]\n\n", out);
	for (verb = cli_verbs; verb->name; verb++)
		(void)fprintf(out, "  %-9s %s\n", verb->name, verb->summary);
	(void)fputs(
		"  version   print the version\n"
		"  help      print this, or with a verb its options\n\n"
		"Exit codes: 0 ok, 1 failure, 2 usage or configuration, 4 a check failed,\n"
		"5 refused for safety, 6 nobody answers, 7 conflict, 8 timed out, 9 not found.\n",
		out);
}
