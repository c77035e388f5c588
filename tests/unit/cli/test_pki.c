/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/pki.h"
#include "core/base/macros.h"
#include "core/io/tls.h"

static char base[64], ca_dir[96], error[1024];
static const struct pki_names no_names = { .dns_count = 0 };

static int setup(void **state)
{
	(void)state;
	(void)snprintf(base, sizeof(base), "/tmp/test_pki.XXXXXX");
	assert_non_null(mkdtemp(base));
	(void)snprintf(ca_dir, sizeof(ca_dir), "%s/ca", base);
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -r %s", base);
	return system(command);
}

/* What the openssl command says of it; 0 when it agrees. */
__attribute__((format(printf, 1, 2))) static int openssl(const char *format, ...)
{
	char command[1200], arguments[1000];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(arguments, sizeof(arguments), format, args);
	va_end(args);
	(void)snprintf(command, sizeof(command), "openssl %s >%s/out 2>&1", arguments, base);
	return system(command);
}

/* A certificate against authority and revocation list. */
static int verify(const char *cert)
{
	return openssl("verify -x509_strict -CAfile %s/ca.pem -crl_check -CRLfile %s/ca.crl %s",
		       ca_dir, ca_dir, cert);
}

static bool output_has(const char *text)
{
	char path[96], all[16384];
	FILE *file;
	size_t n;

	(void)snprintf(path, sizeof(path), "%s/out", base);
	file = fopen(path, "re");
	assert_non_null(file);
	n = fread(all, 1, sizeof(all) - 1, file);
	all[n] = '\0';
	assert_int_equal(fclose(file), 0);
	return strstr(all, text) != NULL;
}

static unsigned mode_of(const char *path)
{
	struct stat info;

	assert_int_equal(stat(path, &info), 0);
	return (unsigned)info.st_mode & 07777u;
}

static void make_ca(const char *algorithm)
{
	assert_int_equal(pki_init(ca_dir, "Test CA", algorithm, 3650, error, sizeof(error)), 0);
}

