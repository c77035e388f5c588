/* SPDX-License-Identifier: Apache-2.0 */
/* The options of the handshake, one function each: they answer into conn->reply. */
#include <errno.h>
#include <string.h>

#include "core/base/must.h"
#include "core/block/nbd_conn.h"

/* The longest reply to one option: four INFO or one LIST entry with name and description. */
#define REPLY_ROOM_BYTES (NBD_OPTION_REPLY_BYTES * 4 + NBD_NAME_MAX_BYTES * 2 + 512)
_Static_assert(REPLY_ROOM_BYTES <= NBD_OUT_BYTES, "a reply always fits");

static void reply(struct nbd_conn *conn, uint32_t option, uint32_t type, const void *data,
		  size_t length_bytes)
{
	nbd_option_reply_put(&conn->reply, option, type, (uint32_t)length_bytes);
	wcursor_bytes(&conn->reply, data, length_bytes);
}

static enum nbd_outcome refuse(struct nbd_conn *conn, uint32_t option, uint32_t type,
			       const char *text)
{
	reply(conn, option, type, text, strlen(text));
	return NBD_OPTION_DONE;
}

static enum nbd_outcome gone(struct nbd_conn *conn, const char *reason)
{
	nbd_conn_close(conn, reason);
	return NBD_OPTION_GONE;
}

static bool may_open(const struct nbd_conn *conn, const struct export *export)
{
	const struct nbd_server *server = conn->server;

	return !server->hooks->may_open ||
	       server->hooks->may_open(server->config.owner, conn_peer(conn), export);
}

static struct export *find(struct nbd_conn *conn, const char *name, uint32_t length_bytes)
{
	if (length_bytes > NBD_EXPORT_NAME_MAX_BYTES)
		return NULL;
	return conn->server->hooks->find(conn->server->config.owner, length_bytes ? name : "",
					 length_bytes);
}

static unsigned transmission_flags(const struct nbd_conn *conn, const struct export *export)
{
	/* FLUSH of one connection covers the writes of all: an export has one history. */
	unsigned flags = NBD_EXPORT_HAS_FLAGS | NBD_EXPORT_SEND_FLUSH | NBD_EXPORT_SEND_FUA |
			 NBD_EXPORT_MULTI_CONN | NBD_EXPORT_SEND_CACHE;

	if (export->limits.read_only)
		flags |= NBD_EXPORT_READ_ONLY;
	else
		flags |= NBD_EXPORT_SEND_TRIM | NBD_EXPORT_SEND_WRITE_ZEROES |
			 NBD_EXPORT_SEND_FAST_ZERO;
	if (conn->structured)
		flags |= NBD_EXPORT_SEND_DF;
	return flags;
}

/* A size that is no multiple of the block size has a tail that no request could reach. */
static uint64_t usable_size(const struct export *export)
{
	return round_down(export->limits.size_bytes, export->limits.block_min_bytes);
}

static uint32_t largest_request(const struct nbd_conn *conn, const struct export *export)
{
	uint64_t max = min_u64(export->limits.request_max_bytes, NBD_REQUEST_MAX_BYTES);

	if (!conn->server->config.lobby)
		max = min_u64(max, nbd_buffers_max_bytes(&conn->server->buffers));
	return (uint32_t)round_down(max, export->limits.block_min_bytes);
}

/* ---- EXPORT_NAME, INFO, GO ---------------------------------------------------------------------
 */

/* From here on the connection has an export. 0, or a negative errno with nothing changed. */
static int open_export(struct nbd_conn *conn, struct export *export)
{
	int r;

	must(is_power_of_two(export->limits.block_min_bytes));
	r = nbd_conn_prepare_serving(conn);
	if (r < 0)
		return r;
	r = export->ops->attach(export);
	if (r < 0)
		return r;
	conn->export = export;
	conn->size_bytes = usable_size(export);
	conn->request_max_bytes = largest_request(conn, export);
	/* A context set for another export does not count for this one. */
	if (strcmp(conn->meta_name, export->name) != 0)
		conn->meta_allocation = false;
	conn->then = NBD_THEN_SERVE;
	return 0;
}

