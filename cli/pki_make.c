/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making keys, certificates and revocation lists.
 */
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/pki.h"
#include "cli/pki_internal.h"
#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/conf/check.h"

#define SECONDS_PER_DAY 86400L
/* Clocks of two sites differ: a certificate is good a little before it was made. */
#define BACKDATE_SECONDS    (5 * 60L)
#define SERIAL_RANDOM_BYTES 16

static void time_text(const ASN1_TIME *time, char text[PKI_TIME_BYTES])
{
	struct tm broken_down;

	(void)snprintf(text, PKI_TIME_BYTES, "-");
	if (time && ASN1_TIME_to_tm(time, &broken_down) == 1)
		(void)strftime(text, PKI_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &broken_down);
}

static void serial_text(const ASN1_INTEGER *serial, char text[PKI_SERIAL_BYTES])
{
	BIGNUM *number = ASN1_INTEGER_to_BN(serial, NULL);
	char *hex = number ? BN_bn2hex(number) : NULL;

	(void)snprintf(text, PKI_SERIAL_BYTES, "%s", hex ? hex : "?");
	OPENSSL_free(hex);
	BN_free(number);
}

static EVP_PKEY *new_key(const char *algorithm)
{
	if (strcmp(algorithm, "ed25519") == 0)
		return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	return EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
}

/* Ed25519 hashes by itself. */
static const EVP_MD *digest_of(const EVP_PKEY *key)
{
	return EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();
}

static bool set_serial(X509 *cert)
{
	unsigned char random[SERIAL_RANDOM_BYTES];
	BIGNUM *number;
	bool ok;

	if (RAND_bytes(random, sizeof(random)) != 1)
		return false;
	random[0] &= 0x7f; /* positive, */
	random[0] |= 0x40; /* and of one length */
	number = BN_bin2bn(random, sizeof(random), NULL);
	ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
	BN_free(number);
	return ok;
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	bool ok;

	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	ok = extension && X509_add_ext(cert, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return ok;
}

static bool set_name(X509 *cert, const char *common_name)
{
	X509_NAME *name = X509_get_subject_name(cert);
	/* A common name has 64 characters at most; the SAN is what counts. */
	int length = (int)min_size(strlen(common_name), 64);

	return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
					  (const unsigned char *)common_name, length, -1, 0) == 1;
}

static bool set_dates(X509 *cert, unsigned days)
{
	return X509_gmtime_adj(X509_getm_notBefore(cert), -BACKDATE_SECONDS) &&
	       X509_time_adj_ex(X509_getm_notAfter(cert), (int)days, 0, NULL);
}

static int write_key(const char *path, EVP_PKEY *key, char *error, size_t error_max)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	int res;

	if (!bio || PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
		res = pki_openssl_error(path, error, error_max);
	else
		res = pki_write_bio(path, bio, 0600, error, error_max);
	BIO_free(bio);
	return res;
}

static int write_cert(const char *path, X509 *cert, char *error, size_t error_max)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int res;

	if (!bio || PEM_write_bio_X509(bio, cert) != 1)
		res = pki_openssl_error(path, error, error_max);
	else
		res = pki_write_bio(path, bio, 0644, error, error_max);
	BIO_free(bio);
	return res;
}

/* ---- init --------------------------------------------------------------------------------------
 */

static X509 *make_ca(EVP_PKEY *key, const char *name, unsigned days)
{
	X509 *cert = X509_new();

	if (cert && X509_set_version(cert, X509_VERSION_3) && set_serial(cert) &&
	    set_name(cert, name) && X509_set_issuer_name(cert, X509_get_subject_name(cert)) &&
	    set_dates(cert, days) && X509_set_pubkey(cert, key) &&
	    add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
	    add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
	    add_extension(cert, cert, NID_subject_key_identifier, "hash") &&
	    X509_sign(cert, key, digest_of(key)) > 0)
		return cert;
	X509_free(cert);
	return NULL;
}

