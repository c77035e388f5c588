/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing a group that has become primary here to the agent of this host, over its control socket.
 * For control threads: blocks.
 */
#ifndef HOLDFAST_ENGINE_ADOPT_H
#define HOLDFAST_ENGINE_ADOPT_H

#include <jansson.h>
#include <stddef.h>

#include "core/conf/conf.h"

/*
 * 0: the agent serves it; `into` (may be NULL) gets `served` and `nbd`, where its volumes are. Else
 * a negative errno with words in `error`: what control_call() says where no agent answers, -EIO
 * where it refused.
 */
int engine_adopt(const struct conf *conf, const char *group, json_t *into, char *error,
		 size_t error_max);

#endif