/* 0: handed over; NBD_STAY; or a negative errno. */
static int hand_over(struct nbd_conn *conn, struct export *export)
{
	const struct nbd_server *server = conn->server;

	if (!server->hooks->handover)
		return NBD_STAY;
	return server->hooks->handover(server->config.owner, conn, export);
}

static enum nbd_outcome option_export_name(struct nbd_conn *conn, struct rcursor data)
{
	uint32_t length_bytes = (uint32_t)rcursor_left(&data);
	const char *name = (const char *)rcursor_bytes(&data, length_bytes);
	struct export *export = find(conn, name, length_bytes);
	int r;

	/* This option has no way to say no. */
	if (!export)
		return gone(conn, "asked for an export that is not there");
	if (!may_open(conn, export))
		return gone(conn, "this peer may not open the export it asked for");
	r = hand_over(conn, export);
	if (r == 0)
		return NBD_OPTION_GONE;
	if (r == NBD_STAY && !conn->server->config.lobby)
		r = open_export(conn, export);
	if (r != 0)
		return gone(conn, "the export is not being served now");
	wcursor_be64(&conn->reply, conn->size_bytes);
	wcursor_be16(&conn->reply, (uint16_t)transmission_flags(conn, export));
	if (!conn->no_zeroes)
		wcursor_zeroes(&conn->reply, NBD_EXPORT_NAME_REPLY_ZEROES);
	return NBD_OPTION_DONE;
}

static void reply_info(struct nbd_conn *conn, uint32_t option, const struct export *export,
		       unsigned wanted)
{
	struct wcursor *out = &conn->reply;
	uint32_t min_bytes = export->limits.block_min_bytes;
	uint32_t max_bytes = largest_request(conn, export);

	nbd_option_reply_put(out, option, NBD_REP_INFO, 12);
	wcursor_be16(out, NBD_INFO_EXPORT);
	wcursor_be64(out, usable_size(export));
	wcursor_be16(out, (uint16_t)transmission_flags(conn, export));

	if (wanted & (1u << NBD_INFO_NAME)) {
		size_t length_bytes = strlen(export->name);

		nbd_option_reply_put(out, option, NBD_REP_INFO, (uint32_t)length_bytes + 2);
		wcursor_be16(out, NBD_INFO_NAME);
		wcursor_bytes(out, export->name, length_bytes);
	}
	if ((wanted & (1u << NBD_INFO_DESCRIPTION)) && export->description) {
		size_t length_bytes = strnlen(export->description, NBD_NAME_MAX_BYTES);

		nbd_option_reply_put(out, option, NBD_REP_INFO, (uint32_t)length_bytes + 2);
		wcursor_be16(out, NBD_INFO_DESCRIPTION);
		wcursor_bytes(out, export->description, length_bytes);
	}
	/* Also unasked: a client that ignores it learns from the text of the first EINVAL. */
	nbd_option_reply_put(out, option, NBD_REP_INFO, 14);
	wcursor_be16(out, NBD_INFO_BLOCK_SIZE);
	wcursor_be32(out, min_bytes);
	wcursor_be32(out,
		     min_u32(max_u32(export->limits.block_preferred_bytes, min_bytes), max_bytes));
	wcursor_be32(out, max_bytes);
}

static enum nbd_outcome option_info_or_go(struct nbd_conn *conn, uint32_t option,
					  struct rcursor data)
{
	struct export *export;
	const char *name;
	uint32_t length_bytes;
	unsigned wanted = 0;
	int r = NBD_STAY;

