/* SPDX-License-Identifier: Apache-2.0 */
#include "core/conf/salvage_read.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/units.h"

#define ZEROES_BYTES (1u << 20)
#define LACKS	     "-lacks-"

/* ---- names ------------------------------------------------------------------------------------
 */

static bool take_number(const char **at, uint64_t *ret)
{
	char digits[24];
	size_t len = strspn(*at, "0123456789");

	if (len == 0 || len >= sizeof(digits))
		return false;
	memcpy(digits, *at, len);
	digits[len] = '\0';
	*at += len;
	return units_parse_u64(digits, ret) == 0;
}

/* EPOCH-FIRST-LAST, then -lacks-ASKED, then .NUMBER, both or none of them. */
static bool parse_name(const char *name, struct salvage_info *info)
{
	const char *at = name;
	uint64_t number;

	memset(info, 0, sizeof(*info));
	if (strlen(name) >= sizeof(info->name) || !take_number(&at, &info->epoch) || *at++ != '-' ||
	    !take_number(&at, &info->first_seq) || *at++ != '-' ||
	    !take_number(&at, &info->last_seq))
		return false;
	if (strncmp(at, LACKS, strlen(LACKS)) == 0) {
		at += strlen(LACKS);
		if (!take_number(&at, &info->lacks_seq) || info->lacks_seq < 1 ||
		    info->lacks_seq >= info->first_seq)
			return false;
	}
	if (*at == '.') {
		at++;
		if (!take_number(&at, &number))
			return false;
	}
	memcpy(info->name, name, strlen(name) + 1);
	return *at == '\0' && info->first_seq >= 1 && info->last_seq >= info->first_seq;
}

/* ---- walking ----------------------------------------------------------------------------------
 */

struct walk {
	int fd;
	struct salvage_info info;
	uint8_t *stored, *data;
	uint64_t off, next_seq, chain;
	struct segment_header header;
	bool unpack;
	char problem[128];
};

static void walk_end(struct walk *walk)
{
	if (walk->fd >= 0)
		(void)close(walk->fd);
	free(walk->stored);
	free(walk->data);
}

static int walk_begin(struct walk *walk, const char *group_dir, const char *name)
{
	char path[1200];
	struct stat stat;

	*walk = (struct walk){ .fd = -1 };
	if (!parse_name(name, &walk->info))
		return -EINVAL;
	(void)snprintf(path, sizeof(path), "%s/salvage/%s", group_dir, name);
	walk->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (walk->fd < 0)
		return -errno;
	if (fstat(walk->fd, &stat) < 0)
		return -errno;
	walk->info.file_bytes = (uint64_t)stat.st_size;
	walk->next_seq = walk->info.first_seq;
	walk->stored = malloc(SEGMENT_TOTAL_MAX_BYTES);
	walk->data = malloc(SEGMENT_DATA_MAX_BYTES);
	return walk->stored && walk->data ? 0 : -ENOMEM;
}

