/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated loop: order, turns, clocks, memory, determinism, and the rules that it watches. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "tests/sim/sim.h"

#define ROUNDS 40u

struct op {
	struct io_op op;
	bool done;
	int64_t res;
	unsigned order;
	struct io *io;
	struct op *then_defer;
};

static unsigned order_counter;

static void op_done(struct io_op *io_op, int64_t res)
{
	struct op *op = container_of(io_op, struct op, op);

	op->done = true;
	op->res = res;
	op->order = ++order_counter;
	if (op->then_defer)
		io_defer(op->io, &op->then_defer->op, 5);
}

struct alarm {
	struct io_timer timer;
	struct io *io;
	uint64_t fired_at_ns;
	unsigned order;
};

static void on_alarm(struct io_timer *timer)
{
	struct alarm *alarm = container_of(timer, struct alarm, timer);

	alarm->fired_at_ns = io_now(alarm->io);
	alarm->order = ++order_counter;
}

struct fixture {
	struct sim_options options;
	struct sim_world *world;
	struct sim_node *node;
	struct io *io;
};

static void begin(struct fixture *f, uint64_t seed)
{
	order_counter = 0;
	sim_options_calm(&f->options);
	f->world = sim_new(seed, &f->options);
	f->node = sim_node_new(f->world, "n");
	f->io = sim_node_io(f->node);
}

static void test_timers(void **state)
{
	struct alarm alarms[4] = { 0 };
	struct fixture f;
	uint64_t now_ns;

	(void)state;
	begin(&f, 1);
	now_ns = io_now(f.io);
	for (unsigned i = 0; i < 4; i++) {
		alarms[i].timer.fire = on_alarm;
		alarms[i].io = f.io;
	}
	io_timer_start(f.io, &alarms[0].timer, 30 * SIM_MS);
	io_timer_start(f.io, &alarms[1].timer, 10 * SIM_MS);
	io_timer_start(f.io, &alarms[2].timer, 20 * SIM_MS);
	io_timer_start(f.io, &alarms[3].timer, 10 * SIM_MS);
	io_timer_start(f.io, &alarms[0].timer, 40 * SIM_MS);
	io_timer_stop(f.io, &alarms[2].timer);
	io_timer_stop(f.io, &alarms[2].timer);
	assert_int_equal(sim_node_pending(f.node), 3);
	sim_run_for(f.world, SIM_SECOND);
	assert_int_equal(alarms[0].fired_at_ns, now_ns + 40 * SIM_MS);
	assert_int_equal(alarms[1].fired_at_ns, now_ns + 10 * SIM_MS);
	assert_int_equal(alarms[2].fired_at_ns, 0);
	assert_int_equal(alarms[1].order, 1);
	assert_int_equal(alarms[3].order, 2);
	assert_int_equal(alarms[0].timer.deadline_ns, 0);
	assert_int_equal(sim_node_pending(f.node), 0);
	sim_free(f.world);
}

static void test_clocks_drift(void **state)
{
	unsigned fast = 0, slow = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct fixture f;
		struct alarm alarm = { .timer.fire = on_alarm };
		uint64_t begin_ns, passed_ns, deadline_ns;

		sim_options_calm(&f.options);
		f.options.clock_drift_ppm = 10000;
		f.options.timer_late_ns = SIM_MS;
		f.world = sim_new(seed, &f.options);
		f.node = sim_node_new(f.world, "n");
		f.io = alarm.io = sim_node_io(f.node);
		begin_ns = io_now(f.io);
		deadline_ns = begin_ns + 7 * SIM_SECOND + 123457;
		io_timer_start(f.io, &alarm.timer, 7 * SIM_SECOND + 123457);
		sim_run_for(f.world, 10 * SIM_SECOND);
		assert_in_range(alarm.fired_at_ns, deadline_ns, deadline_ns + 2 * SIM_MS);
		passed_ns = io_now(f.io) - begin_ns;
		assert_in_range(passed_ns, 9900 * SIM_MS, 10100 * SIM_MS);
		fast += passed_ns > 10 * SIM_SECOND;
		slow += passed_ns < 10 * SIM_SECOND;
		sim_free(f.world);
	}
	assert_true(fast > 0 && slow > 0);
}

