/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL over memory: a BIO whose read side is `input` and whose write side is the half of the
 * output that is being filled. All that a session needs is allocated when it is made.
 */
#include "core/io/tls_session.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/io/tls_internal.h"

#define RECORD_OVERHEAD_BYTES 256u /* header, tag, type, padding: 22 in TLS 1.3 */
#define CHUNK_RECORDS	      (TLS_CHUNK_BYTES / TLS_RECORD_BYTES)
/* The rest is for what TLS itself has to say: handshake, alerts, key updates. */
#define CONTROL_BYTES (64u << 10)
#define HALF_BYTES    (CHUNK_RECORDS * (TLS_RECORD_BYTES + RECORD_OVERHEAD_BYTES) + CONTROL_BYTES)

struct half {
	uint8_t *bytes;
	size_t begin, end;
};

struct tls_session {
	SSL *ssl;
	bool server, shaken, ended, closed;
	int failed; /* errno of the failure that ended it all */
	char peer[128];
	char expect[TLS_IDENTITY_BYTES]; /* "": anybody of the CA */
	char identity[TLS_IDENTITY_BYTES];
	char error[256];
	uint8_t *input;
	size_t input_begin, input_end;
	struct half halves[2];
	unsigned sending; /* halves[sending] is with the kernel, the other one is filled */
	uint64_t key_update_bytes, since_key_update_bytes;
	uint8_t *gather; /* one record of small pieces */
};

/* ---- the BIO ---- */

static BIO_METHOD *bio_method;
static pthread_once_t bio_method_once = PTHREAD_ONCE_INIT;

static int bio_write(BIO *bio, const char *data, int len)
{
	struct tls_session *session = BIO_get_data(bio);
	struct half *half = &session->halves[!session->sending];

	BIO_clear_retry_flags(bio);
	if (len <= 0)
		return 0;
	if ((size_t)len > HALF_BYTES - half->end) {
		BIO_set_retry_write(bio);
		return -1;
	}
	memcpy(half->bytes + half->end, data, (size_t)len);
	half->end += (size_t)len;
	return len;
}

static int bio_read(BIO *bio, char *data, int len)
{
	struct tls_session *session = BIO_get_data(bio);
	size_t there = session->input_end - session->input_begin;
	size_t part;

	BIO_clear_retry_flags(bio);
	if (len <= 0)
		return 0;
	if (there == 0) {
		if (session->ended)
			return 0;
		BIO_set_retry_read(bio);
		return -1;
	}
	part = min_size(there, (size_t)len);
	memcpy(data, session->input + session->input_begin, part);
	session->input_begin += part;
	return (int)part;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	const struct tls_session *session = BIO_get_data(bio);

	(void)number, (void)pointer;
	switch (command) {
	case BIO_CTRL_FLUSH:
		return 1;
	case BIO_CTRL_EOF:
		return session->ended && session->input_begin == session->input_end;
	default:
		return 0;
	}
}

static void make_bio_method(void)
{
	int type = BIO_get_new_index() | BIO_TYPE_SOURCE_SINK;

	bio_method = BIO_meth_new(type, "holdfast stream");
	if (bio_method && (BIO_meth_set_write(bio_method, bio_write) != 1 ||
			   BIO_meth_set_read(bio_method, bio_read) != 1 ||
			   BIO_meth_set_ctrl(bio_method, bio_ctrl) != 1)) {
		BIO_meth_free(bio_method);
		bio_method = NULL;
	}
}

/* ---- verification ---- */

static int verify(int ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_session *session = SSL_get_app_data(ssl);
	const char *expect = session->expect[0] ? session->expect : NULL;
	X509 *cert = X509_STORE_CTX_get_current_cert(store);

	/* The leaf comes last, when everything else about the chain is known to be right. */
	if (ok && X509_STORE_CTX_get_error_depth(store) == 0 &&
	    tls_cert_identity(cert, expect, session->identity) < 0) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
		ok = 0;
	}
	if (!ok) {
		session->failed = -EKEYREJECTED;
		tls_explain_verify(X509_STORE_CTX_get_error(store), cert, session->peer, expect,
				   session->error, sizeof(session->error));
	}
	return ok;
}

/* ---- life ---- */