	if (!nbd_string_get(&data, &name, &length_bytes))
		return refuse(conn, option, NBD_REP_ERR_INVALID, "the name runs past the option");
	for (unsigned left = rcursor_be16(&data); left > 0; left--) {
		unsigned info = rcursor_be16(&data);

		if (info < 32)
			wanted |= 1u << info;
	}
	if (!rcursor_done(&data) || length_bytes > NBD_NAME_MAX_BYTES)
		return refuse(conn, option, NBD_REP_ERR_INVALID, "the option's length is wrong");
	export = find(conn, name, length_bytes);
	if (!export)
		return refuse(conn, option, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
	if (!may_open(conn, export))
		return refuse(conn, option, NBD_REP_ERR_POLICY, "you may not open this export");
	if (option == NBD_OPT_GO) {
		r = hand_over(conn, export);
		if (r == 0)
			return NBD_OPTION_GONE;
		if (r == NBD_STAY)
			r = conn->server->config.lobby ? -ESHUTDOWN : open_export(conn, export);
		if (r == -ENOMEM)
			return refuse(conn, option, NBD_REP_ERR_PLATFORM, "out of memory");
		if (r < 0)
			return refuse(conn, option, NBD_REP_ERR_SHUTDOWN,
				      "the export is not being served now");
	}
	reply_info(conn, option, export, wanted);
	reply(conn, option, NBD_REP_ACK, NULL, 0);
	return NBD_OPTION_DONE;
}

/* ---- LIST, STARTTLS, contexts ------------------------------------------------------------------
 */

static enum nbd_outcome option_list(struct nbd_conn *conn, struct rcursor data)
{
	const struct nbd_server *server = conn->server;

