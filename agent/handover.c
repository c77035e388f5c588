/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/handover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/ship.h"
#include "core/base/log.h"
#include "core/base/units.h"

#define NEAR_STEP_NS  (5 * NS_PER_MS)
#define DRAIN_STEP_NS NS_PER_MS
/* How far behind a standby may be when requests begin to be held: a fraction of a second's work. */
#define NEAR_BYTES_MAX	 (16u << 20)
#define NEAR_RECORDS_MAX 65536u

static void clear(struct agent_group *group);

/* ---- telling -----------------------------------------------------------------------------------
 */

static void tell(struct agent_group *group, int res, const char *text)
{
	struct handover *handover = &group->handover;
	struct agent_switchover *user = handover->user;
	uint64_t now = io_now(group->io);

	if (!user)
		return;
	handover->user = NULL;
	user->res = res;
	if (text != user->text)
		snprintf(user->text, sizeof(user->text), "%s", text);
	user->took_ns = now - handover->begun_ns;
	if (handover->held_since_ns && !user->held_ns)
		user->held_ns = now - handover->held_since_ns;
	user->done(user);
}

/* Requests go on where they were. */
static void go_on(struct agent_group *group)
{
	struct handover *handover = &group->handover;

	io_timer_stop(group->io, &handover->timer);
	handover->state = HANDOVER_NONE;
	handover->ship = NULL;
	if (!agent_is_out(group))
		capture_retry(group);
	agent_may_serve(group);
}

/* Before it was asked: everything is as it was. */
static void give_up(struct agent_group *group, int res, const char *text)
{
	struct handover *handover = &group->handover;

	handover->res = res;
	snprintf(handover->text, sizeof(handover->text), "%s", text);
	if (handover->state == HANDOVER_STORING) {
		handover->given_up = true;
		return;
	}
	log_warning("switchover given up, the group is served as before",
		    "group=%s standby=%s reason=\"%s\"", group->conf->name,
		    handover->ship->conf->node, handover->text);
	go_on(group);
	tell(group, res, handover->text);
}

/* ---- the way there -----------------------------------------------------------------------------
 */

static const char *unready(const struct ship *ship)
{
	if (ship->state != SHIP_STREAMING)
		return ship->error[0] ? ship->error : "it is not connected";
	if (ship->peer->needs_sync || ship_sync_active(ship->sync))
		return "its volumes are being copied";
	return NULL;
}

static bool is_near(const struct agent_group *group)
{
	const struct handover *handover = &group->handover;
	const struct ship *ship = handover->ship;

	return group->dir.sb.applied_seq >= handover->near_seq &&
	       ship->unacked_bytes <= NEAR_BYTES_MAX &&
	       ship->applied_seq + NEAR_RECORDS_MAX >= group->head_seq;
}

/* One step further; true when everything is durable and applied, here and there. */
static bool drained(struct agent_group *group)
{
	const struct ship *ship = group->handover.ship;
	struct journal *journal = &group->journal;

	commit_seal(group);
	if (journal->durable_seq < group->head_seq) {
		journal_flush(journal, group->head_seq);
		if (journal->blocked)
			agent_drain_space(group, true);
		return false;
	}
	if (group->applied_seq < group->head_seq) {
		agent_drain_kick(group, true);
		return false;
	}
	if (!agent_drain_idle(group)) {
		agent_drain_checkpoint(group);
		return false;
	}
	return !group->releasing && ship->durable_seq == group->head_seq &&
	       ship->applied_seq == group->head_seq;
}

static void ask(struct agent_group *group)
{
	struct handover *handover = &group->handover;
	struct frame frame = { .type = FRAME_HANDOVER,
			       .epoch = group->dir.sb.epoch,
			       .seq = group->head_seq,
			       .arg1 = group->journal.head.chain };

	must(group->journal.durable_seq == group->head_seq);
	handover->state = HANDOVER_ASKED;
	if (link_send(handover->ship->link, &frame, NULL)) {
		handover->res = -EAGAIN;
		snprintf(handover->text, sizeof(handover->text),
			 "the link to the standby had no room; repeat it");
		clear(group);
		return;
	}
	handover->sent = true;
	log_info("standby asked to take over", "group=%s standby=%s epoch=%" PRIu64 " seq=%" PRIu64,
		 group->conf->name, handover->ship->conf->node, frame.epoch, frame.seq);
}

