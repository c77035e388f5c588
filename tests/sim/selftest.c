/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/selftest.h"

#include <errno.h>
#include <string.h>

#include "core/base/hash64.h"
#include "core/base/macros.h"

#define REGISTER_PATH	   "/store/register"
#define SLOT_BYTES	   2048u
#define STORE_ADDRESS	   "store:7000"
#define VALUES_OF_A_SEED   40u
#define VALUES_OF_A_SCRIPT 3u
#define RETRY_NS	   (50 * SIM_MS)
#define PATIENCE_NS	   SIM_SECOND
#define FAULTS_NS	   (20 * SIM_SECOND)
#define SCRIPT_NS	   (10 * SIM_SECOND)
#define CONVERGE_NS	   (120 * SIM_SECOND)

/* What the outside knows; it dies with nobody. */
struct model {
	struct sim_world *world;
	struct sim_node *store_node, *client_node;
	struct io_tls *store_tls, *client_tls;
	uint64_t sent, answered, target;
	enum selftest_bug bug;
};

/* The slot on the disk: the same in all its sectors but for the sector's number. */
struct sector {
	uint64_t value, number, sum;
	uint8_t filler[SIM_SECTOR_BYTES - 24];
};

struct message {
	uint64_t value;
};

struct store {
	struct model *model;
	struct io *io;
	struct io_file *file;
	struct io_listener *listener;
	struct io_stream *stream, *accepted;
	struct io_op read_op, flush_op, write_op, accept_op, tls_op, recv_op, send_op;
	struct io_timer retry;
	struct sector *slots;
	uint64_t value, wanted;
	bool writing, secured;
	struct message request, answer;
};

struct client {
	struct model *model;
	struct io *io;
	struct io_stream *stream;
	struct io_op connect_op, tls_op, send_op, recv_op;
	struct io_timer retry;
	bool connecting;
	struct message request, answer;
};

static uint64_t sector_sum(const struct sector *sector)
{
	return hash64(7, sector, offsetof(struct sector, sum));
}

/* ---- the store --------------------------------------------------------------------------------
 */

static void store_drop(struct store *store)
{
	io_stream_close(store->stream);
	store->stream = NULL;
	store->secured = false;
}

static void store_answer(struct store *store)
{
	struct iovec iov = { &store->answer, sizeof(store->answer) };

	if (!store->secured || store->send_op.state != IO_OP_IDLE)
		return;
	store->answer.value = store->value;
	io_sendv(store->stream, &iov, 1, &store->send_op);
}

static void store_receive(struct store *store)
{
	if (store->stream && store->recv_op.state == IO_OP_IDLE)
		io_recv(store->stream, &store->request, sizeof(store->request),
			sizeof(store->request), &store->recv_op);
}

static void store_write(struct store *store, uint64_t value)
{
	unsigned slot = store->model->bug == SELFTEST_ONE_SLOT ? 0 : value % 2;
	struct sector *sectors = store->slots + (size_t)slot * SLOT_BYTES / SIM_SECTOR_BYTES;

	store->writing = true;
	store->wanted = value;
	for (unsigned i = 0; i < SLOT_BYTES / SIM_SECTOR_BYTES; i++) {
		sectors[i].value = value;
		sectors[i].number = i;
		sectors[i].sum = sector_sum(&sectors[i]);
	}
	io_write(store->file, sectors, SLOT_BYTES, (uint64_t)slot * SLOT_BYTES,
		 store->model->bug == SELFTEST_NOT_DURABLE ? 0 : IO_DSYNC, &store->write_op);
	if (store->model->bug == SELFTEST_EARLY_ANSWER) {
		store->value = value;
		store_answer(store);
	}
}

static void store_written(struct io_op *op, int64_t res)
{
	struct store *store = container_of(op, struct store, write_op);
	struct model *model = store->model;

	store->writing = false;
	if (res < 0 && model->bug != SELFTEST_IGNORES_ERROR) {
		/* What the slot holds now is unknown: only a fresh start may look at it. */
		sim_node_crash_soon(model->store_node, SIM_KILL);
		return;
	}
	store->value = store->wanted;
	store_answer(store);
}

