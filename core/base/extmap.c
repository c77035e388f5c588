/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree is ordered by offset and, at the same time, a heap by random priority: that keeps it
 * about 2 log n deep whatever the order of inserts. Invariants, outside of these functions:
 *  - extents are not empty and do not overlap, so the order by offset is the order by end;
 *  - a parent's priority is at least its children's;
 *  - count + free_count is the number of nodes given at init.
 * Cutting an extent changes its bounds inside the gap between its neighbours, so it stays in place.
 */
#include "core/base/extmap.h"

#include "core/base/must.h"

void extmap_init(struct extmap *map, struct extmap_node *nodes, size_t node_count, uint64_t seed)
{
	size_t i;

	*map = (struct extmap){ .free_count = node_count };
	prng_seed(&map->prng, seed);
	for (i = node_count; i > 0; i--) {
		nodes[i - 1].right = map->free_first;
		map->free_first = &nodes[i - 1];
	}
}

static struct extmap_node *node_get(struct extmap *map)
{
	struct extmap_node *node = map->free_first;

	must(node);
	map->free_first = node->right;
	map->free_count--;
	map->count++;
	*node = (struct extmap_node){ .priority = prng_next(&map->prng) };
	return node;
}

static void node_put(struct extmap *map, struct extmap_node *node)
{
	node->right = map->free_first;
	map->free_first = node;
	map->free_count++;
	map->count--;
}

/* Where the tree points at `node`. */
static struct extmap_node **link_of(struct extmap *map, const struct extmap_node *node)
{
	if (!node->parent)
		return &map->root;
	return node->parent->left == node ? &node->parent->left : &node->parent->right;
}

/* Puts `child`, which may be NULL, where `node` was. */
static void replace(struct extmap *map, struct extmap_node *node, struct extmap_node *child)
{
	*link_of(map, node) = child;
	if (child)
		child->parent = node->parent;
}

/* Exchanges `node` and its parent, keeping the order. */
static void rotate_up(struct extmap *map, struct extmap_node *node)
{
	struct extmap_node *parent = node->parent;
	struct extmap_node *moved;

	replace(map, parent, node);
	if (parent->left == node) {
		moved = node->right;
		parent->left = moved;
		node->right = parent;
	} else {
		moved = node->left;
		parent->right = moved;
		node->left = parent;
	}
	if (moved)
		moved->parent = parent;
	parent->parent = node;
}

static void tree_insert(struct extmap *map, struct extmap_node *node)
{
	struct extmap_node **link = &map->root;
	struct extmap_node *parent = NULL;

	while (*link) {
		parent = *link;
		link = node->offset_bytes < parent->offset_bytes ? &parent->left : &parent->right;
	}
	*link = node;
	node->parent = parent;
	while (node->parent && node->parent->priority < node->priority)
		rotate_up(map, node);
}

static void tree_remove(struct extmap *map, struct extmap_node *node)
{
	while (node->left && node->right)
		rotate_up(map,
			  node->left->priority > node->right->priority ? node->left : node->right);
	replace(map, node, node->left ? node->left : node->right);
}

/* The first extent that ends behind `offset`; NULL when there is none. */
static struct extmap_node *node_from(const struct extmap *map, uint64_t offset_bytes)
{
	struct extmap_node *node = map->root;
	struct extmap_node *found = NULL;

	while (node) {
		if (node->end_bytes > offset_bytes) {
			found = node;
			node = node->left;
		} else {
			node = node->right;
		}
	}
	return found;
}

static struct extmap_node *node_leftmost(struct extmap_node *node)
{
	while (node && node->left)
		node = node->left;
	return node;
}

static struct extmap_node *node_after(struct extmap_node *node)
{
	if (node->right)
		return node_leftmost(node->right);
	while (node->parent && node->parent->right == node)
		node = node->parent;
	return node->parent;
}

static bool node_belongs(const struct extmap_node *node, const void *owner, uint64_t seq_max)
{
	return (!owner || node->value.owner == owner) && node->value.seq <= seq_max;
}

/* Takes [offset, end) out of one extent that overlaps it; what is left on either side stays. */
static void node_cut(struct extmap *map, struct extmap_node *node, uint64_t offset_bytes,
		     uint64_t end_bytes)
{
	bool left = node->offset_bytes < offset_bytes;
	bool right = node->end_bytes > end_bytes;

	if (left && right) {
		struct extmap_node *rest = node_get(map);

		rest->offset_bytes = end_bytes;
		rest->end_bytes = node->end_bytes;
		rest->value = node->value;
		rest->value.data_offset_bytes += end_bytes - node->offset_bytes;
		node->end_bytes = offset_bytes;
		tree_insert(map, rest);
		map->covered_bytes -= end_bytes - offset_bytes;
	} else if (left) {
		map->covered_bytes -= node->end_bytes - offset_bytes;
		node->end_bytes = offset_bytes;
	} else if (right) {
		map->covered_bytes -= end_bytes - node->offset_bytes;
		node->value.data_offset_bytes += end_bytes - node->offset_bytes;
		node->offset_bytes = end_bytes;
	} else {
		map->covered_bytes -= node->end_bytes - node->offset_bytes;
		tree_remove(map, node);
		node_put(map, node);
	}
}