static void asking_stored(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, handover.op);
	struct handover *handover = &group->handover;
	const char *why;

	if (res < 0) {
		agent_fail(group, (int)res, "the superblock cannot be written");
		return;
	}
	if (agent_is_out(group))
		return;
	why = unready(handover->ship);
	if (why && !handover->given_up)
		give_up(group, -EAGAIN, why);
	if (handover->given_up)
		clear(group);
	else
		ask(group);
}

static void store_asking(struct agent_group *group)
{
	struct handover *handover = &group->handover;
	struct superblock *sb = &group->dir.sb;

	handover->state = HANDOVER_STORING;
	sb->flags |= SUPERBLOCK_HANDOVER;
	memset(sb->handover_node, 0, sizeof(sb->handover_node));
	snprintf(sb->handover_node, sizeof(sb->handover_node), "%s", handover->ship->conf->node);
	sb->handover_seq = group->head_seq;
	sb->durable_seq = group->journal.durable_seq;
	handover->op.done = asking_stored;
	group_dir_store(&group->dir, &handover->store, &handover->op);
}

static void hold(struct agent_group *group)
{
	struct handover *handover = &group->handover;

	handover->state = HANDOVER_DRAINING;
	handover->held_since_ns = io_now(group->io);
	handover->deadline_ns = handover->held_since_ns + handover->user->timeout_ns;
	log_info("switchover: requests are held", "group=%s standby=%s head_seq=%" PRIu64,
		 group->conf->name, handover->ship->conf->node, group->head_seq);
}

/* Its time is over: before it was asked that ends it, afterwards only the waiting for it. */
static bool late(struct agent_group *group)
{
	struct handover *handover = &group->handover;

	if (!handover->user || io_now(group->io) < handover->deadline_ns)
		return false;
	if (handover->state == HANDOVER_NEARING) {
		give_up(group, -EAGAIN,
			"the standby is too far behind, and did not come near in the time given; "
			"repeat it when there is less to write");
		return true;
	}
	if (handover->state == HANDOVER_DRAINING || handover->state == HANDOVER_STORING) {
		give_up(group, -ETIMEDOUT,
			"the standby did not have everything in the time given; repeat it, with a "
			"longer time or when there is less to write");
		return true;
	}
	if (handover->state == HANDOVER_ASKED)
		tell(group, -EINPROGRESS,
		     "the standby was asked to take over and has not answered; requests stay held "
		     "until it has: look at holdfast status on both");
	return false;
}

void handover_step(struct agent_group *group)
{
	struct handover *handover = &group->handover;
	const char *why;

	if (handover->state == HANDOVER_NONE || agent_is_out(group) || late(group))
		return;
	if (handover->state != HANDOVER_NEARING && handover->state != HANDOVER_DRAINING)
		return;
	why = unready(handover->ship);
	if (why) {
		give_up(group, -EAGAIN, why);
		return;
	}
	if (handover->state == HANDOVER_NEARING) {
		agent_drain_kick(group, true);
		agent_drain_checkpoint(group);
		if (!is_near(group))
			return;
		hold(group);
	}
	if (drained(group))
		store_asking(group);
}

static void step_due(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, handover.timer);
	struct handover *handover = &group->handover;

	handover_step(group);
	if (handover->state == HANDOVER_NONE || agent_is_out(group) || timer->deadline_ns)
		return;
	io_timer_start(group->io, timer,
		       handover->state == HANDOVER_DRAINING ? DRAIN_STEP_NS : NEAR_STEP_NS);
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static void cleared(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, handover.op);
	struct handover *handover = &group->handover;

	if (res < 0) {
		agent_fail(group, (int)res, "the superblock cannot be written");
		return;
	}
	if (agent_is_out(group))
		return;
	log_warning("the standby did not take over, the group is served as before",
		    "group=%s reason=\"%s\"", group->conf->name, handover->text);
	go_on(group);
	tell(group, handover->res, handover->text);
}

