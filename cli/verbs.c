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
	{ "switchover", cli_switchover, "GROUP [--to NODE] [--timeout T] [--expect-epoch N]",
	  "hand a served group over to its standby; nothing is lost",
	  "      --to NODE          the standby, where there are several\n"
	  "      --timeout T        hold writes at most that long (30 s): seconds, or 500ms\n"
	  "      --expect-epoch N   refuse unless N is the current epoch\n" },
	{ "demote", cli_demote, "GROUP [--without-salvage] [--expect-epoch N]",
	  "let a fenced or diverged copy follow; what only it has becomes salvage",
	  "      --without-salvage  also where its journal no longer holds all of that: the\n"
	  "                         content of the rest, on its volumes only, is overwritten\n"
	  "      --expect-epoch N   refuse unless N is the current epoch of this copy\n" },
	{ "accept", cli_accept, "GROUP --expect-epoch N",
	  "serve a primary that is held, with what is here, under a higher epoch",
	  "      --expect-epoch N   the current epoch, as status shows it\n" },
	{ "resync", cli_resync, "GROUP [--to NODE] [--everything] [--compare] | GROUP --drop-kept",
	  "copy to a standby again what is known to differ, or everything",
	  "      --to NODE          this standby only\n"
	  "      --everything       not only what is known to differ\n"
	  "      --compare          compare ranges first, send only what differs\n"
	  "      --drop-kept        on a standby: give up the position that it keeps while it is\n"
	  "                         copied to; there is nothing to promote until the copy ends\n" },
	{ "verify", cli_verify,
	  "GROUP [--to NODE] [--repair] [--rate R] [--no-wait] | GROUP [--to NODE] --stop",
	  "compare standbys with this copy while writes go on",
	  "      --to NODE          this standby only\n"
	  "      --repair           send again what differs\n"
	  "      --rate R           bytes per second, like 64MiB (as configured)\n"
	  "      --no-wait          return at once; status shows progress and result\n"
	  "      --stop             end one that runs\n"
	  "  exits with 4 when ranges differ\n" },
	{ "salvage", cli_salvage, "list GROUP | show|extract|drop GROUP ID",
	  "writes that this copy had and the ruling history has not",
	  "  list     those that are kept, with their IDs\n"
	  "  show     every record: volume, offset, length, time\n"
	  "  extract  an image of each volume with the newest content, and map.json\n"
	  "  drop     remove one for good\n"
	  "      --out DIRECTORY    extract: where to (GROUP-ID)\n"
	  "      --raw              extract: every record instead, as records.json and "
	  "records.data\n" },
	{ "volume", cli_volume, "resize GROUP NAME",
	  "let a volume grow to what its file or device has become",
	  "  devices of standbys are enlarged first; their files grow by themselves\n" },
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
		(void)fprintf(out, "  %-10s %s\n", verb->name, verb->summary);
	(void)fputs(
		"  version    print the version\n"
		"  help       print this, or with a verb its options\n\n"
		"Exit codes: 0 ok, 1 failure, 2 usage or configuration, 4 a check failed,\n"
		"5 refused for safety, 6 nobody answers, 7 conflict, 8 timed out, 9 not found.\n",
		out);
}
