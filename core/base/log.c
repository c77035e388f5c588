/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/must.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"

static const char *const level_names[] = { "error", "warning", "info", "debug" };
/* syslog's numbers, as the journal reads them in front of a line. */
static const char *const level_prefixes[] = { "<3>", "<4>", "<6>", "<7>" };

static _Atomic int level_max = LOG_LEVEL_INFO;
static log_sink_fn sink;
static void *sink_context;

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&level_max, (int)level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	size_t i;

	for (i = 0; i < array_len(level_names); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void log_set_sink(log_sink_fn new_sink, void *context)
{
	sink = new_sink;
	sink_context = context;
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&level_max, memory_order_relaxed);
}

/* Whether standard error is the journal: systemd names the socket's device and inode. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char mine[64];
	struct stat status;

	if (!stream || fstat(STDERR_FILENO, &status) < 0)
		return false;
	(void)snprintf(mine, sizeof(mine), "%llu:%llu", (unsigned long long)status.st_dev,
		       (unsigned long long)status.st_ino);
	return strcmp(stream, mine) == 0;
}

static void write_stderr(enum log_level level, const char *line)
{
	char text[LOG_LINE_BYTES + 64];
	char when[TIMEFMT_BYTES];
	struct timespec now;
	size_t length;
	ssize_t ignored;

	if (stderr_is_journal()) {
		(void)snprintf(text, sizeof(text), "%s%s\n", level_prefixes[level], line);
	} else {
		(void)clock_gettime(CLOCK_REALTIME, &now);
		(void)timefmt_ms((uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec, when);
		(void)snprintf(text, sizeof(text), "%s %-7s %s\n", when, level_names[level], line);
	}
	length = strlen(text);
	/* A log that cannot be written must not stop the work. */
	ignored = write(STDERR_FILENO, text, length);
	(void)ignored;
}

/* Nobody forges a second line or drives a terminal through a value. */
static void blank_controls(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
	}
}

void log_write(enum log_level level, const char *event, const char *fields, ...)
{
	static const char cut[] = "...";
	char line[LOG_LINE_BYTES];
	int saved_errno = errno;
	int head;
	int tail = 0;
	va_list args;

	head = snprintf(line, sizeof(line), "%s", event);
	/* A space alone is an event without fields. */
	if (head >= 0 && (size_t)head < sizeof(line) && fields[1] != '\0') {
		va_start(args, fields);
		tail = vsnprintf(line + head, sizeof(line) - (size_t)head, fields, args);
		va_end(args);
	}
	if (head < 0 || tail < 0)
		(void)snprintf(line, sizeof(line), "%s", "log line could not be formatted");
	else if ((size_t)head + (size_t)tail >= sizeof(line))
		memcpy(line + sizeof(line) - sizeof(cut), cut, sizeof(cut));
	blank_controls(line);
	if (sink)
		sink(sink_context, level, line);
	else
		write_stderr(level, line);
	errno = saved_errno;
}

const char *log_quote(const char *text, char *out, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	size_t used = 0;

	must(size >= 3);
	out[used++] = '"';
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		char escaped[4];
		size_t length;

		if (c == '"' || c == '\\') {
			escaped[0] = '\\';
			escaped[1] = (char)c;
			length = 2;
		} else if (c < 0x20 || c == 0x7f) {
			escaped[0] = '\\';
			escaped[1] = 'x';
			escaped[2] = digits[c >> 4];
			escaped[3] = digits[c & 15];
			length = 4;
		} else {
			escaped[0] = (char)c;
			length = 1;
		}
		/* Closing quote and terminator still have to fit. */
		if (used + length + 2 > size)
			break;
		memcpy(out + used, escaped, length);
		used += length;
	}
	out[used++] = '"';
	out[used] = '\0';
	return out;
}

bool log_allowed(struct log_limit *limit, uint64_t now_ns, uint64_t *ret_suppressed)
{
	if (!limit->started || now_ns - limit->window_start_ns >= limit->interval_ns) {
		limit->started = true;
		limit->window_start_ns = now_ns;
		limit->used = 0;
	}
	if (limit->used >= limit->burst) {
		limit->suppressed++;
		return false;
	}
	limit->used++;
	*ret_suppressed = limit->suppressed;
	limit->suppressed = 0;
	return true;
}