int pki_init(const char *dir, const char *name, const char *algorithm, unsigned days, char *error,
	     size_t error_max)
{
	struct pki pki = { .lock = -1 };
	char path[300];
	int res;

	if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
		res = -errno;
		(void)snprintf(error, error_max, "%s: %s", dir, err_text(res));
		return res;
	}
	(void)snprintf(pki.dir, sizeof(pki.dir), "%s", dir);
	pki.lock = pki_lock(dir, error, error_max);
	if (pki.lock < 0)
		return pki.lock;
	(void)snprintf(path, sizeof(path), "%s/ca.key", dir);
	if (access(path, F_OK) == 0) {
		(void)snprintf(error, error_max,
			       "%s is there already; use another directory, every node trusts it",
			       path);
		pki_close(&pki);
		return -EEXIST;
	}
	pki.key = new_key(algorithm);
	pki.cert = pki.key ? make_ca(pki.key, name, days) : NULL;
	res = pki.cert ? 0 : pki_openssl_error(dir, error, error_max);
	/* The key last: a directory with a key is a whole authority. */
	if (res == 0) {
		(void)snprintf(path, sizeof(path), "%s/ca.pem", dir);
		res = write_cert(path, pki.cert, error, error_max);
	}
	if (res == 0)
		res = pki_write_index(&pki, error, error_max);
	if (res == 0)
		res = pki_write_crl(&pki, error, error_max);
	if (res == 0) {
		(void)snprintf(path, sizeof(path), "%s/ca.key", dir);
		res = write_key(path, pki.key, error, error_max);
	}
	pki_close(&pki);
	return res;
}

/* ---- issue -------------------------------------------------------------------------------------
 */

static void san_of(const char *node, const struct pki_names *names, char *out, size_t out_max)
{
	size_t used =
		(size_t)snprintf(out, out_max, "%s:%s", strstr(node, "://") ? "URI" : "DNS", node);

	for (unsigned i = 0; i < names->dns_count && used < out_max; i++)
		used += (size_t)snprintf(out + used, out_max - used, ",DNS:%s", names->dns[i]);
	for (unsigned i = 0; i < names->ip_count && used < out_max; i++)
		used += (size_t)snprintf(out + used, out_max - used, ",IP:%s", names->ip[i]);
}

static X509 *make_node(const struct pki *pki, EVP_PKEY *key, const char *node,
		       const struct pki_names *names, unsigned days)
{
	char san[8192];
	X509 *cert = X509_new();

	san_of(node, names, san, sizeof(san));
	if (cert && X509_set_version(cert, X509_VERSION_3) && set_serial(cert) &&
	    set_name(cert, node) && X509_set_issuer_name(cert, X509_get_subject_name(pki->cert)) &&
	    set_dates(cert, days) && X509_set_pubkey(cert, key) &&
	    add_extension(cert, pki->cert, NID_basic_constraints, "critical,CA:FALSE") &&
	    add_extension(cert, pki->cert, NID_key_usage, "critical,digitalSignature") &&
	    add_extension(cert, pki->cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
	    add_extension(cert, pki->cert, NID_subject_alt_name, san) &&
	    add_extension(cert, pki->cert, NID_subject_key_identifier, "hash") &&
	    add_extension(cert, pki->cert, NID_authority_key_identifier, "keyid:always") &&
	    X509_sign(cert, pki->key, digest_of(pki->key)) > 0)
		return cert;
	X509_free(cert);
	return NULL;
}

/* An identity can be a URI; a file's name cannot. */
static void file_name(const char *node, char name[160])
{
	(void)snprintf(name, 160, "%s", node);
	for (char *c = name; *c; c++) {
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-",
			    *c))
			*c = '_';
	}
}

static int check_names(const char *node, const struct pki_names *names, char *error,
		       size_t error_max)
{
	char reason[CHECK_TEXT_BYTES];

	if (!check_node(node, reason)) {
		(void)snprintf(error, error_max, "node \"%s\" %s", node, reason);
		return -EINVAL;
	}
	for (unsigned i = 0; i < names->dns_count; i++) {
		if (strchr(names->dns[i], ':') || !check_node(names->dns[i], reason)) {
			(void)snprintf(error, error_max, "host name \"%s\" is not valid",
				       names->dns[i]);
			return -EINVAL;
		}
	}
	for (unsigned i = 0; i < names->ip_count; i++) {
		ASN1_OCTET_STRING *ip = a2i_IPADDRESS(names->ip[i]);

		ASN1_OCTET_STRING_free(ip);
		if (!ip) {
			(void)snprintf(error, error_max, "\"%s\" is no IP address", names->ip[i]);
			return -EINVAL;
		}
	}
	return 0;
}