static void store_requested(struct io_op *op, int64_t res)
{
	struct store *store = container_of(op, struct store, recv_op);
	uint64_t value = store->request.value;

	if (res <= 0) {
		if (res != -ECANCELED)
			store_drop(store);
		return;
	}
	sim_check(store->model->world, value <= store->model->sent);
	if (value <= store->value)
		store_answer(store);
	else if (!store->writing)
		store_write(store, value);
}

static void store_sent(struct io_op *op, int64_t res)
{
	struct store *store = container_of(op, struct store, send_op);

	if (res < 0) {
		if (res != -ECANCELED)
			store_drop(store);
		return;
	}
	store_receive(store);
}

static void store_secured(struct io_op *op, int64_t res)
{
	struct store *store = container_of(op, struct store, tls_op);

	store->secured = res == 0;
	if (res == 0)
		store_receive(store);
	else if (res != -ECANCELED)
		store_drop(store);
}

/* A new connection replaces the old one, once the operations of that are back. */
static void store_accepted(struct io_op *op, int64_t res)
{
	struct store *store = container_of(op, struct store, accept_op);

	if (res < 0)
		return;
	store_drop(store);
	if (store->tls_op.state == IO_OP_IDLE && store->recv_op.state == IO_OP_IDLE &&
	    store->send_op.state == IO_OP_IDLE) {
		store->stream = store->accepted;
		io_start_tls(store->stream, store->model->store_tls, true, "client",
			     &store->tls_op);
	} else {
		io_stream_close(store->accepted);
	}
	io_accept(store->listener, &store->accepted, &store->accept_op);
}

static uint64_t slot_value(const struct store *store, unsigned slot)
{
	const struct sector *sectors = store->slots + (size_t)slot * SLOT_BYTES / SIM_SECTOR_BYTES;

	if (store->model->bug == SELFTEST_NO_CHECKSUM)
		return sectors[SLOT_BYTES / SIM_SECTOR_BYTES - 1].value;
	for (unsigned i = 0; i < SLOT_BYTES / SIM_SECTOR_BYTES; i++) {
		if (sectors[i].value != sectors[0].value || sectors[i].number != i ||
		    sectors[i].sum != sector_sum(&sectors[i]))
			return 0;
	}
	return sectors[0].value;
}

static void store_read(struct store *store)
{
	io_read(store->file, store->slots, 2 * SLOT_BYTES, 0, &store->read_op);
}

/* Every sector that the chosen value claims to be on must be whole. */
static void check_recovered(const struct store *store)
{
	const struct model *model = store->model;
	const struct sector *sectors =
		store->slots + (store->value % 2) * SLOT_BYTES / SIM_SECTOR_BYTES;

	if (store->value < model->answered || store->value > model->sent)
		sim_fail(model->world, "the store has %llu; answered were %llu, sent %llu",
			 (unsigned long long)store->value, (unsigned long long)model->answered,
			 (unsigned long long)model->sent);
	for (unsigned i = 0; store->value && i < SLOT_BYTES / SIM_SECTOR_BYTES; i++) {
		if (model->bug == SELFTEST_ONE_SLOT)
			sectors = store->slots;
		sim_check(model->world, sectors[i].value == store->value && sectors[i].number == i);
	}
}

static void store_serve(struct io_op *op, int64_t res)
{
	struct store *store = container_of(op, struct store, flush_op);

	if (res < 0) {
		/* Repeating the flush would prove nothing. */
		sim_node_crash_soon(store->model->store_node, SIM_KILL);
		return;
	}
	sim_check(store->model->world, io_listen(store->io, &(struct io_address){ STORE_ADDRESS },
						 &store->listener) == 0);
	io_accept(store->listener, &store->accepted, &store->accept_op);
}

static void store_loaded(struct io_op *op, int64_t res)
{
	struct store *store = container_of(op, struct store, read_op);

	if (res < 0) {
		io_timer_start(store->io, &store->retry, RETRY_NS);
		return;
	}
	store->value = max_u64(slot_value(store, 0), slot_value(store, 1));
	check_recovered(store);
	sim_note(store->model->world, store->model->store_node, "store has %llu",
		 (unsigned long long)store->value);
	/* What was read may be the work of a process that died before it was durable. */
	if (store->model->bug == SELFTEST_TRUSTS_READ)
		store_serve(&store->flush_op, 0);
	else
		io_flush(store->file, &store->flush_op);
}

