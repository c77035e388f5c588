/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates for tests, made on the spot with OpenSSL: a CA, nodes with any flaw, revocation
 * lists.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_IO_PKI_H
#define HOLDFAST_TESTS_UNIT_CORE_IO_PKI_H

#include <stdbool.h>

struct pki_ca;

/* Valid from an hour ago until in a day where nothing else is said. */
struct pki_spec {
	const char *san;     /* OpenSSL's syntax: "URI:x,DNS:y"; NULL: none */
	const char *eku;     /* NULL: "serverAuth,clientAuth"; "": none */
	long begin_s, end_s; /* relative to now */
	long serial;
	unsigned key_mode;   /* 0: 0600 */
	const char *raw_dns; /* one DNS SAN with these bytes, `raw_dns_len` of them */
	int raw_dns_len;
};

/* The CA's certificate lands in `path`. `crl_end_s` below. */
struct pki_ca *pki_ca_new(const char *path);
void pki_ca_free(struct pki_ca *ca);
/* Certificate in `cert_path`, key in `key_path`. */
void pki_issue(struct pki_ca *ca, const struct pki_spec *spec, const char *cert_path,
	       const char *key_path);
/* A revocation list that names `serial` (0: nobody), valid until `end_s` from now. */
void pki_revoke(struct pki_ca *ca, long serial, long end_s, const char *crl_path);
/* A key that asks for a passphrase. */
void pki_encrypted_key(const char *path);

#endif
