/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/core/io/pki.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/must.h"

#define HOUR_S 3600L
#define DAY_S  (24 * HOUR_S)

struct pki_ca {
	EVP_PKEY *key;
	X509 *cert;
};

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	must(extension);
	must(X509_add_ext(cert, extension, -1) == 1);
	X509_EXTENSION_free(extension);
}

static void save(const char *path, unsigned mode, X509 *cert, EVP_PKEY *key)
{
	FILE *file = fopen(path, "we");

	must(file);
	must(chmod(path, mode) == 0);
	if (cert)
		must(PEM_write_X509(file, cert) == 1);
	if (key)
		must(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
	must(fclose(file) == 0);
}

static X509 *cert_new(EVP_PKEY *key, const char *name, long serial, long begin_s, long end_s)
{
	X509 *cert = X509_new();
	X509_NAME *subject;

	must(cert);
	must(X509_set_version(cert, 2) == 1);
	must(ASN1_INTEGER_set(X509_get_serialNumber(cert), serial) == 1);
	must(X509_gmtime_adj(X509_getm_notBefore(cert), begin_s));
	must(X509_gmtime_adj(X509_getm_notAfter(cert), end_s));
	must(X509_set_pubkey(cert, key) == 1);
	subject = X509_get_subject_name(cert);
	must(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name,
					-1, -1, 0) == 1);
	return cert;
}

struct pki_ca *pki_ca_new(const char *path)
{
	struct pki_ca *ca = calloc(1, sizeof(*ca));

	must(ca);
	ca->key = EVP_EC_gen("P-256");
	must(ca->key);
	ca->cert = cert_new(ca->key, "test CA", 1, -DAY_S, 10 * DAY_S);
	must(X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert)) == 1);
	extend(ca->cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE");
	extend(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
	extend(ca->cert, ca->cert, NID_subject_key_identifier, "hash");
	must(X509_sign(ca->cert, ca->key, EVP_sha256()) > 0);
	save(path, 0644, ca->cert, NULL);
	return ca;
}

void pki_ca_free(struct pki_ca *ca)
{
	EVP_PKEY_free(ca->key);
	X509_free(ca->cert);
	free(ca);
}

static void add_raw_dns(X509 *cert, const char *bytes, int len)
{
	GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *text = ASN1_IA5STRING_new();

	must(names && name && text);
	must(ASN1_STRING_set(text, bytes, len) == 1);
	GENERAL_NAME_set0_value(name, GEN_DNS, text);
	must(sk_GENERAL_NAME_push(names, name) > 0);
	must(X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) == 1);
	GENERAL_NAMES_free(names);
}

void pki_issue(struct pki_ca *ca, const struct pki_spec *spec, const char *cert_path,
	       const char *key_path)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert;

	must(key);
	cert = cert_new(key, "node", spec->serial ? spec->serial : 1000,
			spec->begin_s ? spec->begin_s : -HOUR_S, spec->end_s ? spec->end_s : DAY_S);
	must(X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) == 1);
	extend(cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE");
	extend(cert, ca->cert, NID_key_usage, "critical,digitalSignature");
	extend(cert, ca->cert, NID_authority_key_identifier, "keyid");
	if (!spec->eku || *spec->eku)
		extend(cert, ca->cert, NID_ext_key_usage,
		       spec->eku ? spec->eku : "serverAuth,clientAuth");
	if (spec->san)
		extend(cert, ca->cert, NID_subject_alt_name, spec->san);
	if (spec->raw_dns)
		add_raw_dns(cert, spec->raw_dns, spec->raw_dns_len);
	must(X509_sign(cert, ca->key, EVP_sha256()) > 0);
	save(cert_path, 0644, cert, NULL);
	save(key_path, spec->key_mode ? spec->key_mode : 0600, NULL, key);
	X509_free(cert);
	EVP_PKEY_free(key);
}

void pki_revoke(struct pki_ca *ca, long serial, long end_s, const char *crl_path)
{
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *begin = X509_gmtime_adj(NULL, -HOUR_S);
	ASN1_TIME *end = X509_gmtime_adj(NULL, end_s);
	FILE *file = fopen(crl_path, "we");

	must(crl && begin && end && file);
	must(X509_CRL_set_version(crl, 1) == 1);
	must(X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert)) == 1);
	must(X509_CRL_set1_lastUpdate(crl, begin) == 1);
	must(X509_CRL_set1_nextUpdate(crl, end) == 1);
	if (serial) {
		X509_REVOKED *entry = X509_REVOKED_new();
		ASN1_INTEGER *number = ASN1_INTEGER_new();

		must(entry && number);
		must(ASN1_INTEGER_set(number, serial) == 1);
		must(X509_REVOKED_set_serialNumber(entry, number) == 1);
		must(X509_REVOKED_set_revocationDate(entry, begin) == 1);
		must(X509_CRL_add0_revoked(crl, entry) == 1);
		ASN1_INTEGER_free(number);
	}
	must(X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0);
	must(PEM_write_X509_CRL(file, crl) == 1);
	must(fclose(file) == 0);
	ASN1_TIME_free(begin);
	ASN1_TIME_free(end);
	X509_CRL_free(crl);
}

void pki_encrypted_key(const char *path)
{
	static const unsigned char passphrase[] = "secret";
	EVP_PKEY *key = EVP_EC_gen("P-256");
	FILE *file = fopen(path, "we");

	must(key && file);
	must(chmod(path, 0600) == 0);
	must(PEM_write_PKCS8PrivateKey(file, key, EVP_aes_256_cbc(), (const char *)passphrase, 6,
				       NULL, NULL) == 1);
	must(fclose(file) == 0);
	EVP_PKEY_free(key);
}
