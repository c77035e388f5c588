/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The authority's directory: opening it, its index, files that are replaced whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/pki.h"
#include "cli/pki_internal.h"
#include "core/base/err.h"
#include "core/base/macros.h"

#define INDEX_LINE_BYTES 512u

static int write_all(int fd, const char *bytes, size_t length_bytes)
{
	while (length_bytes > 0) {
		ssize_t n = write(fd, bytes, length_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		length_bytes -= (size_t)n;
	}
	return 0;
}

static int sync_directory_of(const char *path)
{
	char dir[512];
	char *slash;
	int fd, res = 0;

	(void)snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash)
		(void)snprintf(dir, sizeof(dir), ".");
	else
		slash[slash == dir] = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		res = -errno;
	if (fd >= 0)
		(void)close(fd);
	return res;
}

int pki_write_file(const char *path, const void *bytes, size_t length_bytes, unsigned mode,
		   char *error, size_t error_max)
{
	char temporary[600];
	int fd, res;

	(void)snprintf(temporary, sizeof(temporary), "%s.new", path);
	(void)unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	res = fd < 0 ? -errno : write_all(fd, bytes, length_bytes);
	/* The mask may have taken bits away that others need to read a certificate. */
	if (res == 0 && (fchmod(fd, mode) != 0 || fsync(fd) != 0))
		res = -errno;
	if (fd >= 0)
		(void)close(fd);
	if (res == 0 && rename(temporary, path) != 0)
		res = -errno;
	if (res == 0)
		res = sync_directory_of(path);
	if (res < 0) {
		(void)unlink(temporary);
		(void)snprintf(error, error_max, "%s cannot be written: %s", path, err_text(res));
	}
	return res;
}

int pki_write_bio(const char *path, BIO *bio, unsigned mode, char *error, size_t error_max)
{
	char *bytes = NULL;
	long length_bytes = BIO_get_mem_data(bio, &bytes);

	if (length_bytes <= 0) {
		(void)snprintf(error, error_max, "%s: nothing to write", path);
		return -EIO;
	}
	return pki_write_file(path, bytes, (size_t)length_bytes, mode, error, error_max);
}

int pki_openssl_error(const char *what, char *error, size_t error_max)
{
	unsigned long code = ERR_get_error();
	char text[160] = "unknown";

	if (code)
		ERR_error_string_n(code, text, sizeof(text));
	ERR_clear_error();
	(void)snprintf(error, error_max, "%s: OpenSSL: %s", what, text);
	return -EPROTO;
}

int pki_lock(const char *dir, char *error, size_t error_max)
{
	char path[300];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/lock", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX) != 0) {
		int res = -errno;

		if (fd >= 0)
			(void)close(fd);
		(void)snprintf(error, error_max, "%s: %s", path, err_text(res));
		return res;
	}
	return fd;
}

/* ---- the index ---------------------------------------------------------------------------------
 */

static bool parse_line(char *line, struct pki_entry *entry)
{
	char *fields[5], *at = line;

	for (unsigned i = 0; i < 5; i++) {
		size_t length_bytes = strcspn(at, "\t\n");

		fields[i] = at;
		if (length_bytes == 0 || (i < 4) != (at[length_bytes] == '\t'))
			return false;
		at += length_bytes;
		*at++ = '\0';
	}
	if (strlen(fields[0]) >= sizeof(entry->serial) ||
	    (strcmp(fields[1], "V") != 0 && strcmp(fields[1], "R") != 0) ||
	    strlen(fields[2]) >= sizeof(entry->ends) ||
	    strlen(fields[3]) >= sizeof(entry->revoked_at) ||
	    strlen(fields[4]) >= sizeof(entry->identity))
		return false;
	(void)snprintf(entry->serial, sizeof(entry->serial), "%s", fields[0]);
	entry->revoked = fields[1][0] == 'R';
	(void)snprintf(entry->ends, sizeof(entry->ends), "%s", fields[2]);
	(void)snprintf(entry->revoked_at, sizeof(entry->revoked_at), "%s", fields[3]);
	(void)snprintf(entry->identity, sizeof(entry->identity), "%s", fields[4]);
	return true;
}

