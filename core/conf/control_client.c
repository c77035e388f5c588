/* SPDX-License-Identifier: Apache-2.0 */
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/conf/control.h"

#define REPLY_MAX_BYTES	   (16u << 20)
#define CONNECT_TIMEOUT_MS 3000L

struct answer {
	char *bytes;
	size_t length_bytes;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static size_t keep(char *data, size_t one, size_t count, void *owner)
{
	struct answer *answer = owner;
	size_t length_bytes = one * count;
	char *more;

	if (length_bytes > REPLY_MAX_BYTES - answer->length_bytes)
		return 0;
	more = realloc(answer->bytes, answer->length_bytes + length_bytes + 1);
	if (!more)
		return 0;
	memcpy(more + answer->length_bytes, data, length_bytes);
	answer->bytes = more;
	answer->length_bytes += length_bytes;
	more[answer->length_bytes] = '\0';
	return length_bytes;
}

static int explain(CURL *curl, CURLcode code, const char *socket_path, char *error,
		   size_t error_max)
{
	long system = 0;
	int res = -EIO;

	(void)curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &system);
	if (code == CURLE_COULDNT_CONNECT && system > 0)
		res = -(int)system;
	else if (code == CURLE_COULDNT_CONNECT)
		res = -ECONNREFUSED;
	else if (code == CURLE_OPERATION_TIMEDOUT)
		res = -ETIMEDOUT;
	else if (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR ||
		 code == CURLE_SEND_ERROR || code == CURLE_PARTIAL_FILE)
		res = -ECONNRESET;
	else if (code == CURLE_OUT_OF_MEMORY)
		res = -ENOMEM;
	if (res == -ENOENT || res == -ECONNREFUSED)
		(void)snprintf(error, error_max, "nobody answers on %s; is the daemon running?",
			       socket_path);
	else if (res == -EACCES || res == -EPERM)
		(void)snprintf(error, error_max,
			       "%s: permission denied; run as root or as the daemon's user",
			       socket_path);
	else if (res == -ETIMEDOUT)
		(void)snprintf(error, error_max,
			       "%s: no answer in time; what was asked for may still happen",
			       socket_path);
	else if (res == -ECONNRESET)
		(void)snprintf(error, error_max,
			       "%s: the daemon went away; what was asked for may have happened",
			       socket_path);
	else
		(void)snprintf(error, error_max, "%s: %s", socket_path, curl_easy_strerror(code));
	return res;
}

static int parse(const struct answer *answer, unsigned status, const char *socket_path,
		 struct control_reply *ret_reply, char *error, size_t error_max)
{
	json_error_t why;
	json_t *json = NULL;

	if (answer->bytes)
		json = json_loadb(answer->bytes, answer->length_bytes, 0, &why);
	if (!json && status >= 400) {
		(void)snprintf(error, error_max, "%s: HTTP status %u without a reason", socket_path,
			       status);
		return -EPROTO;
	}
	ret_reply->status = status;
	ret_reply->json = json;
	return 0;
}

int control_call(const char *socket_path, const char *method, const char *path, const json_t *body,
		 unsigned timeout_ms, struct control_reply *ret_reply, char *error,
		 size_t error_max)
{
	struct answer answer = { .bytes = NULL };
	struct curl_slist *headers = NULL;
	char url[1024], *text = NULL;
	long status = 0;
	CURLcode code;
	CURL *curl;
	int res;

	(void)pthread_once(&once, init_curl);
	curl = curl_easy_init();
	if (!curl)
		return -ENOMEM;
	(void)snprintf(url, sizeof(url), "http://localhost%s", path);
	text = body ? json_dumps(body, JSON_COMPACT) : strdup("");
	headers = curl_slist_append(headers, "Content-Type: application/json");
	/* Without waiting for "100 Continue". */
	headers = curl_slist_append(headers, "Expect:");
	(void)curl_easy_setopt(curl, CURLOPT_URL, url);
	(void)curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket_path);
	(void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	(void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
	(void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	if (strcmp(method, "POST") == 0) {
		(void)curl_easy_setopt(curl, CURLOPT_POST, 1L);
		(void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, text ? (long)strlen(text) : 0);
		(void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, text ? text : "");
	}
	code = curl_easy_perform(curl);
	if (code != CURLE_OK) {
		res = explain(curl, code, socket_path, error, error_max);
	} else {
		(void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
		res = parse(&answer, (unsigned)status, socket_path, ret_reply, error, error_max);
	}
	curl_slist_free_all(headers);
	curl_easy_cleanup(curl);
	free(answer.bytes);
	free(text);
	return res;
}

void control_reply_free(struct control_reply *reply)
{
	json_decref(reply->json);
	reply->json = NULL;
}
