/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator's entries of struct io_ops; contracts in core/io/io.h. Owner: the world's thread.
 */
#ifndef HOLDFAST_TESTS_SIM_OPS_H
#define HOLDFAST_TESTS_SIM_OPS_H

#include "core/io/io.h"

/* disk_ops.c, disk_files.c */
int disk_mkdir(struct io *io, const char *path);
int disk_lock(struct io *io, const char *path, struct io_lock **ret_lock);
void disk_unlock(struct io_lock *lock);
int disk_file_open(struct io *io, const char *path, unsigned flags, struct io_file **ret_file);
void disk_file_close(struct io_file *handle);
void disk_file_info(struct io_file *handle, struct io_file_info *ret_info);
int disk_file_grow(struct io_file *handle, uint64_t size);
void disk_file_create(struct io *io, const char *path, uint64_t size, struct io_op *op);
int disk_file_remove(struct io *io, const char *path);
void disk_read(struct io_file *handle, void *buf, size_t len, uint64_t off, struct io_op *op);
void disk_writev(struct io_file *handle, const struct iovec *iov, unsigned iov_count, uint64_t off,
		 unsigned flags, struct io_op *op);
void disk_flush(struct io_file *handle, struct io_op *op);
void disk_discard(struct io_file *handle, uint64_t off, uint64_t len, struct io_op *op);
void disk_write_zeroes(struct io_file *handle, uint64_t off, uint64_t len, unsigned flags,
		       struct io_op *op);
void disk_map(struct io_file *handle, uint64_t off, uint64_t len, bool *ret_hole, struct io_op *op);

/* net.c, net_stream.c, net_tls.c */
int net_listen(struct io *io, const struct io_address *address, struct io_listener **ret_listener);
void net_accept(struct io_listener *listener, struct io_stream **ret_stream, struct io_op *op);
void net_listener_close(struct io_listener *listener);
void net_connect(struct io *io, const struct io_address *address, struct io_stream **ret_stream,
		 struct io_op *op);
void net_start_tls(struct io_stream *stream, struct io_tls *tls, bool server,
		   const char *expect_identity, struct io_op *op);
void net_recv(struct io_stream *stream, void *buf, size_t min, size_t max, struct io_op *op);
void net_sendv(struct io_stream *stream, const struct iovec *iov, unsigned iov_count,
	       struct io_op *op);
void net_stream_close(struct io_stream *stream);
void net_stream_move(struct io_stream *stream, struct io *to);
const struct io_peer *net_stream_peer(struct io_stream *stream);
const char *net_stream_error(struct io_stream *stream);

#endif
