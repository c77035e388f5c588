/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sites: what starts, what restarts, and what can be asked of them.
 */
#include "tests/sim/pair.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "core/group/init.h"
#include "core/group/volume.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "tests/sim/reach.h"

#define STATE_DIR   "/state"
#define GROUP	    "g"
#define PORT	    "7400"
#define START_LIMIT (120 * SIM_SECOND)

/* ---- the door of a standby: accept, TLS, HELLO, then the group's ---- */

struct visitor {
	struct lobby *lobby;
	struct io_stream *stream;
	struct io_op op;
	uint8_t header[FRAME_BYTES];
	struct frame frame;
	uint8_t body[FRAME_CONTROL_MAX_BYTES];
	struct link_hello hello;
	struct io_timer deadline;
	bool dead;
};

struct lobby {
	struct site *site;
	struct io *io;
	struct io_listener *listener;
	struct io_op op;
	struct io_stream *stream;
};

static void visitor_free(struct visitor *visitor)
{
	io_timer_stop(visitor->lobby->io, &visitor->deadline);
	io_free(visitor->lobby->io, visitor);
}

static bool visitor_bad(struct visitor *visitor, int64_t res)
{
	if (res > 0 && !visitor->dead)
		return false;
	if (!visitor->dead)
		io_stream_close(visitor->stream);
	visitor_free(visitor);
	return true;
}

static void visitor_late(struct io_timer *timer)
{
	struct visitor *visitor = container_of(timer, struct visitor, deadline);

	visitor->dead = true;
	io_stream_close(visitor->stream);
}

static void got_body(struct io_op *op, int64_t res)
{
	struct visitor *visitor = container_of(op, struct visitor, op);
	struct site *site = visitor->lobby->site;

	if (visitor_bad(visitor, res))
		return;
	if (link_hello_unpack(visitor->body, visitor->frame.body_bytes, &visitor->hello)) {
		visitor_bad(visitor, 0);
		return;
	}
	engine_group_connect(site->engine, visitor->stream, &visitor->hello);
	visitor_free(visitor);
}

static void got_header(struct io_op *op, int64_t res)
{
	struct visitor *visitor = container_of(op, struct visitor, op);

	if (visitor_bad(visitor, res))
		return;
	if (frame_decode(visitor->header, FRAME_BYTES, &visitor->frame) ||
	    visitor->frame.type != FRAME_HELLO) {
		visitor_bad(visitor, 0);
		return;
	}
	op->done = got_body;
	io_recv(visitor->stream, visitor->body, visitor->frame.body_bytes,
		visitor->frame.body_bytes, op);
}

static void shook(struct io_op *op, int64_t res)
{
	struct visitor *visitor = container_of(op, struct visitor, op);

	if (visitor_bad(visitor, res < 0 ? res : 1))
		return;
	op->done = got_header;
	io_recv(visitor->stream, visitor->header, FRAME_BYTES, FRAME_BYTES, op);
}

static void accepted(struct io_op *op, int64_t res)
{
	struct lobby *lobby = container_of(op, struct lobby, op);
	struct visitor *visitor;

	if (res < 0)
		return;
	visitor = io_alloc(lobby->io, sizeof(*visitor), 64);
	sim_check(lobby->site->pair->world, visitor);
	visitor->lobby = lobby;
	visitor->stream = lobby->stream;
	visitor->op.done = shook;
	visitor->deadline.fire = visitor_late;
	io_timer_start(lobby->io, &visitor->deadline, 10 * SIM_SECOND);
	io_start_tls(visitor->stream, lobby->site->engine_tls, true, NULL, &visitor->op);
	io_accept(lobby->listener, &lobby->stream, &lobby->op);
}

static void lobby_open(struct site *site)
{
	struct io_address address = { .text = "0.0.0.0:" PORT };
	struct io *io = sim_node_io(site->engine_node);

	site->lobby = io_alloc(io, sizeof(*site->lobby), 64);
	site->lobby->site = site;
	site->lobby->io = io;
	sim_check(site->pair->world, io_listen(io, &address, &site->lobby->listener) == 0);
	site->lobby->op.done = accepted;
	io_accept(site->lobby->listener, &site->lobby->stream, &site->lobby->op);
}

/* ---- daemons ---- */

static void fenced(struct site *site)
{
	site->pair->fenced++;
	site->fenced = true;
	site->fenced_ns = sim_now(site->pair->world);
}

