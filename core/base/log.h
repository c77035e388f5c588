/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines: an event in words, then key=value fields.
 *
 *   log_info("group opened", "group=%s seq=%" PRIu64, name, seq);
 *   -> 2026-05-04T10:20:30.123Z info  group opened group=db seq=812
 *
 * To standard error, one write() per line; under systemd without the time and with the journal's
 * priority prefix. A value that may hold spaces or bytes from outside is quoted by the caller
 * through log_quote(); control characters never reach the terminal either way. Lines longer than
 * LOG_LINE_BYTES are cut, visibly.
 *
 * Any thread. Library code (core, proto) logs at debug only; agent, engine and cli decide what
 * people see. Setting level, name and sink belongs to start-up, before other threads.
 */
#ifndef HOLDFAST_CORE_BASE_LOG_H
#define HOLDFAST_CORE_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/macros.h"

#define LOG_LINE_BYTES 1024u

enum log_level {
	LOG_LEVEL_ERROR = 0,
	LOG_LEVEL_WARNING = 1,
	LOG_LEVEL_INFO = 2,
	LOG_LEVEL_DEBUG = 3,
};

/* Gets each finished line, without time, level and newline. */
typedef void (*log_sink_fn)(void *context, enum log_level level, const char *line);

/* Lines above this level are dropped. LOG_LEVEL_INFO at start. */
void log_set_level(enum log_level level);

/* "error", "warning", "info", "debug"; -EINVAL otherwise. */
__must_check int log_level_parse(const char *text, enum log_level *ret_level);

/* Sends lines to `sink` instead of standard error; NULL is standard error again. */
void log_set_sink(log_sink_fn sink, void *context);

bool log_enabled(enum log_level level);

/* Through the macros below, which put a space in front of `fields`, a literal printf format. */
__attribute__((format(printf, 3, 4))) void log_write(enum log_level level, const char *event,
						     const char *fields, ...);

/* Arguments are evaluated only when the level is enabled. */
#define log_at(level, event, ...)                                                                  \
	do {                                                                                       \
		if (log_enabled(level))                                                            \
			log_write(level, event, " " __VA_ARGS__);                                  \
	} while (0)
#define log_error(...)	 log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)	 log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)	 log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* `text` in double quotes with quotes, backslashes and control characters escaped, cut to fit
 * `size`. Returns `out`. size >= 3. */
const char *log_quote(const char *text, char *out, size_t size);

/*
 * For events that outside can cause as often as it likes: at most `burst` lines per `interval_ns`.
 *
 *   static struct log_limit limit = LOG_LIMIT(5, 10 * NS_PER_S);
 *   if (log_allowed(&limit, io_now(io), &suppressed))
 *           log_warning("connection refused", "peer=%s suppressed=%" PRIu64, peer, suppressed);
 *
 * One thread each. *ret_suppressed is the number of lines swallowed since the last allowed one.
 */
struct log_limit {
	uint64_t interval_ns;
	uint32_t burst;
	uint32_t used;
	uint64_t window_start_ns;
	uint64_t suppressed;
	bool started;
};
#define LOG_LIMIT(burst_lines, interval)                                                           \
	{                                                                                          \
		.interval_ns = (interval), .burst = (burst_lines)                                  \
	}
__must_check bool log_allowed(struct log_limit *limit, uint64_t now_ns, uint64_t *ret_suppressed);

#endif
