/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assertions of our own invariants. They stay on in release builds: a process that finds itself
 * wrong stops at once and recovers from what is durable. Outside input never reaches one.
 *
 * Any thread.
 */
#ifndef HOLDFAST_CORE_BASE_MUST_H
#define HOLDFAST_CORE_BASE_MUST_H

/* Writes one line to standard error and aborts. Allocates nothing, takes no lock. */
__attribute__((noreturn, cold)) void must_failed(const char *expression, const char *file, int line,
						 const char *function);

/* Evaluates `x` exactly once, in every build. */
#define must(x)                                                                                    \
	(__builtin_expect(!(x), 0) ? must_failed(#x, __FILE__, __LINE__, __func__) : (void)0)

/* A place that control flow cannot reach, for example behind a switch over every enumerator. */
#define must_not_reach() must_failed("reached", __FILE__, __LINE__, __func__)

#endif