static void agent_started(void *owner, struct agent_group *group, int res)
{
	struct site *site = owner;
	struct pair *pair = site->pair;
	struct status_group *status = sim_alloc(pair->world, sizeof(*status));

	site->agent_res = res;
	sim_note(pair->world, site->agent_node, "agent started: %d", res);
	agent_group_status(group, status);
	if (res == 0) {
		site->agent_up = true;
		if (site != pair->primary && pair->links_up)
			sim_fail(pair->world, "a former primary serves, and could have asked");
		if (site == pair->primary) {
			model_recovered(&pair->model, status->head_seq, pair->power_lost,
					"primary after restart");
			pair->power_lost = false;
			/* What was found has been made durable. */
			pair->model.acked = pair->model.durable = status->head_seq;
		}
		return;
	}
	if (res == -ESTALE) {
		REACH(FENCED_STARTING);
		fenced(site);
		if (site == pair->primary && !pair->promote_begun)
			sim_fail(pair->world, "the rightful primary was fenced: %s",
				 status->detail);
		agent_group_stop(group);
		return;
	}
	if (res == -EPERM && pair->held_ok) {
		site->held = true;
		return;
	}
	if (!pair->failing_ok)
		sim_fail(pair->world, "the agent of %s cannot start: %d %s", site->name, res,
			 status->detail);
	/* A disk that fails a flush now may drop what a killed process had written. */
	if (site == pair->primary)
		pair->power_lost = true;
	agent_group_stop(group);
}

static void agent_restart(void *context)
{
	struct site *site = context;

	if (sim_node_is_up(site->agent_node) && site->agent_wanted && !site->agent)
		site_start_agent(site);
}

static void agent_gone(void *owner, struct agent_group *group, int res)
{
	struct site *site = owner;

	(void)res;
	agent_group_free(group);
	site->agent = NULL;
	if (site->agent_res != -ESTALE)
		sim_after(site->pair->world, 100 * SIM_MS, agent_restart, site);
}

static void agent_failed(void *owner, struct agent_group *group, int res)
{
	struct site *site = owner;
	struct pair *pair = site->pair;

	sim_note(pair->world, site->agent_node, "agent failed: %d", res);
	site->agent_up = false;
	site->agent_res = res;
	if (res == -ESTALE) {
		REACH(FENCED_SERVING);
		fenced(site);
		if (site == pair->primary && !pair->promote_begun)
			sim_fail(pair->world, "the rightful primary was fenced");
	} else if (!pair->failing_ok) {
		struct status_group *status = sim_alloc(pair->world, sizeof(*status));

		agent_group_status(group, status);
		sim_fail(pair->world, "the agent of %s failed: %s", site->name, status->detail);
	}
	if (site == pair->primary)
		pair->incarnation++, pair->power_lost = true;
	if (res != -ESTALE)
		REACH(AGENT_FAILED);
	agent_group_stop(group);
}

void site_start_agent(struct site *site)
{
	struct agent_options options = {
		.io = sim_node_io(site->agent_node),
		.conf = site->conf,
		.group = site->conf_group,
		.tls = site->agent_tls,
		.events = { site, agent_started, agent_failed, agent_gone },
	};

	site->agent_wanted = true;
	site->agent_up = false;
	site->agent_starts++;
	site->fenced = false;
	site->seen = (struct seen){ 0 };
	sim_check(site->pair->world, agent_group_new(&options, &site->agent) == 0);
	agent_group_start(site->agent);
}

/* What the standby has acknowledged as durable it has, whatever happened to it (I4). */
static void check_kept(struct site *site)
{
	struct pair *pair = site->pair;
	struct status_group *status = sim_alloc(pair->world, sizeof(*status));

	engine_group_status(site->engine, status);
	if (site != pair->primary && status->durable_seq < pair->promised &&
	    !(pair->kept && status->durable_seq == pair->kept_seq))
		sim_fail(pair->world,
			 "the standby came back with seq %llu, but had acknowledged seq %llu",
			 (unsigned long long)status->durable_seq,
			 (unsigned long long)pair->promised);
}

static void engine_started(void *owner, struct engine_group *group, int res)
{
	struct site *site = owner;

	(void)group;
	sim_note(site->pair->world, site->engine_node, "engine started: %d", res);
	site->engine_up = res == 0;
	if (res == 0)
		check_kept(site);
	if (res < 0 && !site->pair->failing_ok)
		sim_fail(site->pair->world, "the engine of %s cannot start: %d", site->name, res);
}

