/* SPDX-License-Identifier: Apache-2.0 */
/* Why TLS failed, in plain words: who, what, and where it helps, what to do. */
#include "core/io/tls_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/base/macros.h"

static void date_text(const ASN1_TIME *time, char *text, size_t text_max)
{
	struct tm when = { 0 };

	if (!time || ASN1_TIME_to_tm(time, &when) != 1 ||
	    strftime(text, text_max, "%Y-%m-%d %H:%M:%S UTC", &when) == 0)
		(void)snprintf(text, text_max, "an unreadable date");
}

void tls_explain_verify(int code, X509 *cert, const char *peer, const char *expect, char *text,
			size_t text_max)
{
	char identity[TLS_IDENTITY_BYTES] = "", date[64];
	const char *name = identity;

	if (cert && tls_cert_identity(cert, NULL, identity) < 0)
		name = "?";
	switch (code) {
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
	case X509_V_ERR_CERT_UNTRUSTED:
		(void)snprintf(text, text_max, "certificate of %s (\"%s\") is signed by another CA",
			       peer, name);
		break;
	case X509_V_ERR_CERT_HAS_EXPIRED:
		date_text(cert ? X509_get0_notAfter(cert) : NULL, date, sizeof(date));
		(void)snprintf(text, text_max,
			       "certificate of %s (\"%s\") expired on %s; issue a new one", peer,
			       name, date);
		break;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		date_text(cert ? X509_get0_notBefore(cert) : NULL, date, sizeof(date));
		(void)snprintf(text, text_max,
			       "certificate of %s (\"%s\") is not valid before %s; "
			       "check the clocks of both hosts",
			       peer, name, date);
		break;
	case X509_V_ERR_CERT_REVOKED:
		(void)snprintf(text, text_max, "certificate of %s (\"%s\") has been revoked", peer,
			       name);
		break;
	case X509_V_ERR_INVALID_PURPOSE:
		(void)snprintf(text, text_max,
			       "certificate of %s (\"%s\") is not for this use: "
			       "its extended key usage lacks serverAuth or clientAuth",
			       peer, name);
		break;
	case X509_V_ERR_HOSTNAME_MISMATCH:
		if (expect)
			(void)snprintf(text, text_max,
				       "certificate of %s is for \"%s\", expected \"%s\"", peer,
				       name, expect);
		else
			(void)snprintf(text, text_max,
				       "certificate of %s carries no usable name "
				       "(subjectAltName URI or DNS)",
				       peer);
		break;
	case X509_V_ERR_CRL_HAS_EXPIRED:
		(void)snprintf(text, text_max,
			       "the revocation list has expired, so no certificate can be "
			       "accepted (%s, \"%s\"); issue a new list",
			       peer, name);
		break;
	case X509_V_ERR_UNABLE_TO_GET_CRL:
		(void)snprintf(text, text_max,
			       "the revocation list is not of the CA that signed the certificate "
			       "of %s (\"%s\")",
			       peer, name);
		break;
	default:
		(void)snprintf(text, text_max, "certificate of %s (\"%s\") is refused: %s", peer,
			       name, X509_verify_cert_error_string(code));
		break;
	}
}

/* Alerts by which a peer says that it does not take our certificate. */
static const struct {
	int alert;
	const char *words;
} refusals[] = {
	{ SSL_AD_BAD_CERTIFICATE, "it has the wrong name or is not valid yet" },
	{ SSL_AD_UNSUPPORTED_CERTIFICATE, "its extended key usage does not allow this" },
	{ SSL_AD_CERTIFICATE_REVOKED, "it has been revoked" },
	{ SSL_AD_CERTIFICATE_EXPIRED, "it has expired" },
	{ SSL_AD_CERTIFICATE_UNKNOWN, "it is not acceptable" },
	{ SSL_AD_UNKNOWN_CA, "it is signed by another CA" },
	{ SSL_AD_ACCESS_DENIED, "access is denied" },
	{ TLS13_AD_CERTIFICATE_REQUIRED, "none was presented" },
};

static int explain_alert(int alert, const char *peer, char *text, size_t text_max)
{
	for (size_t i = 0; i < array_len(refusals); i++) {
		if (refusals[i].alert != alert)
			continue;
		(void)snprintf(text, text_max,
			       "%s refuses this node's certificate: %s (alert \"%s\")", peer,
			       refusals[i].words, SSL_alert_desc_string_long(alert));
		return -EKEYREJECTED;
	}
	(void)snprintf(text, text_max, "%s ended TLS with alert \"%s\"", peer,
		       SSL_alert_desc_string_long(alert));
	return -EPROTO;
}

int tls_explain_queue(const char *peer, char *text, size_t text_max)
{
	unsigned long code = ERR_get_error();
	int reason = ERR_GET_REASON(code);
	int err = -EPROTO;
	const char *words;

	ERR_clear_error();
	if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET &&
	    reason <= SSL_AD_REASON_OFFSET + UINT8_MAX)
		return explain_alert(reason - SSL_AD_REASON_OFFSET, peer, text, text_max);
	switch (ERR_GET_LIB(code) == ERR_LIB_SSL ? reason : 0) {
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		(void)snprintf(text, text_max, "%s presented no certificate", peer);
		return -EKEYREJECTED;
	case SSL_R_UNEXPECTED_EOF_WHILE_READING:
		(void)snprintf(text, text_max, "%s ended the connection without closing TLS", peer);
		return -ECONNRESET;
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
	case SSL_R_BAD_PROTOCOL_VERSION_NUMBER:
	case SSL_R_RECORD_LENGTH_MISMATCH:
		(void)snprintf(text, text_max, "%s does not speak TLS 1.3", peer);
		return -EPROTO;
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
		(void)snprintf(text, text_max, "%s offers no TLS 1.3", peer);
		return -EPROTO;
	case SSL_R_NO_APPLICATION_PROTOCOL:
		(void)snprintf(text, text_max, "%s does not speak holdfast/1", peer);
		return -EPROTO;
	case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
		(void)snprintf(text, text_max, "data from %s was changed on the way", peer);
		return -EPROTO;
	default:
		words = code ? ERR_reason_error_string(code) : NULL;
		(void)snprintf(text, text_max, "TLS with %s failed: %s", peer,
			       words ? words : "no reason given");
		return err;
	}
}

const char *tls_queue_text(char *text, size_t text_max)
{
	unsigned long code = ERR_peek_error();
	const char *words = code ? ERR_reason_error_string(code) : NULL;

	(void)snprintf(text, text_max, "%s", words ? words : "no reason given");
	ERR_clear_error();
	return text;
}