static void test_wall_clock_jumps_alone(void **state)
{
	struct fixture f;
	uint64_t now_ns, wall_ns;

	(void)state;
	begin(&f, 1);
	now_ns = io_now(f.io);
	wall_ns = io_wall(f.io);
	sim_node_wall_jump(f.node, -3600 * (int64_t)SIM_SECOND);
	assert_int_equal(io_now(f.io), now_ns);
	assert_int_equal(io_wall(f.io), wall_ns - 3600 * SIM_SECOND);
	sim_free(f.world);
}

static void double_it(struct io_op *op)
{
	op->res = 42;
}

static void test_turns(void **state)
{
	struct fixture f;
	struct op first, second, deferred, again, work, posted;

	(void)state;
	begin(&f, 1);
	first = second = deferred = again = work = posted = (struct op){ .op.done = op_done };
	deferred.then_defer = &again;
	deferred.io = f.io;
	io_defer(f.io, &deferred.op, 3);
	io_defer(f.io, &first.op, 4);
	assert_false(deferred.done);
	sim_run_for(f.world, 0);
	assert_int_equal(deferred.res, 3);
	assert_int_equal(deferred.order, 1);
	assert_int_equal(first.order, 2);
	assert_int_equal(again.order, 3);
	assert_int_equal(again.res, 5);
	io_work(f.io, double_it, &work.op);
	io_post(f.io, &posted.op);
	assert_false(work.done || posted.done);
	sim_run_for(f.world, SIM_SECOND);
	assert_int_equal(work.res, 42);
	assert_true(posted.done);
	assert_int_equal(posted.res, 0);
	sim_free(f.world);
}

/* Deferred work comes after every other event of the instant. */
static void test_deferred_is_last(void **state)
{
	struct fixture f;
	struct op deferred = { .op.done = op_done };
	struct alarm a = { .timer.fire = on_alarm }, b = { .timer.fire = on_alarm };

	(void)state;
	begin(&f, 1);
	a.io = b.io = f.io;
	io_defer(f.io, &deferred.op, 0);
	io_timer_start(f.io, &a.timer, 0);
	io_timer_start(f.io, &b.timer, 0);
	sim_run_for(f.world, 1);
	assert_int_equal(a.order, 1);
	assert_int_equal(b.order, 2);
	assert_int_equal(deferred.order, 3);
	sim_free(f.world);
}

static void test_memory(void **state)
{
	struct fixture f;
	uint8_t *memory;

	(void)state;
	begin(&f, 1);
	memory = io_alloc(f.io, 10000, 4096);
	assert_int_equal((uintptr_t)memory % 4096, 0);
	for (unsigned i = 0; i < 10000; i++)
		assert_int_equal(memory[i], 0);
	assert_int_equal(sim_node_alloc_bytes(f.node), 10000);
	io_free(f.io, memory);
	io_free(f.io, NULL);
	assert_int_equal(sim_node_alloc_bytes(f.node), 0);
	sim_node_fail_alloc(f.node, 2);
	assert_non_null(io_alloc(f.io, 8, 8));
	assert_null(io_alloc(f.io, 8, 8));
	assert_non_null(io_alloc(f.io, 8, 8));
	sim_node_crash(f.node, SIM_KILL);
	assert_int_equal(sim_node_alloc_bytes(f.node), 0);
	sim_free(f.world);
}

static void test_crash_silences(void **state)
{
	struct fixture f;
	struct op op = { .op.done = op_done };
	struct alarm alarm = { .timer.fire = on_alarm };
	uint64_t before_ns;

	(void)state;
	begin(&f, 1);
	alarm.io = f.io;
	before_ns = io_wall(f.io);
	io_timer_start(f.io, &alarm.timer, SIM_MS);
	io_post(f.io, &op.op);
	sim_node_crash_soon(f.node, SIM_POWER);
	sim_run_for(f.world, SIM_SECOND);
	assert_false(op.done);
	assert_int_equal(alarm.fired_at_ns, 0);
	assert_false(sim_node_is_up(f.node));
	sim_node_restart(f.node);
	assert_true(io_wall(f.io) >= before_ns + SIM_SECOND);
	sim_free(f.world);
}

