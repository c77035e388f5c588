/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file as text, before libconfuse sees it.
 *
 * libconfuse 3.3 counts the lines of comments more than once, drops characters that it does not
 * know without a word, and expands environment variables. So comments become blanks here, and what
 * it would swallow is an error. The braces of sections are noted on the way, because the parser
 * knows only where a section ends.
 */
#include "core/conf/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/macros.h"

#define DEPTH_MAX 8u

enum token_kind {
	TOKEN_END = 0,
	TOKEN_WORD = 1, /* bare or quoted */
			/* or the character itself: { } ( ) = , */
};

struct token {
	int kind;
	size_t start, end;	     /* of all of it */
	size_t text_start, text_end; /* without quotes */
	unsigned line;
};

struct scanner {
	struct conf_text *text;
	struct conf_errors *errors; /* NULL on a second pass: nothing is new */
	size_t pos;
	unsigned line;
	bool failed;
};

static bool is_bare(char c)
{
	return c != '\0' && !strchr(" #\"'\t\n\r={}()+,*", c);
}

static void fail(struct scanner *scanner, const char *remedy, const char *what)
{
	if (scanner->errors)
		conf_errors_add(scanner->errors, scanner->line, remedy, "%s", what);
	scanner->failed = true;
}

static void blank(struct conf_text *text, size_t start, size_t end)
{
	for (size_t i = start; i < end; i++) {
		if (text->bytes[i] != '\n')
			text->bytes[i] = ' ';
	}
}

/* A comment at the scanner's place becomes blanks. False when there is none. */
static bool skip_comment(struct scanner *scanner)
{
	struct conf_text *text = scanner->text;
	const char *at = text->bytes + scanner->pos, *end;

	if (at[0] == '#' || (at[0] == '/' && at[1] == '/')) {
		end = strchr(at, '\n');
		end = end ? end : text->bytes + text->length_bytes;
	} else if (at[0] == '/' && at[1] == '*') {
		end = strstr(at + 2, "*/");
		if (!end) {
			fail(scanner, "close it with */",
			     "the comment that starts here never ends");
			return false;
		}
		end += 2;
	} else {
		return false;
	}
	for (const char *c = at; c < end; c++)
		scanner->line += *c == '\n';
	blank(text, scanner->pos, (size_t)(end - text->bytes));
	scanner->pos = (size_t)(end - text->bytes);
	return true;
}

static void scan_quoted(struct scanner *scanner, struct token *token)
{
	const char *bytes = scanner->text->bytes;
	char quote = bytes[scanner->pos];
	size_t i = scanner->pos + 1;

	while (bytes[i] != quote) {
		if (bytes[i] == '\0' || bytes[i] == '\n') {
			fail(scanner, "close the quotes on the same line",
			     "a quoted value does not end on its line");
			return;
		}
		if (bytes[i] == '\\') {
			fail(scanner, "write it without backslash",
			     "a quoted value holds a backslash");
			return;
		}
		i++;
	}
	token->kind = TOKEN_WORD;
	token->text_start = scanner->pos + 1;
	token->text_end = i;
	token->end = i + 1;
}

static void scan_bare(struct scanner *scanner, struct token *token)
{
	const char *bytes = scanner->text->bytes;
	size_t i = scanner->pos;

	while (is_bare(bytes[i]))
		i++;
	if (bytes[i] == '*' || bytes[i] == '+') {
		fail(scanner, "put the value in double quotes",
		     "* and + may stand in quoted values only");
		return;
	}
	token->kind = TOKEN_WORD;
	token->text_start = scanner->pos;
	token->text_end = i;
	token->end = i;
}

/* The next token. False at a fault, which is in `errors`. */
static bool next_token(struct scanner *scanner, struct token *token)
{
	const char *bytes = scanner->text->bytes;

	for (;;) {
		char c = bytes[scanner->pos];

		if (c == '\n')
			scanner->line++;
		if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
			scanner->pos++;
		else if (!skip_comment(scanner))
			break;
	}
	if (scanner->failed)
		return false;
	*token = (struct token){ .kind = TOKEN_END, .start = scanner->pos, .end = scanner->pos };
	token->line = scanner->line;
	if (bytes[scanner->pos] == '\0')
		return true;
	if (strchr("{}()=,", bytes[scanner->pos])) {
		token->kind = bytes[scanner->pos];
		token->end = scanner->pos + 1;
	} else if (bytes[scanner->pos] == '"' || bytes[scanner->pos] == '\'') {
		scan_quoted(scanner, token);
	} else {
		scan_bare(scanner, token);
	}
	for (size_t i = token->text_start; i < token->text_end; i++) {
		if (bytes[i] == '$' && bytes[i + 1] == '{')
			fail(scanner, "write the value itself",
			     "environment variables are not expanded");
	}
	scanner->pos = token->end;
	return !scanner->failed;
}

