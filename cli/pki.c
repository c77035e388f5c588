/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/pki.h"

#include <errno.h>
#include <libsmartcols.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/units.h"

#define PKI_DIR_DEFAULT "/etc/holdfast/pki"
#define CA_DAYS		3650u
#define NODE_DAYS	825u
#define DAYS_MAX	36500u

struct arguments {
	const char *dir, *out, *name, *algorithm, *dns, *ip;
	unsigned days;	  /* 0: the default */
	const char *what; /* behind the command; NULL when absent */
};

static int failed(const struct cli *cli, int res, const char *error)
{
	enum exit_code code = res == -EEXIST   ? EXIT_CONFLICT
			      : res == -ENOENT ? EXIT_NOT_FOUND
			      : res == -EINVAL ? EXIT_USAGE
					       : EXIT_FAILED;

	return cli_fail(cli, code, err_name(res), "", "pki: %s", error);
}

static int run_init(struct cli *cli, const struct arguments *arguments)
{
	char error[1024];
	int res;

	if (strcmp(arguments->algorithm, "p256") != 0 &&
	    strcmp(arguments->algorithm, "ed25519") != 0)
		return cli_fail(cli, EXIT_USAGE, "usage", "use p256 or ed25519",
				"pki init: algorithm '%s' is unknown", arguments->algorithm);
	res = pki_init(arguments->dir, arguments->name, arguments->algorithm,
		       arguments->days ? arguments->days : CA_DAYS, error, sizeof(error));
	if (res < 0)
		return failed(cli, res, error);
	if (cli->json)
		return cli_print_json(json_pack("{s:s, s:s}", "directory", arguments->dir, "name",
						arguments->name));
	printf("the authority is made in %s\n"
	       "  keep ca.key safe and off the nodes; every node gets ca.pem and ca.crl\n"
	       "next: holdfast pki issue NODE --dir %s\n",
	       arguments->dir, arguments->dir);
	return EXIT_OK;
}

/* One option may carry several names, with commas between them. */
static bool split_names(char *text, const char **names, unsigned *ret_count)
{
	for (char *at = text; at; (*ret_count)++) {
		if (*ret_count == PKI_NAMES_MAX)
			return false;
		names[*ret_count] = at;
		at = strchr(at, ',');
		if (at)
			*at++ = '\0';
	}
	return true;
}

static int run_issue(struct cli *cli, const struct arguments *arguments)
{
	char cert_path[512], key_path[512], error[1024], dns[1024], ip[1024];
	struct pki_names names = { .dns_count = 0 };
	struct pki pki;
	int res;

	(void)snprintf(dns, sizeof(dns), "%s", arguments->dns ? arguments->dns : "");
	(void)snprintf(ip, sizeof(ip), "%s", arguments->ip ? arguments->ip : "");
	if ((dns[0] && !split_names(dns, names.dns, &names.dns_count)) ||
	    (ip[0] && !split_names(ip, names.ip, &names.ip_count)))
		return cli_fail(cli, EXIT_USAGE, "usage", "name fewer",
				"pki issue: more than %u names", PKI_NAMES_MAX);
	res = pki_open(&pki, arguments->dir, error, sizeof(error));
	if (res == 0)
		res = pki_issue(&pki, arguments->what, &names,
				arguments->days ? arguments->days : NODE_DAYS, arguments->out,
				cert_path, key_path, error, sizeof(error));
	pki_close(&pki);
	if (res < 0)
		return failed(cli, res, error);
	if (cli->json)
		return cli_print_json(json_pack("{s:s, s:s, s:s}", "node", arguments->what, "cert",
						cert_path, "key", key_path));
	printf("certificate of %s: %s\n"
	       "its key:           %s\n"
	       "next: bring both, ca.pem and ca.crl of %s to the node, and name them in its "
	       "tls { }\n",
	       arguments->what, cert_path, key_path, arguments->dir);
	return EXIT_OK;
}

static int run_revoke(struct cli *cli, const struct arguments *arguments)
{
	unsigned count = 0;
	char error[1024];
	struct pki pki;
	int res = pki_open(&pki, arguments->dir, error, sizeof(error));

	if (res == 0)
		res = pki_revoke(&pki, arguments->what, &count, error, sizeof(error));
	pki_close(&pki);
	if (res < 0)
		return failed(cli, res, error);
	if (cli->json)
		return cli_print_json(
			json_pack("{s:s, s:i}", "revoked", arguments->what, "count", (int)count));
	printf("%u certificate%s of %s revoked%s\n"
	       "next: bring %s/ca.crl to every node, and reload its daemons (SIGHUP)\n",
	       count, count == 1 ? "" : "s", arguments->what,
	       count ? "" : ", the earlier ones stay so", arguments->dir);
	return EXIT_OK;
}

static int run_crl(struct cli *cli, const struct arguments *arguments)
{
	char error[1024];
	struct pki pki;
	int res = pki_open(&pki, arguments->dir, error, sizeof(error));

	if (res == 0)
		res = pki_write_crl(&pki, error, sizeof(error));
	pki_close(&pki);
	if (res < 0)
		return failed(cli, res, error);
	if (cli->json)
		return cli_print_json(json_pack("{s:s}", "directory", arguments->dir));
	printf("%s/ca.crl is written anew\n", arguments->dir);
	return EXIT_OK;
}