void site_start_engine(struct site *site)
{
	struct engine_options options = {
		.io = sim_node_io(site->engine_node),
		.conf = site->conf,
		.group = site->engine_group,
		.events = { site, engine_started, NULL },
	};

	site->engine_wanted = true;
	site->engine_up = false;
	site->seen_engine = (struct seen_engine){ 0 };
	sim_check(site->pair->world, engine_group_new(&options, &site->engine) == 0);
	engine_group_start(site->engine);
	lobby_open(site);
}

void site_lost_agent(struct site *site, enum sim_crash kind)
{
	struct pair *pair = site->pair;

	site->agent = NULL;
	site->agent_up = false;
	if (site != pair->primary) {
		work_forget_site(pair, site);
		return;
	}
	pair->power_lost |= kind == SIM_POWER;
	pair->crashes++;
	work_forget(pair);
}

void site_lost_engine(struct site *site)
{
	site->engine = NULL;
	site->engine_up = false;
	site->lobby = NULL;
}

/* ---- making it ---- */

static void make_conf(struct pair *pair, struct site *site, const char *peer)
{
	struct sim_world *world = pair->world;
	struct conf *conf = sim_alloc(world, sizeof(*conf));
	struct conf_group *group = sim_alloc(world, sizeof(*group));
	char *address = sim_alloc(world, 64);

	snprintf(address, 64, "%s:" PORT, peer);
	conf->node = (char *)(uintptr_t)site->name;
	conf->state_dir = (char *)(uintptr_t)STATE_DIR;
	conf->groups = group;
	conf->group_count = 1;
	group->name = (char *)(uintptr_t)GROUP;
	group->cache = pair->writethrough ? CONF_WRITETHROUGH : CONF_WRITEBACK;
	/* Little memory: requests wait for room. */
	group->memory_bytes = sim_chance(world, 300000) ? 400u << 10 : 1u << 20;
	group->checkpoint_interval_ns = sim_between(world, 50, 2000) * SIM_MS;
	group->flush_interval_ns = sim_between(world, 2, 50) * SIM_MS;
	group->settle_timeout_ns = SIM_SECOND;
	group->heartbeat_interval_ns = 200 * SIM_MS;
	group->peer_timeout_ns = 2 * SIM_SECOND;
	group->volumes = sim_alloc(world, PAIR_VOLUMES * sizeof(*group->volumes));
	group->volume_count = PAIR_VOLUMES;
	for (unsigned i = 0; i < PAIR_VOLUMES; i++) {
		group->volumes[i].name = sim_alloc(world, 32);
		group->volumes[i].path = sim_alloc(world, 32);
		snprintf(group->volumes[i].name, 32, "v%u", i);
		snprintf(group->volumes[i].path, 32, "/vol/v%u", i);
	}
	site->engine_group = sim_alloc(world, sizeof(*group));
	group->peers = sim_alloc(world, sizeof(*group->peers));
	group->peer_count = 1;
	group->peers[0].node = (char *)(uintptr_t)peer;
	group->peers[0].address = address;
	group->peers[0].window_bytes = sim_chance(world, 500000) ? 64 << 10 : 1 << 20;
	site->conf = conf;
	site->conf_group = group;
	*site->engine_group = *group;
	site->engine_group->memory_bytes = 5u << 20; /* the largest segment must fit */
}

struct pair *pair_new(struct sim_world *world, uint64_t slot_bytes, uint32_t slots)
{
	struct pair *pair = sim_alloc(world, sizeof(*pair));
	static const char *const names[2] = { "alpha", "beta" };

	log_set_level(LOG_LEVEL_ERROR);
	pair->world = world;
	pair->slot_bytes = slot_bytes;
	pair->writethrough = sim_chance(world, 400000);
	if (pair->writethrough)
		REACH(WRITETHROUGH);
	else
		REACH(WRITEBACK);
	pair->pace_us = (unsigned)sim_between(world, 100, sim_chance(world, 300000) ? 300 : 3000);
	pair->primary = &pair->sites[0];
	pair->epoch = 1;
	model_init(&pair->model, world);
	sim_set_user(world, pair);
	for (unsigned i = 0; i < 2; i++) {
		struct site *site = &pair->sites[i];

		site->pair = pair;
		site->name = names[i];
		site->engine_node = sim_node_new(world, names[i]);
		site->agent_node =
			sim_node_beside(site->engine_node, i ? "beta-agent" : "alpha-agent");
		site->agent_tls = sim_tls(site->agent_node, names[i], "ca");
		site->engine_tls = sim_tls(site->engine_node, names[i], "ca");
		make_conf(pair, site, names[1 - i]);
		site->conf_group->journal_file_bytes = slot_bytes;
		site->conf_group->journal_size_bytes = slot_bytes * slots;
		for (unsigned v = 0; v < PAIR_VOLUMES; v++)
			sim_file_make(site->engine_node, site->conf_group->volumes[v].path,
				      PAIR_VOLUME_BYTES, false,
				      i == 1 || sim_chance(world, 300000));
	}
	return pair;
}

