/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/init.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/group/group_dir.h"
#include "core/group/volume.h"

#define VOLUME_ALIGN_BYTES 4096u

__attribute__((format(printf, 3, 4))) static int init_fail(struct group_init *init, int res,
							   const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(init->error, sizeof(init->error), format, args);
	va_end(args);
	return res;
}

/* A segment never spans files: smaller files only make smaller segments. What the configuration
 * allows is far above. */
#define JOURNAL_FILE_MIN_BYTES (4u * SEGMENT_HEAD_MAX_BYTES)

static int init_path(struct group_init *init, char path[GROUP_PATH_MAX], const char *name)
{
	int len = snprintf(path, GROUP_PATH_MAX, "%s/%s%s%s", init->state_dir, init->group,
			   name[0] != '\0' ? "/" : "", name);

	if (len < 0 || (size_t)len >= GROUP_PATH_MAX)
		return init_fail(init, -ENAMETOOLONG,
				 "the group's directory under %.200s has too long a path; use a "
				 "shorter state directory",
				 init->state_dir);
	return 0;
}

static int init_journal_path(struct group_init *init, char path[GROUP_PATH_MAX], uint32_t index)
{
	char name[32];

	snprintf(name, sizeof(name), "journal/%08" PRIu32, index);
	return init_path(init, path, name);
}

/* ---- what is asked for ------------------------------------------------------------------ */

static int init_check_volumes(struct group_init *init)
{
	unsigned i, j;

	if (init->volume_count < 1 || init->volume_count > GROUP_VOLUMES_MAX)
		return init_fail(init, -EINVAL, "group \"%s\" has %u volumes; it needs 1 to %u",
				 init->group, init->volume_count, GROUP_VOLUMES_MAX);
	for (i = 0; i < init->volume_count; i++) {
		const struct group_init_volume *volume = &init->volumes[i];

		if (!volume_name_valid(volume->name))
			return init_fail(init, -EINVAL,
					 "\"%.80s\" is no name for a volume; use 1 to %u of "
					 "A-Z a-z 0-9 . _ - and neither . nor - at the start",
					 volume->name, VOLUME_NAME_MAX);
		for (j = 0; j < i; j++) {
			if (strcmp(init->volumes[j].name, volume->name) == 0)
				return init_fail(init, -EINVAL,
						 "two volumes are named \"%s\"; give each a name "
						 "of its own",
						 volume->name);
			if (strcmp(init->volumes[j].path, volume->path) == 0)
				return init_fail(init, -EINVAL,
						 "volumes \"%s\" and \"%s\" both lie at %.200s; "
						 "give each a path of its own",
						 init->volumes[j].name, volume->name, volume->path);
		}
	}
	return 0;
}

static int init_check(struct group_init *init)
{
	if (!group_name_valid(init->group))
		return init_fail(init, -EINVAL,
				 "\"%.80s\" is no name for a group; use 1 to %u of A-Z a-z 0-9 . _ "
				 "- and neither . nor - at the start",
				 init->group, GROUP_NAME_MAX);
	if (init->role != GROUP_PRIMARY && init->role != GROUP_STANDBY)
		return init_fail(init, -EINVAL, "a new group is primary or standby here");
	if (init->journal_file_bytes < JOURNAL_FILE_MIN_BYTES ||
	    init->journal_file_bytes > VOLUME_BYTES_MAX ||
	    !is_aligned(init->journal_file_bytes, SEGMENT_ALIGN_BYTES))
		return init_fail(
			init, -EINVAL,
			"journal files of %" PRIu64 " bytes do not work; use a multiple of "
			"%u, at least %u",
			init->journal_file_bytes, SEGMENT_ALIGN_BYTES, JOURNAL_FILE_MIN_BYTES);
	if (init->journal_files < GROUP_INIT_FILES_MIN ||
	    init->journal_files > VOLUME_BYTES_MAX / init->journal_file_bytes)
		return init_fail(init, -EINVAL,
				 "%" PRIu32 " journal files do not work; use at least %u",
				 init->journal_files, GROUP_INIT_FILES_MIN);
	return init_check_volumes(init);
}

