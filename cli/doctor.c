/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/doctor.h"

#include <libsmartcols.h>
#include <stdarg.h>
#include <stdlib.h>

static const char *const words[] = { "ok", "warn", "fail" };

void doctor_say(struct doctor *doctor, enum finding finding, const char *check, const char *remedy,
		const char *format, ...)
{
	struct doctor_line *line;
	va_list args;

	if (doctor->count == FINDINGS_MAX)
		return;
	line = &doctor->lines[doctor->count++];
	line->finding = finding;
	(void)snprintf(line->check, sizeof(line->check), "%s", check);
	(void)snprintf(line->remedy, sizeof(line->remedy), "%s",
		       finding == FINDING_OK ? "" : remedy);
	va_start(args, format);
	(void)vsnprintf(line->detail, sizeof(line->detail), format, args);
	va_end(args);
}

static int show_json(const struct doctor *doctor)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < doctor->count; i++) {
		const struct doctor_line *line = &doctor->lines[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "check", line->check,
						      "result", words[line->finding], "detail",
						      line->detail, "remedy", line->remedy));
	}
	return cli_print_json(json_pack("{s:s, s:o}", "node", doctor->conf->node, "checks", list));
}

static int show_table(const struct cli *cli, const struct doctor *doctor)
{
	struct libscols_table *table = scols_new_table();

	if (!table)
		return cli_fail(cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	(void)scols_table_new_column(table, "CHECK", 0, 0);
	(void)scols_table_new_column(table, "RESULT", 0, 0);
	(void)scols_table_new_column(table, "FOUND", 0, SCOLS_FL_WRAP);
	for (unsigned i = 0; i < doctor->count; i++) {
		struct libscols_line *line = scols_table_new_line(table, NULL);

		(void)scols_line_set_data(line, 0, doctor->lines[i].check);
		(void)scols_line_set_data(line, 1, words[doctor->lines[i].finding]);
		(void)scols_line_set_data(line, 2, doctor->lines[i].detail);
	}
	(void)scols_print_table(table);
	scols_unref_table(table);
	for (unsigned i = 0; i < doctor->count; i++) {
		if (doctor->lines[i].remedy[0])
			printf("%s: %s\n", doctor->lines[i].check, doctor->lines[i].remedy);
	}
	return EXIT_OK;
}

int cli_doctor(struct cli *cli, int argc, char **argv)
{
	struct doctor doctor = { .conf = NULL };
	unsigned failed = 0;
	int first, code;

	if (cli_parse(cli, argc, argv, NULL, 0, 0, 0, &first, &code) == CLI_STOP)
		return code;
	code = cli_load(cli);
	if (code != EXIT_OK)
		return code;
	doctor.conf = cli->conf;
	doctor.lines = calloc(FINDINGS_MAX, sizeof(*doctor.lines));
	if (!doctor.lines)
		return cli_fail(cli, EXIT_FAILED, "ENOMEM", "", "out of memory");
	doctor_say(&doctor, FINDING_OK, "configuration", "", "%s, node %s, %u groups",
		   cli->conf->file, cli->conf->node, cli->conf->group_count);
	doctor_check_kernel(&doctor);
	doctor_check_limits(&doctor);
	doctor_check_clock(&doctor);
	doctor_check_directories(&doctor);
	doctor_check_certificates(&doctor);
	doctor_check_volumes(&doctor);
	doctor_check_peers(&doctor);
	doctor_check_daemons(&doctor, cli);
	code = cli->json ? show_json(&doctor) : show_table(cli, &doctor);
	for (unsigned i = 0; i < doctor.count; i++)
		failed += doctor.lines[i].finding == FINDING_FAIL;
	free(doctor.lines);
	(void)fflush(stdout);
	if (code == EXIT_OK && failed > 0)
		code = cli_fail(cli, EXIT_CHECK, "checks-failed", "see the remedies above",
				"%u check%s failed", failed, failed == 1 ? "" : "s");
	return code;
}
