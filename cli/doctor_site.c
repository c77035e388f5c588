/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cli/doctor.h"
#include "cli/pki.h"
#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/conf/peek.h"
#include "core/conf/salvage_read.h"
#include "core/io/tls.h"

#define CONNECT_MS	  3000
#define CERT_WARN_SECONDS (30LL * 86400)
#define SPACE_MIN_BYTES	  (64 * MIB)

/* ---- directories -------------------------------------------------------------------------------
 */

static void check_space(struct doctor *doctor, const char *path)
{
	char have[UNITS_TEXT_BYTES], want[UNITS_TEXT_BYTES];
	struct statvfs fs;
	struct superblock *sb = calloc(1, sizeof(*sb));
	uint64_t needed = SPACE_MIN_BYTES, free_bytes;

	if (!sb || statvfs(path, &fs) != 0) {
		free(sb);
		return;
	}
	/* Journals are written whole when a group is made; only those that are not yet count. */
	for (unsigned i = 0; i < doctor->conf->group_count; i++) {
		const struct conf_group *group = &doctor->conf->groups[i];

		if (peek_superblock(path, group->name, sb) == -ENOENT)
			needed += group->journal_size_bytes;
	}
	free(sb);
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	doctor_say(doctor, free_bytes < needed ? FINDING_FAIL : FINDING_OK, "state space",
		   "free some, or move state_dir", "%s free, %s needed",
		   units_format_size(free_bytes, have), units_format_size(needed, want));
}

static bool check_directory(struct doctor *doctor, const char *check, const char *path,
			    mode_t forbidden)
{
	struct stat info;

	if (stat(path, &info) != 0) {
		doctor_say(doctor, errno == ENOENT ? FINDING_WARN : FINDING_FAIL, check,
			   "the daemons and holdfast init make it, if its parent is there",
			   "%s: %s", path, err_text(errno));
		return false;
	}
	if (!S_ISDIR(info.st_mode))
		doctor_say(doctor, FINDING_FAIL, check, "make it a directory", "%s is no directory",
			   path);
	else if (access(path, R_OK | W_OK | X_OK) != 0)
		doctor_say(doctor, FINDING_FAIL, check,
			   "run as root, or give the daemon's user the directory", "%s: %s", path,
			   err_text(errno));
	else if (info.st_mode & forbidden)
		doctor_say(doctor, FINDING_WARN, check, "take the rights of others away (chmod)",
			   "%s has mode %04o", path, (unsigned)info.st_mode & 07777u);
	else
		doctor_say(doctor, FINDING_OK, check, "", "%s, mode %04o", path,
			   (unsigned)info.st_mode & 07777u);
	return true;
}

void doctor_check_directories(struct doctor *doctor)
{
	if (check_directory(doctor, "state directory", doctor->conf->state_dir, 0022))
		check_space(doctor, doctor->conf->state_dir);
	(void)check_directory(doctor, "run directory", doctor->conf->run_dir, 0002);
}

/* ---- certificates ------------------------------------------------------------------------------
 */

void doctor_check_certificates(struct doctor *doctor)
{
	const struct conf *conf = doctor->conf;
	const struct tls_config config = { .ca_path = conf->tls.ca,
					   .cert_path = conf->tls.cert,
					   .key_path = conf->tls.key,
					   .crl_path = conf->tls.crl };
	char error[512], text[UNITS_TEXT_BYTES];
	struct pki_view view;
	struct io_tls *tls = NULL;
	long long left_s;

	if (!conf->tls.cert) {
		doctor_say(doctor, FINDING_OK, "certificates", "", "none configured, none needed");
		return;
	}
	if (tls_new(&config, &tls, error, sizeof(error)) < 0) {
		doctor_say(doctor, FINDING_FAIL, "certificates", "see holdfast pki", "%.250s",
			   error);
		return;
	}
	doctor_say(doctor, FINDING_OK, "certificates", "", "chain, key and its mode are right");
	tls_free(tls);
	if (pki_view(conf->tls.cert, &view, error, sizeof(error)) < 0)
		return;
	doctor_say(doctor, strcmp(view.identity, conf->node) == 0 ? FINDING_OK : FINDING_FAIL,
		   "identity", "issue a certificate for this node's name, or correct node = ",
		   "the certificate says %.100s, the configuration %.100s", view.identity,
		   conf->node);
	left_s = view.ends_in_s;
	if (left_s < 0)
		doctor_say(doctor, FINDING_FAIL, "expiry", "issue a new one", "ended at %s",
			   view.ends);
	else
		doctor_say(doctor, left_s < CERT_WARN_SECONDS ? FINDING_WARN : FINDING_OK, "expiry",
			   "issue a new one in time", "ends at %s, in %s", view.ends,
			   units_format_duration((uint64_t)left_s * NS_PER_S, text));
	if (!conf->tls.crl)
		doctor_say(doctor, FINDING_WARN, "revocation",
			   "set crl = to the authority's ca.crl",
			   "no revocation list is configured");
}