	if (rcursor_left(&data) > 0)
		return refuse(conn, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
	if (!server->hooks->list)
		return refuse(conn, NBD_OPT_LIST, NBD_REP_ERR_POLICY, "listing is off");
	if (!conn->listing)
		conn->list_index = 0;
	conn->listing = true;
	while (wcursor_left(&conn->reply) >= REPLY_ROOM_BYTES) {
		const struct export *export =
			server->hooks->list(server->config.owner, conn->list_index);
		size_t name_bytes, text_bytes;

		if (!export) {
			reply(conn, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
			conn->listing = false;
			return NBD_OPTION_DONE;
		}
		conn->list_index++;
		if (!may_open(conn, export))
			continue;
		name_bytes = strlen(export->name);
		text_bytes =
			export->description ? strnlen(export->description, NBD_NAME_MAX_BYTES) : 0;
		nbd_option_reply_put(&conn->reply, NBD_OPT_LIST, NBD_REP_SERVER,
				     (uint32_t)(4 + name_bytes + text_bytes));
		wcursor_be32(&conn->reply, (uint32_t)name_bytes);
		wcursor_bytes(&conn->reply, export->name, name_bytes);
		wcursor_bytes(&conn->reply, export->description, text_bytes);
	}
	return NBD_OPTION_AGAIN;
}

static enum nbd_outcome option_starttls(struct nbd_conn *conn, struct rcursor data)
{
	if (conn->server->config.tls == NBD_TLS_OFF)
		return refuse(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY,
			      "this server is not configured for TLS");
	if (conn->tls)
		return refuse(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "TLS is already on");
	if (rcursor_left(&data) > 0)
		return refuse(conn, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID,
			      "STARTTLS takes no data");
	reply(conn, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
	conn->then = NBD_THEN_TLS;
	return NBD_OPTION_DONE;
}

static enum nbd_outcome option_structured_reply(struct nbd_conn *conn, struct rcursor data)
{
	if (rcursor_left(&data) > 0)
		return refuse(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID,
			      "STRUCTURED_REPLY takes no data");
	conn->structured = true;
	reply(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
	return NBD_OPTION_DONE;
}

static bool text_is(const char *text, size_t length_bytes, const char *wanted)
{
	return length_bytes == strlen(wanted) && memcmp(text, wanted, length_bytes) == 0;
}

static enum nbd_outcome option_meta_context(struct nbd_conn *conn, uint32_t option,
					    struct rcursor data)
{
	static const char allocation[] = "base:allocation";
	bool setting = option == NBD_OPT_SET_META_CONTEXT;
	bool chosen = false;
	const struct export *export;
	const char *name, *query;
	uint32_t name_bytes, query_bytes, queries;

	/* A failed SET leaves no context behind either. */
	if (setting)
		conn->meta_allocation = false;
	if (!conn->structured)
		return refuse(conn, option, NBD_REP_ERR_INVALID,
			      "structured replies must be negotiated first");
	if (!nbd_string_get(&data, &name, &name_bytes))
		return refuse(conn, option, NBD_REP_ERR_INVALID, "the name runs past the option");
	queries = rcursor_be32(&data);
	/* Each query takes at least four bytes, so the option's length bounds the loop. */
	if (!rcursor_ok(&data) || queries > rcursor_left(&data) / 4)
		return refuse(conn, option, NBD_REP_ERR_INVALID, "the queries run past the option");
	chosen = queries == 0 && !setting;
	for (; queries > 0 && nbd_string_get(&data, &query, &query_bytes); queries--) {
		if (query_bytes > NBD_NAME_MAX_BYTES)
			return refuse(conn, option, NBD_REP_ERR_INVALID, "a query is too long");
		if (text_is(query, query_bytes, allocation) ||
		    (!setting && text_is(query, query_bytes, "base:")))
			chosen = true;
	}
	if (!rcursor_done(&data) || name_bytes > NBD_NAME_MAX_BYTES)
		return refuse(conn, option, NBD_REP_ERR_INVALID, "the option's length is wrong");
	export = find(conn, name, name_bytes);
	if (!export)
		return refuse(conn, option, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
	if (!may_open(conn, export))
		return refuse(conn, option, NBD_REP_ERR_POLICY, "you may not open this export");
	if (chosen) {
		nbd_option_reply_put(&conn->reply, option, NBD_REP_META_CONTEXT,
				     (uint32_t)(4 + sizeof(allocation) - 1));
		wcursor_be32(&conn->reply, setting ? NBD_META_ALLOCATION : 0);
		wcursor_bytes(&conn->reply, allocation, sizeof(allocation) - 1);
	}
	if (setting && chosen && strlen(export->name) < sizeof(conn->meta_name)) {
		conn->meta_allocation = true;
		memcpy(conn->meta_name, export->name, strlen(export->name) + 1);
	}
	reply(conn, option, NBD_REP_ACK, NULL, 0);
	return NBD_OPTION_DONE;
}

/* ---- which one ---------------------------------------------------------------------------------
 */

enum nbd_outcome nbd_option_handle(struct nbd_conn *conn, uint32_t option, struct rcursor data)
{
	bool plain = conn->server->config.tls == NBD_TLS_REQUIRED && !conn->tls;

	if (plain && option == NBD_OPT_EXPORT_NAME)
		return gone(conn, "the client does not use TLS, which is required");
	if (!conn->fixed_newstyle && option != NBD_OPT_EXPORT_NAME)
		return gone(conn, "the client does not speak fixed newstyle");
	if (option == NBD_OPT_ABORT) {
		reply(conn, option, NBD_REP_ACK, NULL, 0);
		conn->then = NBD_THEN_CLOSE;
		return NBD_OPTION_DONE;
	}
	if (plain && option != NBD_OPT_STARTTLS)
		return refuse(conn, option, NBD_REP_ERR_TLS_REQD, "this server requires TLS");
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		return option_export_name(conn, data);
	case NBD_OPT_LIST:
		return option_list(conn, data);
	case NBD_OPT_STARTTLS:
		return option_starttls(conn, data);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return option_info_or_go(conn, option, data);
	case NBD_OPT_STRUCTURED_REPLY:
		return option_structured_reply(conn, data);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return option_meta_context(conn, option, data);
	}
	return refuse(conn, option, NBD_REP_ERR_UNSUP, "this server does not know that option");
}

static bool known_option(uint32_t option)
{
	return option >= NBD_OPT_EXPORT_NAME && option <= NBD_OPT_SET_META_CONTEXT && option != 4;
}

/* An option too long to be looked into: answered at once, its data skipped as it comes. */
enum nbd_outcome nbd_option_skip(struct nbd_conn *conn, const struct nbd_option_header *header)
{
	bool plain = conn->server->config.tls == NBD_TLS_REQUIRED && !conn->tls;

	if (header->length_bytes > NBD_OPTION_SKIP_MAX_BYTES)
		return gone(conn, "sent an option of absurd length");
	if (header->option == NBD_OPT_EXPORT_NAME || !conn->fixed_newstyle)
		return gone(conn, "sent an export name of absurd length");
	conn->in_start += NBD_OPTION_HEADER_BYTES;
	conn->skip_bytes = header->length_bytes;
	if (plain)
		return refuse(conn, header->option, NBD_REP_ERR_TLS_REQD,
			      "this server requires TLS");
	return refuse(conn, header->option,
		      known_option(header->option) ? NBD_REP_ERR_TOO_BIG : NBD_REP_ERR_UNSUP,
		      "the option is longer than this server looks into");
}