struct waiting {
	struct io_op op;
	bool done;
	int64_t res;
};

static void waited(struct io_op *op, int64_t res)
{
	struct waiting *waiting = container_of(op, struct waiting, op);

	waiting->done = true;
	waiting->res = res;
}

static bool is_done(void *context)
{
	return ((struct waiting *)context)->done;
}

static void init_group(struct site *site, enum group_role role)
{
	struct sim_world *world = site->pair->world;
	struct group_init_volume volumes[PAIR_VOLUMES];
	struct waiting *waiting = sim_alloc(world, sizeof(*waiting));
	struct group_init *init = sim_alloc(world, sizeof(*init));

	for (unsigned i = 0; i < PAIR_VOLUMES; i++)
		volumes[i] = (struct group_init_volume){ site->conf_group->volumes[i].name,
							 site->conf_group->volumes[i].path };
	*init = (struct group_init){
		.io = sim_node_io(site->agent_node),
		.state_dir = STATE_DIR,
		.group = GROUP,
		.role = role,
		.journal_file_bytes = site->conf_group->journal_file_bytes,
		.journal_files = (uint32_t)(site->conf_group->journal_size_bytes /
					    site->conf_group->journal_file_bytes),
		.volumes = volumes,
		.volume_count = PAIR_VOLUMES,
		.sb = sim_alloc(world, sizeof(struct superblock)),
	};
	waiting->op.done = waited;
	group_init_run(init, &waiting->op);
	sim_check(world, sim_run_until(world, is_done, waiting, START_LIMIT));
	if (waiting->res)
		sim_fail(world, "init of %s: %s", site->name, init->error);
	site->inited = true;
}

/* The primary's volumes hold data before replication begins. */
static void fill_volumes(struct pair *pair)
{
	struct site *site = pair->primary;
	uint8_t sector[SIM_SECTOR_BYTES];

	pair->model.initial_id = pair->model.next_id++;
	for (unsigned v = 0; v < PAIR_VOLUMES; v++)
		for (unsigned s = 0; s < PAIR_SECTORS; s++) {
			model_fill(sector, pair->model.initial_id, v, s);
			sim_file_poke(site->engine_node, site->conf_group->volumes[v].path,
				      (uint64_t)s * SIM_SECTOR_BYTES, sector, sizeof(sector));
		}
}

bool pair_agent_serving(const struct pair *pair)
{
	return pair->primary->agent_up;
}

static bool serving(void *context)
{
	return pair_agent_serving(context);
}

void pair_up(struct pair *pair)
{
	struct sim_options saved = *sim_options(pair->world);

	/* Setting up is not what is tested here. */
	sim_options_heal(sim_options(pair->world));
	init_group(&pair->sites[0], GROUP_PRIMARY);
	init_group(&pair->sites[1], GROUP_STANDBY);
	if (sim_chance(pair->world, 500000))
		fill_volumes(pair);
	site_start_engine(&pair->sites[1]);
	site_start_agent(&pair->sites[0]);
	sim_check(pair->world, sim_run_until(pair->world, serving, pair, START_LIMIT));
	*sim_options(pair->world) = saved;
}

/* ---- questions ---- */

bool pair_in_sync(const struct pair *pair)
{
	static struct status_group a, e;
	const struct site *standby = &pair->sites[pair->primary == &pair->sites[0]];

	if (!pair->primary->agent_up || !standby->engine || !work_idle(pair))
		return false;
	agent_group_status(pair->primary->agent, &a);
	engine_group_status(standby->engine, &e);
	return a.peer_count == 1 && a.peers[0].connected && !a.peers[0].sync.active &&
	       a.head_seq == a.durable_seq && a.applied_seq == a.head_seq && e.consistent &&
	       !e.syncing && e.durable_seq == a.head_seq && e.applied_seq == a.head_seq &&
	       a.peers[0].durable_seq == a.head_seq;
}