/* ---- volumes -----------------------------------------------------------------------------------
 */

static bool is_mounted(const char *path)
{
	struct stat info;
	char line[1024];
	unsigned major, minor;
	bool found = false;
	FILE *file;

	if (stat(path, &info) != 0 || !S_ISBLK(info.st_mode))
		return false;
	file = fopen("/proc/self/mountinfo", "re");
	while (file && !found && fgets(line, sizeof(line), file)) {
		/* ID PARENT MAJOR:MINOR ... */
		if (sscanf(line, "%*d %*d %u:%u", &major, &minor) == 2)
			found = makedev(major, minor) == info.st_rdev;
	}
	if (file)
		(void)fclose(file);
	return found;
}

static void check_volume(struct doctor *doctor, const struct conf_group *group,
			 const struct conf_volume *volume, const struct superblock *sb)
{
	char check[64], text[UNITS_TEXT_BYTES];
	uint64_t want = 0;
	off_t size;
	int fd;

	(void)snprintf(check, sizeof(check), "volume %.24s/%.24s", group->name, volume->name);
	for (uint32_t i = 0; sb && i < sb->volume_count; i++) {
		if (strcmp(sb->volumes[i].name, volume->name) == 0)
			want = sb->volumes[i].size_bytes;
	}
	fd = open(volume->path, O_RDWR | O_CLOEXEC);
	size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (size < 0)
		doctor_say(doctor, FINDING_FAIL, check, "make it, or correct path = ", "%.160s: %s",
			   volume->path, err_text(errno));
	else if (is_mounted(volume->path))
		doctor_say(doctor, FINDING_FAIL, check,
			   "unmount it: all access goes through the agent's NBD socket",
			   "%.200s is mounted", volume->path);
	else if ((uint64_t)size < want)
		doctor_say(doctor, FINDING_FAIL, check, "make it as large as it was",
			   "%.160s is smaller than the volume", volume->path);
	else if (sb && want == 0)
		doctor_say(doctor, FINDING_FAIL, check,
			   "take it in with holdfast volume add on the primary, or take it out of "
			   "the configuration",
			   "the group's superblock does not know it");
	else
		doctor_say(doctor, FINDING_OK, check, "", "%.180s, %s", volume->path,
			   units_format_size((uint64_t)size, text));
	if (fd >= 0)
		(void)close(fd);
}

/* What a group's superblock says that somebody should know. */
static void check_group(struct doctor *doctor, const char *check, const struct superblock *sb)
{
	const char *role = peek_role(sb);
	unsigned count;
	char dir[600];

	if (sb->flags & SUPERBLOCK_HELD)
		doctor_say(doctor, FINDING_FAIL, check,
			   "see holdfast status; promote a standby, or use holdfast accept",
			   "%s, epoch %" PRIu64 ", held", role, sb->epoch);
	else if (sb->flags & SUPERBLOCK_HANDOVER)
		doctor_say(doctor, FINDING_WARN, check,
			   "restore the connection: it is not served before that node has answered",
			   "%s, epoch %" PRIu64 ", %.100s was asked to take over", role, sb->epoch,
			   sb->handover_node);
	else if (sb->role == GROUP_FENCED)
		doctor_say(
			doctor, FINDING_WARN, check,
			"it follows by itself, or waits for holdfast demote: see holdfast status",
			"%s, epoch %" PRIu64, role, sb->epoch);
	else if (sb->kept.undo_id)
		doctor_say(doctor, FINDING_OK, check, "",
			   "%s, epoch %" PRIu64 ", copied to, keeps seq %" PRIu64, role, sb->epoch,
			   sb->kept.seq);
	else
		doctor_say(doctor, FINDING_OK, check, "", "%s, epoch %" PRIu64, role, sb->epoch);
	(void)snprintf(dir, sizeof(dir), "%s/%s", doctor->conf->state_dir, sb->name);
	count = salvage_count(dir);
	if (count > 0)
		doctor_say(doctor, FINDING_WARN, check,
			   "look at it with holdfast salvage, then drop it", "%u salvage%s kept",
			   count, count == 1 ? " is" : "s are");
}