static void clear(struct agent_group *group)
{
	struct handover *handover = &group->handover;

	handover->state = HANDOVER_CLEARING;
	handover_forget(group);
	handover->op.done = cleared;
	group_dir_store(&group->dir, &handover->store, &handover->op);
}

void handover_forget(struct agent_group *group)
{
	struct superblock *sb = &group->dir.sb;

	sb->flags &= ~(uint32_t)SUPERBLOCK_HANDOVER;
	memset(sb->handover_node, 0, sizeof(sb->handover_node));
	sb->handover_seq = 0;
}

void handover_accepted(struct agent_group *group)
{
	if (group->handover.state == HANDOVER_NONE)
		return;
	go_on(group);
	tell(group, -EAGAIN, "the operator has accepted that the standby does not answer");
}

void handover_lost(struct agent_group *group, const struct ship *ship)
{
	struct handover *handover = &group->handover;

	if (ship != handover->ship || agent_is_out(group))
		return;
	if (handover->state == HANDOVER_NEARING || handover->state == HANDOVER_DRAINING ||
	    handover->state == HANDOVER_STORING)
		give_up(group, -EAGAIN, "the connection to the standby was lost");
}

void handover_welcomed(struct agent_group *group, const struct ship *ship)
{
	struct handover *handover = &group->handover;

	if (ship != handover->ship || handover->state != HANDOVER_ASKED)
		return;
	handover->res = -EAGAIN;
	snprintf(handover->text, sizeof(handover->text),
		 "the connection was lost before the standby took over; repeat it");
	clear(group);
}

int handover_refused(struct agent_group *group, const struct ship *ship, const struct frame *frame,
		     const uint8_t *body)
{
	struct handover *handover = &group->handover;
	struct link_bye bye = { .text = "" };

	if (ship != handover->ship || handover->state != HANDOVER_ASKED || !handover->sent ||
	    ship->state != SHIP_STREAMING || frame->seq)
		return -EPROTO;
	if (link_bye_unpack(body, frame->body_bytes, &bye))
		return -EPROTO;
	handover->res = -EAGAIN;
	snprintf(handover->text, sizeof(handover->text), "the standby does not take over: %.400s",
		 bye.text[0] ? bye.text : "it does not say why");
	clear(group);
	return 0;
}

void handover_fenced(struct agent_group *group, uint64_t epoch, const char *node)
{
	struct handover *handover = &group->handover;
	struct agent_switchover *user = handover->user;

	if (handover->state == HANDOVER_NONE)
		return;
	handover->taken =
		handover->state == HANDOVER_ASKED && !strcmp(handover->ship->conf->node, node);
	handover_forget(group);
	io_timer_stop(group->io, &handover->timer);
	/* It has said its last word: two that wait for the other to close would take their time. */
	if (handover->taken)
		link_close(handover->ship->link);
	handover->res = handover->taken ? 0 : -ESTALE;
	snprintf(handover->text, sizeof(handover->text),
		 "epoch %" PRIu64 " rules at %.128s; look at holdfast status there", epoch, node);
	if (!user)
		return;
	user->epoch = epoch;
	user->seq = group->head_seq;
	user->held_ns = handover->held_since_ns ? io_now(group->io) - handover->held_since_ns : 0;
	snprintf(user->to, sizeof(user->to), "%s", node);
}

void handover_over(struct agent_group *group)
{
	struct handover *handover = &group->handover;

	if (handover->state == HANDOVER_NONE)
		return;
	io_timer_stop(group->io, &handover->timer);
	handover->state = HANDOVER_NONE;
	tell(group, handover->res, handover->res ? handover->text : "");
}

void handover_failed(struct agent_group *group, int res)
{
	struct handover *handover = &group->handover;
	bool asked = handover->state == HANDOVER_ASKED;

	io_timer_stop(group->io, &handover->timer);
	handover->state = HANDOVER_NONE;
	tell(group, asked ? -EINPROGRESS : res, group->detail);
}

