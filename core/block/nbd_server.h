/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD server (fixed newstyle) on struct io: serves struct export to NBD clients.
 *
 * Owner: one server lives on one loop; every call below and every hook is on that loop's thread,
 * except where it says otherwise.
 *
 * Memory: at nbd_server_new() one buffer region of `buffer_bytes` is taken; a connection takes its
 * fixed part (about 200 KiB) when it starts. Nothing is allocated per request. A request that finds
 * no buffer waits, first come first served over all connections of the server, and its connection
 * reads nothing more meanwhile. A client that holds buffers and does not move for `stall_ns` is
 * disconnected, but only when others wait.
 *
 * Two servers, one connection: a *lobby* server on some loop accepts connections for exports of
 * several loops. When the client has named its export, the `handover` hook gives the connection to
 * the server of that export's loop by nbd_conn_adopt(). The option that named the export travels
 * unanswered with everything received so far, and is answered there.
 */
#ifndef HOLDFAST_CORE_BLOCK_NBD_SERVER_H
#define HOLDFAST_CORE_BLOCK_NBD_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/block/export.h"
#include "core/io/io.h"

struct nbd_server;
struct nbd_conn;

enum nbd_tls_policy {
	NBD_TLS_OFF,	  /* STARTTLS is refused */
	NBD_TLS_REQUIRED, /* nothing but STARTTLS is answered before TLS is up */
};

/* handover(): keep the connection on this server. */
#define NBD_STAY 1

/* One finished request, for histograms. */
struct nbd_observation {
	const struct export *export;
	enum export_op op;
	uint64_t length_bytes;
	uint64_t latency_ns; /* request parsed to reply queued */
	int64_t res;	     /* 0 or a negative errno */
};

/* Hooks are called in the middle of things: of the calls below only nbd_conn_adopt() (from
 * handover) and the ones that just look are allowed inside. */
struct nbd_hooks {
	/* The export of that name, or NULL. The name is what the client sent: not NUL-terminated,
	 * at most 255 bytes; length 0 asks for the default. On a lobby only name, description and
	 * limits of the result are read, so it may return a copy of what lives on another loop. */
	struct export *(*find)(void *owner, const char *name, size_t name_length_bytes);
	/* The index-th export for OPT_LIST, NULL past the last. NULL: listing is refused. */
	struct export *(*list)(void *owner, size_t index);

	/* All below may be NULL. */

	/* Whether that peer may connect at all; asked before the first byte. */
	bool (*may_connect)(void *owner, const struct io_peer *peer);
	/* Whether that peer may see and open that export; asked when TLS, if any, is up. */
	bool (*may_open)(void *owner, const struct io_peer *peer, const struct export *export);
	/* 0: nbd_conn_adopt() was called, the connection is gone. NBD_STAY: serve it here. A
	 * negative errno: the client is told that the export is not served now. */
	int (*handover)(void *owner, struct nbd_conn *conn, struct export *export);
	void (*observe)(void *owner, const struct nbd_observation *observation);
	/* A connection is over. `reason` is "" when the client left in good order. `export` is NULL
	 * when it had not come to one. */
	void (*ended)(void *owner, const struct io_peer *peer, const struct export *export,
		      const char *reason);
};

struct nbd_server_config {
	const struct io_address *listen; /* NULL: adopted connections only */
	enum nbd_tls_policy tls;
	struct io_tls *tls_identity; /* with NBD_TLS_REQUIRED */
	const struct nbd_hooks *hooks;
	void *owner;

	/* 0 = default. */
	unsigned connections_max; /* 64 */
	unsigned requests_max;	  /* in flight per connection: 128 */
	uint64_t handshake_ns;	  /* from accept to the first request: 10 s */
	uint64_t stall_ns;	  /* see above: 30 s */
	uint64_t stop_ns;	  /* how long replies may take to leave when stopping: 5 s */
	/* Default 128 MiB; at least 1 MiB; from 8 MiB on, an eighth more as a reserve for small
	 * requests when large ones hold the rest. No memory is touched before it is needed where
	 * the back end's allocator is lazy. The largest request is the smaller of 64 MiB and half
	 * of it, rounded down to a power of two. */
	size_t buffer_bytes;
	bool lobby; /* no buffers: every connection is handed over */
};

struct nbd_op_stats {
	uint64_t ops, errors, bytes;
	/* latency[n] counts requests that took [2^n, 2^(n+1)) microseconds; the first starts at 0,
	 * the last has no end. */
	uint64_t latency[24];
};
#define NBD_LATENCY_BUCKETS 24u

struct nbd_stats {
	unsigned connections;	      /* now */
	uint64_t connections_total;   /* accepted or adopted */
	uint64_t connections_refused; /* limit, may_connect, TLS and handshake failures */
	uint64_t memory_waits;	      /* requests that had to wait for a buffer */
	uint64_t stalled;	      /* connections dropped because they held buffers */
	size_t buffer_bytes, buffer_used_bytes, buffer_peak_bytes;
	struct nbd_op_stats op[EXPORT_MAP + 1]; /* by enum export_op; [0] is unused */
};

/* One connection, for `status`. The pointers are valid during the call only. */
struct nbd_conn_info {
	const struct io_peer *peer;
	const struct export *export; /* NULL: in the handshake */
	bool tls, structured;
	unsigned requests_in_flight;
	uint64_t requests, read_bytes, written_bytes;
	uint64_t connected_ns; /* io_now() of its accept or adoption */
};

/* 0, or a negative errno (-EADDRINUSE and the like from listening, -ENOMEM, -EINVAL). */
int nbd_server_new(struct io *io, const struct nbd_server_config *config,
		   struct nbd_server **ret_server);
/*
 * Stops: no new connection; requests in flight finish and are answered, later ones get
 * NBD_ESHUTDOWN, then every connection is closed. `done` is called once, from a later turn, when
 * the last is gone, also while adopted connections were still on their way. Replies that a client
 * does not take within `stop_ns` are dropped with its connection; requests in the export are waited
 * for.
 */
void nbd_server_stop(struct nbd_server *server, void (*done)(void *arg), void *arg);
/* Only after `done` of nbd_server_stop(), also from inside it. */
void nbd_server_free(struct nbd_server *server);

/* Closes the listening socket; connections go on. */
void nbd_server_close_listener(struct nbd_server *server);
/* Ends the connections of one export as nbd_server_stop() does; each detaches when it is gone. */
void nbd_server_drop_export(struct nbd_server *server, struct export *export);

/*
 * From inside `handover` only: the connection leaves this server (which must not touch it after
 * returning 0) and goes to `new_server` on its loop `to`, another one or the same. `new_server`
 * must not be freed before this returns; its stop waits for connections under way. There it may
 * still be refused: too many connections, being stopped, export gone.
 */
void nbd_conn_adopt(struct nbd_conn *conn, struct io *to, struct nbd_server *new_server);
const struct io_peer *nbd_conn_peer(const struct nbd_conn *conn);

void nbd_server_stats(const struct nbd_server *server, struct nbd_stats *ret_stats);
void nbd_server_each(struct nbd_server *server,
		     void (*visit)(void *arg, const struct nbd_conn_info *info), void *arg);
/* NULL when there is none (any more). For the back end's own queries, such as the bound port. */
struct io_listener *nbd_server_listener(struct nbd_server *server);

#endif
