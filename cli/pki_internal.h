/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cli/pki_files.c and cli/pki_make.c share. Same rules as cli/pki.h.
 */
#ifndef HOLDFAST_CLI_PKI_INTERNAL_H
#define HOLDFAST_CLI_PKI_INTERNAL_H

#include <openssl/bio.h>

#include "cli/pki.h"

int pki_write_bio(const char *path, BIO *bio, unsigned mode, char *error, size_t error_max);
/* Drains OpenSSL's errors into words; returns -EPROTO. */
int pki_openssl_error(const char *what, char *error, size_t error_max);
/* The descriptor that holds the lock, or a negative errno. */
int pki_lock(const char *dir, char *error, size_t error_max);
int pki_add_entry(struct pki *pki, const struct pki_entry *entry);
int pki_write_index(const struct pki *pki, char *error, size_t error_max);

#endif