static int show_index(struct cli *cli, const struct arguments *arguments)
{
	static const char *const columns[] = { "IDENTITY", "STATE", "ENDS", "SERIAL" };
	struct libscols_table *table;
	char error[1024];
	struct pki pki;
	json_t *list;
	int res = pki_open(&pki, arguments->dir, error, sizeof(error));

	if (res < 0) {
		pki_close(&pki);
		return failed(cli, res, error);
	}
	if (cli->json) {
		list = json_array();
		for (size_t i = 0; i < pki.entry_count; i++)
			json_array_append_new(list, json_pack("{s:s, s:b, s:s, s:s}", "identity",
							      pki.entries[i].identity, "revoked",
							      (int)pki.entries[i].revoked, "ends",
							      pki.entries[i].ends, "serial",
							      pki.entries[i].serial));
		pki_close(&pki);
		return cli_print_json(
			json_pack("{s:s, s:o}", "directory", arguments->dir, "certificates", list));
	}
	table = scols_new_table();
	for (size_t i = 0; table && i < array_len(columns); i++)
		(void)scols_table_new_column(table, columns[i], 0, 0);
	for (size_t i = 0; table && i < pki.entry_count; i++) {
		struct libscols_line *line = scols_table_new_line(table, NULL);

		(void)scols_line_set_data(line, 0, pki.entries[i].identity);
		(void)scols_line_set_data(line, 1, pki.entries[i].revoked ? "revoked" : "valid");
		(void)scols_line_set_data(line, 2, pki.entries[i].ends);
		(void)scols_line_set_data(line, 3, pki.entries[i].serial);
	}
	if (pki.entry_count > 0 && table)
		(void)scols_print_table(table);
	else
		printf("nothing has been issued in %s\n", arguments->dir);
	scols_unref_table(table);
	pki_close(&pki);
	return EXIT_OK;
}

static int run_show(struct cli *cli, const struct arguments *arguments)
{
	struct pki_view view;
	char error[1024];
	int res;

	if (!arguments->what)
		return show_index(cli, arguments);
	res = pki_view(arguments->what, &view, error, sizeof(error));
	if (res < 0)
		return failed(cli, res, error);
	if (cli->json)
		return cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "file",
						arguments->what, "identity", view.identity,
						"subject", view.subject, "issuer", view.issuer,
						"serial", view.serial, "begins", view.begins,
						"ends", view.ends, "ca", (int)view.is_ca));
	printf("%s: %s\n", arguments->what, view.is_ca ? "an authority" : "a node's certificate");
	if (view.identity[0])
		printf("  identity  %s\n", view.identity);
	printf("  subject   %s\n  issuer    %s\n  serial    %s\n  valid     %s to %s%s\n",
	       view.subject, view.issuer, view.serial, view.begins, view.ends,
	       view.ends_in_s < 0 ? " (expired)" : "");
	return EXIT_OK;
}

static const struct command {
	const char *name;
	int (*run)(struct cli *cli, const struct arguments *arguments);
	bool needs_what, takes_what;
} commands[] = {
	{ "init", run_init, false, false }, { "issue", run_issue, true, true },
	{ "show", run_show, false, true },  { "revoke", run_revoke, true, true },
	{ "crl", run_crl, false, false },
};

int cli_pki(struct cli *cli, int argc, char **argv)
{
	struct arguments arguments = {
		.dir = PKI_DIR_DEFAULT, .out = ".", .name = "Holdfast CA", .algorithm = "p256"
	};
	const char *days = NULL;
	const struct cli_option options[] = {
		{ "dir", 0, CLI_TEXT, NULL, &arguments.dir },
		{ "out", 0, CLI_TEXT, NULL, &arguments.out },
		{ "name", 0, CLI_TEXT, NULL, &arguments.name },
		{ "algorithm", 0, CLI_TEXT, NULL, &arguments.algorithm },
		{ "days", 0, CLI_TEXT, NULL, &days },
		{ "dns", 0, CLI_TEXT, NULL, &arguments.dns },
		{ "ip", 0, CLI_TEXT, NULL, &arguments.ip },
	};
	uint64_t number = 0;
	int first, code;

	if (cli_parse(cli, argc, argv, options, array_len(options), 1, 2, &first, &code) ==
	    CLI_STOP)
		return code;
	if (days && (units_parse_u64(days, &number) != 0 || number < 1 || number > DAYS_MAX))
		return cli_fail(cli, EXIT_USAGE, "usage", "write 1 to 36500",
				"pki: '%s' is no number of days", days);
	if (strlen(arguments.dir) > 240 || strlen(arguments.out) > 240)
		return cli_fail(cli, EXIT_USAGE, "usage", "use a shorter path",
				"pki: the directory's path is too long");
	arguments.days = (unsigned)number;
	arguments.what = first + 1 < argc ? argv[first + 1] : NULL;
	for (size_t i = 0; i < array_len(commands); i++) {
		if (strcmp(commands[i].name, argv[first]) != 0)
			continue;
		if (commands[i].needs_what && !arguments.what)
			return cli_fail(cli, EXIT_USAGE, "usage", "see holdfast help pki",
					"pki %s: whose is missing", argv[first]);
		if (!commands[i].takes_what && arguments.what)
			return cli_fail(cli, EXIT_USAGE, "usage", "see holdfast help pki",
					"pki %s: unexpected argument '%s'", argv[first],
					arguments.what);
		return commands[i].run(cli, &arguments);
	}
	return cli_fail(cli, EXIT_USAGE, "usage", "use init, issue, show, revoke or crl",
			"pki: '%s' is unknown", argv[first]);
}
