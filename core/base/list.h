/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive doubly linked list: a head and its entries are all `struct list`. The entries belong to
 * whoever embeds them; the list owns nothing. Zeroed memory is an entry that is in no list; a head
 * needs list_init(). No locking: the list belongs to one thread.
 */
#ifndef HOLDFAST_CORE_BASE_LIST_H
#define HOLDFAST_CORE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/macros.h"

struct list {
	struct list *next;
	struct list *prev;
};

#define LIST_INIT(name)                                                                            \
	{                                                                                          \
		&(name), &(name)                                                                   \
	}

static inline void list_init(struct list *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

/* Whether an entry is in some list. */
static inline bool list_linked(const struct list *entry)
{
	return entry->next != NULL && entry->next != entry;
}

/* `entry` is in no list yet. */
static inline void list_insert_after(struct list *place, struct list *entry)
{
	must(!list_linked(entry));
	entry->prev = place;
	entry->next = place->next;
	place->next->prev = entry;
	place->next = entry;
}

static inline void list_insert_before(struct list *place, struct list *entry)
{
	list_insert_after(place->prev, entry);
}

static inline void list_push_front(struct list *head, struct list *entry)
{
	list_insert_after(head, entry);
}

static inline void list_push_back(struct list *head, struct list *entry)
{
	list_insert_after(head->prev, entry);
}

/* Takes an entry out of the list it is in; afterwards it may be inserted again. */
static inline void list_remove(struct list *entry)
{
	must(list_linked(entry));
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
	entry->next = NULL;
	entry->prev = NULL;
}

/* NULL when empty. */
static inline struct list *list_first(const struct list *head)
{
	return list_empty(head) ? NULL : head->next;
}

static inline struct list *list_last(const struct list *head)
{
	return list_empty(head) ? NULL : head->prev;
}

/* The entry behind `entry`, NULL when that was the last. */
static inline struct list *list_next(const struct list *head, const struct list *entry)
{
	return entry->next == head ? NULL : entry->next;
}

/* Removes and returns the first entry, NULL when empty. */
static inline struct list *list_pop_front(struct list *head)
{
	struct list *entry = list_first(head);

	if (entry)
		list_remove(entry);
	return entry;
}

/* Moves every entry of `source` to the end of `head`; `source` is empty afterwards. */
static inline void list_splice_back(struct list *head, struct list *source)
{
	if (list_empty(source))
		return;
	source->next->prev = head->prev;
	head->prev->next = source->next;
	source->prev->next = head;
	head->prev = source->prev;
	list_init(source);
}

/* `pos` is a struct list *; use container_of(), or list_first_as() and friends. */
#define list_for_each(pos, head) for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)

/* The body may remove `pos`, and only `pos`. */
#define list_for_each_safe(pos, after, head)                                                       \
	for ((pos) = (head)->next, (after) = (pos)->next; (pos) != (head);                         \
	     (pos) = (after), (after) = (pos)->next)

/* The structure around the first entry, NULL when empty. */
#define list_first_as(head, type, member)                                                          \
	({                                                                                         \
		struct list *list_entry = list_first(head);                                        \
		list_entry ? container_of(list_entry, type, member) : NULL;                        \
	})

#define list_pop_front_as(head, type, member)                                                      \
	({                                                                                         \
		struct list *list_entry = list_pop_front(head);                                    \
		list_entry ? container_of(list_entry, type, member) : NULL;                        \
	})

#endif
