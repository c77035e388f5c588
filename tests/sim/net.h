/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated network. Not for use outside tests/sim.
 *
 * A connection is two pipes between two hosts. Bytes that a send has placed in a pipe are on their
 * way: an arrival event moves the pipe's `arrived` mark once the link lets them through; while it
 * does not, the pipe is stalled and tries again when the link heals or the host comes back. Events
 * of the network belong to no process: kernels go on when a process dies.
 */
#ifndef HOLDFAST_TESTS_SIM_NET_H
#define HOLDFAST_TESTS_SIM_NET_H

#include "tests/sim/internal.h"

#define BACKLOG_MAX	   16u
#define CONNECT_TIMEOUT_NS (10 * SIM_SECOND)
#define USER_TIMEOUT_NS	   (10 * SIM_SECOND)
#define TLS_TIMEOUT_NS	   (10 * SIM_SECOND)
#define PIPE_BYTES_MIN	   1024u
/* Beyond what sends may fill: the handshake's messages always fit. */
#define PIPE_SLACK_BYTES 1024u

enum end_state {
	END_OPEN,
	END_GONE, /* closed, or its process died: the kernel answers with a reset */
	END_LOST, /* its host lost power: silence until the host is back, then as END_GONE */
};

struct net_pipe {
	uint8_t *ring;
	uint64_t size_bytes;
	uint64_t written, arrived, read, acked; /* positions in the stream of bytes */
	uint64_t last_arrival_ns;
	bool fin_arrived;
	bool stalled; /* an arrival waits for the link */
	uint64_t stalled_end, stalls;
	bool stalled_fin, ack_stalled;
};

/* Side 0 connected, side 1 listened; pipe[i] carries what side i sends. */
struct net_conn {
	struct list link;
	struct sim_net *net;
	const char *name;
	struct sim_host *host[2];
	struct io_stream *stream[2]; /* NULL before it is handed out, and when it is gone */
	enum end_state state[2];
	int broken[2]; /* what a side has learned: -ECONNRESET, -ETIMEDOUT */
	struct net_pipe pipe[2];
	unsigned refs; /* events under way, open ends */
	bool local;
	struct list of_backlog;
	uint16_t client_port;
};

struct sim_cred {
	char identity[256], ca[64];
};

enum tls_state {
	TLS_NONE,
	TLS_WAIT_HELLO,
	TLS_WAIT_VERDICT,
	TLS_DONE,
};

struct io_stream {
	struct io *io;
	struct list of_node;
	struct sim_node *node;
	struct net_conn *conn;
	unsigned side;
	bool closed;

	struct io_op *recv_op;
	uint8_t *recv_buf;
	size_t recv_min, recv_max, recv_got;
	struct sim_event *recv_event;

	struct io_op *send_op;
	uint8_t *send_copy;
	uint64_t send_bytes, send_done_bytes;
	unsigned iov_count;
	struct iovec iov[IO_IOV_MAX];
	struct sim_event *send_event;

	struct io_op *tls_op;
	enum tls_state tls_state;
	const struct sim_cred *cred;
	bool tls_server, tls_accepted;
	char tls_expect[256];
	struct sim_event *tls_event, *tls_timeout;

	struct io_peer peer;
	char error[160];
};

struct io_listener {
	struct io *io;
	struct list of_node, of_net;
	struct sim_host *host;
	char address[256]; /* normalised */
	struct io_op *accept_op;
	struct io_stream **ret_stream;
	struct sim_event *accept_event;
	struct list backlog; /* struct net_conn */
	unsigned backlog_count;
};

/* A connect that has not completed. */
struct net_connect {
	struct list of_node;
	struct sim_node *node;
	struct io_op *op;
	struct io_stream **ret_stream;
	struct net_conn *conn; /* once the other side has agreed */
	struct sim_event *event;
	uint64_t deadline_ns;
	char address[256];
	char target[64];
	int refused;
};

struct sim_link {
	enum sim_cut cut;
	bool own_latency;
	uint64_t min_ns, max_ns;
};

struct sim_net {
	struct sim_world *world;
	struct list conns, listeners;
	struct sim_link links[HOSTS_MAX][HOSTS_MAX];
	uint64_t conn_count;
};

/* net.c */
uint64_t link_delay(struct sim_net *net, const struct sim_host *from, const struct sim_host *to);
enum sim_cut link_cut(const struct sim_net *net, const struct sim_host *from,
		      const struct sim_host *to);
struct sim_event *net_event(struct net_conn *conn, uint64_t delay_ns,
			    void (*fire)(struct sim_event *event));
void conn_unref(struct net_conn *conn);
struct io_stream *stream_new(struct net_conn *conn, unsigned side, struct sim_node *node);

/* net_stream.c */
void pipe_write(struct net_conn *conn, unsigned side, const void *bytes, uint64_t len);
void pipe_read(struct net_conn *conn, unsigned side, void *bytes, uint64_t len);
uint64_t pipe_ready(const struct net_conn *conn, unsigned side);
void pipe_retry(struct net_conn *conn, unsigned side);
/* Side `side` learns of an error, at once. */
void side_breaks(struct net_conn *conn, unsigned side, int error);
/* Side `side` is told of a reset by the other one, after the link's delay. */
void send_reset(struct net_conn *conn, unsigned side);
void stream_kick(struct io_stream *stream);
/* An end goes: by close, by its process's death or by power loss. */
void end_goes(struct net_conn *conn, unsigned side, enum end_state state, bool reset);
void stream_drop_ops(struct io_stream *stream, bool complete_them);

/* net_tls.c */
void tls_kick(struct io_stream *stream);

#endif