static void store_retry(struct io_timer *timer)
{
	store_read(container_of(timer, struct store, retry));
}

static void store_start(struct model *model)
{
	struct io *io = sim_node_io(model->store_node);
	struct store *store = io_alloc(io, sizeof(*store), 64);

	store->model = model;
	store->io = io;
	store->read_op.done = store_loaded;
	store->flush_op.done = store_serve;
	store->write_op.done = store_written;
	store->accept_op.done = store_accepted;
	store->tls_op.done = store_secured;
	store->recv_op.done = store_requested;
	store->send_op.done = store_sent;
	store->retry.fire = store_retry;
	store->slots = io_alloc(io, (size_t)2 * SLOT_BYTES, SIM_SECTOR_BYTES);
	sim_check(model->world, io_file_open(io, REGISTER_PATH, IO_OPEN_DIRECT, &store->file) == 0);
	store_read(store);
}

/* ---- the client -------------------------------------------------------------------------------
 */

static void client_later(struct client *client)
{
	io_stream_close(client->stream);
	client->stream = NULL;
	io_timer_start(client->io, &client->retry, RETRY_NS);
}

static void client_ask(struct client *client)
{
	struct model *model = client->model;
	struct iovec iov = { &client->request, sizeof(client->request) };

	if (model->answered == model->target)
		return;
	model->sent = max_u64(model->sent, model->answered + 1);
	client->request.value = model->answered + 1;
	io_timer_start(client->io, &client->retry, PATIENCE_NS);
	io_sendv(client->stream, &iov, 1, &client->send_op);
}

static void client_sent(struct io_op *op, int64_t res)
{
	struct client *client = container_of(op, struct client, send_op);

	if (res > 0)
		io_recv(client->stream, &client->answer, sizeof(client->answer),
			sizeof(client->answer), &client->recv_op);
	else if (res != -ECANCELED)
		client_later(client);
}

static void client_answered(struct io_op *op, int64_t res)
{
	struct client *client = container_of(op, struct client, recv_op);
	struct model *model = client->model;

	if (res <= 0) {
		if (res != -ECANCELED)
			client_later(client);
		return;
	}
	sim_check(model->world, client->answer.value <= model->sent);
	model->answered = max_u64(model->answered, client->answer.value);
	client_ask(client);
}

static void client_secured(struct io_op *op, int64_t res)
{
	struct client *client = container_of(op, struct client, tls_op);

	if (res == 0)
		client_ask(client);
	else if (res != -ECANCELED)
		client_later(client);
}

static void client_connected(struct io_op *op, int64_t res)
{
	struct client *client = container_of(op, struct client, connect_op);

	client->connecting = false;
	if (res < 0) {
		client_later(client);
		return;
	}
	io_timer_start(client->io, &client->retry, PATIENCE_NS);
	io_start_tls(client->stream, client->model->client_tls, false, "store", &client->tls_op);
}

/* The connection has failed, or nothing has come for too long. */
static void client_retry(struct io_timer *timer)
{
	struct client *client = container_of(timer, struct client, retry);

	if (client->stream) {
		client_later(client);
		return;
	}
	if (client->connecting || client->tls_op.state || client->send_op.state ||
	    client->recv_op.state) {
		io_timer_start(client->io, &client->retry, RETRY_NS);
		return;
	}
	client->connecting = true;
	io_connect(client->io, &(struct io_address){ STORE_ADDRESS }, &client->stream,
		   &client->connect_op);
}

static void client_start(struct model *model)
{
	struct io *io = sim_node_io(model->client_node);
	struct client *client = io_alloc(io, sizeof(*client), 64);

	client->model = model;
	client->io = io;
	client->connect_op.done = client_connected;
	client->tls_op.done = client_secured;
	client->send_op.done = client_sent;
	client->recv_op.done = client_answered;
	client->retry.fire = client_retry;
	io_timer_start(io, &client->retry, 1);
}

/* ---- runs -------------------------------------------------------------------------------------
 */

static struct model *model_new(struct sim_world *world, uint64_t target, enum selftest_bug bug)
{
	struct model *model = sim_alloc(world, sizeof(*model));

