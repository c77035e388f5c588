/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tls.c (contexts), tls_session.c (connections) and tls_reason.c (words) share. OpenSSL is
 * included by these three files only.
 */
#ifndef HOLDFAST_CORE_IO_TLS_INTERNAL_H
#define HOLDFAST_CORE_IO_TLS_INTERNAL_H

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "core/io/tls.h"

#define TLS_IDENTITY_BYTES 256u

/* The context in force, with a reference for the caller. Any thread. */
SSL_CTX *tls_context(struct io_tls *tls);

/*
 * The identity of a certificate: its first URI SAN, else its first DNS SAN; with `expect` that very
 * SAN, compared byte by byte. -ENOENT: it carries no name; -EKEYREJECTED: it does not carry
 * `expect` (`ret_identity` is its own then); -EINVAL: a name with a NUL, a control character or too
 * long.
 */
int tls_cert_identity(X509 *cert, const char *expect, char ret_identity[TLS_IDENTITY_BYTES]);

/* Why verification of `cert` failed, in words. */
void tls_explain_verify(int code, X509 *cert, const char *peer, const char *expect, char *text,
			size_t text_max);
/* What OpenSSL's error queue says about a failed handshake or read; empties it. Returns the errno.
 */
int tls_explain_queue(const char *peer, char *text, size_t text_max);
/* The first entry of the error queue as text; empties it. */
const char *tls_queue_text(char *text, size_t text_max);

#endif
