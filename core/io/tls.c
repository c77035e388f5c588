/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS contexts: this node's certificate, key, CA and revocation list.
 *
 * Policy: TLS 1.3 only; both sides present certificates of the one configured CA; identity is the
 * SAN. No tickets (every connection is verified anew), no early data (it can be replayed), no
 * renegotiation, no compression.
 */
#include "core/io/tls_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/macros.h"

static const char ciphersuites[] =
	"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
static const char groups[] = "X25519:P-256";
static const unsigned char alpn[] = "\x0aholdfast/1";

struct io_tls {
	char *ca_path, *cert_path, *key_path, *crl_path;
	char identity[TLS_IDENTITY_BYTES];
	pthread_mutex_t lock; /* guards what follows */
	SSL_CTX *context;
	long long expires;
};

struct report {
	char *error;
	size_t error_max;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct report *report, int err,
						      const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(report->error, report->error_max, format, arguments);
	va_end(arguments);
	return err;
}

/* Opens a PEM file. `secret`: refused when others than the owner can read it. */
static int open_pem(const struct report *report, const char *path, bool secret, FILE **ret_file)
{
	struct stat st;
	int err, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		err = -errno;
		return fail(report, err, "%s: cannot open: %s", path, err_text(err));
	}
	if (fstat(fd, &st) < 0)
		err = fail(report, -errno, "%s: cannot stat", path);
	else if (secret && (st.st_mode & 077))
		err = fail(report, -EPERM,
			   "%s: key file has mode %04o, others can read it; run: chmod 600 %s",
			   path, (unsigned)(st.st_mode & 07777), path);
	else if (secret && st.st_uid != geteuid() && st.st_uid != 0)
		err = fail(report, -EPERM,
			   "%s: key file belongs to uid %u, neither root nor uid %u", path,
			   (unsigned)st.st_uid, (unsigned)geteuid());
	else
		err = 0;
	*ret_file = err == 0 ? fdopen(fd, "r") : NULL;
	if (err == 0 && !*ret_file)
		err = fail(report, -ENOMEM, "%s: out of memory", path);
	if (err < 0)
		(void)close(fd);
	return err;
}

/* No terminal to ask on. */
static int no_passphrase(char *buf, int size, int for_writing, void *owner)
{
	(void)buf, (void)size, (void)for_writing;
	*(bool *)owner = true;
	return 0;
}

static int load_key(const struct report *report, SSL_CTX *context, const char *path)
{
	bool asked = false;
	EVP_PKEY *key;
	char text[128];
	FILE *file;
	int err = open_pem(report, path, true, &file);

	if (err < 0)
		return err;
	key = PEM_read_PrivateKey(file, NULL, no_passphrase, &asked);
	(void)fclose(file);
	if (!key)
		return asked ? fail(report, -EINVAL,
				    "%s: key is encrypted; use a key without a passphrase", path)
			     : fail(report, -EINVAL, "%s: no private key in PEM form: %s", path,
				    tls_queue_text(text, sizeof(text)));
	if (SSL_CTX_use_PrivateKey(context, key) != 1)
		err = fail(report, -EINVAL, "%s: key does not belong to the certificate: %s", path,
			   tls_queue_text(text, sizeof(text)));
	EVP_PKEY_free(key);
	return err;
}

/* Also what is sent to clients as the CAs whose certificates are welcome. */
static int load_ca(const struct report *report, SSL_CTX *context, const char *path)
{
	STACK_OF(X509_NAME) * names;
	char text[128];
	FILE *file;
	int err = open_pem(report, path, false, &file);

	if (err < 0)
		return err;
	(void)fclose(file);
	if (SSL_CTX_load_verify_file(context, path) != 1)
		return fail(report, -EINVAL, "%s: no CA certificate in PEM form: %s", path,
			    tls_queue_text(text, sizeof(text)));
	names = SSL_load_client_CA_file(path);
	if (!names)
		return fail(report, -EINVAL, "%s: %s", path, tls_queue_text(text, sizeof(text)));
	SSL_CTX_set_client_CA_list(context, names);
	return 0;
}