static int make_ssl(struct tls_session *session, struct io_tls *tls)
{
	SSL_CTX *context = tls_context(tls);
	BIO *bio;

	session->ssl = SSL_new(context);
	SSL_CTX_free(context); /* the connection holds its own */
	if (!session->ssl)
		return -ENOMEM;
	bio = BIO_new(bio_method);
	if (!bio)
		return -ENOMEM;
	BIO_set_data(bio, session);
	BIO_set_init(bio, 1);
	SSL_set_bio(session->ssl, bio, bio);
	SSL_set_app_data(session->ssl, session);
	SSL_set_verify(session->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
	if (session->server)
		SSL_set_accept_state(session->ssl);
	else
		SSL_set_connect_state(session->ssl);
	return 0;
}

int tls_session_new(struct io_tls *tls, bool server, const char *expect_identity,
		    const char *peer_address, struct tls_session **ret_session)
{
	struct tls_session *session = calloc(1, sizeof(*session));
	int err = -ENOMEM;

	if (!session)
		return -ENOMEM;
	must(pthread_once(&bio_method_once, make_bio_method) == 0);
	session->server = server;
	session->key_update_bytes = TLS_KEY_UPDATE_BYTES;
	(void)snprintf(session->peer, sizeof(session->peer), "%s", peer_address);
	session->input = malloc(TLS_INPUT_BYTES);
	session->gather = malloc(TLS_RECORD_BYTES);
	session->halves[0].bytes = malloc(HALF_BYTES);
	session->halves[1].bytes = malloc(HALF_BYTES);
	if (bio_method && session->input && session->gather && session->halves[0].bytes &&
	    session->halves[1].bytes)
		err = make_ssl(session, tls);
	if (err == 0 && expect_identity &&
	    snprintf(session->expect, sizeof(session->expect), "%s", expect_identity) >=
		    (int)sizeof(session->expect))
		err = -EINVAL;
	if (err < 0) {
		tls_session_free(session);
		return err;
	}
	*ret_session = session;
	return 0;
}

void tls_session_free(struct tls_session *session)
{
	if (!session)
		return;
	SSL_free(session->ssl);
	free(session->input);
	free(session->gather);
	free(session->halves[0].bytes);
	free(session->halves[1].bytes);
	free(session);
}

const char *tls_session_error(const struct tls_session *session)
{
	return session->error;
}

const char *tls_session_identity(const struct tls_session *session)
{
	return session->identity;
}

void tls_session_set_key_update(struct tls_session *session, uint64_t bytes)
{
	session->key_update_bytes = bytes;
}

/* ---- ciphertext ---- */

uint8_t *tls_session_input(struct tls_session *session, size_t *ret_len)
{
	size_t there = session->input_end - session->input_begin;

	/* At most one record is incomplete, so there is room behind it. */
	if (there == 0) {
		session->input_begin = session->input_end = 0;
	} else if (TLS_INPUT_BYTES - session->input_end < 2 * TLS_RECORD_BYTES) {
		memmove(session->input, session->input + session->input_begin, there);
		session->input_begin = 0;
		session->input_end = there;
	}
	*ret_len = TLS_INPUT_BYTES - session->input_end;
	return session->input + session->input_end;
}

void tls_session_input_filled(struct tls_session *session, size_t len)
{
	must(len <= TLS_INPUT_BYTES - session->input_end);
	session->input_end += len;
}

void tls_session_input_ended(struct tls_session *session)
{
	session->ended = true;
}

const uint8_t *tls_session_output(struct tls_session *session, size_t *ret_len)
{
	struct half *half = &session->halves[session->sending];

	if (half->begin == half->end) {
		half->begin = half->end = 0;
		session->sending = !session->sending;
		half = &session->halves[session->sending];
	}
	*ret_len = half->end - half->begin;
	return half->bytes + half->begin;
}

void tls_session_output_taken(struct tls_session *session, size_t len)
{
	struct half *half = &session->halves[session->sending];

	must(len <= half->end - half->begin);
	half->begin += len;
}

/* ---- the connection ---- */

/* Turns a failed call into a result. */
static int outcome(struct tls_session *session, int res)
{
	char words[sizeof(session->error)];
	int err;

	switch (SSL_get_error(session->ssl, res)) {
	case SSL_ERROR_WANT_READ:
		return TLS_WANT_INPUT;
	case SSL_ERROR_ZERO_RETURN:
		session->closed = true;
		return TLS_CLOSED;
	case SSL_ERROR_WANT_WRITE:
		/* The room for control messages is used up: the peer asks without listening. */
		(void)snprintf(session->error, sizeof(session->error),
			       "%s sends TLS control messages without reading the answers",
			       session->peer);
		session->failed = -EPROTO;
		return session->failed;
	default:
		if (session->failed) { /* the verifier has said why */
			ERR_clear_error();
			return session->failed;
		}
		if (session->ended && ERR_peek_error() == 0) {
			(void)snprintf(session->error, sizeof(session->error),
				       "%s ended the connection without closing TLS",
				       session->peer);
			session->failed = -ECONNRESET;
			return session->failed;
		}
		err = tls_explain_queue(session->peer, words, sizeof(words));
		memcpy(session->error, words, sizeof(words));
		session->failed = err;
		return err;
	}
}

/* A server that answers without a protocol is not ours. */
static int check_alpn(struct tls_session *session)
{
	const unsigned char *chosen;
	unsigned len;

	if (session->server)
		return 0;
	SSL_get0_alpn_selected(session->ssl, &chosen, &len);
	if (len > 0) /* OpenSSL refuses what we did not offer */
		return 0;
	(void)snprintf(session->error, sizeof(session->error), "%s does not speak holdfast/1",
		       session->peer);
	session->failed = -EPROTO;
	return -EPROTO;
}

int tls_session_handshake(struct tls_session *session)
{
	int res;

	if (session->failed)
		return session->failed;
	ERR_clear_error();
	res = SSL_do_handshake(session->ssl);
	if (res != 1) {
		res = outcome(session, res);
		if (res != TLS_CLOSED)
			return res;
		(void)snprintf(session->error, sizeof(session->error),
			       "%s said goodbye in the middle of the TLS handshake", session->peer);
		session->failed = -EPROTO;
		return session->failed;
	}
	session->shaken = true;
	return check_alpn(session);
}

int tls_session_read(struct tls_session *session, void *buf, size_t len, size_t *ret_len)
{
	int res;

	if (session->failed)
		return session->failed;
	if (session->closed)
		return TLS_CLOSED;
	ERR_clear_error();
	res = SSL_read_ex(session->ssl, buf, len, ret_len);
	return res == 1 ? 0 : outcome(session, res);
}

/* One record's worth from the front of the iovec, in one piece. */
static const void *next_record(struct tls_session *session, const struct iovec *iov, unsigned count,
			       size_t skip, size_t *ret_len)
{
	const uint8_t *front = (const uint8_t *)iov->iov_base + skip;
	size_t len = iov->iov_len - skip, total = 0;

	if (len >= TLS_RECORD_BYTES || count == 1) {
		*ret_len = min_size(len, TLS_RECORD_BYTES);
		return front;
	}
	for (unsigned i = 0; i < count && total < TLS_RECORD_BYTES; i++) {
		const uint8_t *from = (const uint8_t *)iov[i].iov_base + (i ? 0 : skip);
		size_t part = min_size(iov[i].iov_len - (i ? 0 : skip), TLS_RECORD_BYTES - total);

		memcpy(session->gather + total, from, part);
		total += part;
	}
	*ret_len = total;
	return session->gather;
}

/* New keys now and then; the peer learns of it from a record of ours. */
static int maybe_key_update(struct tls_session *session)
{
	if (session->since_key_update_bytes < session->key_update_bytes)
		return 0;
	session->since_key_update_bytes = 0;
	return SSL_key_update(session->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1
		       ? 0
		       : outcome(session, 0);
}

int tls_session_write(struct tls_session *session, const struct iovec *iov, unsigned iov_count,
		      size_t *ret_len)
{
	size_t skip = 0, len, written, total = 0;
	const void *record;
	int res;

	if (session->failed)
		return session->failed;
	ERR_clear_error();
	while (iov_count > 0) {
		if (skip == iov->iov_len) {
			iov++;
			iov_count--;
			skip = 0;
			continue;
		}
		if (session->halves[!session->sending].end >
		    HALF_BYTES - CONTROL_BYTES - TLS_RECORD_BYTES - RECORD_OVERHEAD_BYTES)
			break;
		res = maybe_key_update(session);
		if (res != 0)
			return res;
		record = next_record(session, iov, iov_count, skip, &len);
		res = SSL_write_ex(session->ssl, record, len, &written);
		if (res != 1)
			return outcome(session, res);
		total += written;
		session->since_key_update_bytes += written;
		for (size_t left = written; left > 0;) {
			size_t part = min_size(left, iov->iov_len - skip);

			skip += part;
			left -= part;
			if (skip == iov->iov_len && left > 0) {
				iov++;
				iov_count--;
				skip = 0;
			}
		}
	}
	*ret_len = total;
	return total > 0 || iov_count == 0 ? 0 : TLS_WANT_OUTPUT;
}

void tls_session_close(struct tls_session *session)
{
	if (session->failed || !session->shaken)
		return;
	ERR_clear_error();
	(void)SSL_shutdown(session->ssl); /* one way: we do not wait for the answer */
	ERR_clear_error();
}

int tls_session_blame(struct tls_session *session)
{
	char byte;
	size_t len;
	int res;

	if (session->failed)
		return session->failed;
	ERR_clear_error();
	res = SSL_peek_ex(session->ssl, &byte, 1, &len);
	if (res == 1)
		return 0;
	res = outcome(session, res);
	return res < 0 ? res : 0;
}
