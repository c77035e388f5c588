/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/status_notes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"
#include "core/conf/status_metrics.h"

/* A journal that is full sooner than this is something to act on. */
#define FULL_SOON_NS (15 * NS_PER_MINUTE)

struct notes {
	FILE *out;
	const struct status_group *group;
	bool all;
	uint64_t wall_ns;
};

static void say(const struct notes *notes, const char *mark, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* `mark` is "! " for what waits for a person, "" for what does not. */
static void say(const struct notes *notes, const char *mark, const char *format, ...)
{
	va_list args;

	(void)fprintf(notes->out, "%s%s: ", mark, notes->group->name);
	va_start(args, format);
	(void)vfprintf(notes->out, format, args);
	va_end(args);
	(void)fputc('\n', notes->out);
}

const char *status_progress_text(uint64_t done_bytes, uint64_t total_bytes, uint64_t rate_bytes,
				 uint64_t left_ns, char text[STATUS_PROGRESS_BYTES])
{
	char done[UNITS_TEXT_BYTES], total[UNITS_TEXT_BYTES], rate[UNITS_TEXT_BYTES];
	char left[UNITS_TEXT_BYTES];

	(void)snprintf(text, STATUS_PROGRESS_BYTES, "%s of %s (%u%%), %s/s, %s left",
		       units_format_size(done_bytes, done), units_format_size(total_bytes, total),
		       total_bytes ? (unsigned)((double)done_bytes / (double)total_bytes * 100) : 0,
		       units_format_size(rate_bytes, rate),
		       left_ns ? units_format_duration(left_ns, left) : "unknown time");
	return text;
}

static const char *ago(const struct notes *notes, uint64_t time_ns, char text[UNITS_TEXT_BYTES])
{
	return units_format_duration(sub_floor_u64(notes->wall_ns, time_ns), text);
}

/* ---- what waits for a person ------------------------------------------------------------------
 */

static void say_ownership(const struct notes *notes)
{
	const struct status_group *s = notes->group;
	/* The reason may bring a remedy of its own; this one names the command. */
	const char *cut = strstr(s->held, "; ");
	const char *ruler = s->fenced_by[0] ? s->fenced_by : s->source;

	if (s->held[0])
		say(notes, "! ",
		    "not served: %.*s; promote a standby instead (there: holdfast promote %s "
		    "--force), "
		    "or go on with what is here: holdfast accept %s --expect-epoch %" PRIu64,
		    cut ? (int)(cut - s->held) : (int)strlen(s->held), s->held, s->name, s->name,
		    s->epoch);
	if (s->suspect && !s->held[0] && status_is_follower(s))
		say(notes, s->syncing ? "" : "! ",
		    "a volume was changed behind the daemon's back: its content is not known to be "
		    "that of seq %" PRIu64 "; %s",
		    s->durable_seq,
		    s->syncing ? "all of it is being copied or compared"
			       : "connect it to a primary, which copies or compares all of it");
	if (s->diverged && strcmp(s->state, "syncing") == 0)
		say(notes, "", "what only this copy had behind seq %" PRIu64 " is being replaced",
		    s->common_seq);
	else if (s->diverged && strcmp(s->role, "standby") == 0 && s->fenced_by_epoch <= s->epoch)
		say(notes, "! ",
		    "holds writes behind seq %" PRIu64 " that the primary of the same epoch%s%s "
		    "lacks; stop that one and go on with what is here: holdfast promote %s "
		    "--force; or go on with what is there: holdfast accept %s on that node",
		    s->common_seq, s->source[0] ? ", " : "", s->source, s->name, s->name);
	else if (s->diverged && s->salvage_missing)
		say(notes, "! ",
		    "holds writes behind seq %" PRIu64 " that the ruling history%s%s does not "
		    "have; the first %" PRIu64 " of them are not in its journal any more: their "
		    "content is on its volumes only and cannot become salvage; copy the volumes if "
		    "it is wanted, then: holdfast demote %s --without-salvage",
		    s->common_seq, ruler[0] ? " of " : "", ruler, s->salvage_missing, s->name);
	else if (s->diverged)
		say(notes, "! ",
		    "holds writes behind seq %" PRIu64 " that the ruling history%s%s does not "
		    "have; to keep them as salvage and follow: holdfast demote %s",
		    s->common_seq, ruler[0] ? " of " : "", ruler, s->name);
}

static void say_sync_mode(const struct notes *notes)
{
	const struct status_group *s = notes->group;
	char since[TIMEFMT_BYTES] = "", text[UNITS_TEXT_BYTES];

	if (s->lost_since_ns)
		(void)timefmt_ms(s->lost_since_ns, since);
	if (strcmp(s->mode_state, "lost") == 0)
		say(notes, "! ",
		    "mode %s is not kept%s%s%s%s%s: writes are acknowledged here alone; it is kept "
		    "again by itself once a standby has caught up",
		    s->mode, since[0] ? " since " : "", since, since[0] ? " (" : "",
		    since[0] ? ago(notes, s->lost_since_ns, text) : "", since[0] ? ")" : "");
	else if (strcmp(s->mode_state, "frozen") == 0)
		say(notes, "! ",
		    "writes wait, because no standby is in sync and on_sync_loss = freeze; bring "
		    "a standby back, or set on_sync_loss = async and restart holdfast-agent");
}

static void say_undo_full(const struct notes *notes)
{
	const struct status_group *s = notes->group;
	char used[UNITS_TEXT_BYTES], limit[UNITS_TEXT_BYTES];

	if (!s->undo_full)
		return;
	say(notes, "! ",
	    "the resync waits: its undo log has no room (%s, limit %s); make room in the file "
	    "system of state_dir or raise undo_limit; or give up the position that is kept: "
	    "holdfast resync %s --drop-kept",
	    units_format_size(s->undo_bytes, used),
	    s->undo_limit_bytes ? units_format_size(s->undo_limit_bytes, limit) : "the file system",
	    s->name);
}

static void say_journal_full(const struct notes *notes)
{
	char left[UNITS_TEXT_BYTES];

	if (notes->group->journal_full_ns == UINT64_MAX ||
	    strcmp(notes->group->state, "serving") != 0)
		return;
	say(notes, notes->group->journal_full_ns < FULL_SOON_NS ? "! " : "",
	    "journal full in %s: then it moves on, and the standby that is behind is brought back "
	    "by a resync",
	    units_format_duration(notes->group->journal_full_ns, left));
}

static void say_parted(const struct notes *notes, const struct status_peer *peer)
{
	const struct status_group *s = notes->group;

	if (s->held[0] || !peer->parted[0])
		return;
	if (strcmp(peer->parted, "rival") == 0)
		say(notes, "! ",
		    "%s is primary under the same epoch: two histories grow apart; for this one to "
		    "rule: holdfast accept %s --expect-epoch %" PRIu64
		    ", then holdfast demote %s there",
		    peer->node, s->name, s->epoch, s->name);
	else
		say(notes, "! ",
		    "%s holds writes that this history does not have, and gets nothing; to go on "
		    "with what is here: holdfast accept %s --expect-epoch %" PRIu64
		    ", then holdfast demote %s there; or go on with what it has: holdfast promote "
		    "%s --force there",
		    peer->node, s->name, s->epoch, s->name, s->name);
}

static void say_differing(const struct notes *notes, const struct status_peer *peer)
{
	const struct status_verify *verify = &peer->verify;
	char size[UNITS_TEXT_BYTES], off[UNITS_TEXT_BYTES], len[UNITS_TEXT_BYTES];
	bool copies = peer->needs_sync || peer->sync.active;

	if (!verify->known_ranges || (verify->differing_ranges && copies)) {
		if (verify->differing_ranges)
			say(notes, "",
			    "%s differed in %" PRIu64 " ranges (%s), which %s sent again",
			    peer->node, verify->differing_ranges,
			    units_format_size(verify->differing_bytes, size),
			    copies ? "are being" : "were");
		return;
	}
	say(notes, "! ",
	    "%s differs from this copy in %" PRIu64 " ranges (%s); to send them again: "
	    "holdfast verify %s --to %s --repair",
	    peer->node, verify->known_ranges, units_format_size(verify->known_bytes, size),
	    notes->group->name, peer->node);
	for (unsigned i = 0; i < verify->range_count && i < array_len(verify->ranges); i++)
		(void)fprintf(notes->out, "    volume %s, offset %" PRIu64 " (%s), %s\n",
			      verify->ranges[i].volume, verify->ranges[i].off,
			      units_format_size(verify->ranges[i].off, off),
			      units_format_size(verify->ranges[i].len, len));
}

static void say_lacking(const struct notes *notes)
{
	const struct status_group *s = notes->group;

	if (s->lacking[0])
		say(notes, "! ",
		    "the configuration names volumes that the group does not have, and that "
		    "nothing replicates: %s; take them in, on the primary: holdfast volume add %s "
		    "NAME; or take them out of the configuration",
		    s->lacking, s->name);
}

static void say_differs(const struct notes *notes)
{
	const struct status_group *s = notes->group;

	if (s->differing_ranges && !s->syncing)
		say(notes, "! ",
		    "a verification found %" PRIu64 " ranges here that differ from the primary; to "
		    "have them sent again, on %s: holdfast verify %s --to %s --repair",
		    s->differing_ranges, s->source[0] ? s->source : "the primary", s->name,
		    s->node);
}

/* ---- what goes on by itself -------------------------------------------------------------------
 */

static void say_copy(const struct notes *notes, const char *peer, const struct status_sync *sync)
{
	char text[STATUS_PROGRESS_BYTES];

	if (sync->active)
		say(notes, "", "copying, peer %s: %s", peer[0] ? peer : "-",
		    status_progress_text(sync->done_bytes, sync->total_bytes,
					 sync->rate_bytes_per_s, sync->left_ns, text));
}

static void say_verified(const struct notes *notes, const char *who, uint64_t seq, uint64_t time_ns)
{
	char text[UNITS_TEXT_BYTES], at[TIMEFMT_BYTES];

	if (notes->all && time_ns)
		say(notes, "", "%s verified at seq %" PRIu64 ", %s (%s ago)", who, seq,
		    timefmt_ms(time_ns, at), ago(notes, time_ns, text));
}

static void say_peer(const struct notes *notes, const struct status_peer *peer)
{
	const struct status_verify *verify = &peer->verify;
	char text[STATUS_PROGRESS_BYTES], size[UNITS_TEXT_BYTES], rate[UNITS_TEXT_BYTES];

	say_copy(notes, peer->node, &peer->sync);
	if (peer->sync.active && peer->resync_compared_bytes)
		say(notes, "", "%s: %s compared and found equal, %s sent", peer->node,
		    units_format_size(peer->resync_compared_bytes, size),
		    units_format_size(peer->resync_sent_bytes, rate));
	if (peer->needs_sync && !peer->sync.active)
		say(notes, "",
		    "%s was away too long for the journal; it will be resynced, %s are to be sent",
		    peer->node, units_format_size(peer->dirty_bytes, size));
	if (peer->error[0] && !peer->connected)
		say(notes, "", "%s: %s", peer->node, peer->error);
	if (verify->active)
		say(notes, "", "verifying %s: %s", peer->node,
		    status_progress_text(verify->done_bytes, verify->total_bytes,
					 verify->rate_bytes_per_s, verify->left_ns, text));
	else if (verify->failed)
		say(notes, "", "the last verification of %s did not come to its end", peer->node);
	say_verified(notes, peer->node, verify->verified_seq, verify->verified_time_ns);
	if (notes->all && (peer->bandwidth_bytes || peer->sent_rate_bytes_per_s))
		say(notes, "", "%s/s go to %s, limit %s%s",
		    units_format_size(peer->sent_rate_bytes_per_s, rate), peer->node,
		    peer->bandwidth_bytes ? units_format_size(peer->bandwidth_bytes, size) : "none",
		    peer->bandwidth_bytes ? "/s" : "");
}

/* What a promote would come to now, where that is not the newest position. */
static void say_position(const struct notes *notes)
{
	const struct status_group *s = notes->group;
	char at[TIMEFMT_BYTES] = "unknown time", undo[UNITS_TEXT_BYTES], text[UNITS_TEXT_BYTES];

	if (s->kept_time_ns)
		(void)timefmt_ms(s->kept_time_ns, at);
	if (s->rollback_total_bytes)
		say(notes, "",
		    "going back to the kept position, seq %" PRIu64 ": %s of %s written back",
		    s->kept_seq, units_format_size(s->rollback_done_bytes, undo),
		    units_format_size(s->rollback_total_bytes, text));
	else if (s->kept)
		say(notes, "",
		    "keeps seq %" PRIu64 " of %s while it is copied to: promote goes there; "
		    "undo log %s",
		    s->kept_seq, at, units_format_size(s->undo_bytes, undo));
	else if (!s->consistent && s->ever_consistent && !s->suspect)
		say(notes, "", "not consistent now, and no position is kept: cannot be promoted");
	else if (!s->consistent && !s->ever_consistent)
		say(notes, "", "not consistent yet: cannot be promoted");
	if (!s->connected && s->heard_ns_ago != UINT64_MAX)
		say(notes, "", "nothing heard for %s",
		    units_format_duration(s->heard_ns_ago, text));
	say_verified(notes, "this copy was", s->verified_seq, s->verified_time_ns);
}

void status_notes(FILE *out, const struct status_group *status, bool all, uint64_t wall_ns)
{
	const struct notes notes = { out, status, all, wall_ns };
	bool standby = status_is_follower(status);

	say_ownership(&notes);
	say_sync_mode(&notes);
	say_undo_full(&notes);
	for (unsigned i = 0; !standby && i < status->peer_count; i++) {
		say_parted(&notes, &status->peers[i]);
		say_differing(&notes, &status->peers[i]);
	}
	say_lacking(&notes);
	if (standby)
		say_differs(&notes);
	else
		say_journal_full(&notes);
	if (status->detail[0] && strcmp(status->detail, status->held) != 0)
		say(&notes, "", "%s", status->detail);
	if (standby) {
		say_copy(&notes, status->source, &status->sync);
		say_position(&notes);
	}
	for (unsigned i = 0; !standby && i < status->peer_count; i++)
		say_peer(&notes, &status->peers[i]);
	if (status->salvages)
		say(&notes, "", "%" PRIu64 " salvage%s kept: holdfast salvage list %s",
		    status->salvages, status->salvages == 1 ? " is" : "s are", status->name);
}