int pki_issue(struct pki *pki, const char *node, const struct pki_names *names, unsigned days,
	      const char *out_dir, char cert_path[512], char key_path[512], char *error,
	      size_t error_max)
{
	struct pki_entry entry = { .revoked = false, .revoked_at = "-" };
	char name[160];
	EVP_PKEY *key;
	X509 *cert = NULL;
	int res = check_names(node, names, error, error_max);

	if (res < 0)
		return res;
	file_name(node, name);
	(void)snprintf(cert_path, 512, "%s/%s.pem", out_dir, name);
	(void)snprintf(key_path, 512, "%s/%s.key", out_dir, name);
	if (access(key_path, F_OK) == 0 || access(cert_path, F_OK) == 0) {
		(void)snprintf(error, error_max,
			       "%s or %s is there already; move it away or use --out", cert_path,
			       key_path);
		return -EEXIST;
	}
	key = new_key(EVP_PKEY_is_a(pki->key, "ED25519") ? "ed25519" : "p256");
	if (key)
		cert = make_node(pki, key, node, names, days);
	if (cert &&
	    ASN1_TIME_compare(X509_get0_notAfter(cert), X509_get0_notAfter(pki->cert)) > 0) {
		/* A node's certificate that outlives its authority would fail without warning. */
		(void)snprintf(error, error_max,
			       "the authority ends before %u days from now; choose fewer --days",
			       days);
		res = -EINVAL;
	} else if (!cert) {
		res = pki_openssl_error(node, error, error_max);
	}
	if (res == 0) {
		serial_text(X509_get0_serialNumber(cert), entry.serial);
		time_text(X509_get0_notAfter(cert), entry.ends);
		(void)snprintf(entry.identity, sizeof(entry.identity), "%s", node);
		/* Known before it exists: what was issued can always be revoked. */
		res = pki_add_entry(pki, &entry);
	}
	if (res == 0)
		res = pki_write_index(pki, error, error_max);
	if (res == 0)
		res = write_key(key_path, key, error, error_max);
	if (res == 0)
		res = write_cert(cert_path, cert, error, error_max);
	X509_free(cert);
	EVP_PKEY_free(key);
	return res;
}

/* ---- revoke ------------------------------------------------------------------------------------
 */

static bool add_revoked(X509_CRL *crl, const struct pki_entry *entry)
{
	X509_REVOKED *revoked = X509_REVOKED_new();
	BIGNUM *number = NULL;
	ASN1_INTEGER *serial = NULL;
	ASN1_TIME *when = ASN1_TIME_new();
	struct tm broken_down = { .tm_mday = 1 };
	bool ok = revoked && when && BN_hex2bn(&number, entry->serial) > 0;

	if (ok)
		serial = BN_to_ASN1_INTEGER(number, NULL);
	ok = ok && serial && strptime(entry->revoked_at, "%Y-%m-%dT%H:%M:%SZ", &broken_down) &&
	     ASN1_TIME_adj(when, timegm(&broken_down), 0, 0) &&
	     X509_REVOKED_set_serialNumber(revoked, serial) &&
	     X509_REVOKED_set_revocationDate(revoked, when) && X509_CRL_add0_revoked(crl, revoked);
	/* The list owns it now. */
	if (!ok)
		X509_REVOKED_free(revoked);
	ASN1_INTEGER_free(serial);
	ASN1_TIME_free(when);
	BN_free(number);
	return ok;
}

/* The list is good as long as the authority: whoever forgets to renew it must not lose replication.
 */
static bool fill_crl(X509_CRL *crl, const struct pki *pki)
{
	ASN1_TIME *now = X509_gmtime_adj(NULL, -BACKDATE_SECONDS);
	bool ok = now && X509_CRL_set_version(crl, X509_CRL_VERSION_2) &&
		  X509_CRL_set_issuer_name(crl, X509_get_subject_name(pki->cert)) &&
		  X509_CRL_set1_lastUpdate(crl, now) &&
		  X509_CRL_set1_nextUpdate(crl, X509_get0_notAfter(pki->cert));
	ASN1_INTEGER *number = ASN1_INTEGER_new();
	X509V3_CTX context;
	X509_EXTENSION *issuer;

	for (size_t i = 0; ok && i < pki->entry_count; i++) {
		if (pki->entries[i].revoked)
			ok = add_revoked(crl, &pki->entries[i]);
	}
	/* CRL numbers only grow; time does as well. */
	ok = ok && number && ASN1_INTEGER_set_int64(number, (int64_t)time(NULL)) &&
	     X509_CRL_add1_ext_i2d(crl, NID_crl_number, number, 0, 0) == 1;
	X509V3_set_ctx(&context, pki->cert, NULL, NULL, crl, 0);
	issuer = X509V3_EXT_conf_nid(NULL, &context, NID_authority_key_identifier, "keyid:always");
	ok = ok && issuer && X509_CRL_add_ext(crl, issuer, -1) == 1;
	X509_EXTENSION_free(issuer);
	ASN1_INTEGER_free(number);
	ASN1_TIME_free(now);
	return ok && X509_CRL_sort(crl) == 1 &&
	       X509_CRL_sign(crl, pki->key, digest_of(pki->key)) > 0;
}