static void test_pause(void **state)
{
	struct fixture f;
	struct op op = { .op.done = op_done };
	struct alarm alarm = { .timer.fire = on_alarm };
	uint64_t now_ns;

	(void)state;
	begin(&f, 1);
	alarm.io = f.io;
	now_ns = io_now(f.io);
	io_timer_start(f.io, &alarm.timer, SIM_SECOND);
	io_post(f.io, &op.op);
	sim_node_pause(f.node, 5 * SIM_SECOND);
	sim_run_for(f.world, 4 * SIM_SECOND);
	assert_false(op.done);
	sim_run_for(f.world, 2 * SIM_SECOND);
	assert_int_equal(op.order, 1);
	assert_int_equal(alarm.order, 2);
	assert_int_equal(alarm.fired_at_ns, now_ns + 5 * SIM_SECOND);
	sim_free(f.world);
}

static void test_two_processes_on_one_host(void **state)
{
	struct fixture f;
	struct sim_node *other;
	struct io_lock *lock;

	(void)state;
	begin(&f, 1);
	other = sim_node_beside(f.node, "m");
	assert_int_equal(io_mkdir(f.io, "/s"), 0);
	assert_int_equal(io_lock(f.io, "/s/lock", &lock), 0);
	assert_int_equal(io_lock(sim_node_io(other), "/s/lock", &lock), -EWOULDBLOCK);
	sim_node_crash(f.node, SIM_KILL);
	assert_true(sim_node_is_up(other));
	assert_int_equal(io_lock(sim_node_io(other), "/s/lock", &lock), 0);
	sim_node_restart(f.node);
	sim_node_crash(f.node, SIM_POWER);
	assert_false(sim_node_is_up(other));
	sim_free(f.world);
}

static uint64_t hash_of_run(uint64_t seed, bool disturbed)
{
	struct sim_options options;
	struct sim_world *world;
	struct sim_node *node;
	struct io *io;
	struct op ops[6];
	uint64_t hash;
	uint8_t *buf;
	struct io_file *file;

	sim_options_swarm(&options, seed);
	world = sim_new(seed, &options);
	node = sim_node_new(world, "n");
	io = sim_node_io(node);
	sim_file_make(node, "/f", 65536, true, false);
	assert_int_equal(io_file_open(io, "/f", IO_OPEN_DIRECT, &file), 0);
	buf = io_alloc(io, 8192, 512);
	buf[17] = disturbed;
	for (unsigned i = 0; i < 6; i++) {
		ops[i] = (struct op){ .op.done = op_done };
		io_write(file, buf, 8192, 8192u * i, i & 1 ? IO_DSYNC : 0, &ops[i].op);
	}
	sim_run_for(world, SIM_SECOND);
	hash = sim_hash(world);
	sim_free(world);
	return hash;
}

static void test_one_seed_is_one_run(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		assert_int_equal(hash_of_run(seed, false), hash_of_run(seed, false));
		assert_int_not_equal(hash_of_run(seed, false), hash_of_run(seed, true));
		assert_int_not_equal(hash_of_run(seed, false), hash_of_run(seed + 1, false));
	}
}

static void test_swarm_switches_classes_off(void **state)
{
	unsigned kills = 0, errors = 0, cuts = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 1000; seed++) {
		struct sim_options options;

		sim_options_swarm(&options, seed);
		kills += options.kill_every_ns != 0;
		errors += options.write_error_ppm != 0;
		cuts += options.cut_every_ns != 0;
	}
	assert_in_range(kills, 400, 600);
	assert_in_range(errors, 400, 600);
	assert_in_range(cuts, 400, 600);
}

/* ---- broken rules are noticed -----------------------------------------------------------------
 */

static struct io_file *open_file(struct sim_world *world, struct sim_node *node)
{
	struct io_file *file = NULL;

	sim_file_make(node, "/f", 65536, true, false);
	sim_check(world, io_file_open(sim_node_io(node), "/f", IO_OPEN_DIRECT, &file) == 0);
	return file;
}

struct sinner {
	struct io_op op, other;
	struct io_timer timer;
};

static void nothing(struct io_op *op, int64_t res)
{
	(void)op;
	(void)res;
}

static void nothing_timer(struct io_timer *timer)
{
	(void)timer;
}

struct sin {
	const char *reason; /* part of it */
	void (*commit)(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
		       uint8_t *buf);
};

static void sin_twice(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
		      uint8_t *buf)
{
	struct io_file *file = open_file(world, node);

	io_flush(file, &sinner->op);
	io_read(file, buf, 512, 0, &sinner->op);
}

static void sin_offset(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
		       uint8_t *buf)
{
	io_read(open_file(world, node), buf, 512, 100, &sinner->op);
}

