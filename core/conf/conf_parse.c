/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libconfuse's part: the schema, and every value kept as text with its line, so that conf.c judges
 * all of them in one place and in the same words.
 */
#include <confuse.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/conf/internal.h"

#define ATTEMPTS_MAX CONF_ERRORS_MAX

/* libconfuse's callbacks carry no context. */
struct parse {
	struct conf_errors *errors;
	unsigned unknown_line; /* what stopped this attempt, when it can be taken out */
	char unknown[128];
	bool is_title;
};
static _Thread_local struct parse *current;

static int keep_value(cfg_t *cfg, cfg_opt_t *opt, const char *value, void *result)
{
	struct conf_leaf *leaf = calloc(1, sizeof(*leaf));
	unsigned line = (unsigned)cfg->line;

	if (leaf)
		leaf->text = strdup(value);
	if (!leaf || !leaf->text) {
		free(leaf);
		return -1;
	}
	leaf->line = line;
	/* The option's line is kept from its first assignment; a second one starts over at 1. */
	if (opt->nvalues == 1 && opt->comment)
		conf_errors_add(current->errors, line, "keep one of them",
				"'%s' is set twice in the same section", opt->name);
	if (opt->nvalues == 1 && !opt->comment)
		opt->comment = strdup("set");
	*(void **)result = leaf;
	return 0;
}

static void drop_value(void *value)
{
	struct conf_leaf *leaf = value;

	if (leaf)
		free(leaf->text);
	free(leaf);
}

static void list_names(const cfg_t *cfg, char *out, size_t out_max)
{
	size_t used = 0;

	out[0] = '\0';
	for (const cfg_opt_t *opt = cfg->opts; opt->name; opt++) {
		int n = snprintf(out + used, out_max - used, "%s%s", used ? ", " : "", opt->name);

		if (n < 0 || (size_t)n >= out_max - used)
			return;
		used += (size_t)n;
	}
}

static void on_error(cfg_t *cfg, const char *format, va_list args)
{
	bool unknown = strstr(format, "no such option") != NULL;
	bool duplicate = strstr(format, "duplicate title") != NULL;
	char what[400], known[300];

	if (unknown || duplicate) {
		va_list copy;

		va_copy(copy, args);
		(void)snprintf(current->unknown, sizeof(current->unknown), "%s",
			       va_arg(copy, const char *));
		va_end(copy);
		current->unknown_line = (unsigned)cfg->line;
		current->is_title = duplicate;
	}
	if (unknown) {
		list_names(cfg, known, sizeof(known));
		(void)snprintf(what, sizeof(what),
			       "known %s%s: ", strcmp(cfg->name, "root") == 0 ? "here" : "in ",
			       strcmp(cfg->name, "root") == 0 ? "" : cfg->name);
		(void)snprintf(what + strlen(what), sizeof(what) - strlen(what), "%s", known);
		conf_errors_add(current->errors, (unsigned)cfg->line, what, "unknown option '%s'",
				current->unknown);
	} else if (duplicate) {
		conf_errors_add(current->errors, (unsigned)cfg->line, "names must differ",
				"a second section is named '%s'", current->unknown);
	} else {
		/* The formats are the library's own literals. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		(void)vsnprintf(what, sizeof(what), format, args);
#pragma GCC diagnostic pop
		conf_errors_add(current->errors, (unsigned)cfg->line,
				"options are `name = value`, sections `name { ... }` or "
				"`name \"title\" { ... }`",
				"%s", what);
	}
}

#define VALUE(name)  CFG_PTR_CB(name, NULL, CFGF_NODEFAULT, keep_value, drop_value)
#define VALUES(name) CFG_PTR_LIST_CB(name, NULL, CFGF_NODEFAULT, keep_value, drop_value)
#define TITLED	     (CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES)

static cfg_t *new_schema(void)
{
	cfg_opt_t tls[] = { VALUE("ca"), VALUE("cert"), VALUE("key"), VALUE("crl"), CFG_END() };
	cfg_opt_t agent[] = { VALUE("nbd_listen"), VALUE("nbd_tls"), VALUE("metrics_listen"),
			      VALUE("nbd_connections_max"), CFG_END() };
	cfg_opt_t engine[] = { VALUE("listen"), VALUE("metrics_listen"), CFG_END() };
	cfg_opt_t volume[] = { VALUE("path"), CFG_END() };
	cfg_opt_t peer[] = { VALUE("address"),
			     VALUE("role"),
			     VALUE("window"),
			     VALUE("sync_rate"),
			     VALUE("sync_share"),
			     VALUE("bandwidth"),
			     VALUES("bandwidth_windows"),
			     VALUE("coalesce"),
			     VALUE("compare"),
			     CFG_END() };
	cfg_opt_t group[] = { VALUE("cache"),
			      VALUE("mode"),
			      VALUE("on_sync_loss"),
			      VALUE("sync_timeout"),
			      VALUE("undo_limit"),
			      VALUE("rejoin"),
			      VALUE("verify_interval"),
			      VALUE("verify_rate"),
			      VALUE("journal_size"),
			      VALUE("journal_file_size"),
			      VALUE("journal_retention"),
			      VALUE("memory"),
			      VALUE("checkpoint_interval"),
			      VALUE("flush_interval"),
			      VALUE("settle_timeout"),
			      VALUE("heartbeat"),
			      VALUE("peer_timeout"),
			      VALUE("rpo_objective"),
			      VALUE("rto_objective"),
			      VALUES("nbd_clients"),
			      CFG_SEC("volume", volume, TITLED),
			      CFG_SEC("peer", peer, TITLED),
			      CFG_END() };
	/* tls, agent and engine are MULTI only so that a second one is seen and refused. */
	cfg_opt_t root[] = { VALUE("node"),
			     VALUE("state_dir"),
			     VALUE("run_dir"),
			     VALUE("log_level"),
			     CFG_SEC("tls", tls, CFGF_MULTI),
			     CFG_SEC("agent", agent, CFGF_MULTI),
			     CFG_SEC("engine", engine, CFGF_MULTI),
			     CFG_SEC("group", group, TITLED),
			     CFG_END() };

	return cfg_init(root, CFGF_NONE);
}

struct cfg_t *conf_parse(struct conf_text *text, struct conf_errors *errors)
{
	for (unsigned attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
		unsigned errors_before = errors->count;
		struct parse parse = { .errors = errors };
		cfg_t *cfg = new_schema();
		int res;

		if (!cfg) {
			conf_errors_add(errors, 0, "free some memory", "out of memory");
			return NULL;
		}
		current = &parse;
		(void)cfg_set_error_function(cfg, on_error);
		res = cfg_parse_buf(cfg, text->bytes);
		current = NULL;
		if (res == CFG_SUCCESS)
			return cfg;
		(void)cfg_free(cfg);
		if (parse.unknown_line == 0 ||
		    !conf_text_blank(text, parse.unknown_line, parse.unknown, parse.is_title)) {
			if (errors->count == errors_before)
				conf_errors_add(errors, 0, "check it with holdfast config check",
						"cannot be parsed");
			return NULL;
		}
		/* The next attempt meets again what this one met, except what stopped it. */
		if (errors->count > errors_before) {
			errors->entries[errors_before] = errors->entries[errors->count - 1];
			errors->entries[errors_before].order = errors_before;
			errors->count = errors_before + 1;
		}
	}
	return NULL;
}