static void issue(const char *node, const struct pki_names *names, char cert[512], char key[512])
{
	struct pki pki;

	assert_int_equal(pki_open(&pki, ca_dir, error, sizeof(error)), 0);
	if (pki_issue(&pki, node, names, 30, base, cert, key, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	pki_close(&pki);
}

static void check_authority(const char *algorithm)
{
	char cert[512], key[512], path[128], reason[512];
	struct pki_names names = { .dns = { "localhost", "db.example" },
				   .ip = { "127.0.0.1", "::1" },
				   .dns_count = 2,
				   .ip_count = 2 };
	struct tls_config config = { .ca_path = path, .cert_path = cert, .key_path = key };
	struct pki_view view;
	struct io_tls *tls;

	make_ca(algorithm);
	(void)snprintf(path, sizeof(path), "%s/ca.key", ca_dir);
	assert_int_equal(mode_of(path), 0600);
	(void)snprintf(path, sizeof(path), "%s/ca.pem", ca_dir);
	assert_int_equal(mode_of(path), 0644);
	issue("alpha.example", &names, cert, key);
	assert_int_equal(mode_of(key), 0600);
	assert_int_equal(
		openssl("verify -x509_strict -purpose sslserver -CAfile %s %s", path, cert), 0);
	assert_int_equal(openssl("verify -x509_strict -purpose sslclient -CAfile %s "
				 "-verify_hostname db.example %s",
				 path, cert),
			 0);
	assert_int_equal(verify(cert), 0);
	assert_int_equal(openssl("x509 -noout -text -in %s", cert), 0);
	assert_true(output_has("DNS:alpha.example, DNS:localhost, DNS:db.example, "
			       "IP Address:127.0.0.1"));
	assert_true(output_has("TLS Web Server Authentication, TLS Web Client Authentication"));
	assert_true(output_has("CA:FALSE"));
	assert_int_equal(pki_view(cert, &view, error, sizeof(error)), 0);
	assert_string_equal(view.identity, "alpha.example");
	assert_false(view.is_ca);
	assert_true(view.ends_in_s > 29 * 86400 && view.ends_in_s <= 30 * 86400);
	assert_int_equal(pki_view(path, &view, error, sizeof(error)), 0);
	assert_true(view.is_ca);
	/* The daemons' own code takes it. */
	if (tls_new(&config, &tls, reason, sizeof(reason)) != 0)
		fail_msg("%s", reason);
	assert_string_equal(tls_identity(tls), "alpha.example");
	tls_free(tls);
}

static void test_p256(void **state)
{
	(void)state;
	check_authority("p256");
}

static void test_ed25519(void **state)
{
	(void)state;
	check_authority("ed25519");
}

static void test_uri_identity(void **state)
{
	char cert[512], key[512], wanted[128];
	struct pki_view view;

	(void)state;
	make_ca("p256");
	issue("spiffe://x.example/alpha", &no_names, cert, key);
	(void)snprintf(wanted, sizeof(wanted), "%s/spiffe___x.example_alpha.pem", base);
	assert_string_equal(cert, wanted);
	assert_int_equal(pki_view(cert, &view, error, sizeof(error)), 0);
	assert_string_equal(view.identity, "spiffe://x.example/alpha");
	assert_int_equal(openssl("x509 -noout -text -in %s", cert), 0);
	assert_true(output_has("URI:spiffe://x.example/alpha"));
}

static void test_revoke(void **state)
{
	char alpha[512], beta[512], again[512], key[512], key2[512];
	unsigned count = 99;
	struct pki pki;

	(void)state;
	make_ca("p256");
	issue("alpha.example", &no_names, alpha, key);
	assert_int_equal(unlink(key), 0);
	(void)snprintf(again, sizeof(again), "%s/first.pem", base);
	assert_int_equal(rename(alpha, again), 0);
	issue("alpha.example", &no_names, alpha, key);
	issue("beta.example", &no_names, beta, key2);
	assert_int_equal(verify(alpha), 0);

	assert_int_equal(pki_open(&pki, ca_dir, error, sizeof(error)), 0);
	assert_int_equal(pki.entry_count, 3);
	assert_int_equal(pki_revoke(&pki, "nobody", &count, error, sizeof(error)), -ENOENT);
	/* By serial: one of the two of alpha. */
	assert_int_equal(pki_revoke(&pki, pki.entries[0].serial, &count, error, sizeof(error)), 0);
	assert_int_equal(count, 1);
	pki_close(&pki);
	assert_int_not_equal(verify(again), 0);
	assert_true(output_has("certificate revoked"));
	assert_int_equal(verify(alpha), 0);
	assert_int_equal(verify(beta), 0);

	assert_int_equal(pki_open(&pki, ca_dir, error, sizeof(error)), 0);
	assert_true(pki.entries[0].revoked);
	assert_int_equal(pki_revoke(&pki, "alpha.example", &count, error, sizeof(error)), 0);
	assert_int_equal(count, 1);
	assert_int_equal(pki_revoke(&pki, "alpha.example", &count, error, sizeof(error)), 0);
	assert_int_equal(count, 0);
	pki_close(&pki);
	assert_int_not_equal(verify(again), 0);
	assert_int_not_equal(verify(alpha), 0);
	assert_int_equal(verify(beta), 0);
}

static void test_refusals(void **state)
{
	static const char *const bad[] = { "", "a b", "-x", "a,DNS:b", "a\nb", "x://a b" };
	char cert[512], key[512], path[128];
	struct pki_names names = { .ip = { "300.1.1.1" }, .ip_count = 1 };
	struct pki pki;
	FILE *file;

	(void)state;
	/* No authority, or one that is there already. */
	assert_int_equal(pki_open(&pki, ca_dir, error, sizeof(error)), -ENOENT);
	assert_non_null(strstr(error, "pki init"));
	pki_close(&pki);
	make_ca("p256");
	assert_int_equal(pki_init(ca_dir, "Again", "p256", 10, error, sizeof(error)), -EEXIST);
	/* Names that are none, among them such that would slip further names in. */
	assert_int_equal(pki_open(&pki, ca_dir, error, sizeof(error)), 0);
	for (size_t i = 0; i < array_len(bad); i++)
		assert_int_equal(pki_issue(&pki, bad[i], &no_names, 30, base, cert, key, error,
					   sizeof(error)),
				 -EINVAL);
	assert_int_equal(pki_issue(&pki, "n", &names, 30, base, cert, key, error, sizeof(error)),
			 -EINVAL);
	/* A certificate that would outlive its authority. */
	assert_int_equal(
		pki_issue(&pki, "n", &no_names, 3660, base, cert, key, error, sizeof(error)),
		-EINVAL);
	assert_int_equal(pki.entry_count, 0);
	pki_close(&pki);
	/* Nothing is overwritten. */
	issue("n", &no_names, cert, key);
	assert_int_equal(pki_open(&pki, ca_dir, error, sizeof(error)), 0);
	assert_int_equal(pki_issue(&pki, "n", &no_names, 30, base, cert, key, error, sizeof(error)),
			 -EEXIST);
	pki_close(&pki);
	/* A damaged index names its line. */
	(void)snprintf(path, sizeof(path), "%s/index", ca_dir);
	file = fopen(path, "ae");
	assert_true(fputs("half a li", file) > 0);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(pki_open(&pki, ca_dir, error, sizeof(error)), -EUCLEAN);
	assert_non_null(strstr(error, "index:2:"));
	pki_close(&pki);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_p256),   TEST(test_ed25519),	TEST(test_uri_identity),
		TEST(test_revoke), TEST(test_refusals),
	};

	return cmocka_run_group_tests_name("pki", tests, NULL, NULL);
}