/* Unmaps what belongs to `owner` in the range. The caller has seen to a node for a split. */
static void range_cut(struct extmap *map, uint64_t offset_bytes, uint64_t end_bytes,
		      const void *owner, uint64_t seq_max)
{
	struct extmap_node *node = node_from(map, offset_bytes);
	struct extmap_node *after;

	for (; node && node->offset_bytes < end_bytes; node = after) {
		after = node_after(node);
		if (node_belongs(node, owner, seq_max))
			node_cut(map, node, offset_bytes, end_bytes);
	}
}

int extmap_insert(struct extmap *map, uint64_t offset_bytes, uint64_t length_bytes,
		  const struct extmap_value *value)
{
	struct extmap_node *node;

	must(length_bytes > 0 && offset_bytes <= UINT64_MAX - length_bytes);
	if (map->free_count < 2)
		return EXTMAP_E_FULL;
	range_cut(map, offset_bytes, offset_bytes + length_bytes, NULL, UINT64_MAX);
	node = node_get(map);
	node->offset_bytes = offset_bytes;
	node->end_bytes = offset_bytes + length_bytes;
	node->value = *value;
	tree_insert(map, node);
	map->covered_bytes += length_bytes;
	return 0;
}

int extmap_remove(struct extmap *map, uint64_t offset_bytes, uint64_t length_bytes,
		  const void *owner, uint64_t seq_max)
{
	uint64_t end_bytes = offset_bytes + length_bytes;
	struct extmap_node *first;

	must(offset_bytes <= UINT64_MAX - length_bytes);
	if (length_bytes == 0)
		return 0;
	if (map->free_count == 0) {
		/* Only one extent can reach beyond both ends, and it is the first. */
		first = node_from(map, offset_bytes);
		if (first && first->offset_bytes < offset_bytes && first->end_bytes > end_bytes &&
		    node_belongs(first, owner, seq_max))
			return EXTMAP_E_FULL;
	}
	range_cut(map, offset_bytes, end_bytes, owner, seq_max);
	return 0;
}

void extmap_clear(struct extmap *map)
{
	struct extmap_node *node;

	while ((node = map->root)) {
		tree_remove(map, node);
		node_put(map, node);
	}
	map->covered_bytes = 0;
}

struct extmap_piece extmap_piece_at(const struct extmap *map, uint64_t offset_bytes,
				    uint64_t end_bytes)
{
	const struct extmap_node *node = node_from(map, offset_bytes);
	struct extmap_piece piece = { .offset_bytes = offset_bytes };

	must(offset_bytes < end_bytes);
	if (!node || node->offset_bytes >= end_bytes) {
		piece.length_bytes = end_bytes - offset_bytes;
	} else if (node->offset_bytes > offset_bytes) {
		piece.length_bytes = node->offset_bytes - offset_bytes;
	} else {
		piece.covered = true;
		piece.length_bytes = min_u64(node->end_bytes, end_bytes) - offset_bytes;
		piece.value = node->value;
		piece.value.data_offset_bytes += offset_bytes - node->offset_bytes;
	}
	return piece;
}

bool extmap_overlaps(const struct extmap *map, uint64_t offset_bytes, uint64_t length_bytes)
{
	const struct extmap_node *node;

	must(offset_bytes <= UINT64_MAX - length_bytes);
	if (length_bytes == 0)
		return false;
	node = node_from(map, offset_bytes);
	return node && node->offset_bytes < offset_bytes + length_bytes;
}

void extmap_check(const struct extmap *map)
{
	struct extmap_node *node = node_leftmost(map->root);
	uint64_t covered_bytes = 0;
	uint64_t last_end_bytes = 0;
	size_t count = 0;

	must(!map->root || !map->root->parent);
	for (; node; node = node_after(node)) {
		must(node->offset_bytes < node->end_bytes);
		must(count == 0 || node->offset_bytes >= last_end_bytes);
		must(!node->left ||
		     (node->left->parent == node && node->left->priority <= node->priority));
		must(!node->right ||
		     (node->right->parent == node && node->right->priority <= node->priority));
		last_end_bytes = node->end_bytes;
		covered_bytes += node->end_bytes - node->offset_bytes;
		count++;
	}
	must(count == map->count);
	must(covered_bytes == map->covered_bytes);
	for (node = map->free_first, count = 0; node; node = node->right)
		count++;
	must(count == map->free_count);
}
