/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reach: what the runs have come across. A run that never meets what it is there to survive proves
 * nothing, so holdfast-sim prints how often each of these was met and, with --require-reach, fails
 * when one never was.
 *
 * Owner: the one thread that drives the world; counts live as long as the process and are no part
 * of a run: nothing may depend on them.
 */
#ifndef HOLDFAST_TESTS_SIM_REACH_H
#define HOLDFAST_TESTS_SIM_REACH_H

#include <stdint.h>

/* Name, and what it means; all but the harms are met by the pair scenario. */
#define REACH_LIST(X)                                                                              \
	X(HARM_KILL, "a process was killed")                                                       \
	X(HARM_POWER, "a host lost power")                                                         \
	X(HARM_PAUSE, "a process stood still")                                                     \
	X(HARM_WALL_JUMP, "a wall clock jumped")                                                   \
	X(HARM_CUT, "a link was cut")                                                              \
	X(HARM_CUT_ONE_WAY, "a link was cut in one direction")                                     \
	X(HARM_RESET, "the streams of a link were reset")                                          \
	X(STRUCK, "the primary crashed right behind an acknowledgement")                           \
	X(WRITEBACK, "a run with cache = writeback")                                               \
	X(WRITETHROUGH, "a run with cache = writethrough")                                         \
	X(COPY_BEGUN, "a copy of the volumes began")                                               \
	X(COPY_COMPLETED, "a copy came to its end")                                                \
	X(COPY_UNDER_WRITES, "writes went on while extents were on their way")                     \
	X(COPY_LOST_PRIMARY, "the primary crashed in the middle of a copy")                        \
	X(COPY_LOST_STANDBY, "the standby crashed in the middle of a copy")                        \
	X(COPY_RESUMED, "a copy went on from a dirty map that was partly clear")                   \
	X(RELEASED, "the journal let go of what a standby lacked")                                 \
	X(RELEASED_AGAIN, "and once more, with the dirty map in force")                            \
	X(STREAM_RESET, "a stream began at the primary's end, with a copy")                        \
	X(STREAM_RESUMED, "a stream resumed behind what the standby held")                         \
	X(SENT_FROM_MEMORY, "segments were sent from memory")                                      \
	X(SENT_FROM_DISK, "segments were sent from the journal's files")                           \
	X(WINDOW_FULL, "a window was full")                                                        \
	X(STALLED, "a request had to wait for room")                                               \
	X(JOURNAL_BLOCKED, "the journal had no room")                                              \
	X(JOURNAL_REWRITTEN, "records were written again after a failure (J4)")                    \
	X(AGENT_FAILED, "a primary failed and was started again")                                  \
	X(ENGINE_FAILED, "a standby failed and tried again")                                       \
	X(STANDBY_READ_BACK, "a standby applied from its journal's files")                         \
	X(PROMOTED, "a standby was promoted")                                                      \
	X(PROMOTE_AFTER_CRASH, "a standby lost power, and was then promoted")                      \
	X(PROMOTED_THEN_POWER, "a host lost power right behind its promote")                       \
	X(PROMOTE_BEHIND, "a promote had records to apply")                                        \
	X(PROMOTE_FORCED, "with a live primary, by force")                                         \
	X(PROMOTE_KILLED, "a promote was killed on its way")                                       \
	X(PROMOTED_KEPT, "promoted to the position that a copy had kept")                          \
	X(MODE_SYNC, "a run with mode = sync")                                                     \
	X(BANDWIDTH, "a run with a limit of bandwidth")                                            \
	X(COMPARED, "a copy found ranges to be equal")                                             \
	X(VERIFIED, "a verification came to its end")                                              \
	X(VERIFIED_UNDER_WRITES, "and there were writes meanwhile")                                \
	X(COALESCED, "a copy took the place of a backlog")                                         \
	X(MODE_LOST, "acknowledgements went on without the standby")                               \
	X(MODE_FROZEN, "acknowledgements waited for the standby, and for longer than its time")    \
	X(MODE_BACK, "and the standby was in sync again")                                          \
	X(PROMOTE_ALL_THERE, "a promote knew that nothing acknowledged was lost")                  \
	X(FENCED_SERVING, "a primary was fenced while it served")                                  \
	X(FENCED_STARTING, "a primary was fenced before it served")                                \
	X(FENCED_RECORDED, "a fenced primary stayed fenced without asking")                        \
	X(HELD, "a primary older than its standby was held until the operator's word")             \
	X(DIVERGED, "a standby was left alone because histories differ")                           \
	X(SITES_PROMOTED, "sites: a standby was promoted")                                         \
	X(SITES_PROMOTED_THEN_POWER, "sites: and lost power right behind that")                    \
	X(SITES_PROMOTED_KEPT, "sites: a promote went back to what a resync had kept")             \
	X(SITES_PROMOTE_REFUSED, "sites: a promote was refused: no consistent position")           \
	X(SITES_PROMOTE_ALIVE, "sites: a promote was refused: the primary is alive")               \
	X(SITES_TWINS, "sites: two primaries of one epoch, by the operator's hand")                \
	X(SITES_TWO_SERVE, "sites: clients found two primaries")                                   \
	X(SITES_FORKED, "sites: a primary went on from an older image of itself")                  \
	X(SITES_RESTORED, "sites: a site's disk was put back to an older image")                   \
	X(SITES_STATE_LOST, "sites: a group's directory was lost")                                 \
	X(SITES_SWITCHED, "sites: a switchover came to its end")                                   \
	X(SITES_HANDED, "sites: a standby took over from its primary")                             \
	X(SITES_SWITCHOVER_UNKNOWN, "sites: a switchover was cut off when the standby was asked")  \
	X(SITES_REJOINED, "sites: a copy was demoted")                                             \
	X(SITES_REJOIN_REFUSED, "sites: and this was refused, for good reasons")                   \
	X(SITES_VERIFIED, "sites: a verification found nothing where nothing was wrong")           \
	X(SITES_VERIFY_FOUND, "sites: a verification found the sector that was spoilt")            \
	X(SITES_RESYNC_ASKED, "sites: a resync on request")                                        \
	X(SITES_SALVAGED, "sites: a salvage file held a piece of one history")                     \
	X(SITES_SALVAGED_ACKED, "sites: and the last write that was acknowledged there")           \
	X(SITES_LOSS_NONE, "sites: a promote said that nothing is lost")                           \
	X(SITES_DISK_FULL, "sites: a disk was full")                                               \
	X(SITES_PARTITION, "sites: a partition: one alone, a ring, all apart")                     \
	X(SITES_STRUCK, "sites: a primary crashed right behind an acknowledgement")                \
	X(SITES_MARKED, "sites: a mark was put into the stream")                                   \
	X(SITES_RESTED, "sites: a standby at rest was compared with its position")                 \
	X(SITES_FENCED_SERVING, "sites: a primary was fenced while it served")                     \
	X(SITES_HELD, "sites: a primary was held")                                                 \
	X(SITES_ACCEPTED, "sites: the operator accepted what was held")                            \
	X(SITES_FENCED_STARTING, "sites: a primary was fenced before it served")                   \
	X(SITES_FOLLOWED, "sites: a standby followed a promoted primary")                          \
	X(SITES_RESET, "sites: a stream began anew, with a copy")                                  \
	X(SITES_RESYNC, "sites: a promoted primary copied to a standby")                           \
	X(SITES_COPIED, "sites: a copy came to its end")                                           \
	X(SITES_COPY_BEHIND, "sites: a standby that is copied to had records to apply")            \
	X(SITES_WRAPPED, "sites: a new primary's journal wrapped")

enum reach {
#define REACH_ENUM(name, text) REACH_##name,
	REACH_LIST(REACH_ENUM)
#undef REACH_ENUM
	REACH_COUNT
};

extern uint64_t reach_counts[REACH_COUNT];
extern const char *const reach_texts[REACH_COUNT];

#define REACH(name) ((void)reach_counts[REACH_##name]++)

#endif