	model->world = world;
	model->target = target;
	model->bug = bug;
	model->store_node = sim_node_new(world, "store");
	model->client_node = sim_node_new(world, "client");
	model->store_tls = sim_tls(model->store_node, "store", "ca");
	model->client_tls = sim_tls(model->client_node, "client", "ca");
	sim_file_make(model->store_node, REGISTER_PATH, 2 * SLOT_BYTES, false, false);
	sim_set_user(world, model);
	store_start(model);
	client_start(model);
	return model;
}

static void start_node(void *context, struct sim_node *node)
{
	struct model *model = context;

	if (node == model->store_node)
		store_start(model);
	else
		client_start(model);
}

static bool has_reached_target(void *context)
{
	const struct model *model = context;

	return model->answered == model->target;
}

/* A store that gave up on a failed write is started again, as a service manager would. */
static void supervise(void *context)
{
	struct model *model = context;

	if (!sim_node_is_up(model->store_node)) {
		sim_node_restart(model->store_node);
		store_start(model);
	}
	sim_after(model->world, SIM_SECOND, supervise, model);
}

int selftest_run(struct sim_world *world, enum selftest_bug bug)
{
	struct model *model = model_new(world, VALUES_OF_A_SEED, bug);
	struct sim_nemesis nemesis = { .restart = start_node, .context = model };

	/* The run is short: errors must be frequent to happen at all. */
	sim_options(world)->write_error_ppm *= 25;
	sim_options(world)->flush_error_ppm *= 25;
	sim_options(world)->read_error_ppm *= 25;
	sim_nemesis_start(world, &nemesis);
	supervise(model);
	sim_run_until(world, has_reached_target, model, FAULTS_NS);
	sim_options_heal(sim_options(world));
	sim_fault_clear(world);
	sim_nemesis_stop(world);
	if (!sim_run_until(world, has_reached_target, model, CONVERGE_NS))
		sim_fail(world, "no progress after the faults: %llu of %llu",
			 (unsigned long long)model->answered, (unsigned long long)model->target);
	sim_node_crash(model->store_node, SIM_POWER);
	sim_node_restart(model->store_node);
	store_start(model);
	sim_run_for(world, SIM_SECOND);
	return 0;
}

static int run_sound(struct sim_world *world, uint64_t seed)
{
	(void)seed;
	return selftest_run(world, SELFTEST_SOUND);
}

enum selftest_bug selftest_script_bug = SELFTEST_SOUND;

static void script_start(struct sim_world *world)
{
	model_new(world, VALUES_OF_A_SCRIPT, selftest_script_bug);
}

static bool script_done(struct sim_world *world)
{
	const struct model *model = sim_user(world);

	/* A disk that fails for good keeps the store from ever starting. */
	return model->answered == model->target || !sim_node_is_up(model->store_node) ||
	       sim_now(world) > SCRIPT_NS;
}

static void script_check(struct sim_world *world)
{
	struct model *model = sim_user(world);

	for (unsigned i = 0; i < 2; i++) {
		struct sim_node *node = sim_node_at(world, i);

		if (!sim_node_is_up(node)) {
			sim_node_restart(node);
			start_node(model, node);
		}
	}
	if (!sim_run_until(world, has_reached_target, model, CONVERGE_NS))
		sim_fail(world, "no progress after the fault");
	/* Nothing that is not durable survives. */
	sim_node_crash_exactly(model->store_node, SIM_POWER, 0);
	sim_node_restart(model->store_node);
	store_start(model);
	sim_run_for(world, SIM_SECOND);
}

const struct sim_enum_script selftest_script = {
	.name = "selftest",
	.start = script_start,
	.done = script_done,
	.check = script_check,
	.targets = 2,
	.no_fail_allocs = true,
};

static void enumerate_sound(const struct sim_enum_options *options, struct sim_enum_result *result)
{
	selftest_script_bug = SELFTEST_SOUND;
	sim_enumerate(&selftest_script, options, result);
}

const struct sim_scenario scenario_selftest = {
	.name = "selftest",
	.about = "a register on a disk behind a connection",
	.run = run_sound,
	.enumerate = enumerate_sound,
};