static int read_at(int fd, uint8_t *bytes, size_t length_bytes, uint64_t off)
{
	size_t done = 0;

	while (done < length_bytes) {
		ssize_t n = pread(fd, bytes + done, length_bytes - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		done += (size_t)n;
	}
	return 0;
}

static int wrong(struct walk *walk, const char *text)
{
	(void)snprintf(walk->problem, sizeof(walk->problem), "at offset %" PRIu64 ": %s", walk->off,
		       text);
	return -EUCLEAN;
}

static int judge(struct walk *walk)
{
	const struct segment_header *header = &walk->header;
	int condition = segment_verify(walk->stored, header->total_bytes, header);

	if (condition)
		return wrong(walk, segment_condition_text(condition));
	if (header->first_seq != walk->next_seq || (walk->off > 0 && header->chain != walk->chain))
		return wrong(walk, "a segment that does not follow the one before it");
	condition = walk->unpack ? segment_unpack(walk->stored, header, walk->data) : 0;
	if (condition)
		return wrong(walk, segment_condition_text(condition));
	if (walk->unpack && !(header->flags & SEGMENT_LZ4))
		memcpy(walk->data, walk->stored + header->data_off, header->data_raw_bytes);
	return 0;
}

/* 1: walk->header is the next segment; 0: the end; -EUCLEAN with walk->problem; other errno. */
static int walk_next(struct walk *walk)
{
	int r, condition;

	if (walk->next_seq > walk->info.last_seq)
		return 0;
	r = read_at(walk->fd, walk->stored, SEGMENT_ALIGN_BYTES, walk->off);
	if (r == -ENODATA)
		return wrong(walk, "the file ends");
	if (r)
		return r;
	condition = segment_header_decode(walk->stored, SEGMENT_ALIGN_BYTES, &walk->header);
	if (condition)
		return wrong(walk, segment_condition_text(condition));
	r = read_at(walk->fd, walk->stored, walk->header.total_bytes, walk->off);
	if (r == -ENODATA)
		return wrong(walk, "the file ends inside a segment");
	if (!r)
		r = judge(walk);
	if (r)
		return r;
	walk->off += walk->header.total_bytes;
	walk->next_seq = segment_last_seq(&walk->header) + 1;
	walk->chain = segment_chain(walk->stored);
	return 1;
}

static void record_of(const struct walk *walk, uint32_t index, struct salvage_record *ret)
{
	const struct segment_header *header = &walk->header;

	*ret = (struct salvage_record){ .seq = header->first_seq + index, .epoch = header->epoch };
	/* segment_verify() has seen it. */
	must(record_decode(walk->stored + SEGMENT_HEADER_BYTES + (size_t)index * RECORD_BYTES,
			   header, &ret->record) == 0);
	ret->time_ns = header->first_time_ns + (uint64_t)ret->record.delta_us * 1000;
	if (walk->unpack && record_has_data(&ret->record))
		ret->data = walk->data + ret->record.data_off;
}

/* ---- what is there ----------------------------------------------------------------------------
 */

int salvage_show(const char *group_dir, const char *name, struct salvage_info *ret_info)
{
	struct walk walk;
	int r = walk_begin(&walk, group_dir, name);

	while (!r && (r = walk_next(&walk)) == 1) {
		struct salvage_info *info = &walk.info;

		if (!info->first_time_ns)
			info->first_time_ns = walk.header.first_time_ns;
		info->last_time_ns = walk.header.last_time_ns;
		info->records += walk.header.records;
		for (uint32_t i = 0; i < walk.header.records; i++) {
			struct salvage_record record;

			record_of(&walk, i, &record);
			if (record_has_range(&record.record))
				info->bytes += record.record.length_bytes;
		}
		r = 0;
	}
	walk.info.whole = r == 0;
	if (r)
		(void)snprintf(walk.info.problem, sizeof(walk.info.problem), "%s",
			       r == -EUCLEAN ? walk.problem : err_text(r));
	*ret_info = walk.info;
	walk_end(&walk);
	return r == -EUCLEAN || r == -EIO ? 0 : r;
}

static int by_position(const void *a, const void *b)
{
	const struct salvage_info *x = a, *y = b;

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	if (x->first_seq != y->first_seq)
		return x->first_seq < y->first_seq ? -1 : 1;
	return strcmp(x->name, y->name);
}

static DIR *open_folder(const char *group_dir)
{
	char path[1200];

	(void)snprintf(path, sizeof(path), "%s/salvage", group_dir);
	return opendir(path);
}

unsigned salvage_count(const char *group_dir)
{
	DIR *folder = open_folder(group_dir);
	struct salvage_info info;
	struct dirent *entry;
	unsigned count = 0;

	while (folder && (entry = readdir(folder)))
		count += parse_name(entry->d_name, &info);
	if (folder)
		(void)closedir(folder);
	return count;
}

int salvage_list(const char *group_dir, struct salvage_info **ret_list, unsigned *ret_count)
{
	DIR *folder = open_folder(group_dir);
	struct salvage_info *list = NULL, info;
	struct dirent *entry;
	unsigned count = 0, room = 0;
	int r = folder || errno == ENOENT ? 0 : -errno;

	while (folder && !r && (entry = readdir(folder))) {
		if (!parse_name(entry->d_name, &info))
			continue;
		if (count == room) {
			struct salvage_info *more;

			room = room ? 2 * room : 16;
			more = realloc(list, room * sizeof(*list));
			if (!more) {
				r = -ENOMEM;
				break;
			}
			list = more;
		}
		(void)salvage_show(group_dir, entry->d_name, &list[count]);
		count++;
	}
	if (folder)
		(void)closedir(folder);
	if (r) {
		free(list);
		return r;
	}
	if (count)
		qsort(list, count, sizeof(*list), by_position);
	*ret_list = list;
	*ret_count = count;
	return 0;
}

/* ---- records ----------------------------------------------------------------------------------
 */

int salvage_each(const char *group_dir, const char *name,
		 int (*visit)(void *owner, const struct salvage_record *record), void *owner,
		 char *error, size_t error_max)
{
	struct walk walk;
	int r = walk_begin(&walk, group_dir, name);
	bool read_failed = r != 0;

	walk.unpack = true;
	while (!r) {
		r = walk_next(&walk);
		read_failed = r < 0;
		if (r <= 0)
			break;
		r = 0;
		for (uint32_t i = 0; !r && i < walk.header.records; i++) {
			struct salvage_record record;

			record_of(&walk, i, &record);
			r = visit(owner, &record);
		}
	}
	if (read_failed)
		(void)snprintf(error, error_max, "%s/salvage/%s: %s", group_dir, name,
			       walk.problem[0] ? walk.problem : err_text(r));
	walk_end(&walk);
	return r;
}

struct extract {
	unsigned volume_id;
	int fd;
	uint64_t bytes;
	uint8_t *zeroes;
};

static int write_at(int fd, const uint8_t *bytes, size_t length_bytes, uint64_t off)
{
	size_t done = 0;

	while (done < length_bytes) {
		ssize_t n = pwrite(fd, bytes + done, length_bytes - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

static int extract_record(void *owner, const struct salvage_record *from)
{
	struct extract *extract = owner;
	const struct record *record = &from->record;
	uint64_t left = record->length_bytes;
	int r = 0;

	if (!record_has_range(record) || record->volume != extract->volume_id)
		return 0;
	extract->bytes += left;
	if (from->data)
		return write_at(extract->fd, from->data, left, record->offset_bytes);
	for (uint64_t off = record->offset_bytes; !r && left > 0;) {
		size_t len = min_u64(left, ZEROES_BYTES);

		r = write_at(extract->fd, extract->zeroes, len, off);
		off += len;
		left -= len;
	}
	return r;
}

int salvage_extract(const char *group_dir, const char *name, unsigned volume_id, int fd,
		    uint64_t *ret_bytes, char *error, size_t error_max)
{
	struct extract extract = { .volume_id = volume_id,
				   .fd = fd,
				   .zeroes = calloc(1, ZEROES_BYTES) };
	int r = -ENOMEM;

	error[0] = '\0';
	if (extract.zeroes)
		r = salvage_each(group_dir, name, extract_record, &extract, error, error_max);
	if (r && !error[0])
		(void)snprintf(error, error_max, "%s", err_text(r));
	free(extract.zeroes);
	*ret_bytes = extract.bytes;
	return r;
}
