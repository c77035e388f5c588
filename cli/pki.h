/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small certificate authority in a directory of plain files:
 *
 *   ca.pem      its certificate          index     one line for each certificate ever issued:
 *   ca.key      its key, mode 0600                 serial, V or R, end, time of revocation,
 * identity ca.crl      what is revoked          lock      one command at a time
 *
 * A node's certificate carries its identity as SAN: as a URI when it has "://", else as a DNS name.
 * Files are replaced whole. Blocking; one thread. Functions return 0 or a negative errno, with
 * what, where and what to do in `error`.
 */
#ifndef HOLDFAST_CLI_PKI_H
#define HOLDFAST_CLI_PKI_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>

#define PKI_SERIAL_BYTES 41u /* 20 bytes in hex, with the terminator */
#define PKI_TIME_BYTES	 24u /* 2026-05-04T10:20:30Z */
#define PKI_NAMES_MAX	 16u

struct pki_entry {
	char serial[PKI_SERIAL_BYTES];
	bool revoked;
	char ends[PKI_TIME_BYTES], revoked_at[PKI_TIME_BYTES]; /* "-" when it is not */
	char identity[128];
};

struct pki {
	char dir[256];
	int lock;
	X509 *cert;
	EVP_PKEY *key;
	struct pki_entry *entries;
	size_t entry_count;
};

struct pki_names { /* further names in a certificate, for clients that look for hosts */
	const char *dns[PKI_NAMES_MAX], *ip[PKI_NAMES_MAX];
	unsigned dns_count, ip_count;
};

int pki_init(const char *dir, const char *name, const char *algorithm, unsigned days, char *error,
	     size_t error_max);
int pki_open(struct pki *pki, const char *dir, char *error, size_t error_max);
void pki_close(struct pki *pki);
/* Writes OUT/NODE.pem and OUT/NODE.key; their paths go to cert_path and key_path. */
int pki_issue(struct pki *pki, const char *node, const struct pki_names *names, unsigned days,
	      const char *out_dir, char cert_path[512], char key_path[512], char *error,
	      size_t error_max);
/* Revokes by serial, or everything valid of an identity; renews the CRL. *ret_count: how many. */
int pki_revoke(struct pki *pki, const char *what, unsigned *ret_count, char *error,
	       size_t error_max);
/* Writes ca.crl anew out of the index. */
int pki_write_crl(struct pki *pki, char *error, size_t error_max);

/* A certificate of a file, for people: identity, issuer, dates, serial. */
struct pki_view {
	char subject[256], issuer[256], serial[PKI_SERIAL_BYTES];
	char begins[PKI_TIME_BYTES], ends[PKI_TIME_BYTES];
	char identity[256]; /* first URI, else first DNS name; "" when it has none */
	bool is_ca;
	long long ends_in_s;
};
int pki_view(const char *path, struct pki_view *ret_view, char *error, size_t error_max);

/* Internal to cli/pki_*.c: replaces a file whole. */
int pki_write_file(const char *path, const void *bytes, size_t length_bytes, unsigned mode,
		   char *error, size_t error_max);

#endif
