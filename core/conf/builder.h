/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From options as written to struct conf, private to core/conf: one value at a time, checked, with
 * its line in every complaint. conf.c builds the host's part, conf_group.c groups, conf_peer.c
 * their peers.
 *
 * A value that is wrong is complained of and replaced by its preset, so that all faults of a file
 * are found in one run; conf_load() gives nothing out then. One thread.
 */
#ifndef HOLDFAST_CORE_CONF_BUILDER_H
#define HOLDFAST_CORE_CONF_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/conf/conf.h"
#include "core/conf/internal.h"

struct builder {
	struct conf *conf;
	struct conf_text *text;
	struct conf_errors *errors;
	bool no_memory;
};

struct builder_bounds {
	const char *name;
	uint64_t preset, low, high;
	bool zero_too; /* 0 is allowed besides */
};

char *builder_copy(struct builder *builder, const char *text);
void *builder_array(struct builder *builder, unsigned count, size_t size);
/* The option as written; NULL when it is not there. */
const struct conf_leaf *builder_leaf(struct cfg_t *section, const char *name);
const struct conf_leaf *builder_leaf_at(struct cfg_t *section, const char *name, unsigned index);
uint64_t builder_size(struct builder *builder, struct cfg_t *section,
		      const struct builder_bounds *bounds);
uint64_t builder_duration(struct builder *builder, struct cfg_t *section,
			  const struct builder_bounds *bounds);
uint64_t builder_number(struct builder *builder, struct cfg_t *section,
			const struct builder_bounds *bounds);
/* A word out of `words` (NULL-terminated); its index, or `preset`. */
unsigned builder_word(struct builder *builder, struct cfg_t *section, const char *name,
		      const char *const *words, unsigned preset);
char *builder_path(struct builder *builder, struct cfg_t *section, const char *name,
		   const char *preset);
char *builder_address(struct builder *builder, struct cfg_t *section, const char *name);

void builder_group(struct builder *builder, struct cfg_t *section, struct conf_group *group);
void builder_group_free(struct conf_group *group);
void builder_peer(struct builder *builder, const struct conf_group *group, struct cfg_t *section,
		  struct conf_peer *peer);

#endif