/* Opens each volume as the daemons will, so that what would stop them shows now. */
static int init_measure(struct group_init *init, unsigned index)
{
	const struct group_init_volume *volume = &init->volumes[index];
	struct superblock_volume *id = &init->sb->volumes[index];
	struct io_file_info info;
	struct io_file *file;
	int res = volume_open_path(init->io, volume->name, volume->path, &file, &info, init->error,
				   sizeof(init->error));

	if (res != 0)
		return res;
	io_file_close(file);
	id->id = (uint16_t)index;
	id->uuid = uuid_from_random_u64(io_random(init->io), io_random(init->io));
	id->size_bytes = round_down(info.size_bytes, VOLUME_ALIGN_BYTES);
	memcpy(id->name, volume->name, strlen(volume->name));
	if (id->size_bytes == 0)
		return init_fail(init, -EINVAL,
				 "volume \"%s\": %.200s has %" PRIu64 " bytes; make it as large as "
				 "the volume shall be, at least %u",
				 volume->name, volume->path, info.size_bytes, VOLUME_ALIGN_BYTES);
	if (id->size_bytes > VOLUME_BYTES_MAX)
		return init_fail(init, -EFBIG, "volume \"%s\": %.200s is larger than any volume",
				 volume->name, volume->path);
	return 0;
}

static int init_superblock(struct group_init *init)
{
	struct superblock *sb = init->sb;
	unsigned i;
	int res = 0;

	memset(sb, 0, sizeof(*sb));
	memcpy(sb->name, init->group, strlen(init->group));
	sb->role = (uint8_t)init->role;
	sb->slot_bytes = init->journal_file_bytes;
	sb->slots = init->journal_files;
	sb->volume_count = init->volume_count;
	if (init->role == GROUP_PRIMARY) {
		sb->group = uuid_from_random_u64(io_random(init->io), io_random(init->io));
		sb->flags = SUPERBLOCK_CLEAN;
		sb->epoch = 1;
		sb->history[0] = (struct history_entry){ .epoch = 1, .first_seq = 1 };
		sb->history_count = 1;
		sb->applied_chain = segment_chain_root(&sb->group);
	}
	for (i = 0; i < init->volume_count && res == 0; i++)
		res = init_measure(init, i);
	return res;
}

/* ---- steps ------------------------------------------------------------------------------ */

static void init_progress(struct group_init *init)
{
	if (init->progress)
		init->progress(init->owner, init->next_file * init->journal_file_bytes,
			       init->journal_files * init->journal_file_bytes);
}

static void init_remove_journal(struct group_init *init)
{
	char path[GROUP_PATH_MAX];
	uint32_t i;

	for (i = 0; i <= init->next_file && i < init->journal_files; i++) {
		if (init_journal_path(init, path, i) == 0)
			(void)io_file_remove(init->io, path);
	}
}

/* The single exit. */
static void init_done(struct group_init *init, int res)
{
	struct io_op *user = init->user;

	io_file_close(init->file);
	init->file = NULL;
	if (init->lock)
		io_unlock(init->lock);
	init->lock = NULL;
	io_free(init->io, init->buf);
	init->buf = NULL;
	init->user = NULL;
	user->done(user, res);
}

static void init_write_slot(struct group_init *init);

static void init_slot_written(struct io_op *op, int64_t res)
{
	struct group_init *init = container_of(op, struct group_init, op);

	if (res < 0) {
		init_done(init, init_fail(init, (int)res,
					  "cannot write the superblock of group \"%s\" in %.200s: "
					  "%s; run init again",
					  init->group, init->state_dir, err_text((int)res)));
		return;
	}
	init->next_slot++;
	if (init->next_slot < 2)
		init_write_slot(init);
	else
		init_done(init, 0);
}

