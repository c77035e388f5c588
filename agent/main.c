/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdfast-agent: owns the groups for which this host is primary.
 *
 * Threads: main (signals, service manager), one loop per group that is or was
 * served, one loop for NBD over TCP, the threads of control connections.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/control.h"
#include "agent/lobby.h"
#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/conf/daemon.h"
#include "core/io/tls.h"

#define ALIVE_MS 2000u

struct agent {
	struct conf *conf;
	struct io_tls *tls;
	struct agent_service *services;
	unsigned service_count;
	struct agent_control control;
	struct agent_lobby *lobby;
};

static void service_changed(void *owner)
{
	(void)owner;
	daemon_poke();
}

static int start_tls(struct agent *agent)
{
	const struct conf *conf = agent->conf;
	const struct tls_config config = { .ca_path = conf->tls.ca,
					   .cert_path = conf->tls.cert,
					   .key_path = conf->tls.key,
					   .crl_path = conf->tls.crl };
	char error[1024];
	int res;

	if (!conf->tls.cert)
		return 0;
	res = tls_new(&config, &agent->tls, error, sizeof(error));
	if (res < 0) {
		log_error("cannot use the certificates", "reason=\"%s\"", error);
		return res;
	}
	if (strcmp(tls_identity(agent->tls), conf->node) != 0) {
		log_error("the certificate is another node's", "certificate=%s identity=%s node=%s",
			  conf->tls.cert, tls_identity(agent->tls), conf->node);
		return -EINVAL;
	}
	return 0;
}

static int make_services(struct agent *agent)
{
	const struct conf *conf = agent->conf;

	agent->services =
		calloc(conf->group_count ? conf->group_count : 1, sizeof(*agent->services));
	if (!agent->services)
		return -ENOMEM;
	for (unsigned i = 0; i < conf->group_count; i++) {
		struct agent_service *service = &agent->services[agent->service_count++];

		service->conf = conf;
		service->group_conf = &conf->groups[i];
		service->tls = agent->tls;
		service->broken = daemon_broken;
		service->changed = service_changed;
		service->owner = agent;
		agent_service_init(service);
	}
	return 0;
}

static void *adopt_one(void *arg)
{
	struct service_result result;

	agent_service_adopt(arg, &result);
	return NULL;
}

/* All at once: each may wait for its peers. */
static void adopt_all(struct agent *agent)
{
	pthread_t *threads = calloc(agent->service_count + 1, sizeof(*threads));
	bool *started = calloc(agent->service_count + 1, sizeof(*started));

	for (unsigned i = 0; i < agent->service_count; i++) {
		if (threads && started &&
		    pthread_create(&threads[i], NULL, adopt_one, &agent->services[i]) == 0)
			started[i] = true;
		else
			(void)adopt_one(&agent->services[i]);
	}
	for (unsigned i = 0; threads && started && i < agent->service_count; i++) {
		if (started[i])
			must(pthread_join(threads[i], NULL) == 0);
	}
	free(threads);
	free(started);
}

static int start(struct agent *agent)
{
	char error[1024];
	int res;

	if (start_tls(agent) < 0 || make_services(agent) < 0)
		return -EINVAL;
	agent->control.conf = agent->conf;
	agent->control.services = agent->services;
	agent->control.service_count = agent->service_count;
	res = agent_control_start(&agent->control, error, sizeof(error));
	if (res == 0 && agent->conf->agent.nbd_listen)
		res = agent_lobby_start(agent->conf, agent->tls, agent->services,
					agent->service_count, daemon_broken, &agent->lobby, error,
					sizeof(error));
	if (res < 0) {
		log_error("cannot start", "reason=\"%s\"", error);
		return res;
	}
	adopt_all(agent);
	return 0;
}

static void stop(struct agent *agent)
{
	agent->lobby = agent_lobby_stop(agent->lobby);
	agent->control.server = control_server_free(agent->control.server);
	for (unsigned i = 0; i < agent->service_count; i++)
		agent_service_deinit(&agent->services[i]);
	free(agent->services);
	tls_free(agent->tls);
	conf_free(agent->conf);
}

static void tell_status(struct agent *agent)
{
	unsigned serving = 0, failed = 0;

	for (unsigned i = 0; i < agent->service_count; i++) {
		enum service_state state = agent_service_state(&agent->services[i]);

		serving += state == SERVICE_SERVING;
		failed += state == SERVICE_FAILED;
	}
	daemon_status("serving %u of %u groups, %u failed", serving, agent->service_count, failed);
}

static void reload(struct agent *agent)
{
	char error[1024];

	daemon_reloading();
	if (agent->tls && tls_reload(agent->tls, error, sizeof(error)) < 0)
		log_error("the certificates were not reloaded; the old ones stay", "reason=\"%s\"",
			  error);
	else
		log_info("certificates reloaded; the rest of the configuration needs a restart",
			 "");
	daemon_ready();
}

static void watchdog(struct agent *agent)
{
	bool alive = agent_lobby_alive(agent->lobby, ALIVE_MS);

	for (unsigned i = 0; i < agent->service_count; i++)
		alive = agent_service_alive(&agent->services[i], ALIVE_MS) && alive;
	if (alive)
		daemon_alive();
	else
		log_error("a loop does not answer; the watchdog is not fed", "");
}

int main(int argc, char **argv)
{
	struct agent agent = { .conf = NULL };
	enum daemon_event event;
	int code;

	if (!daemon_begin(argc, argv, "holdfast-agent", &agent.conf, &code))
		return code;
	log_info("agent starts", "version=%s node=%s groups=%u", HOLDFAST_VERSION, agent.conf->node,
		 agent.conf->group_count);
	if (start(&agent) < 0) {
		stop(&agent);
		return EXIT_FAILED;
	}
	daemon_ready();
	tell_status(&agent);
	while ((event = daemon_wait()) != DAEMON_STOP) {
		if (event == DAEMON_RELOAD)
			reload(&agent);
		tell_status(&agent);
		if (daemon_watchdog_due())
			watchdog(&agent);
	}
	log_info("agent stops", "");
	daemon_stopping();
	stop(&agent);
	log_info("agent stopped", "");
	return EXIT_OK;
}
