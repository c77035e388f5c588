/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast-engine: owns the groups for which this host is standby.
 *
 * Threads: main (signals, service manager), one loop per configured group, one
 * loop where primaries connect, the threads of control connections.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/conf/daemon.h"
#include "core/io/tls.h"
#include "engine/control.h"
#include "engine/lobby.h"

#define ALIVE_MS      2000u
#define RETRY_SECONDS 5

struct engine {
	struct conf *conf;
	struct io_tls *tls;
	struct engine_service *services;
	unsigned service_count;
	struct engine_control control;
	struct engine_lobby *lobby;

	pthread_t retrier;
	bool retrying;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	bool stopping;
	bool look; /* at once, not only when it is time again */
};

static void service_changed(void *owner)
{
	(void)owner;
	daemon_poke();
}

static void service_due(void *owner)
{
	struct engine *engine = owner;

	must(pthread_mutex_lock(&engine->lock) == 0);
	engine->look = true;
	must(pthread_cond_signal(&engine->changed) == 0);
	must(pthread_mutex_unlock(&engine->lock) == 0);
}

static int start_tls(struct engine *engine)
{
	const struct conf *conf = engine->conf;
	const struct tls_config config = { .ca_path = conf->tls.ca,
					   .cert_path = conf->tls.cert,
					   .key_path = conf->tls.key,
					   .crl_path = conf->tls.crl };
	char error[1024];
	int res;

	if (!conf->tls.cert)
		return 0;
	res = tls_new(&config, &engine->tls, error, sizeof(error));
	if (res < 0) {
		log_error("cannot use the certificates", "reason=\"%s\"", error);
		return res;
	}
	if (strcmp(tls_identity(engine->tls), conf->node) != 0) {
		log_error("the certificate is another node's", "certificate=%s identity=%s node=%s",
			  conf->tls.cert, tls_identity(engine->tls), conf->node);
		return -EINVAL;
	}
	return 0;
}

static int start_services(struct engine *engine)
{
	const struct conf *conf = engine->conf;
	int res;

	engine->services =
		calloc(conf->group_count ? conf->group_count : 1, sizeof(*engine->services));
	if (!engine->services)
		return -ENOMEM;
	for (unsigned i = 0; i < conf->group_count; i++) {
		struct engine_service *service = &engine->services[i];

		service->conf = conf;
		service->group_conf = &conf->groups[i];
		service->broken = daemon_broken;
		service->changed = service_changed;
		service->due = service_due;
		service->owner = engine;
		res = engine_service_init(service);
		if (res < 0) {
			log_error("cannot start a loop; check io_uring with holdfast doctor",
				  "group=%s reason=%s", conf->groups[i].name, err_name(res));
			return res;
		}
		engine->service_count++;
		(void)engine_service_start(service);
	}
	return 0;
}

/* Opening a group replays its journal, which takes its time: not on the thread that feeds the
 * watchdog. */
static void *retry(void *arg)
{
	struct engine *engine = arg;
	struct timespec until;

	must(pthread_mutex_lock(&engine->lock) == 0);
	while (!engine->stopping) {
		must(clock_gettime(CLOCK_REALTIME, &until) == 0);
		until.tv_sec += RETRY_SECONDS;
		while (!engine->stopping && !engine->look &&
		       pthread_cond_timedwait(&engine->changed, &engine->lock, &until) == 0)
			;
		if (engine->stopping)
			break;
		engine->look = false;
		must(pthread_mutex_unlock(&engine->lock) == 0);
		for (unsigned i = 0; i < engine->service_count; i++)
			engine_service_retry(&engine->services[i]);
		must(pthread_mutex_lock(&engine->lock) == 0);
	}
	must(pthread_mutex_unlock(&engine->lock) == 0);
	return NULL;
}

static void stop_retrying(struct engine *engine)
{
	if (!engine->retrying)
		return;
	must(pthread_mutex_lock(&engine->lock) == 0);
	engine->stopping = true;
	must(pthread_cond_signal(&engine->changed) == 0);
	must(pthread_mutex_unlock(&engine->lock) == 0);
	must(pthread_join(engine->retrier, NULL) == 0);
	engine->retrying = false;
}

static int start(struct engine *engine)
{
	char error[1024];
	int res;

	if (start_tls(engine) < 0 || start_services(engine) < 0)
		return -EINVAL;
	engine->control.conf = engine->conf;
	engine->control.services = engine->services;
	engine->control.service_count = engine->service_count;
	res = engine_control_start(&engine->control, error, sizeof(error));
	if (res == 0 && engine->conf->engine.listen)
		res = engine_lobby_start(engine->conf, engine->tls, engine->services,
					 engine->service_count, daemon_broken, &engine->lobby,
					 error, sizeof(error));
	if (res < 0) {
		log_error("cannot start", "reason=\"%s\"", error);
		return res;
	}
	engine->retrying = pthread_create(&engine->retrier, NULL, retry, engine) == 0;
	return engine->retrying ? 0 : -EAGAIN;
}

static void stop(struct engine *engine)
{
	stop_retrying(engine);
	engine->lobby = engine_lobby_stop(engine->lobby);
	engine->control.server = control_server_free(engine->control.server);
	for (unsigned i = 0; i < engine->service_count; i++)
		engine_service_deinit(&engine->services[i]);
	free(engine->services);
	tls_free(engine->tls);
	conf_free(engine->conf);
}

static void tell_status(struct engine *engine)
{
	unsigned ready = 0, failed = 0;

	for (unsigned i = 0; i < engine->service_count; i++) {
		enum service_state state = engine_service_state(&engine->services[i], NULL);

		ready += state == SERVICE_READY;
		failed += state == SERVICE_FAILED;
	}
	daemon_status("standby of %u of %u groups, %u failed", ready, engine->service_count,
		      failed);
}

static void reload(struct engine *engine)
{
	char error[1024];

	daemon_reloading();
	if (engine->tls && tls_reload(engine->tls, error, sizeof(error)) < 0)
		log_error("the certificates were not reloaded; the old ones stay", "reason=\"%s\"",
			  error);
	else
		log_info("certificates reloaded; the rest of the configuration needs a restart",
			 "");
	daemon_ready();
}

static void watchdog(struct engine *engine)
{
	bool alive = engine_lobby_alive(engine->lobby, ALIVE_MS);

	for (unsigned i = 0; i < engine->service_count; i++)
		alive = engine_service_alive(&engine->services[i], ALIVE_MS) && alive;
	if (alive)
		daemon_alive();
	else
		log_error("a loop does not answer; the watchdog is not fed", "");
}

int main(int argc, char **argv)
{
	struct engine engine = { .lock = PTHREAD_MUTEX_INITIALIZER,
				 .changed = PTHREAD_COND_INITIALIZER };
	enum daemon_event event;
	int code;

	if (!daemon_begin(argc, argv, "holdfast-engine", &engine.conf, &code))
		return code;
	log_info("engine starts", "version=%s node=%s groups=%u", HOLDFAST_VERSION,
		 engine.conf->node, engine.conf->group_count);
	if (start(&engine) < 0) {
		stop(&engine);
		return EXIT_FAILED;
	}
	daemon_ready();
	tell_status(&engine);
	while ((event = daemon_wait()) != DAEMON_STOP) {
		if (event == DAEMON_RELOAD)
			reload(&engine);
		tell_status(&engine);
		if (daemon_watchdog_due())
			watchdog(&engine);
	}
	log_info("engine stops", "");
	daemon_stopping();
	stop(&engine);
	log_info("engine stopped", "");
	return EXIT_OK;
}