static void init_write_slot(struct group_init *init)
{
	uint64_t off = (uint64_t)init->next_slot * SUPERBLOCK_SLOT_BYTES;

	init->sb->generation++;
	superblock_encode(init->sb, init->buf);
	init->op.done = init_slot_written;
	io_write(init->file, init->buf, SUPERBLOCK_SLOT_BYTES, off, IO_DSYNC, &init->op);
}

static void init_superblock_created(struct io_op *op, int64_t res)
{
	struct group_init *init = container_of(op, struct group_init, op);
	char path[GROUP_PATH_MAX];

	if (res >= 0)
		res = init_path(init, path, "superblock");
	if (res == 0)
		res = io_file_open(init->io, path, IO_OPEN_DIRECT, &init->file);
	if (res < 0) {
		init_remove_journal(init);
		init_done(init, init_fail(init, (int)res,
					  "cannot create the superblock of group \"%s\" in %.200s: "
					  "%s; mend that and run init again",
					  init->group, init->state_dir, err_text((int)res)));
		return;
	}
	init->next_slot = 0;
	init_write_slot(init);
}

static void init_create_next(struct group_init *init);

static void init_file_created(struct io_op *op, int64_t res)
{
	struct group_init *init = container_of(op, struct group_init, op);

	if (res < 0) {
		init_fail(init, (int)res,
			  "cannot create journal file %" PRIu32 " of %" PRIu32 ", %" PRIu64
			  " bytes each, of group \"%s\" in %.200s: %s; %s",
			  init->next_file + 1, init->journal_files, init->journal_file_bytes,
			  init->group, init->state_dir, err_text((int)res),
			  res == -ENOSPC ? "make room or configure a smaller journal_size"
					 : "mend that and run init again");
		init_remove_journal(init);
		init_done(init, (int)res);
		return;
	}
	init->next_file++;
	init_progress(init);
	init_create_next(init);
}

static void init_create_next(struct group_init *init)
{
	char path[GROUP_PATH_MAX];
	bool last = init->next_file == init->journal_files;
	int res = last ? init_path(init, path, "superblock")
		       : init_journal_path(init, path, init->next_file);

	/* The same paths were built when the directories were made. */
	must(res == 0);
	init->op.done = last ? init_superblock_created : init_file_created;
	io_file_create(init->io, path, last ? SUPERBLOCK_FILE_BYTES : init->journal_file_bytes,
		       &init->op);
}

/* ---- what is there already -------------------------------------------------------------- */

static bool slot_empty(const uint8_t *slot)
{
	return slot[0] == 0 && memcmp(slot, slot + 1, SUPERBLOCK_SLOT_BYTES - 1) == 0;
}

static int init_judge(struct group_init *init)
{
	unsigned slot;
	int res = superblock_choose(init->buf, init->sb, &slot);

	if (res == 0)
		return init_fail(init, -EEXIST,
				 "group \"%s\" exists already in %.200s (epoch %" PRIu64
				 "); choose another name, or remove that directory if its data is "
				 "not needed",
				 init->group, init->state_dir, init->sb->epoch);
	if (res == SUPERBLOCK_E_NONE_VALID &&
	    (slot_empty(init->buf) || slot_empty(init->buf + SUPERBLOCK_SLOT_BYTES)))
		return 0;
	return init_fail(init, -EEXIST,
			 "group \"%s\" exists already in %.200s, but its superblock cannot be "
			 "used: %s; remove that directory only if its data is not needed",
			 init->group, init->state_dir, superblock_condition_text(res));
}