static int load_crl(const struct report *report, SSL_CTX *context, const char *path)
{
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	char text[128];
	X509_CRL *crl;
	unsigned count = 0;
	FILE *file;
	int err = open_pem(report, path, false, &file);

	if (err < 0)
		return err;
	while ((crl = PEM_read_X509_CRL(file, NULL, NULL, NULL))) {
		count += X509_STORE_add_crl(store, crl) == 1;
		X509_CRL_free(crl);
	}
	(void)fclose(file);
	if (count == 0)
		return fail(report, -EINVAL, "%s: no revocation list in PEM form: %s", path,
			    tls_queue_text(text, sizeof(text)));
	ERR_clear_error(); /* the end of the file */
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return 0;
}

static int load_cert(const struct report *report, SSL_CTX *context, const char *path,
		     char identity[TLS_IDENTITY_BYTES], long long *ret_expires)
{
	struct tm end = { 0 };
	char text[128];
	X509 *cert;
	FILE *file;
	int err = open_pem(report, path, false, &file);

	if (err < 0)
		return err;
	(void)fclose(file);
	if (SSL_CTX_use_certificate_chain_file(context, path) != 1)
		return fail(report, -EINVAL, "%s: no usable certificate in PEM form: %s", path,
			    tls_queue_text(text, sizeof(text)));
	cert = SSL_CTX_get0_certificate(context);
	if (tls_cert_identity(cert, NULL, identity) < 0)
		return fail(report, -EINVAL,
			    "%s: certificate carries no usable name (subjectAltName URI or DNS); "
			    "issue it with the node's name",
			    path);
	if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &end) != 1)
		return fail(report, -EINVAL, "%s: certificate has no readable end date", path);
	*ret_expires = (long long)timegm(&end);
	return 0;
}

