/* SPDX-License-Identifier: Apache-2.0 */
/* TLS contexts: what is accepted as configuration, and what is said about the rest. */
#include <pthread.h>
#include <time.h>

#include "core/io/tls.h"
#include "tests/unit/core/io/on_loop.h"
#include "tests/unit/core/io/pki.h"

struct fixture {
	struct temp_dir dir;
	struct pki_ca *ca;
	struct tls_config config;
	char ca_path[300], cert[300], key[300], crl[300];
	char error[512];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct pki_spec spec = { .san = "DNS:a.example,URI:holdfast://a,DNS:b.example" };

	assert_non_null(f);
	temp_dir_make(&f->dir);
	(void)snprintf(f->ca_path, sizeof(f->ca_path), "%s/ca.pem", f->dir.path);
	(void)snprintf(f->cert, sizeof(f->cert), "%s/cert.pem", f->dir.path);
	(void)snprintf(f->key, sizeof(f->key), "%s/key.pem", f->dir.path);
	(void)snprintf(f->crl, sizeof(f->crl), "%s/crl.pem", f->dir.path);
	f->config = (struct tls_config){ .ca_path = f->ca_path,
					 .cert_path = f->cert,
					 .key_path = f->key };
	f->ca = pki_ca_new(f->ca_path);
	pki_issue(f->ca, &spec, f->cert, f->key);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	pki_ca_free(f->ca);
	temp_dir_remove(&f->dir);
	free(f);
	return 0;
}

static void expect_refusal(struct fixture *f, int err, const char *path, const char *words)
{
	struct io_tls *tls = NULL;

	assert_int_equal(tls_new(&f->config, &tls, f->error, sizeof(f->error)), err);
	assert_null(tls);
	if (!strstr(f->error, words) || strncmp(f->error, path, strlen(path)) != 0)
		fail_msg("\"%s\" does not begin with \"%s\" or lacks \"%s\"", f->error, path,
			 words);
}

static void identity_and_end(void **state)
{
	struct fixture *f = *state;
	struct io_tls *tls;
	long long end = (long long)time(NULL) + 24 * 3600;

	assert_int_equal(tls_new(&f->config, &tls, f->error, sizeof(f->error)), 0);
	assert_string_equal(tls_identity(tls), "holdfast://a"); /* the URI before any DNS name */
	assert_true(tls_expires(tls) >= end - 60 && tls_expires(tls) <= end + 60);
	tls_free(tls);
	tls_free(NULL);
}