void handover_stop(struct agent_group *group)
{
	struct handover *handover = &group->handover;

	if (handover->state == HANDOVER_ASKED)
		tell(group, -EINPROGRESS,
		     "the agent stops; at its next start it asks the standby whether it took over");
	else if (handover->state != HANDOVER_NONE && handover->state != HANDOVER_CLEARING)
		give_up(group, -ESHUTDOWN, "the agent stops");
}

/* ---- begin -------------------------------------------------------------------------------------
 */

static struct ship *find_ship(struct agent_group *group, const char *node)
{
	for (unsigned i = 0; i < group->ship_count; i++)
		if (!strcmp(group->ships[i]->conf->node, node))
			return group->ships[i];
	return NULL;
}

bool handover_resume(struct agent_group *group)
{
	struct handover *handover = &group->handover;

	handover->ship = find_ship(group, group->dir.sb.handover_node);
	if (!handover->ship)
		return false;
	handover->state = HANDOVER_ASKED;
	handover->sent = false;
	return true;
}

__attribute__((format(printf, 3, 4))) static void refuse(struct agent_switchover *user, int res,
							 const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(user->text, sizeof(user->text), format, args);
	va_end(args);
	user->res = res;
	user->done(user);
}

/* The standby that is to take over; NULL after it was refused. */
static struct ship *choose(struct agent_group *group, struct agent_switchover *user)
{
	struct ship *ship = user->node		     ? find_ship(group, user->node)
			    : group->ship_count == 1 ? group->ships[0]
						     : NULL;
	const char *why = ship ? unready(ship) : NULL;

	if (!ship && user->node)
		refuse(user, -ENOENT, "group %s has no standby %s", group->conf->name, user->node);
	else if (!ship)
		refuse(user, -EINVAL, "group %s has %u standbys; say which one takes over",
		       group->conf->name, group->ship_count);
	else if (ship->conf->role == CONF_PEER_STANDBY)
		refuse(user, -EPERM,
		       "%s is configured to be a standby only; give it role both on both sides",
		       ship->conf->node);
	else if (why)
		refuse(user, -EAGAIN, "%s is not ready: %s", ship->conf->node, why);
	else
		return ship;
	return NULL;
}

void agent_group_switchover(struct agent_group *group, struct agent_switchover *user)
{
	struct handover *handover = &group->handover;
	struct ship *ship;

	user->text[0] = user->to[0] = 0;
	user->seq = user->held_ns = user->took_ns = 0;
	user->epoch = group->dir.sb.epoch;
	if (group->state != AGENT_SERVING) {
		refuse(user, -ESHUTDOWN, "group %s is not served here", group->conf->name);
		return;
	}
	if (handover->state != HANDOVER_NONE || group->held.task) {
		refuse(user, -EBUSY,
		       group->held.task ? "a new epoch begins" : "a switchover is under way");
		return;
	}
	if (user->has_expect_epoch && user->expect_epoch != group->dir.sb.epoch) {
		refuse(user, -ESTALE, "the current epoch is %" PRIu64 ", not %" PRIu64,
		       group->dir.sb.epoch, user->expect_epoch);
		return;
	}
	ship = choose(group, user);
	if (!ship)
		return;
	*handover = (struct handover){
		.state = HANDOVER_NEARING,
		.user = user,
		.ship = ship,
		.timer.fire = step_due,
		.near_seq = group->head_seq,
		.begun_ns = io_now(group->io),
	};
	handover->deadline_ns = handover->begun_ns + user->timeout_ns;
	snprintf(user->to, sizeof(user->to), "%s", ship->conf->node);
	log_info("switchover begins", "group=%s standby=%s epoch=%" PRIu64 " head_seq=%" PRIu64,
		 group->conf->name, ship->conf->node, group->dir.sb.epoch, group->head_seq);
	io_timer_start(group->io, &handover->timer, 0);
}
