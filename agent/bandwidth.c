/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/bandwidth.h"

#include "core/base/macros.h"

#define DAY_MIN 1440u
#define SPAN_NS 1000000000ull

static bool in_window(const struct conf_window *window, unsigned minute)
{
	if (window->from_min < window->to_min)
		return minute >= window->from_min && minute < window->to_min;
	return minute >= window->from_min || minute < window->to_min;
}

uint64_t bandwidth_limit(const struct conf_peer *peer, uint64_t wall_ns)
{
	unsigned minute = (unsigned)(wall_ns / 60000000000ull % DAY_MIN);

	for (unsigned i = 0; i < peer->window_count; i++)
		if (in_window(&peer->windows[i], minute))
			return peer->windows[i].rate_bytes;
	return peer->bandwidth_bytes;
}

/* The debt is bytes: under another limit it takes another time. */
static void change(struct bandwidth *bandwidth, uint64_t rate_bytes, uint64_t now_ns)
{
	uint64_t debt_ns = sub_floor_u64(bandwidth->clear_ns, now_ns);

	if (!rate_bytes || !bandwidth->rate_bytes)
		debt_ns = 0;
	else if (rate_bytes != bandwidth->rate_bytes)
		debt_ns = (uint64_t)((double)debt_ns * (double)bandwidth->rate_bytes /
				     (double)rate_bytes);
	bandwidth->rate_bytes = rate_bytes;
	bandwidth->clear_ns = now_ns + debt_ns;
}

static void measure(struct bandwidth *bandwidth, uint64_t now_ns)
{
	uint64_t span_ns = now_ns - bandwidth->span_ns;

	if (span_ns < SPAN_NS)
		return;
	bandwidth->sent_rate_bytes =
		(uint64_t)((double)(bandwidth->sent_bytes - bandwidth->span_bytes) * 1e9 /
			   (double)span_ns);
	bandwidth->span_ns = now_ns;
	bandwidth->span_bytes = bandwidth->sent_bytes;
}

void bandwidth_count(struct bandwidth *bandwidth, uint64_t total_bytes, uint64_t rate_bytes,
		     uint64_t now_ns)
{
	uint64_t bytes = sub_floor_u64(total_bytes, bandwidth->total_bytes);

	change(bandwidth, rate_bytes, now_ns);
	bandwidth->total_bytes = total_bytes;
	if (rate_bytes) {
		uint64_t debt_ns;

		bandwidth->owed_bytes += (double)bytes;
		debt_ns = (uint64_t)(bandwidth->owed_bytes * 1e9 / (double)rate_bytes);
		bandwidth->owed_bytes -= (double)debt_ns * (double)rate_bytes / 1e9;
		bandwidth->clear_ns += debt_ns;
	}
	measure(bandwidth, now_ns);
	bandwidth->sent_bytes += bytes;
}

uint64_t bandwidth_wait_ns(struct bandwidth *bandwidth, uint64_t rate_bytes, uint64_t now_ns)
{
	change(bandwidth, rate_bytes, now_ns);
	return sub_floor_u64(bandwidth->clear_ns, now_ns + BANDWIDTH_BURST_NS);
}

uint64_t bandwidth_sent_rate(struct bandwidth *bandwidth, uint64_t now_ns)
{
	measure(bandwidth, now_ns);
	return bandwidth->sent_rate_bytes;
}
