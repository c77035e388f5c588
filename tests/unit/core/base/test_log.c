/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"
#include "tests/unit/unit.h"

struct heard {
	int lines;
	enum log_level level;
	char line[LOG_LINE_BYTES];
};

static void hear(void *context, enum log_level level, const char *line)
{
	struct heard *heard = context;

	heard->lines++;
	heard->level = level;
	(void)snprintf(heard->line, sizeof(heard->line), "%s", line);
}

static int reset(void **state)
{
	(void)state;
	log_set_sink(NULL, NULL);
	log_set_level(LOG_LEVEL_INFO);
	return 0;
}

UNIT(lines)
{
	struct heard heard = { 0 };

	log_set_sink(hear, &heard);
	errno = ENOENT;
	log_info("group opened", "group=%s seq=%d", "db", 812);
	assert_int_equal(errno, ENOENT);
	assert_string_equal(heard.line, "group opened group=db seq=812");
	assert_int_equal(heard.level, LOG_LEVEL_INFO);
	log_error("stopped");
	assert_string_equal(heard.line, "stopped");
	assert_int_equal(heard.level, LOG_LEVEL_ERROR);
	assert_int_equal(heard.lines, 2);
}

UNIT(levels)
{
	struct heard heard = { 0 };
	enum log_level level = LOG_LEVEL_INFO;
	int evaluated = 0;

	log_set_sink(hear, &heard);
	log_debug("detail", "n=%d", ++evaluated);
	assert_int_equal(heard.lines, 0);
	assert_int_equal(evaluated, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("detail", "n=%d", ++evaluated);
	assert_string_equal(heard.line, "detail n=1");
	log_set_level(LOG_LEVEL_ERROR);
	log_warning("hidden");
	assert_int_equal(heard.lines, 1);
	assert_int_equal(log_level_parse("warning", &level), 0);
	assert_int_equal(level, LOG_LEVEL_WARNING);
	assert_int_equal(log_level_parse("loud", &level), -EINVAL);
	assert_int_equal(level, LOG_LEVEL_WARNING);
}

UNIT(nobody_forges_a_line)
{
	struct heard heard = { 0 };

	log_set_sink(hear, &heard);
	log_info("refused", "peer=%s", "x\nerror forged\x1b[31m");
	assert_string_equal(heard.line, "refused peer=x?error forged?[31m");
}

UNIT(long_lines_are_cut_visibly)
{
	struct heard heard = { 0 };
	char value[2 * LOG_LINE_BYTES];

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	log_set_sink(hear, &heard);
	log_info("long", "value=%s", value);
	assert_int_equal(strlen(heard.line), LOG_LINE_BYTES - 1);
	assert_string_equal(heard.line + LOG_LINE_BYTES - 5, "v...");
}

UNIT(quoting)
{
	char out[32];

	assert_string_equal(log_quote("plain text", out, sizeof(out)), "\"plain text\"");
	assert_string_equal(log_quote("a\"b\\c\n", out, sizeof(out)), "\"a\\\"b\\\\c\\x0a\"");
	assert_string_equal(log_quote("", out, 3), "\"\"");
	assert_string_equal(log_quote("abcdef", out, 6), "\"abc\"");
	/* An escape is never cut in two. */
	assert_string_equal(log_quote("ab\n", out, 6), "\"ab\"");
}

UNIT(rate_limit)
{
	struct log_limit limit = LOG_LIMIT(2, 10 * NS_PER_S);
	uint64_t suppressed = 99;
	uint64_t now = 5;

	assert_true(log_allowed(&limit, now, &suppressed));
	assert_int_equal(suppressed, 0);
	assert_true(log_allowed(&limit, now, &suppressed));
	assert_false(log_allowed(&limit, now + 1, &suppressed));
	assert_false(log_allowed(&limit, now + 10 * NS_PER_S - 1, &suppressed));
	assert_true(log_allowed(&limit, now + 10 * NS_PER_S, &suppressed));
	assert_int_equal(suppressed, 2);
	assert_true(log_allowed(&limit, now + 10 * NS_PER_S, &suppressed));
	assert_int_equal(suppressed, 0);
	assert_false(log_allowed(&limit, now + 10 * NS_PER_S, &suppressed));
}

/* What arrives on standard error while `JOURNAL_STREAM` does or does not name it. */
static void capture(bool journal, char *text, size_t size)
{
	FILE *file = tmpfile();
	int saved = dup(STDERR_FILENO);
	struct stat status;
	char name[64];
	size_t got;

	assert_non_null(file);
	assert_true(saved >= 0);
	assert_int_equal(fstat(fileno(file), &status), 0);
	(void)snprintf(name, sizeof(name), "%llu:%llu",
		       (unsigned long long)status.st_dev + (journal ? 0 : 1),
		       (unsigned long long)status.st_ino);
	assert_int_equal(setenv("JOURNAL_STREAM", name, 1), 0);
	assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
	log_warning("disk slow", "ms=%d", 7);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	(void)close(saved);
	(void)unsetenv("JOURNAL_STREAM");
	rewind(file);
	got = fread(text, 1, size - 1, file);
	text[got] = '\0';
	(void)fclose(file);
}

UNIT(standard_error)
{
	char text[256];
	uint64_t ns = 0;

	capture(true, text, sizeof(text));
	assert_string_equal(text, "<4>disk slow ms=7\n");
	capture(false, text, sizeof(text));
	assert_string_equal(text + 24, " warning disk slow ms=7\n");
	text[24] = '\0';
	assert_int_equal(timefmt_parse(text, &ns), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(lines, reset),
		cmocka_unit_test_teardown(levels, reset),
		cmocka_unit_test_teardown(nobody_forges_a_line, reset),
		cmocka_unit_test_teardown(long_lines_are_cut_visibly, reset),
		cmocka_unit_test_teardown(quoting, reset),
		cmocka_unit_test_teardown(rate_limit, reset),
		cmocka_unit_test_teardown(standard_error, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