void pair_check_volumes(struct pair *pair, struct site *site, uint64_t seq, const char *what)
{
	uint8_t *bytes = sim_alloc(pair->world, PAIR_VOLUME_BYTES);

	for (unsigned v = 0; v < PAIR_VOLUMES; v++) {
		sim_file_peek(site->engine_node, site->conf_group->volumes[v].path, 0, bytes,
			      PAIR_VOLUME_BYTES);
		model_compare(&pair->model, seq, v, 0, PAIR_SECTORS, bytes, what);
	}
}

static bool idle(void *context)
{
	return work_idle(context);
}

void pair_check_served(struct pair *pair, const char *what)
{
	(void)what;
	work_stop(pair);
	sim_check(pair->world, sim_run_until(pair->world, idle, pair, START_LIMIT));
	for (unsigned v = 0; v < PAIR_VOLUMES; v++) {
		if (!work_read(pair, v, 0, PAIR_SECTORS))
			sim_fail(pair->world, "%s: nothing is served", what);
		sim_check(pair->world, sim_run_until(pair->world, idle, pair, START_LIMIT));
	}
}

struct promoting {
	struct engine_promote promote;
	struct sim_node *node;
	bool done;
};

static void promoted(struct engine_promote *promote)
{
	container_of(promote, struct promoting, promote)->done = true;
}

static bool promote_done(void *context)
{
	struct promoting *promoting = context;

	return promoting->done || !sim_node_is_up(promoting->node);
}

/* In the middle of a copy it goes back to the position of before. */
static void note_kept(struct pair *pair, struct site *site)
{
	struct status_group *status = sim_alloc(pair->world, sizeof(*status));

	engine_group_status(site->engine, status);
	if (!status->kept)
		return;
	pair->kept = true;
	pair->kept_seq = status->kept_seq;
}

int pair_promote(struct pair *pair, struct site *site, bool force, struct engine_promote *ret)
{
	struct promoting *promoting = sim_alloc(pair->world, sizeof(*promoting));

	promoting->node = site->engine_node;
	promoting->promote.force = force;
	promoting->promote.done = promoted;
	pair->promote_begun = true;
	note_kept(pair, site);
	if (site->engine && pair_behind(site))
		REACH(PROMOTE_BEHIND);
	engine_group_promote(site->engine, &promoting->promote);
	sim_run_until(pair->world, promote_done, promoting, START_LIMIT);
	if (!promoting->done && sim_node_is_up(promoting->node))
		sim_fail(pair->world, "promote does not come to an end");
	if (!promoting->done) {
		REACH(PROMOTE_KILLED);
		site_lost_engine(site); /* killed in the middle of it */
		return -EAGAIN;
	}
	*ret = promoting->promote;
	if (ret->res == 0)
		REACH(PROMOTED);
	if (ret->res == 0 && force && pair->primary->agent_up)
		REACH(PROMOTE_FORCED);
	return promoting->promote.res;
}

void pair_sample(struct pair *pair)
{
	static struct status_group status;

	pair->sampled_ns = sim_now(pair->world);
	pair_look(pair);
	if (!pair->sites[0].agent)
		return;
	agent_group_status(pair->sites[0].agent, &status);
	if (status.peer_count && status.peers[0].durable_seq > pair->promised)
		pair->promised = status.peers[0].durable_seq;
}

/* Asking costs more than an event does. */
static bool in_sync(void *context)
{
	struct pair *pair = context;

	if (sim_now(pair->world) < pair->ask_ns)
		return false;
	pair->ask_ns = sim_now(pair->world) + 2 * SIM_MS;
	return pair_in_sync(pair);
}

void pair_converge(struct pair *pair)
{
	static struct status_group a, e;
	struct site *primary = pair->primary;
	struct site *standby = &pair->sites[primary == &pair->sites[0]];

	if (sim_run_until(pair->world, in_sync, pair, 90 * SIM_SECOND))
		return;
	memset(&a, 0, sizeof(a));
	memset(&e, 0, sizeof(e));
	if (primary->agent)
		agent_group_status(primary->agent, &a);
	if (standby->engine)
		engine_group_status(standby->engine, &e);
	sim_fail(pair->world,
		 "does not converge: primary %s (%s) head %llu durable %llu applied %llu, link %s "
		 "(%s) "
		 "acked %llu; standby %s (%s) durable %llu applied %llu syncing %d; requests idle "
		 "%d; "
		 "consistent %d sync %d needs %d",
		 a.state, a.detail, (unsigned long long)a.head_seq,
		 (unsigned long long)a.durable_seq, (unsigned long long)a.applied_seq,
		 a.peers[0].state, a.peers[0].error, (unsigned long long)a.peers[0].durable_seq,
		 e.state, e.detail, (unsigned long long)e.durable_seq,
		 (unsigned long long)e.applied_seq, e.syncing, work_idle(pair), e.consistent,
		 a.peers[0].sync.active, a.peers[0].needs_sync);
}

