/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TLS connection as a pure transformer: ciphertext in, ciphertext out, plaintext at the other
 * end. No I/O: OpenSSL talks to a pair of memory buffers, and the stream moves their bytes.
 *
 *	socket -> input[]  -> handshake / read  -> caller's buffer
 *	socket <- output[] <- handshake / write <- caller's buffer
 *
 * Output has two halves: while one is with the kernel the next records are made in the other.
 * Owner: one thread at a time. Results are 0, a negative errno (final; the reason is in
 * tls_session_error()), or one of enum tls_condition.
 */
#ifndef HOLDFAST_CORE_IO_TLS_SESSION_H
#define HOLDFAST_CORE_IO_TLS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/io/io.h"

#define TLS_INPUT_BYTES	 (256u << 10)
#define TLS_RECORD_BYTES (16u << 10)  /* plaintext */
#define TLS_CHUNK_BYTES	 (256u << 10) /* plaintext per half of the output */
/* New sending keys after this much: well below the limit of AES-GCM (RFC 8446, 5.5). */
#define TLS_KEY_UPDATE_BYTES (16ull << 30)

enum tls_condition {
	TLS_WANT_INPUT = 1, /* nothing more without bytes from the peer */
	TLS_WANT_OUTPUT,    /* output is full; take some first */
	TLS_CLOSED,	    /* the peer said goodbye */
};

struct tls_session;

/* `peer_address` names the peer in error texts. -ENOMEM only. */
int tls_session_new(struct io_tls *tls, bool server, const char *expect_identity,
		    const char *peer_address, struct tls_session **ret_session);
void tls_session_free(struct tls_session *session);

/* Where received ciphertext goes: at least one record's worth of room. */
uint8_t *tls_session_input(struct tls_session *session, size_t *ret_len);
void tls_session_input_filled(struct tls_session *session, size_t len);
void tls_session_input_ended(struct tls_session *session);

/* Ciphertext to send; it stays where it is until it was taken. Length 0: nothing to send. */
const uint8_t *tls_session_output(struct tls_session *session, size_t *ret_len);
void tls_session_output_taken(struct tls_session *session, size_t len);

/* 0 when both sides are verified, as far as this side can know. */
int tls_session_handshake(struct tls_session *session);
/* Reads 1..len bytes. */
int tls_session_read(struct tls_session *session, void *buf, size_t len, size_t *ret_len);
/* Takes from the front of the iovec, gathering small pieces into whole records. */
int tls_session_write(struct tls_session *session, const struct iovec *iov, unsigned iov_count,
		      size_t *ret_len);
/* Puts the goodbye into the output. */
void tls_session_close(struct tls_session *session);
/* Looks whether the input holds the reason why the peer went away. 0 when it does not. */
int tls_session_blame(struct tls_session *session);

const char *tls_session_error(const struct tls_session *session);
/* The peer's identity once the handshake is over. */
const char *tls_session_identity(const struct tls_session *session);
/* For tests: new keys after `bytes`. */
void tls_session_set_key_update(struct tls_session *session, uint64_t bytes);

#endif