static void sin_buffer(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
		       uint8_t *buf)
{
	io_write(open_file(world, node), buf + 8, 512, 0, 0, &sinner->op);
}

static void sin_changed(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
			uint8_t *buf)
{
	io_write(open_file(world, node), buf, 512, 0, 0, &sinner->op);
	buf[511] = 1;
	sim_run_for(world, SIM_SECOND);
}

static void sin_overlap(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
			uint8_t *buf)
{
	struct io_file *file = open_file(world, node);

	io_write(file, buf, 1024, 0, 0, &sinner->op);
	io_write(file, buf, 1024, 512, 0, &sinner->other);
}

static void sin_past_end(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
			 uint8_t *buf)
{
	io_write(open_file(world, node), buf, 1024, 65536 - 512, 0, &sinner->op);
}

static void sin_close(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
		      uint8_t *buf)
{
	struct io_file *file = open_file(world, node);

	io_read(file, buf, 512, 0, &sinner->op);
	io_file_close(file);
}

static void sin_free_op(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
			uint8_t *buf)
{
	(void)world;
	(void)buf;
	io_post(sim_node_io(node), &sinner->op);
	io_free(sim_node_io(node), sinner);
}

static void sin_free_timer(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
			   uint8_t *buf)
{
	(void)world;
	(void)buf;
	io_timer_start(sim_node_io(node), &sinner->timer, SIM_SECOND);
	io_free(sim_node_io(node), sinner);
}

static void sin_dead(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
		     uint8_t *buf)
{
	(void)world;
	(void)buf;
	(void)sinner;
	sim_node_crash(node, SIM_KILL);
	io_mkdir(sim_node_io(node), "/x");
}

static void sin_must(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
		     uint8_t *buf)
{
	(void)world;
	(void)node;
	(void)sinner;
	must(buf == NULL);
}

static void respin(struct io_op *op, int64_t res)
{
	(void)res;
	io_defer(*(struct io **)(op + 1), op, 0);
}

static void sin_spin(struct sim_world *world, struct sim_node *node, struct sinner *sinner,
		     uint8_t *buf)
{
	struct io_op *op = io_alloc(sim_node_io(node), sizeof(*op) + sizeof(struct io *), 8);

	(void)buf;
	(void)sinner;
	op->done = respin;
	*(struct io **)(op + 1) = sim_node_io(node);
	io_defer(sim_node_io(node), op, 0);
	sim_run_for(world, SIM_SECOND);
}

static void commit_sin(struct sim_world *world, void *context)
{
	const struct sin *sin = context;
	struct sim_node *node = sim_node_new(world, "n");
	struct sinner *sinner = io_alloc(sim_node_io(node), sizeof(*sinner), 8);
	uint8_t *buf = io_alloc(sim_node_io(node), 4096, 512);

	sinner->op.done = nothing;
	sinner->other.done = nothing;
	sinner->timer.fire = nothing_timer;
	sin->commit(world, node, sinner, buf);
}

static void test_broken_rules_are_noticed(void **state)
{
	static struct sin sins[] = {
		{ "in flight or not zeroed", sin_twice },
		{ "not aligned", sin_offset },
		{ "not aligned", sin_buffer },
		{ "buffer changed", sin_changed },
		{ "overlaps", sin_overlap },
		{ "past its end", sin_past_end },
		{ "operations in flight", sin_close },
		{ "operation in flight", sin_free_op },
		{ "running timer", sin_free_timer },
		{ "dead", sin_dead },
		{ "assertion", sin_must },
		{ "spins", sin_spin },
	};

	(void)state;
	for (size_t i = 0; i < array_len(sins); i++) {
		struct sim_options options;
		struct sim_world *world;

		sim_options_calm(&options);
		world = sim_new(1, &options);
		sim_report_to(world, NULL);
		assert_false(sim_run(world, commit_sin, &sins[i]));
		if (!strstr(sim_reason(world), sins[i].reason))
			fail_msg("expected \"%s\", got \"%s\"", sins[i].reason, sim_reason(world));
		sim_free(world);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_clocks_drift),
		cmocka_unit_test(test_wall_clock_jumps_alone),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_deferred_is_last),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_crash_silences),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_two_processes_on_one_host),
		cmocka_unit_test(test_one_seed_is_one_run),
		cmocka_unit_test(test_swarm_switches_classes_off),
		cmocka_unit_test(test_broken_rules_are_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