static void bring_back(struct pair *pair)
{
	struct site *alpha = &pair->sites[0];

	sim_heal_all(pair->world);
	work_stop(pair);
	if (!alpha->agent) {
		if (!sim_node_is_up(alpha->agent_node))
			sim_node_restart(alpha->agent_node);
		site_start_agent(alpha);
	}
	pair_converge(pair);
	pair->kept = false;
}

/* Right behind the promote: what it said is on the disk. */
static void power_cycle(struct site *site)
{
	REACH(PROMOTED_THEN_POWER);
	site_lost_agent(site, SIM_POWER);
	site_lost_engine(site);
	sim_node_crash(site->engine_node, SIM_POWER);
	sim_node_restart(site->engine_node);
	sim_node_restart(site->agent_node);
	site_start_engine(site);
}

/* As an operator would: again until it is done, with --force when it must be. */
void pair_fail_over(struct pair *pair)
{
	struct site *beta = &pair->sites[1];
	struct sim_world *world = pair->world;
	struct engine_promote result = { 0 };
	int r = -EAGAIN;

	for (unsigned i = 0; i < 4 && r == -EAGAIN; i++) {
		if (!beta->engine || !sim_node_is_up(beta->engine_node)) {
			site_lost_engine(beta);
			if (!sim_node_is_up(beta->engine_node))
				sim_node_restart(beta->engine_node);
			if (!sim_node_is_up(beta->agent_node))
				sim_node_restart(beta->agent_node);
			site_start_engine(beta);
			sim_run_for(world, SIM_SECOND);
		}
		r = pair_promote(pair, beta, i >= 2, &result);
		if (r == -EPERM) /* a HELLO of a process that is gone came last and lacks what is
				    here; the operator knows that it is gone */
			r = pair_promote(pair, beta, true, &result);
		if (r == -EAGAIN)
			sim_run_for(world, 3 * SIM_SECOND);
		if (r == -EUCLEAN) { /* its copy was not done when the primary went: that must come
					back */
			bring_back(pair);
			r = -EAGAIN;
		}
	}
	if (r && r != -EALREADY)
		sim_fail(world, "promote: %d %s", r, result.text);
	pair_sample(pair);
	if (pair->kept && result.seq == pair->kept_seq)
		REACH(PROMOTED_KEPT);
	else if (result.seq < pair->promised)
		sim_fail(world, "promoted at seq %llu, but %llu was acknowledged as durable",
			 (unsigned long long)result.seq, (unsigned long long)pair->promised);
	if (result.seq > pair->model.head)
		sim_fail(world, "promoted at seq %llu, but only %llu were written",
			 (unsigned long long)result.seq, (unsigned long long)pair->model.head);
	/* RPO zero: by what the mode guarantees, and by what promote says. */
	if ((pair->sync_freeze || result.loss == ENGINE_LOSS_NONE) && result.seq < pair->pledged)
		sim_fail(world, "promoted at seq %llu, but clients were promised %llu (loss %u)",
			 (unsigned long long)result.seq, (unsigned long long)pair->pledged,
			 result.loss);
	if (result.loss == ENGINE_LOSS_NONE)
		REACH(PROMOTE_ALL_THERE);
	sim_check(world, result.epoch == pair->epoch + 1);
	pair->epoch = result.epoch;
	pair->model.head = pair->model.acked = pair->model.durable = result.seq;
	pair->promised = pair->pledged = 0;
	pair->kept = false;
	pair->promotes++;
	pair->incarnation++;
	pair->power_lost = false;
	if (sim_chance(world, 300000))
		power_cycle(beta);
	pair->primary = beta;
	pair->promote_begun = false;
	/* The operator's word: there is no other site now. */
	beta->conf_group->on_sync_loss = CONF_LOSS_ASYNC;
	site_start_agent(beta);
	sim_check(world, sim_run_until(world, serving, pair, START_LIMIT));
}
