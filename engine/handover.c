/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Switchover, the standby's side: the primary hands its epoch over.
 *
 * Invariant H4: a HANDOVER is acted on in the turn in which it arrives, or never: one of an older
 * session is dropped with that session, before a newer one gets its WELCOME. So a primary that is
 * welcomed under its own epoch knows that it still rules.
 * Invariant H5: it is acted on only when this copy is exactly what the primary has: everything
 * durable and applied, the same chain, consistent.
 * Invariant H6: nothing of the new epoch leaves this node before it is durable here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/base/log.h"
#include "engine/internal.h"

static void promoted(struct engine_promote *promote)
{
	struct engine_group *group = container_of(promote, struct engine_group, handover.promote);
	const struct engine_events *events = &group->options.events;

	group->handover.active = false;
	if (promote->res == 0 && events->handed)
		events->handed(events->owner, group, promote->epoch);
}

/* NULL, or why this copy cannot take over; `text` is used for it. */
__attribute__((format(printf, 3, 4))) static const char *why(char *text, size_t text_max,
							     const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(text, text_max, format, args);
	va_end(args);
	return text;
}

static const char *unfit(const struct engine_group *group, const struct frame *frame, char *text,
			 size_t text_max)
{
	const struct superblock *sb = &group->dir.sb;
	const struct journal *journal = &group->journal;

	if (group->state != ENGINE_READY || group->session.state != SESSION_STREAMING ||
	    group->hold || group->op_busy || group->promote)
		return why(text, text_max, "it has something else to do");
	if ((sb->flags & SUPERBLOCK_SYNCING) || !(sb->flags & SUPERBLOCK_EVER_CONSISTENT))
		return why(text, text_max, "its copy is not consistent");
	if (journal->durable_seq != frame->seq || journal->appended_seq != frame->seq ||
	    group->applied_seq != frame->seq)
		return why(text, text_max,
			   "it holds %" PRIu64 " and has applied %" PRIu64 ", not %" PRIu64,
			   journal->durable_seq, group->applied_seq, frame->seq);
	if (journal->head.chain != frame->arg1)
		return why(text, text_max, "its history differs at %" PRIu64, frame->seq);
	return NULL;
}

static void refuse(struct engine_group *group, const char *text)
{
	struct frame frame = { .type = FRAME_HANDED, .epoch = group->dir.sb.epoch };
	struct link_bye bye = { .text = "" };

	log_warning("switchover refused", "group=%s primary=%s reason=\"%s\"", group->conf->name,
		    group->source, text);
	snprintf(bye.text, sizeof(bye.text), "%s", text);
	frame.body_bytes = (uint32_t)link_bye_pack(&bye, group->control, sizeof(group->control));
	if (link_send(group->link, &frame, group->control))
		session_error(group, "the link has no room for an answer");
}

void take_over(struct engine_group *group, const struct frame *frame)
{
	char text[LINK_TEXT_MAX + 1];
	const char *reason = unfit(group, frame, text, sizeof(text));

	if (group->session.state != SESSION_STREAMING) {
		session_error(group, "the primary sent a handover frame where none belongs");
		return;
	}
	if (reason) {
		refuse(group, reason);
		return;
	}
	log_info("switchover: taking over", "group=%s primary=%s epoch=%" PRIu64 " seq=%" PRIu64,
		 group->conf->name, group->source, group->dir.sb.epoch, frame->seq);
	group->handover.active = true;
	group->handover.promote = (struct engine_promote){ .done = promoted };
	promote_hand_over(group, &group->handover.promote);
}

void take_over_stored(struct engine_group *group)
{
	struct frame frame = { .type = FRAME_HANDED,
			       .epoch = group->dir.sb.epoch,
			       .seq = group->dir.sb.applied_seq };
	struct link_bye bye = { .text = "" };

	if (!group->handover.active || !session_connected(group))
		return;
	frame.body_bytes = (uint32_t)link_bye_pack(&bye, group->control, sizeof(group->control));
	link_finish(group->link, &frame, group->control);
	session_drop(group, "the group has been handed over to this node");
}

void take_over_failed(struct engine_group *group)
{
	if (!group->handover.active)
		return;
	link_close(group->link);
	session_drop(group, "taking over has failed");
}