static void missing_and_broken_files(void **state)
{
	struct fixture *f = *state;
	char empty[300];
	int fd;

	(void)snprintf(empty, sizeof(empty), "%s/empty", f->dir.path);
	fd = open(empty, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(close(fd), 0);

	f->config.ca_path = "/no/ca.pem";
	expect_refusal(f, -ENOENT, "/no/ca.pem", "No such file");
	f->config.ca_path = empty;
	expect_refusal(f, -EINVAL, empty, "no CA certificate");
	f->config.ca_path = f->ca_path;
	f->config.cert_path = "/no/cert.pem";
	expect_refusal(f, -ENOENT, "/no/cert.pem", "No such file");
	f->config.cert_path = empty;
	expect_refusal(f, -EINVAL, empty, "no usable certificate");
	f->config.cert_path = f->cert;
	f->config.key_path = "/no/key.pem";
	expect_refusal(f, -ENOENT, "/no/key.pem", "No such file");
	f->config.key_path = empty;
	expect_refusal(f, -EINVAL, empty, "no private key");
	f->config.key_path = f->key;
	f->config.crl_path = "/no/crl.pem";
	expect_refusal(f, -ENOENT, "/no/crl.pem", "No such file");
	f->config.crl_path = empty;
	expect_refusal(f, -EINVAL, empty, "no revocation list");
	f->config.ca_path = NULL;
	expect_refusal(f, -EINVAL, "TLS needs", "CA file");
}

static void keys_that_others_can_read(void **state)
{
	struct fixture *f = *state;
	const mode_t modes[] = { 0640, 0604, 0660, 0610, 0644 };
	struct io_tls *tls;

	for (size_t i = 0; i < array_len(modes); i++) {
		assert_int_equal(chmod(f->key, modes[i]), 0);
		expect_refusal(f, -EPERM, f->key, "chmod 600");
	}
	assert_int_equal(chmod(f->key, 0400), 0);
	assert_int_equal(tls_new(&f->config, &tls, f->error, sizeof(f->error)), 0);
	tls_free(tls);
	if (geteuid() == 0) {
		assert_int_equal(chown(f->key, 12345, 0), 0);
		expect_refusal(f, -EPERM, f->key, "belongs to uid 12345");
	}
}

static void keys_that_do_not_fit(void **state)
{
	struct fixture *f = *state;
	const struct pki_spec spec = { .san = "DNS:x" };
	char other_cert[300], other_key[300];

	(void)snprintf(other_cert, sizeof(other_cert), "%s/other.pem", f->dir.path);
	(void)snprintf(other_key, sizeof(other_key), "%s/other.key", f->dir.path);
	pki_issue(f->ca, &spec, other_cert, other_key);
	f->config.key_path = other_key;
	expect_refusal(f, -EINVAL, other_key, "does not belong to the certificate");
	pki_encrypted_key(other_key);
	expect_refusal(f, -EINVAL, other_key, "encrypted");
}

static void certificates_without_a_name(void **state)
{
	struct fixture *f = *state;
	const struct pki_spec none = { 0 };
	const struct pki_spec address = { .san = "IP:10.0.0.1,email:a@b.c" };
	const struct pki_spec nul = { .raw_dns = "good\0.evil", .raw_dns_len = 10 };
	const struct pki_spec space = { .raw_dns = "a b", .raw_dns_len = 3 };
	const struct pki_spec *const specs[] = { &none, &address, &nul, &space };

	for (size_t i = 0; i < array_len(specs); i++) {
		pki_issue(f->ca, specs[i], f->cert, f->key);
		expect_refusal(f, -EINVAL, f->cert, "no usable name");
	}
}

static void reloading(void **state)
{
	struct fixture *f = *state;
	const struct pki_spec renewed = { .san = "URI:holdfast://a", .end_s = 10 * 24 * 3600 };
	const struct pki_spec renamed = { .san = "URI:holdfast://b" };
	struct io_tls *tls;
	long long before;

	assert_int_equal(tls_new(&f->config, &tls, f->error, sizeof(f->error)), 0);
	before = tls_expires(tls);
	pki_issue(f->ca, &renewed, f->cert, f->key);
	assert_int_equal(tls_reload(tls, f->error, sizeof(f->error)), 0);
	assert_true(tls_expires(tls) > before + 8 * 24 * 3600);
	before = tls_expires(tls);
	/* A failure leaves everything as it was. */
	pki_issue(f->ca, &renamed, f->cert, f->key);
	assert_int_equal(tls_reload(tls, f->error, sizeof(f->error)), -EINVAL);
	assert_non_null(strstr(f->error, "certificate is for \"holdfast://b\", this node runs as"));
	assert_int_equal(unlink(f->key), 0);
	assert_int_equal(tls_reload(tls, f->error, sizeof(f->error)), -ENOENT);
	assert_true(tls_expires(tls) == before);
	assert_string_equal(tls_identity(tls), "holdfast://a");
	tls_free(tls);
}

struct reloader {
	struct io_tls *tls;
	_Atomic bool stop;
};

static void *reload_main(void *argument)
{
	struct reloader *reloader = argument;
	char error[256];

	while (!reloader->stop)
		assert_int_equal(tls_reload(reloader->tls, error, sizeof(error)), 0);
	return NULL;
}

static void reloading_beside_use(void **state)
{
	struct fixture *f = *state;
	struct reloader reloader = { 0 };
	pthread_t thread;

	assert_int_equal(tls_new(&f->config, &reloader.tls, f->error, sizeof(f->error)), 0);
	assert_int_equal(pthread_create(&thread, NULL, reload_main, &reloader), 0);
	for (int i = 0; i < 1000; i++) {
		assert_true(tls_expires(reloader.tls) > 0);
		assert_string_equal(tls_identity(reloader.tls), "holdfast://a");
	}
	reloader.stop = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	tls_free(reloader.tls);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(identity_and_end),
		TEST(missing_and_broken_files),
		TEST(keys_that_others_can_read),
		TEST(keys_that_do_not_fit),
		TEST(certificates_without_a_name),
		TEST(reloading),
		TEST(reloading_beside_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