void doctor_check_volumes(struct doctor *doctor)
{
	struct superblock *sb = calloc(1, sizeof(*sb));

	for (unsigned i = 0; sb && i < doctor->conf->group_count; i++) {
		const struct conf_group *group = &doctor->conf->groups[i];
		int res = peek_superblock(doctor->conf->state_dir, group->name, sb);
		char check[64];

		(void)snprintf(check, sizeof(check), "group %.50s", group->name);
		if (res == -ENOENT)
			doctor_say(doctor, FINDING_WARN, check, "make it with holdfast init",
				   "has no directory yet");
		else if (res != 0)
			doctor_say(doctor, FINDING_FAIL, check,
				   "restore it, or make the standby anew", "superblock: %s",
				   res > 0 ? superblock_condition_text(res) : err_text(res));
		else
			check_group(doctor, check, sb);
		for (unsigned j = 0; j < group->volume_count; j++)
			check_volume(doctor, group, &group->volumes[j], res == 0 ? sb : NULL);
	}
	free(sb);
}

/* ---- peers -------------------------------------------------------------------------------------
 */

static int connect_in_time(const struct addrinfo *at)
{
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	int error = 0;
	socklen_t length = sizeof(error);

	if (fd < 0)
		return -errno;
	if (connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
		error = errno;
		if (error == EINPROGRESS && poll(&wait, 1, CONNECT_MS) == 0)
			error = ETIMEDOUT;
		else if (error == EINPROGRESS)
			(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
	}
	(void)close(fd);
	return -error;
}

static void check_peer(struct doctor *doctor, const struct conf_group *group,
		       const struct conf_peer *peer)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	const char *colon = strrchr(peer->address, ':');
	size_t skip = peer->address[0] == '[';
	struct addrinfo *list = NULL;
	char host[256], check[64];
	int res;

	(void)snprintf(check, sizeof(check), "peer %.24s/%.30s", group->name, peer->node);
	(void)snprintf(host, sizeof(host), "%.*s",
		       (int)((size_t)(colon - peer->address) - 2 * skip), peer->address + skip);
	res = getaddrinfo(host, colon + 1, &hints, &list);
	if (res != 0) {
		doctor_say(doctor, FINDING_FAIL, check, "correct the address, or name resolution",
			   "%.180s: %s", peer->address, gai_strerror(res));
		return;
	}
	res = -ENOENT;
	for (const struct addrinfo *at = list; at && res != 0; at = at->ai_next)
		res = connect_in_time(at);
	freeaddrinfo(list);
	doctor_say(doctor, res == 0 ? FINDING_OK : FINDING_WARN, check,
		   "start its engine, open the firewall, or correct the address", "%.180s: %s",
		   peer->address, res == 0 ? "reachable" : err_text(res));
}

void doctor_check_peers(struct doctor *doctor)
{
	for (unsigned i = 0; i < doctor->conf->group_count; i++) {
		const struct conf_group *group = &doctor->conf->groups[i];

		for (unsigned j = 0; j < group->peer_count; j++) {
			if (group->peers[j].address)
				check_peer(doctor, group, &group->peers[j]);
		}
	}
}

/* ---- daemons -----------------------------------------------------------------------------------
 */

void doctor_check_daemons(struct doctor *doctor, const struct cli *cli)
{
	static const char *const daemons[] = { "agent", "engine" };

	for (size_t i = 0; i < array_len(daemons); i++) {
		struct control_reply reply = { .json = NULL };
		char check[32], error[256];
		int res = cli_call(cli, daemons[i], "GET", "/healthz", NULL, 5000, &reply, error,
				   sizeof(error));
		const char *text = json_string_value(
			json_object_get(json_object_get(reply.json, "error"), "text"));

		(void)snprintf(check, sizeof(check), "holdfast-%s", daemons[i]);
		if (res < 0)
			doctor_say(doctor, FINDING_WARN, check, "start it, if this node needs it",
				   "%.250s", error);
		else if (reply.status != 200)
			doctor_say(doctor, FINDING_FAIL, check, "see its log and holdfast status",
				   "%.250s", text ? text : "not healthy");
		else
			doctor_say(doctor, FINDING_OK, check, "", "runs");
		control_reply_free(&reply);
	}
}
