/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An io_uring loop on a thread of its own, and calls into it from control threads.
 *
 * Any thread but the loop's own may call these; state machines never do.
 */
#ifndef HOLDFAST_CORE_IO_LOOP_H
#define HOLDFAST_CORE_IO_LOOP_H

#include <stdbool.h>

#include "core/io/uring.h"

struct loop;

/* `broken` is called on the loop's thread when the ring stops working; it must not return: nobody
 * would answer what is posted there. 0, or a negative errno. */
int loop_start(const struct uring_config *config, void (*broken)(const char *name, int res),
	       struct loop **ret_loop);
struct io *loop_io(struct loop *loop);
/* Runs fn(arg) on the loop's thread and returns when it is done. */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg);
/*
 * The same for something that completes later: start(arg, op) submits it with `op`, whose result is
 * returned.
 */
int64_t loop_submit(struct loop *loop, void (*start)(void *arg, struct io_op *op), void *arg);
/* Whether the loop took part in this `ms`: for watchdogs. A false answer leaves a post behind, and
 * the next call waits for that one. One caller at a time. */
bool loop_alive(struct loop *loop, unsigned ms);
/* Ends the thread and frees the loop. Everything on it must be at rest. NULL is allowed; returns
 * NULL. */
struct loop *loop_stop(struct loop *loop);

#endif
