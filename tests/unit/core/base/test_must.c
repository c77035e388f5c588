/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/must.h"
#include "tests/unit/unit.h"

/* Runs must(holds) in a child and gives back what it printed and how it ended. */
static int run_must(bool holds, char *text, size_t size)
{
	int pipe_fds[2];
	ssize_t got;
	int status;
	pid_t child;

	assert_int_equal(pipe(pipe_fds), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		(void)signal(SIGABRT, SIG_DFL);
		(void)dup2(pipe_fds[1], STDERR_FILENO);
		must(holds);
		_exit(0);
	}
	(void)close(pipe_fds[1]);
	got = read(pipe_fds[0], text, size - 1);
	assert_true(got >= 0);
	text[got] = '\0';
	(void)close(pipe_fds[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

UNIT(holds)
{
	char text[512];
	int status = run_must(true, text, sizeof(text));

	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_string_equal(text, "");
}

UNIT(fails_with_place_and_expression)
{
	char text[512];
	int status = run_must(false, text, sizeof(text));

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_non_null(strstr(text, "test_must.c:"));
	assert_non_null(strstr(text, "run_must: must(holds) does not hold\n"));
}

UNIT(evaluates_once)
{
	int count = 0;

	must(++count == 1);
	assert_int_equal(count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds),
		cmocka_unit_test(fails_with_place_and_expression),
		cmocka_unit_test(evaluates_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