static int add_span(struct conf_text *text, const struct conf_span *span)
{
	struct conf_span *more;

	if ((text->span_count & (text->span_count - 1)) == 0) {
		size_t room = text->span_count ? 2 * (size_t)text->span_count : 1;

		more = realloc(text->spans, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		text->spans = more;
	}
	text->spans[text->span_count++] = *span;
	return 0;
}

/* Blanks comments, checks what the parser would pass over, notes where sections are. */
static int prepare(struct conf_text *text, struct conf_errors *errors)
{
	struct scanner scanner = { .text = text, .errors = errors, .line = 1 };
	struct conf_span open[DEPTH_MAX];
	struct token token;
	unsigned depth = 0;
	int before = 0, res;

	do {
		if (!next_token(&scanner, &token))
			return -EINVAL;
		if (token.kind == '{') {
			if (depth == DEPTH_MAX) {
				fail(&scanner, "groups hold volumes and peers, nothing is deeper",
				     "braces are nested too deeply");
				return -EINVAL;
			}
			open[depth] = (struct conf_span){ .open_line = token.line,
							  .depth = depth + 1,
							  .taken = before == '=' };
			depth++;
		} else if (token.kind == '}') {
			if (depth == 0) {
				fail(&scanner, "remove it, or open its section before",
				     "a closing brace without an opening one");
				return -EINVAL;
			}
			open[--depth].close_line = token.line;
			/* A list's braces are no section. */
			res = open[depth].taken ? 0 : add_span(text, &open[depth]);
			if (res < 0)
				return res;
		}
		before = token.kind;
	} while (token.kind != TOKEN_END);
	if (depth > 0) {
		conf_errors_add(errors, open[depth - 1].open_line, "close it with }",
				"the brace that opens here is never closed");
		return -EINVAL;
	}
	return 0;
}

int conf_text_set(const char *bytes, size_t length_bytes, struct conf_text *ret_text,
		  struct conf_errors *errors)
{
	struct conf_text text = { .length_bytes = length_bytes };
	const char *nul = memchr(bytes, '\0', length_bytes);
	int res;

	if (nul) {
		conf_errors_add(errors, 0, "it must be a text file", "holds a zero byte at %td",
				nul - bytes);
		return -EINVAL;
	}
	/* Two terminators: the scanner looks one character ahead. */
	text.bytes = calloc(1, length_bytes + 2);
	if (!text.bytes)
		return -ENOMEM;
	memcpy(text.bytes, bytes, length_bytes);
	res = prepare(&text, errors);
	if (res < 0) {
		if (errors->count == 0)
			conf_errors_add(errors, 0, "try again", "%s", err_text(res));
		conf_text_free(&text);
		return res;
	}
	*ret_text = text;
	return 0;
}

int conf_text_load(const char *file, struct conf_text *ret_text, struct conf_errors *errors)
{
	char *bytes = malloc(CONF_FILE_MAX_BYTES + 1);
	size_t used = 0;
	ssize_t n = 1;
	int fd, res;

	if (!bytes)
		return -ENOMEM;
	fd = open(file, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && n > 0 && used <= CONF_FILE_MAX_BYTES) {
		n = read(fd, bytes + used, CONF_FILE_MAX_BYTES + 1 - used);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n > 0)
			used += (size_t)n;
	}
	if (fd < 0 || n < 0) {
		res = -errno;
		conf_errors_add(errors, 0,
				res == -ENOENT
					? "write one (see holdfast.conf(5)) or name one with -c"
					: "check the file and its permissions",
				"cannot be read: %s", err_text(res));
	} else if (used > CONF_FILE_MAX_BYTES) {
		res = -EFBIG;
		conf_errors_add(errors, 0, "name the right file with -c", "is larger than 1 MiB");
	} else {
		res = conf_text_set(bytes, used, ret_text, errors);
	}
	if (fd >= 0)
		(void)close(fd);
	free(bytes);
	return res;
}

void conf_text_free(struct conf_text *text)
{
	free(text->bytes);
	free(text->spans);
	*text = (struct conf_text){ .bytes = NULL };
}

unsigned conf_text_open_line(struct conf_text *text, unsigned close_line, unsigned depth)
{
	for (unsigned i = 0; i < text->span_count; i++) {
		struct conf_span *span = &text->spans[i];

		if (!span->taken && span->close_line == close_line && span->depth == depth) {
			span->taken = true;
			return span->open_line;
		}
	}
	return close_line;
}

static bool token_is(const struct conf_text *text, const struct token *token, const char *name)
{
	size_t length_bytes = token->text_end - token->text_start;

	return token->kind == TOKEN_WORD && length_bytes == strlen(name) &&
	       memcmp(text->bytes + token->text_start, name, length_bytes) == 0;
}

/* From an opening brace to behind its closing one. */
static bool skip_braces(struct scanner *scanner, struct token *token)
{
	unsigned depth = 1;

	while (depth > 0) {
		if (!next_token(scanner, token) || token->kind == TOKEN_END)
			return false;
		depth += token->kind == '{';
		depth -= token->kind == '}';
	}
	return true;
}

/* Behind the statement whose first word was just read: a value, a list, or a section. */
static bool skip_statement(struct scanner *scanner, struct token *token)
{
	if (!next_token(scanner, token))
		return false;
	if (token->kind == '=') {
		if (!next_token(scanner, token))
			return false;
		return token->kind == '{' ? skip_braces(scanner, token) : token->kind == TOKEN_WORD;
	}
	if (token->kind == TOKEN_WORD && !next_token(scanner, token))
		return false;
	return token->kind == '{' && skip_braces(scanner, token);
}

bool conf_text_blank(struct conf_text *text, unsigned line, const char *name, bool is_title)
{
	struct scanner scanner = { .text = text, .line = 1 };
	struct token token, before = { .kind = TOKEN_END };

	while (next_token(&scanner, &token) && token.kind != TOKEN_END && token.line <= line) {
		struct scanner ahead = scanner;
		struct token last = token;
		const struct token *first = is_title ? &before : &token;

		if (token.line == line && token_is(text, &token, name) &&
		    (!is_title || before.kind == TOKEN_WORD) && skip_statement(&ahead, &last)) {
			blank(text, first->start, last.end);
			return true;
		}
		before = token;
	}
	return false;
}