int pki_add_entry(struct pki *pki, const struct pki_entry *entry)
{
	struct pki_entry *more =
		realloc(pki->entries, (pki->entry_count + 1) * sizeof(*pki->entries));

	if (!more)
		return -ENOMEM;
	pki->entries = more;
	pki->entries[pki->entry_count++] = *entry;
	return 0;
}

static int read_index(struct pki *pki, char *error, size_t error_max)
{
	char path[300], line[INDEX_LINE_BYTES];
	unsigned number = 0;
	int res = 0;
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/index", pki->dir);
	file = fopen(path, "re");
	if (!file) {
		res = -errno;
		(void)snprintf(error, error_max, "%s: %s", path, err_text(res));
		return res;
	}
	while (res == 0 && fgets(line, sizeof(line), file)) {
		struct pki_entry entry;

		number++;
		if (!parse_line(line, &entry)) {
			(void)snprintf(error, error_max,
				       "%s:%u: not an entry of the index; restore the file", path,
				       number);
			res = -EUCLEAN;
		} else {
			res = pki_add_entry(pki, &entry);
		}
	}
	(void)fclose(file);
	return res;
}

int pki_write_index(const struct pki *pki, char *error, size_t error_max)
{
	char path[300], *bytes = NULL;
	size_t length_bytes = 0;
	FILE *file = open_memstream(&bytes, &length_bytes);
	int res;

	if (!file)
		return -ENOMEM;
	for (size_t i = 0; i < pki->entry_count; i++) {
		const struct pki_entry *entry = &pki->entries[i];

		(void)fprintf(file, "%s\t%c\t%s\t%s\t%s\n", entry->serial,
			      entry->revoked ? 'R' : 'V', entry->ends, entry->revoked_at,
			      entry->identity);
	}
	if (fclose(file) != 0) {
		free(bytes);
		return -ENOMEM;
	}
	(void)snprintf(path, sizeof(path), "%s/index", pki->dir);
	res = pki_write_file(path, bytes, length_bytes, 0600, error, error_max);
	free(bytes);
	return res;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static int open_pem(const char *dir, const char *name, FILE **ret_file, char *error,
		    size_t error_max)
{
	char path[300];
	int res;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	*ret_file = fopen(path, "re");
	if (*ret_file)
		return 0;
	res = -errno;
	(void)snprintf(error, error_max,
		       "%s: %s; make the authority with holdfast pki init, or name its directory "
		       "with --dir",
		       path, err_text(res));
	return res;
}

int pki_open(struct pki *pki, const char *dir, char *error, size_t error_max)
{
	FILE *file;
	int res;

	*pki = (struct pki){ .lock = -1 };
	(void)snprintf(pki->dir, sizeof(pki->dir), "%s", dir);
	res = open_pem(dir, "ca.pem", &file, error, error_max);
	if (res < 0)
		return res;
	pki->cert = PEM_read_X509(file, NULL, NULL, NULL);
	(void)fclose(file);
	if (!pki->cert)
		return pki_openssl_error("ca.pem", error, error_max);
	res = open_pem(dir, "ca.key", &file, error, error_max);
	if (res < 0)
		return res;
	pki->key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	(void)fclose(file);
	if (!pki->key || X509_check_private_key(pki->cert, pki->key) != 1)
		return pki_openssl_error("ca.key", error, error_max);
	pki->lock = pki_lock(dir, error, error_max);
	if (pki->lock < 0)
		return pki->lock;
	return read_index(pki, error, error_max);
}

void pki_close(struct pki *pki)
{
	X509_free(pki->cert);
	EVP_PKEY_free(pki->key);
	free(pki->entries);
	if (pki->lock >= 0)
		(void)close(pki->lock);
	*pki = (struct pki){ .lock = -1 };
}