static void init_old_read(struct io_op *op, int64_t res)
{
	struct group_init *init = container_of(op, struct group_init, op);
	int judged;

	io_file_close(init->file);
	init->file = NULL;
	if (res < 0) {
		init_done(init, init_fail(init, (int)res,
					  "cannot read the superblock that group \"%s\" already "
					  "has in %.200s: %s",
					  init->group, init->state_dir, err_text((int)res)));
		return;
	}
	judged = init_judge(init);
	if (judged == 0)
		judged = init_superblock(init);
	if (judged == 0)
		init_create_next(init);
	else
		init_done(init, judged);
}

static void init_failed(struct io_op *op, int64_t res)
{
	init_done(container_of(op, struct group_init, op), (int)res);
}

static void init_nothing_there(struct io_op *op, int64_t res)
{
	struct group_init *init = container_of(op, struct group_init, op);

	(void)res;
	init_create_next(init);
}

static int init_make_dirs(struct group_init *init)
{
	char path[GROUP_PATH_MAX];
	int res;

	res = io_mkdir(init->io, init->state_dir);
	if (res == 0)
		res = init_path(init, path, "");
	if (res == 0)
		res = io_mkdir(init->io, path);
	if (res == 0)
		res = init_path(init, path, "journal");
	if (res == 0)
		res = io_mkdir(init->io, path);
	/* The longest path of all. */
	if (res == 0)
		res = init_journal_path(init, path, UINT32_MAX);
	if (res != 0 && init->error[0] == '\0')
		init_fail(init, res,
			  "cannot make the directory of group \"%s\" in %.200s: %s; make %.200s "
			  "writable for this user",
			  init->group, init->state_dir, err_text(res), init->state_dir);
	return res;
}

static int init_lock(struct group_init *init)
{
	char path[GROUP_PATH_MAX];
	int res = init_path(init, path, "lock");

	if (res == 0)
		res = io_lock(init->io, path, &init->lock);
	if (res != 0 && init->error[0] == '\0')
		init_fail(init, res, "cannot lock %.300s: %s%s", path, err_text(res),
			  res == -EWOULDBLOCK ? "; a daemon or another init works on this group, "
						"so there is one already"
					      : "");
	return res;
}

/* 0: *ret_there says whether init->file is an old superblock to be looked at. */
static int init_open_old(struct group_init *init, bool *ret_there)
{
	char path[GROUP_PATH_MAX];
	struct io_file_info info;
	int res = init_path(init, path, "superblock");

	*ret_there = false;
	if (res == 0)
		res = io_file_open(init->io, path, IO_OPEN_READ_ONLY, &init->file);
	if (res == -ENOENT)
		return 0;
	if (res != 0)
		return init_fail(init, res, "cannot open %.300s: %s", path, err_text(res));
	io_file_info(init->file, &info);
	/* Shorter than a superblock ever is: its creation was interrupted. */
	*ret_there = info.size_bytes >= SUPERBLOCK_FILE_BYTES;
	if (!*ret_there) {
		io_file_close(init->file);
		init->file = NULL;
	}
	return 0;
}

void group_init_run(struct group_init *init, struct io_op *op)
{
	bool there = false;
	int res;

	init->user = op;
	init->lock = NULL;
	init->file = NULL;
	init->next_file = 0;
	init->error[0] = '\0';
	init->buf = io_alloc(init->io, SUPERBLOCK_FILE_BYTES, 4096);
	res = init->buf ? init_check(init) : init_fail(init, -ENOMEM, "no memory for a superblock");
	/* Before anything is made, so that a mistake leaves nothing behind. */
	if (res == 0)
		res = init_superblock(init);
	if (res == 0)
		res = init_make_dirs(init);
	if (res == 0)
		res = init_lock(init);
	if (res == 0)
		res = init_open_old(init, &there);
	if (res == 0 && there) {
		init->op.done = init_old_read;
		io_read(init->file, init->buf, SUPERBLOCK_FILE_BYTES, 0, &init->op);
		return;
	}
	init->op.done = res == 0 ? init_nothing_there : init_failed;
	io_defer(init->io, &init->op, res);
}
