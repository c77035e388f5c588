/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of one host: holdfast.conf, read by both daemons and the command.
 *
 * libconfuse's brace syntax; sizes and durations carry units (4GiB, 250ms). Loading checks
 * everything that can be checked without touching devices or the network; errors name file, line,
 * reason, remedy. Immutable after loading; any thread may read it.
 */
#ifndef HOLDFAST_CORE_CONF_CONF_H
#define HOLDFAST_CORE_CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_PATH_DEFAULT "/etc/holdfast/holdfast.conf"

enum conf_cache {
	CONF_WRITEBACK = 1, /* acknowledged when written to the journal, durable on FLUSH and FUA */
	CONF_WRITETHROUGH,  /* acknowledged when durable in the journal */
};

enum conf_mode {
	CONF_ASYNC = 0,
	CONF_SYNC_ONE = 1, /* what is acknowledged as durable is durable on one standby, too */
	CONF_SYNC_ALL = 2, /* on all of them */
};

enum conf_sync_loss {
	CONF_LOSS_ASYNC = 0,  /* after sync_timeout it goes on alone, alerted, and back by itself */
	CONF_LOSS_FREEZE = 1, /* acknowledgements wait for as long as it takes */
};

enum conf_compare {
	CONF_COMPARE_AUTO = 0, /* where the standby holds content that may be equal */
	CONF_COMPARE_ALWAYS,
	CONF_COMPARE_NEVER,
};

struct conf_window { /* of a day, UTC, in minutes; from > to: across midnight */
	unsigned from_min, to_min;
	uint64_t rate_bytes; /* per second; 0 = no limit */
};
#define CONF_WINDOWS_MAX 8u

enum conf_peer_role {
	CONF_PEER_BOTH = 0,    /* may be primary or standby of the group, as roles change */
	CONF_PEER_STANDBY = 1, /* may only receive from us */
	CONF_PEER_SOURCE = 2,  /* may only send to us */
};

struct conf_volume {
	char *name;
	char *path; /* file or block device, used as it is */
};

struct conf_peer {
	char *node;    /* the identity (SAN) its certificate carries */
	char *address; /* host:port of its engine */
	enum conf_peer_role role;
	uint64_t window_bytes;	  /* segment bytes sent and not yet acknowledged durable */
	uint64_t sync_rate_bytes; /* per second of initial copy and resync; 0 = no limit */
	unsigned sync_share;	  /* percent of the link that a copy may take while records wait;
				     1..100, 0 = 50 */
	uint64_t bandwidth_bytes; /* per second, of all that is sent to it; 0 = no limit */
	struct conf_window windows[CONF_WINDOWS_MAX]; /* in which another limit holds */
	unsigned window_count;
	uint64_t coalesce_bytes; /* that far behind, what was overwritten is not sent: a resync
				    takes the place of the backlog where that is less; 0 = never */
	enum conf_compare compare;
};

struct conf_group {
	char *name;
	enum conf_cache cache;
	uint64_t journal_size_bytes;   /* whole; a multiple of journal_file_bytes */
	uint64_t journal_file_bytes;   /* one file of it */
	uint64_t journal_retention_ns; /* segments no follower needs are kept this long when space
					  allows; 0 = as space allows */
	uint64_t memory_bytes;	       /* write set and segment buffers */
	uint64_t checkpoint_interval_ns;
	uint64_t flush_interval_ns; /* writeback: the journal is made durable at least this often */
	uint64_t settle_timeout_ns; /* at start: how long peers are asked for a higher epoch before
				       serving */
	uint64_t heartbeat_interval_ns, peer_timeout_ns;
	enum conf_mode mode;
	enum conf_sync_loss on_sync_loss;
	uint64_t sync_timeout_ns;
	uint64_t undo_limit_bytes; /* of a resync's undo log; 0 = as far as the file system goes */
	bool rejoin_auto; /* a fenced or diverged copy follows without the operator's word */
	uint64_t verify_interval_ns; /* background verification of each standby; 0 = none */
	uint64_t verify_rate_bytes;  /* per second; 0 = 32 MiB */
	uint64_t rpo_objective_ns, rto_objective_ns; /* 0 = none; shown and exported */
	struct conf_volume *volumes;
	unsigned volume_count;
	struct conf_peer *peers;
	unsigned peer_count;
	char **nbd_clients; /* identities that may open it over TLS; none listed: any of the CA */
	unsigned nbd_client_count;
	unsigned line; /* where it stands in the file */
};

struct conf {
	char *file;
	char *node; /* this node's identity; must equal the certificate's SAN */
	char *state_dir, *run_dir;
	char *log_level;
	struct {
		char *ca, *cert, *key, *crl; /* crl may be NULL */
	} tls;
	struct {
		char *nbd_listen;      /* NULL: unix sockets only */
		bool nbd_tls_required; /* default true; false is refused unless nbd_listen is a
					  loopback address */
		char *metrics_listen;  /* NULL: unix control socket only */
		unsigned nbd_connections_max;
	} agent;
	struct {
		char *listen; /* replication, TLS */
		char *metrics_listen;
	} engine;
	struct conf_group *groups;
	unsigned group_count;
};

/* 0, or a negative errno with "FILE:LINE: reason; remedy" in `error` (several lines if there are
 * several). */
int conf_load(const char *file, struct conf **ret_conf, char *error, size_t error_max);
struct conf *conf_free(struct conf *conf);
const struct conf_group *conf_group(const struct conf *conf, const char *name);
const struct conf_peer *conf_peer(const struct conf_group *group, const char *node);

#endif
