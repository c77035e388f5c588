/* SPDX-License-Identifier: Apache-2.0 */
#include <confuse.h>
#include <string.h>

#include "core/base/units.h"
#include "core/conf/builder.h"
#include "core/conf/check.h"

#define DAY_MIN 1440u

/* "HH:MM" at *at, 24:00 only as an end. Moves *at behind it. */
static bool take_minute(const char **at, bool is_end, unsigned *ret_min)
{
	const char *c = *at;
	unsigned hours, minutes;

	for (unsigned i = 0; i < 5; i++) {
		if (i == 2 ? c[i] != ':' : c[i] < '0' || c[i] > '9')
			return false;
	}
	hours = (unsigned)(c[0] - '0') * 10 + (unsigned)(c[1] - '0');
	minutes = (unsigned)(c[3] - '0') * 10 + (unsigned)(c[4] - '0');
	if (minutes > 59 || (hours > 23 && !(is_end && hours == 24 && minutes == 0)))
		return false;
	*ret_min = hours * 60 + minutes;
	*at = c + 5;
	return true;
}

/* "08:00-18:00 10MiB". False: `*ret_reason` says what is wrong. */
static bool parse_window(const char *text, struct conf_window *window, const char **ret_reason)
{
	*ret_reason = "is no window of a day";
	if (!take_minute(&text, false, &window->from_min) || *text++ != '-' ||
	    !take_minute(&text, true, &window->to_min) || *text++ != ' ')
		return false;
	*ret_reason = "begins where it ends";
	if (window->from_min == window->to_min % DAY_MIN &&
	    !(window->from_min == 0 && window->to_min == DAY_MIN))
		return false;
	while (*text == ' ')
		text++;
	*ret_reason = "has a rate that is no size between 64KiB and 1TiB, or 0";
	return units_parse_size(text, &window->rate_bytes) == 0 &&
	       (window->rate_bytes == 0 ||
		(window->rate_bytes >= 64 * KIB && window->rate_bytes <= TIB));
}

static bool in_window(const struct conf_window *window, unsigned minute)
{
	return window->from_min < window->to_min
		       ? minute >= window->from_min && minute < window->to_min
		       : minute >= window->from_min || minute < window->to_min;
}

/* Two windows share a minute exactly when one of them holds the first minute of the other. */
static bool overlap(const struct conf_window *one, const struct conf_window *other)
{
	return in_window(one, other->from_min) || in_window(other, one->from_min);
}

static void build_windows(struct builder *builder, cfg_t *section, struct conf_peer *peer)
{
	unsigned count = cfg_size(section, "bandwidth_windows");

	for (unsigned i = 0; i < count; i++) {
		const struct conf_leaf *leaf = builder_leaf_at(section, "bandwidth_windows", i);
		struct conf_window window = { .rate_bytes = 0 };
		const char *reason;
		bool shared = false;

		if (!parse_window(leaf->text, &window, &reason)) {
			conf_errors_add(builder->errors, leaf->line,
					"write FROM-TO RATE in UTC, like \"08:00-18:00 10MiB\"",
					"bandwidth window \"%s\" %s", leaf->text, reason);
			continue;
		}
		for (unsigned j = 0; j < peer->window_count; j++)
			shared = shared || overlap(&peer->windows[j], &window);
		if (shared)
			conf_errors_add(
				builder->errors, leaf->line, "let each end where the next begins",
				"bandwidth window \"%s\" overlaps one before it", leaf->text);
		else if (peer->window_count == CONF_WINDOWS_MAX)
			conf_errors_add(builder->errors, leaf->line, "remove some",
					"peer '%s' has %u bandwidth windows, %u are possible",
					peer->node, count, CONF_WINDOWS_MAX);
		else
			peer->windows[peer->window_count++] = window;
	}
}

/* How much of the link it may take. */
static void build_rates(struct builder *builder, cfg_t *section, struct conf_peer *peer)
{
	static const char *const compares[] = { "auto", "always", "never", NULL };
	static const struct builder_bounds window = { "window", 16 * MIB, 2 * MIB, GIB, false };
	static const struct builder_bounds rate = { "sync_rate", 0, 64 * KIB, TIB, true };
	static const struct builder_bounds share = { "sync_share", 50, 1, 100, false };
	static const struct builder_bounds bandwidth = { "bandwidth", 0, 64 * KIB, TIB, true };
	static const struct builder_bounds coalesce = { "coalesce", 0, MIB, 64 * TIB, true };

	peer->window_bytes = builder_size(builder, section, &window);
	peer->sync_rate_bytes = builder_size(builder, section, &rate);
	peer->sync_share = (unsigned)builder_number(builder, section, &share);
	peer->bandwidth_bytes = builder_size(builder, section, &bandwidth);
	build_windows(builder, section, peer);
	peer->coalesce_bytes = builder_size(builder, section, &coalesce);
	peer->compare = (enum conf_compare)builder_word(builder, section, "compare", compares,
							CONF_COMPARE_AUTO);
}

void builder_peer(struct builder *builder, const struct conf_group *group, cfg_t *section,
		  struct conf_peer *peer)
{
	static const char *const roles[] = { "both", "standby", "source", NULL };
	unsigned line = conf_text_open_line(builder->text, (unsigned)section->line, 2);
	char reason[CHECK_TEXT_BYTES];

	peer->node = builder_copy(builder, cfg_title(section));
	if (!check_node(cfg_title(section), reason))
		conf_errors_add(builder->errors, line, "write the identity of its certificate",
				"peer \"%s\" %s", cfg_title(section), reason);
	peer->role =
		(enum conf_peer_role)builder_word(builder, section, "role", roles, CONF_PEER_BOTH);
	peer->address = builder_address(builder, section, "address");
	if (!builder_leaf(section, "address") && peer->role != CONF_PEER_SOURCE)
		conf_errors_add(builder->errors, line,
				"add address = \"HOST:PORT\" of its engine, or role = source",
				"peer '%s' of group '%s' has no address", cfg_title(section),
				group->name);
	build_rates(builder, section, peer);
	if (builder->conf->node && strcmp(cfg_title(section), builder->conf->node) == 0)
		conf_errors_add(builder->errors, line, "name the other node",
				"peer '%s' of group '%s' is this node itself", cfg_title(section),
				group->name);
}
