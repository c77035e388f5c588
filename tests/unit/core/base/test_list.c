/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/list.h"
#include "tests/unit/unit.h"

struct item {
	int number;
	struct list link;
};

/* The numbers of a list, walked both ways. */
static void expect(const struct list *head, const int *numbers, size_t count)
{
	struct list *pos;
	size_t i = 0;

	list_for_each (pos, head) {
		assert_true(i < count);
		assert_int_equal(container_of(pos, struct item, link)->number, numbers[i]);
		i++;
	}
	assert_int_equal(i, count);
	for (pos = head->prev; pos != head; pos = pos->prev) {
		i--;
		assert_int_equal(container_of(pos, struct item, link)->number, numbers[i]);
	}
	assert_int_equal(i, 0);
}

UNIT(push_and_pop)
{
	struct item a = { .number = 1 };
	struct item b = { .number = 2 };
	struct item c = { .number = 3 };
	struct list head;

	list_init(&head);
	assert_true(list_empty(&head));
	assert_null(list_first(&head));
	assert_null(list_last(&head));
	assert_null(list_pop_front(&head));
	assert_null(list_first_as(&head, struct item, link));

	list_push_back(&head, &b.link);
	list_push_back(&head, &c.link);
	list_push_front(&head, &a.link);
	expect(&head, (int[]){ 1, 2, 3 }, 3);
	assert_ptr_equal(list_first_as(&head, struct item, link), &a);
	assert_ptr_equal(list_last(&head), &c.link);
	assert_ptr_equal(list_next(&head, &a.link), &b.link);
	assert_null(list_next(&head, &c.link));

	assert_ptr_equal(list_pop_front_as(&head, struct item, link), &a);
	assert_false(list_linked(&a.link));
	expect(&head, (int[]){ 2, 3 }, 2);
	list_push_back(&head, &a.link);
	expect(&head, (int[]){ 2, 3, 1 }, 3);
}

UNIT(remove_while_walking)
{
	struct item items[6] = { 0 };
	struct list head = LIST_INIT(head);
	struct list *pos;
	struct list *after;
	int i;

	for (i = 0; i < 6; i++) {
		items[i].number = i;
		assert_false(list_linked(&items[i].link));
		list_push_back(&head, &items[i].link);
		assert_true(list_linked(&items[i].link));
	}
	list_for_each_safe (pos, after, &head) {
		if (container_of(pos, struct item, link)->number % 2 == 0)
			list_remove(pos);
	}
	expect(&head, (int[]){ 1, 3, 5 }, 3);
	list_insert_before(&items[3].link, &items[2].link);
	list_insert_after(&items[5].link, &items[0].link);
	expect(&head, (int[]){ 1, 2, 3, 5, 0 }, 5);
}

UNIT(splice)
{
	struct item items[4] = {
		{ .number = 0 }, { .number = 1 }, { .number = 2 }, { .number = 3 }
	};
	struct list a;
	struct list b;

	list_init(&a);
	list_init(&b);
	list_splice_back(&a, &b);
	expect(&a, NULL, 0);
	list_push_back(&b, &items[0].link);
	list_push_back(&b, &items[1].link);
	list_splice_back(&a, &b);
	expect(&a, (int[]){ 0, 1 }, 2);
	expect(&b, NULL, 0);
	list_push_back(&b, &items[2].link);
	list_push_back(&b, &items[3].link);
	list_splice_back(&a, &b);
	expect(&a, (int[]){ 0, 1, 2, 3 }, 4);
	assert_true(list_empty(&b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(push_and_pop),
		cmocka_unit_test(remove_while_walking),
		cmocka_unit_test(splice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
