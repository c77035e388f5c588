/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of reading holdfast.conf, private to core/conf: the errors found so far, the text
 * without comments, the options as written. conf.c, conf_group.c and conf_peer.c
 * turn the options into struct conf and check them (builder.h).
 *
 * One thread: libconfuse keeps its scanner in globals, so configurations are read at start-up.
 */
#ifndef HOLDFAST_CORE_CONF_INTERNAL_H
#define HOLDFAST_CORE_CONF_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

struct cfg_t;

#define CONF_ERRORS_MAX	    64u
#define CONF_ERROR_BYTES    512u
#define CONF_FILE_MAX_BYTES (1u << 20)

struct conf_error {
	unsigned line, order;
	char text[CONF_ERROR_BYTES];
};

struct conf_errors {
	const char *file;
	unsigned count;	  /* kept, at most CONF_ERRORS_MAX */
	unsigned dropped; /* found beyond that */
	struct conf_error entries[CONF_ERRORS_MAX];
};

/* `format` says what is wrong, `remedy` what to do about it. Line 0: the file as a whole. */
__attribute__((format(printf, 4, 5))) void conf_errors_add(struct conf_errors *errors,
							   unsigned line, const char *remedy,
							   const char *format, ...);
/* "FILE:LINE: reason; remedy", a line each, in the order of the file. Cuts at a whole line. */
void conf_errors_print(struct conf_errors *errors, char *out, size_t out_max);

/* A section's braces: where they open and close, and how deep they are (1 = top level). */
struct conf_span {
	unsigned open_line, close_line, depth;
	bool taken;
};

struct conf_text {
	char *bytes; /* terminated; comments are blanks, so every line is where it was */
	size_t length_bytes;
	struct conf_span *spans;
	unsigned span_count;
};

/* Reads and prepares a file. 0; a negative errno when it cannot be read; -EINVAL when what is there
 * must not be given to the parser. Either way `errors` says why. */
int conf_text_load(const char *file, struct conf_text *ret_text, struct conf_errors *errors);
int conf_text_set(const char *bytes, size_t length_bytes, struct conf_text *ret_text,
		  struct conf_errors *errors);
void conf_text_free(struct conf_text *text);
/* The line on which the section that closes at `close_line` opens. Each section is given once. */
unsigned conf_text_open_line(struct conf_text *text, unsigned close_line, unsigned depth);
/* Blanks the option or section `name`, or with `is_title` the section that has it as its title,
 * which starts at `line`: the parser stops at the first error, so it is run again without. */
bool conf_text_blank(struct conf_text *text, unsigned line, const char *name, bool is_title);

/* One value as written. */
struct conf_leaf {
	unsigned line;
	char *text;
};

/* Parses `text`, again without each unknown option until it parses. The values are struct conf_leaf
 * in CFGT_PTR options. NULL when it cannot be parsed at all; `errors` says why. */
struct cfg_t *conf_parse(struct conf_text *text, struct conf_errors *errors);

#endif
