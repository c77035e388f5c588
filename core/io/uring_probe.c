/* SPDX-License-Identifier: Apache-2.0 */
/* Making a ring with the best setup that the kernel takes, and finding out what it can do. */
#include "core/io/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#define COMPLETIONS_PER_ENTRY 4u

/* From best to plainest. KERNEL: the later rows can go with support for kernels before 6.1. */
static const unsigned setup_flags[] = {
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	0,
};

int ring_create(struct io_uring *ring, unsigned entries, unsigned *ret_flags)
{
	const unsigned needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_FAST_POLL;
	int err = -EINVAL;

	for (size_t i = 0; i < array_len(setup_flags) && err == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = setup_flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = entries * COMPLETIONS_PER_ENTRY,
		};

		err = io_uring_queue_init_params(entries, ring, &params);
		if (err == 0 && (params.features & needed) != needed) {
			io_uring_queue_exit(ring);
			return -EOPNOTSUPP;
		}
		if (err == 0 && ret_flags)
			*ret_flags = setup_flags[i];
	}
	return err;
}

/* Multishot is a flag of an opcode, which no register call lists: it is tried on a socket. */
static bool probe_multishot_accept(struct io_uring *ring)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(address.sun_family); /* binds to a free abstract name */
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	bool works = false;
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!sqe || server < 0 || client < 0)
		goto out;
	if (bind(server, (struct sockaddr *)&address, len) < 0 || listen(server, 1) < 0)
		goto out;
	len = sizeof(address);
	if (getsockname(server, (struct sockaddr *)&address, &len) < 0 ||
	    connect(client, (struct sockaddr *)&address, len) < 0)
		goto out;
	io_uring_prep_multishot_accept(sqe, server, NULL, NULL, SOCK_CLOEXEC);
	if (io_uring_submit_and_wait(ring, 1) < 0 || io_uring_peek_cqe(ring, &cqe) < 0)
		goto out;
	works = cqe->res >= 0 && (cqe->flags & IORING_CQE_F_MORE);
	if (cqe->res >= 0)
		(void)close(cqe->res);
	io_uring_cqe_seen(ring, cqe);
out:
	if (server >= 0)
		(void)close(server);
	if (client >= 0)
		(void)close(client);
	return works;
}

static bool probe_buffers(struct io_uring *ring)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	struct iovec iov = { .iov_base = page, .iov_len = sizeof(page) };
	__u64 tag = 0;

	return io_uring_register_buffers_sparse(ring, 1) == 0 &&
	       io_uring_register_buffers_update_tag(ring, 0, &iov, &tag, 1) == 1;
}

void uring_probe(struct uring_features *ret_features)
{
	struct uring_features features = { 0 };
	struct io_uring_probe *probe;
	struct utsname names;
	struct io_uring ring;
	unsigned flags = 0;
	int err;

	if (uname(&names) == 0)
		(void)snprintf(features.kernel, sizeof(features.kernel), "%.63s", names.release);
	err = ring_create(&ring, 8, &flags);
	if (err < 0) {
		features.available_errno = -err;
		*ret_features = features;
		return;
	}
	features.available = true;
	features.defer_taskrun = flags & IORING_SETUP_DEFER_TASKRUN;
	features.single_issuer = flags & IORING_SETUP_SINGLE_ISSUER;
	features.coop_taskrun = flags & IORING_SETUP_COOP_TASKRUN;
	features.registered_buffers = probe_buffers(&ring);
	features.registered_files = io_uring_register_files_sparse(&ring, 1) == 0;
	probe = io_uring_get_probe_ring(&ring);
	if (probe) {
		features.msg_ring = io_uring_opcode_supported(probe, IORING_OP_MSG_RING);
		features.send_zc = io_uring_opcode_supported(probe, IORING_OP_SEND_ZC);
		io_uring_free_probe(probe);
	}
	features.multishot_accept = probe_multishot_accept(&ring);
	io_uring_queue_exit(&ring);
	*ret_features = features;
}