/* Server side: a client that names its protocols must name ours; NBD clients name none. */
static int choose_alpn(SSL *ssl, const unsigned char **ret, unsigned char *ret_len,
		       const unsigned char *offered, unsigned offered_len, void *owner)
{
	unsigned char *chosen;

	(void)ssl, (void)owner;
	if (SSL_select_next_proto(&chosen, ret_len, alpn, sizeof(alpn) - 1, offered, offered_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*ret = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static int set_policy(const struct report *report, SSL_CTX *context)
{
	char text[128];

	SSL_CTX_set_security_level(context, 2);
	if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(context, ciphersuites) != 1 ||
	    SSL_CTX_set1_groups_list(context, groups) != 1 ||
	    SSL_CTX_set_num_tickets(context, 0) != 1 ||
	    SSL_CTX_set_alpn_protos(context, alpn, sizeof(alpn) - 1) != 0)
		return fail(report, -EOPNOTSUPP, "OpenSSL refuses the TLS 1.3 settings: %s",
			    tls_queue_text(text, sizeof(text)));
	(void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
						   SSL_OP_NO_TICKET |
						   SSL_OP_CIPHER_SERVER_PREFERENCE);
	(void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_max_early_data(context, 0);
	(void)SSL_CTX_set_mode(context,
			       SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_alpn_select_cb(context, choose_alpn, NULL);
	return 0;
}

static int load(const struct io_tls *tls, const struct report *report, SSL_CTX **ret_context,
		char identity[TLS_IDENTITY_BYTES], long long *ret_expires)
{
	SSL_CTX *context = SSL_CTX_new(TLS_method());
	int err;

	ERR_clear_error();
	if (!context)
		return fail(report, -ENOMEM, "out of memory for TLS");
	err = set_policy(report, context);
	if (err == 0)
		err = load_ca(report, context, tls->ca_path);
	if (err == 0)
		err = load_cert(report, context, tls->cert_path, identity, ret_expires);
	if (err == 0)
		err = load_key(report, context, tls->key_path);
	if (err == 0 && tls->crl_path)
		err = load_crl(report, context, tls->crl_path);
	ERR_clear_error();
	if (err < 0)
		SSL_CTX_free(context);
	else
		*ret_context = context;
	return err;
}

static bool copy_path(char **place, const char *path)
{
	*place = path ? strdup(path) : NULL;
	return *place || !path;
}

int tls_new(const struct tls_config *config, struct io_tls **ret_tls, char *error, size_t error_max)
{
	const struct report report = { error, error_max };
	struct io_tls *tls;
	int err;

	if (!config->ca_path || !config->cert_path || !config->key_path)
		return fail(&report, -EINVAL, "TLS needs a CA file, a certificate and a key");
	tls = calloc(1, sizeof(*tls));
	if (!tls)
		return fail(&report, -ENOMEM, "out of memory for TLS");
	must(pthread_mutex_init(&tls->lock, NULL) == 0);
	if (!copy_path(&tls->ca_path, config->ca_path) ||
	    !copy_path(&tls->cert_path, config->cert_path) ||
	    !copy_path(&tls->key_path, config->key_path) ||
	    !copy_path(&tls->crl_path, config->crl_path))
		err = fail(&report, -ENOMEM, "out of memory for TLS");
	else
		err = load(tls, &report, &tls->context, tls->identity, &tls->expires);
	if (err < 0) {
		tls_free(tls);
		return err;
	}
	*ret_tls = tls;
	return 0;
}

void tls_free(struct io_tls *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->context);
	must(pthread_mutex_destroy(&tls->lock) == 0);
	free(tls->ca_path);
	free(tls->cert_path);
	free(tls->key_path);
	free(tls->crl_path);
	free(tls);
}

int tls_reload(struct io_tls *tls, char *error, size_t error_max)
{
	const struct report report = { error, error_max };
	char identity[TLS_IDENTITY_BYTES];
	SSL_CTX *context, *old;
	long long expires;
	int err = load(tls, &report, &context, identity, &expires);

	if (err < 0)
		return err;
	/* Peers and configuration know this node by its name. */
	if (strcmp(identity, tls->identity) != 0) {
		SSL_CTX_free(context);
		return fail(&report, -EINVAL,
			    "%s: certificate is for \"%s\", this node runs as \"%s\"; "
			    "restart to change the name",
			    tls->cert_path, identity, tls->identity);
	}
	must(pthread_mutex_lock(&tls->lock) == 0);
	old = tls->context;
	tls->context = context;
	tls->expires = expires;
	must(pthread_mutex_unlock(&tls->lock) == 0);
	SSL_CTX_free(old); /* connections keep their own reference */
	return 0;
}

SSL_CTX *tls_context(struct io_tls *tls)
{
	SSL_CTX *context;

	must(pthread_mutex_lock(&tls->lock) == 0);
	context = tls->context;
	must(SSL_CTX_up_ref(context) == 1);
	must(pthread_mutex_unlock(&tls->lock) == 0);
	return context;
}

const char *tls_identity(const struct io_tls *tls)
{
	return tls->identity;
}

long long tls_expires(const struct io_tls *tls)
{
	/* The lock is no part of what `const` promises. */
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&tls->lock;
	long long expires;

	must(pthread_mutex_lock(lock) == 0);
	expires = tls->expires;
	must(pthread_mutex_unlock(lock) == 0);
	return expires;
}

static int copy_name(const ASN1_STRING *name, char text[TLS_IDENTITY_BYTES])
{
	const unsigned char *bytes = ASN1_STRING_get0_data(name);
	int len = ASN1_STRING_length(name);

	if (len <= 0 || len >= (int)TLS_IDENTITY_BYTES)
		return -EINVAL;
	for (int i = 0; i < len; i++) {
		if (bytes[i] <= ' ' || bytes[i] >= 0x7f)
			return -EINVAL;
	}
	memcpy(text, bytes, (size_t)len);
	text[len] = 0;
	return 0;
}

int tls_cert_identity(X509 *cert, const char *expect, char ret_identity[TLS_IDENTITY_BYTES])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	char text[TLS_IDENTITY_BYTES];
	int best = 0; /* 2: URI, 1: DNS */
	bool matched = false;
	int err = 0;

	ret_identity[0] = 0;
	for (int i = 0; i < sk_GENERAL_NAME_num(names) && err == 0; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		int rank = name->type == GEN_URI ? 2 : name->type == GEN_DNS ? 1 : 0;

		if (rank == 0)
			continue;
		err = copy_name(name->d.ia5, text);
		if (err < 0)
			break;
		matched = matched || (expect && strcmp(text, expect) == 0);
		if (rank > best) {
			best = rank;
			memcpy(ret_identity, text, sizeof(text));
		}
	}
	GENERAL_NAMES_free(names);
	if (err < 0)
		return err;
	if (best == 0)
		return -ENOENT;
	if (!expect)
		return 0;
	if (!matched)
		return -EKEYREJECTED;
	(void)snprintf(ret_identity, TLS_IDENTITY_BYTES, "%s", expect);
	return 0;
}