int pki_write_crl(struct pki *pki, char *error, size_t error_max)
{
	X509_CRL *crl = X509_CRL_new();
	BIO *bio = BIO_new(BIO_s_mem());
	char path[300];
	int res;

	(void)snprintf(path, sizeof(path), "%s/ca.crl", pki->dir);
	if (!crl || !bio || !fill_crl(crl, pki) || PEM_write_bio_X509_CRL(bio, crl) != 1)
		res = pki_openssl_error(path, error, error_max);
	else
		res = pki_write_bio(path, bio, 0644, error, error_max);
	BIO_free(bio);
	X509_CRL_free(crl);
	return res;
}

int pki_revoke(struct pki *pki, const char *what, unsigned *ret_count, char *error,
	       size_t error_max)
{
	time_t now = time(NULL);
	struct tm broken_down;
	unsigned count = 0, known = 0;
	int res;

	must(gmtime_r(&now, &broken_down) != NULL);
	for (size_t i = 0; i < pki->entry_count; i++) {
		struct pki_entry *entry = &pki->entries[i];

		if (strcasecmp(entry->serial, what) != 0 && strcmp(entry->identity, what) != 0)
			continue;
		known++;
		if (entry->revoked)
			continue;
		entry->revoked = true;
		(void)strftime(entry->revoked_at, sizeof(entry->revoked_at), "%Y-%m-%dT%H:%M:%SZ",
			       &broken_down);
		count++;
	}
	if (known == 0) {
		(void)snprintf(error, error_max,
			       "%s/index knows no certificate with serial or identity %s", pki->dir,
			       what);
		return -ENOENT;
	}
	res = pki_write_index(pki, error, error_max);
	if (res == 0)
		res = pki_write_crl(pki, error, error_max);
	*ret_count = count;
	return res;
}

/* ---- show --------------------------------------------------------------------------------------
 */

static void identity_of(X509 *cert, char *out, size_t out_max)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	const int kinds[] = { GEN_URI, GEN_DNS };

	out[0] = '\0';
	for (size_t k = 0; k < array_len(kinds) && !out[0]; k++) {
		for (int i = 0; names && i < sk_GENERAL_NAME_num(names) && !out[0]; i++) {
			const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
			const ASN1_IA5STRING *text;

			if (name->type != kinds[k])
				continue;
			text = name->d.ia5;
			(void)snprintf(out, out_max, "%.*s", ASN1_STRING_length(text),
				       (const char *)ASN1_STRING_get0_data(text));
		}
	}
	GENERAL_NAMES_free(names);
}

int pki_view(const char *path, struct pki_view *ret_view, char *error, size_t error_max)
{
	FILE *file = fopen(path, "re");
	X509 *cert;
	int days = 0, seconds = 0;

	if (!file) {
		int res = -errno;

		(void)snprintf(error, error_max, "%s: %s", path, err_text(res));
		return res;
	}
	cert = PEM_read_X509(file, NULL, NULL, NULL);
	(void)fclose(file);
	if (!cert)
		return pki_openssl_error(path, error, error_max);
	memset(ret_view, 0, sizeof(*ret_view));
	(void)X509_NAME_oneline(X509_get_subject_name(cert), ret_view->subject,
				sizeof(ret_view->subject));
	(void)X509_NAME_oneline(X509_get_issuer_name(cert), ret_view->issuer,
				sizeof(ret_view->issuer));
	serial_text(X509_get0_serialNumber(cert), ret_view->serial);
	time_text(X509_get0_notBefore(cert), ret_view->begins);
	time_text(X509_get0_notAfter(cert), ret_view->ends);
	identity_of(cert, ret_view->identity, sizeof(ret_view->identity));
	ret_view->is_ca = X509_check_ca(cert) > 0;
	if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)) == 1)
		ret_view->ends_in_s = (long long)days * SECONDS_PER_DAY + seconds;
	X509_free(cert);
	return 0;
}
