/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS identity of this node: its certificate, key, CA and revocation list (OpenSSL, TLS 1.3 only).
 *
 * A `struct io_tls` is made once on a control thread and shared read-only by every loop. Peers are
 * verified against the one CA file only, never the system's store; both directions; the SAN (first
 * URI, else first DNS name) becomes io_peer.identity. Tickets, 0-RTT, renegotiation, compression:
 * off.
 */
#ifndef HOLDFAST_CORE_IO_TLS_H
#define HOLDFAST_CORE_IO_TLS_H

#include <stddef.h>

#include "core/io/io.h"

struct tls_config {
	const char *ca_path;
	const char *cert_path;
	const char *key_path; /* refused when others than the owner can read it */
	const char *crl_path; /* NULL: no revocation list */
};

/* 0, or a negative errno with the reason (what, which file, what to do) in `error`. */
int tls_new(const struct tls_config *config, struct io_tls **ret_tls, char *error,
	    size_t error_max);
void tls_free(struct io_tls *tls);
/* Reads the files again; connections made later use them. On failure the old ones stay in force. */
int tls_reload(struct io_tls *tls, char *error, size_t error_max);
/* This node's own identity, and when its certificate ends (seconds since 1970). */
const char *tls_identity(const struct io_tls *tls);
long long tls_expires(const struct io_tls *tls);

#endif
