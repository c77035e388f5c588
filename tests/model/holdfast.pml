/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may serve, and whom a copy may follow: a model of two sites, for spin.
 *
 * Each site has an agent and an engine and one group directory. What is modelled: epochs and their
 * history, promote on either site (also of a fenced copy, by force, and out of a copy that is under
 * way), fencing, settling at a start, return of an old primary with the common seq and the
 * operator's word, copies with a kept position, and switchover with its HANDOVER flag. A site may
 * die between any two steps; connections are cut, each side notices when it likes, and what an old
 * one carried may still arrive, or not, before or after a new one has begun.
 *
 * A record is named by the epoch and the site that wrote it; content is the row of them. That is
 * what the chain values stand for. One step here is one durable store, or one frame.
 *
 * Properties (P1 to P4 as assertions, P5 as the formula at the end):
 *   P1  at most one site acknowledges in an epoch;
 *   P2  a copy follows a history only where its content is a prefix of it, or after the operator has
 *       given up the rest; and nothing half copied is ever promoted;
 *   P3  a switchover loses nothing, and nothing is acknowledged in its epoch any more;
 *   P4  after a HANDOVER that has no answer the old primary does not serve before the other side has
 *       spoken;
 *   P5  a switchover ends (weak fairness).
 *
 * Assumed of the operator: a copy that was demoted is not promoted by force before it has heard of
 * an epoch above its own. Nobody can know then which epoch the other side has chosen.
 *
 * tests/model/run searches several small worlds wholly (how often each thing may happen is bounded by
 * PROMOTES .. CUTS), then plants the mistakes -DBUG=1 .. 17, one at a time: spin must find each.
 * -DLIVE is the world for P5.
 */
#ifndef BUG
#define BUG 0
#endif

#ifdef LIVE
#define SEQ_MAX	   1
#define EPOCH_MAX  3
#define PROMOTES   0
#define DEMOTES    0
#define HANDOVERS  1
#define CRASHES	   1
#define CUTS	   1
#else
#ifndef SEQ_MAX
#define SEQ_MAX	   2
#endif
#define EPOCH_MAX  4
#ifndef PROMOTES
#define PROMOTES   2
#endif
#ifndef DEMOTES
#define DEMOTES    2
#endif
#ifndef HANDOVERS
#define HANDOVERS  1
#endif
#ifndef CRASHES
#define CRASHES	   1
#endif
#ifndef CUTS
#define CUTS	   1
#endif
#endif

mtype:role = { PRIMARY, STANDBY, FENCED };
mtype:state = { OFF, SETTLING, SERVING, LEAVING };
mtype:link = { WAITING, ASKED, STREAMING };
mtype:session = { NONE, WELCOMED, FOLLOWING };
mtype:stage = { CALM, DRAINING, STORED, SENT };
mtype:frame = { HELLO, WELCOME, REFUSE, BUSY, START, RESET, COPIED, SEGMENT, ACK, HANDOVER, HANDED };

/* One group directory: what survives. */
typedef dir {
	mtype:role role;
	byte epoch;
	byte fenced_by;
	byte first[EPOCH_MAX + 1]; /* history: first seq of an epoch, 0 = not part of it */
	byte log[SEQ_MAX + 1];	   /* who wrote it */
	byte end;
	bool rejoin;
	bool handover;
	bool syncing; /* the volumes are half copied; first, log and end are the kept position */
};
dir disk[2];

/* What dies with the daemons of a site. */
mtype:state agent[2] = OFF;
bool engine_open[2];
bool promoting[2];  /* chosen, not stored yet */
bool by_handover[2];
mtype:link ship[2] = WAITING; /* of the agent of site i */
bit dial[2];		      /* which of the two connections is the present one */
byte sent[2], acked[2];
mtype:stage stage[2] = CALM;

/* The engine's side of the connections from agent i; the engine is the other site's. */
mtype:session session[2] = NONE;
bit served[2];
byte session_epoch[2];

/* wire[2 * i + k]: connection k of agent i; two of them, so that an old one may linger. */
chan up[4] = [2] of { mtype:frame, byte, byte, byte };
chan down[4] = [2] of { mtype:frame, byte, byte, bool };

/* What the properties need to know. */
byte acked_by[EPOCH_MAX + 1];
bool handed[EPOCH_MAX + 1];
bool asked[2];
bool word[2]; /* the operator has given up what site i holds beyond the common seq */

byte promotes, demotes, handovers, crashes, cuts;

#define other(i)      (1 - (i))
#define wire(i, k)    (2 * (i) + (k))
#define present(i)    wire(i, dial[i])
#define name(i, e)    (2 * (e) + (i))
#define ruling(i)     (disk[i].role == FENCED && disk[i].fenced_by > disk[i].epoch -> \
		       disk[i].fenced_by : disk[i].epoch)

/* ret = 1 when the content of both is the same up to `to`, which both have. */
inline compare(i, j, to, ret)
{
	ret = (to <= disk[i].end && to <= disk[j].end);
	n = 1;
	do
	:: n <= to -> ret = ret && disk[i].log[n] == disk[j].log[n]; n++
	:: else -> break
	od;
	n = 0
}

/* ret = the seq up to which the histories of i, as far as epoch e of its primary j, agree. */
inline agree(i, j, e, head, ret)
{
	ret = 0;
	n = 1;
	do
	:: n <= disk[i].end && n <= head ->
		ours = 0;
		theirs = 0;
		m = 1;
		do
		:: m <= EPOCH_MAX ->
			if
			:: disk[i].first[m] && disk[i].first[m] <= n -> ours = m
			:: else
			fi;
			if
			:: m <= e && disk[j].first[m] && disk[j].first[m] <= n -> theirs = m
			:: else
			fi;
			m++
		:: else -> break
		od;
		if
		:: ours == theirs -> ret = n; n++
		:: else -> break
		fi
	:: else -> break
	od;
	n = 0; m = 0; ours = 0; theirs = 0
}

inline take_history(i, j, e)
{
	m = 1;
	do
	:: m <= EPOCH_MAX ->
		disk[i].first[m] = (m <= e -> disk[j].first[m] : 0);
		m++
	:: else -> break
	od;
	m = 0
}

/* The agent's end of a connection. Before HANDOVER is stored a lost link ends the switchover. */
inline hang_up(i)
{
	ship[i] = WAITING;
	if
	:: stage[i] == DRAINING -> stage[i] = CALM
#if BUG == 5
	:: stage[i] == SENT -> stage[i] = CALM; disk[i].handover = false
#endif
	:: else
	fi;
	sent[i] = 0;
	acked[i] = 0
}

inline end_session(i)
{
	session[i] = NONE;
	served[i] = 0;
	session_epoch[i] = 0
}

/* ---- the agent --------------------------------------------------------------------------------
 */

inline fence(i, e)
{
	hang_up(i);
	agent[i] = LEAVING;
	stage[i] = CALM;
	disk[i].fenced_by = e; /* stored with the role: nobody reads it before */
	asked[i] = false
}

inline spoken(i)
{
	asked[i] = false;
	disk[i].handover = false;
	stage[i] = CALM
}

inline settle(i)
{
	if
	:: agent[i] == SETTLING -> agent[i] = SERVING
	:: else
	fi
}

inline welcomed(i, s, diverged)
{
	compare(i, other(i), s, same);
	if
	:: diverged || (same && reset) ->
		up[present(i)]!RESET(disk[i].epoch, disk[i].end, 0);
		up[present(i)]!COPIED(disk[i].epoch, disk[i].end, 0);
		ship[i] = STREAMING;
		sent[i] = disk[i].end;
		acked[i] = 0
#if BUG == 11
	:: !diverged && !reset && s <= disk[i].end ->
#else
	:: !diverged && !reset && same ->
#endif
		up[present(i)]!START(disk[i].epoch, s + 1, 0);
		ship[i] = STREAMING;
		sent[i] = s;
		acked[i] = s
	:: else -> hang_up(i)
	fi;
	same = 0
}

/* Start, settle, serve, hold, store. */
proctype Serve(bit i)
{
	byte e;
	do
	:: d_step { disk[i].role == PRIMARY && agent[i] == OFF && !engine_open[i] ->
		agent[i] = SETTLING;
		/* Asked before it died, or about to: never asked again, the peer has the word. */
		stage[i] = (disk[i].handover -> SENT : CALM) }
	   /* settle_timeout: nobody answers */
#if BUG == 4
	:: d_step { agent[i] == SETTLING -> agent[i] = SERVING; stage[i] = CALM }
#else
	:: d_step { agent[i] == SETTLING && !disk[i].handover -> agent[i] = SERVING }
#endif
	   /* a write: durable here, acknowledged */
#if BUG == 7
	:: d_step { agent[i] == SERVING && disk[i].end < SEQ_MAX ->
#else
	:: d_step { agent[i] == SERVING && stage[i] == CALM && disk[i].end < SEQ_MAX ->
#endif
		e = disk[i].epoch;
		disk[i].end++;
		disk[i].log[disk[i].end] = name(i, e);
		assert(acked_by[e] == 0 || acked_by[e] == i + 1); /* P1 */
		assert(!handed[e]);				  /* P3 */
		assert(!asked[i]);				  /* P4 */
		acked_by[e] = i + 1;
		e = 0 }
	   /* given up before it is stored */
	:: d_step { stage[i] == DRAINING -> stage[i] = CALM }
#if BUG == 8
	:: d_step { stage[i] == DRAINING && ship[i] == STREAMING ->
#else
	:: d_step { stage[i] == DRAINING && ship[i] == STREAMING && acked[i] == disk[i].end ->
#endif
#if BUG != 13
		disk[i].handover = true;
#endif
		stage[i] = STORED }
	:: d_step { stage[i] == STORED && ship[i] == STREAMING && nfull(up[present(i)]) ->
		up[present(i)]!HANDOVER(disk[i].epoch, disk[i].end, 0);
		stage[i] = SENT;
		asked[i] = true }
	   /* the link went between the store and the frame: cleared, as nothing was asked */
	:: d_step { stage[i] == STORED && ship[i] != STREAMING ->
		disk[i].handover = false;
		stage[i] = CALM }
	   /* fenced: serving has stopped; now it is recorded, and the directory let go of */
	:: d_step { agent[i] == LEAVING ->
		disk[i].role = FENCED;
		disk[i].handover = false;
		agent[i] = OFF }
	od
}

/* Connect, agree, stream. */
proctype Ship(bit i)
{
	mtype:frame type;
	byte e, s;
	byte n;
	bool diverged, same, reset;
	do
#if BUG == 16
	:: d_step { (agent[i] == SETTLING || agent[i] == SERVING) && ship[i] == WAITING &&
		    stage[i] != SENT ->
#else
	:: d_step { (agent[i] == SETTLING || agent[i] == SERVING) && ship[i] == WAITING ->
#endif
		dial[i] = 1 - dial[i];
		/* What was older than the last one is gone. */
		do
		:: len(up[present(i)]) > 0 -> up[present(i)]?_, _, _, _
		:: len(down[present(i)]) > 0 -> down[present(i)]?_, _, _, _
		:: else -> break
		od;
		if
		:: session[i] != NONE && served[i] == dial[i] -> end_session(i)
		:: else
		fi;
		up[present(i)]!HELLO(disk[i].epoch, disk[i].end, 0);
		ship[i] = ASKED }
	:: atomic { ship[i] != WAITING && nempty(down[present(i)]) &&
		    (ship[i] != ASKED || empty(up[present(i)])) ->
		down[present(i)]?type(e, s, diverged);
		if
		:: reset = false
		:: type == WELCOME && !diverged && e <= disk[i].epoch && crashes + cuts > 0 ->
			reset = true /* the journal does not reach back */
		fi;
		d_step {
		if
		:: e > disk[i].epoch -> fence(i, e)
		:: else ->
			if
			:: type == WELCOME && ship[i] == ASKED ->
#if BUG != 14
				spoken(i);
#endif
				settle(i);
				welcomed(i, s, diverged)
			:: type == REFUSE -> /* may come beside an older connection that lives on there */
				if
				:: !disk[i].handover -> settle(i)
				:: else
				fi;
				hang_up(i)
			:: type == BUSY ->
#if BUG == 10
				spoken(i);
				settle(i);
#endif
				hang_up(i)
			:: type == ACK -> acked[i] = s
			:: type == HANDED -> spoken(i)
			:: else -> skip
			fi
		fi;
		type = 0; e = 0; s = 0; diverged = false; reset = false }
	   }
	:: d_step { ship[i] == STREAMING && sent[i] < disk[i].end && stage[i] != SENT &&
		    nfull(up[present(i)]) ->
		sent[i]++;
		up[present(i)]!SEGMENT(disk[i].epoch, sent[i], disk[i].log[sent[i]]) }
	   /* it notices that the other side has gone */
	:: d_step { ship[i] != WAITING && empty(up[present(i)]) && empty(down[present(i)]) &&
		    (session[i] == NONE || served[i] != dial[i]) -> hang_up(i) }
	od
}

/* ---- the engine -------------------------------------------------------------------------------
 */

/* The word is used up: for the next time it takes another one. */
inline given_up(i)
{
#if BUG != 15
	disk[i].rejoin = false;
#endif
	word[i] = false
}

/* HELLO of the agent of site j on its connection k; head is its end. */
inline hello(j, k, e, head)
{
	if
#if BUG == 1
	:: disk[i].role == PRIMARY -> down[wire(j, k)]!REFUSE(0, 0, 0)
#else
	:: disk[i].role == PRIMARY -> down[wire(j, k)]!REFUSE(disk[i].epoch, 0, 0)
#endif
#if BUG == 12
	:: disk[i].role != PRIMARY && !engine_open[i] ->
#else
	:: disk[i].role != PRIMARY && (promoting[i] || !engine_open[i]) ->
#endif
		down[wire(j, k)]!BUSY(0, 0, 0)
	:: else ->
#if BUG == 11
		common = disk[i].end;
#else
		agree(i, j, e, head, common);
#endif
		/* Half copied: what it follows now is the primary's, and the copy begins anew. */
		if
		:: disk[i].syncing -> common = disk[i].end
		:: else
		fi;
		if
		:: e < ruling(i) -> down[wire(j, k)]!REFUSE(ruling(i), 0, 0)
		:: e >= ruling(i) && common < disk[i].end &&
#if BUG == 9
		   false ->
#else
		   !(disk[i].rejoin && e > disk[i].epoch) ->
#endif
			down[wire(j, k)]!REFUSE(disk[i].epoch, 0, 0)
		:: else -> /* the newest connection wins */
			session[j] = WELCOMED;
			served[j] = k;
			session_epoch[j] = e;
			do
#if BUG == 6
			:: false
#else
			:: len(up[wire(j, 1 - k)]) > 0 -> up[wire(j, 1 - k)]?_, _, _, _
#endif
			:: else -> break
			od;
			down[wire(j, k)]!WELCOME(disk[i].epoch, disk[i].end,
						 disk[i].syncing || common < disk[i].end)
		fi
	fi;
	common = 0
}

inline copied(j, s)
{
	/* P2: what is overwritten is a prefix, or given up. */
	compare(i, j, disk[i].end, same);
	assert(same || word[i]);
	m = 1;
	do
	:: m <= SEQ_MAX ->
		disk[i].log[m] = (m <= s -> disk[j].log[m] : 0);
		m++
	:: else -> break
	od;
	m = 0;
	take_history(i, j, session_epoch[j]);
	disk[i].end = s;
	disk[i].syncing = false;
	given_up(i);
	same = 0
}

/* A frame of a session that is alive. */
inline follow(j, k, type, e, s, tag)
{
	if
	:: type == START && session[j] == WELCOMED && !disk[i].syncing && s == disk[i].end + 1 ->
		disk[i].role = STANDBY;
		disk[i].epoch = e;
		take_history(i, j, e);
		given_up(i);
		session[j] = FOLLOWING
	:: type == RESET && session[j] == WELCOMED ->
		disk[i].role = STANDBY;
		disk[i].epoch = e;
		disk[i].syncing = true;
		session[j] = FOLLOWING
	:: type == COPIED && session[j] == FOLLOWING ->
		copied(j, s);
		down[wire(j, k)]!ACK(0, s, 0)
	:: type == SEGMENT && session[j] == FOLLOWING && s == disk[i].end + 1 ->
		compare(i, j, disk[i].end, same);
		assert(same); /* P2 */
		same = 0;
		disk[i].end = s;
		disk[i].log[s] = tag;
		down[wire(j, k)]!ACK(0, s, 0)
#if BUG == 8
	:: type == HANDOVER && session[j] == FOLLOWING ->
#else
	:: type == HANDOVER && session[j] == FOLLOWING && s == disk[i].end && !disk[i].syncing ->
#endif
		promoting[i] = true;
		by_handover[i] = true
	:: type == HANDOVER && session[j] == FOLLOWING && (s != disk[i].end || disk[i].syncing) ->
		down[wire(j, k)]!HANDED(e, 0, 0)
	:: else -> end_session(j) /* against the rules: cut */
	fi
}

/* The engine of site i: everything that comes from the agent of the other one. */
proctype Engine(bit i)
{
	mtype:frame type;
	byte e, s, tag, n, m, ours, theirs, common;
	bool same;
	bit k;
	do
	:: atomic {
		if
		:: nempty(up[wire(other(i), 0)]) && nfull(down[wire(other(i), 0)]) -> k = 0
		:: nempty(up[wire(other(i), 1)]) && nfull(down[wire(other(i), 1)]) -> k = 1
		fi;
		d_step {
		up[wire(other(i), k)]?type(e, s, tag);
		if
		:: type == HELLO -> hello(other(i), k, e, s)
#if BUG == 6
		   /* it does not matter in which session it came */
		:: type == HANDOVER && engine_open[i] && disk[i].role == STANDBY &&
		   s == disk[i].end ->
			promoting[i] = true;
			by_handover[i] = true
#endif
		:: type != HELLO && engine_open[i] && !promoting[i] &&
		   session[other(i)] != NONE && served[other(i)] == k ->
			follow(other(i), k, type, e, s, tag)
		:: else -> skip /* of a session that is over */
		fi;
		type = 0; e = 0; s = 0; tag = 0; k = 0 }
	   }
	od
}

/* The engine takes a directory that is not a primary's. What a promote has chosen becomes durable;
 * the agent may adopt it then. A process of its own: it is not kept from it by what comes in. */
proctype Store(bit i)
{
	byte n, e;
	bool same;
	do
	:: d_step { disk[i].role != PRIMARY && agent[i] == OFF && !engine_open[i] ->
		engine_open[i] = true }
	:: d_step { promoting[i] ->
#if BUG == 17
		assert(!disk[i].syncing); /* P2: half of it is of another history */
#else
		disk[i].syncing = false;  /* rolled back to the kept position */
#endif
		if
		:: by_handover[i] ->
			compare(i, other(i), disk[other(i)].end, same);
			assert(same && disk[i].end == disk[other(i)].end); /* P3 */
			handed[disk[i].epoch] = true;
			same = 0
		:: else
		fi;
#if BUG == 3
		e = disk[i].epoch + 1;
#elif BUG == 2
		e = ruling(i);
#else
		e = ruling(i) + 1;
#endif
		disk[i].epoch = e;
		disk[i].first[e] = disk[i].end + 1;
		disk[i].role = PRIMARY;
		disk[i].fenced_by = 0;
		given_up(i);
		engine_open[i] = false;
		promoting[i] = false;
		if
		:: by_handover[i] && session[other(i)] != NONE &&
		   len(down[wire(other(i), served[other(i)])]) < 2 ->
			down[wire(other(i), served[other(i)])]!HANDED(e, 0, 0)
		:: else
		fi;
		by_handover[i] = false;
		end_session(other(i));
		e = 0 }
	od
}

/* ---- what nobody controls ----------------------------------------------------------------------
 */

proctype Operator()
{
	bit i;
	do
	:: atomic {
		if
		:: i = 0
		:: i = 1
		fi;
		if
		:: d_step { promotes < PROMOTES && engine_open[i] && !promoting[i] &&
			    ruling(i) < EPOCH_MAX &&
			    (disk[i].role == STANDBY || disk[i].fenced_by > disk[i].epoch) ->
			promotes++;
			promoting[i] = true;
			end_session(other(i)) }
		:: d_step { demotes < DEMOTES && engine_open[i] && !promoting[i] &&
			    !disk[i].rejoin ->
			demotes++;
			disk[i].rejoin = true;
			word[i] = true }
		   /* an old primary that is not served */
		:: d_step { demotes < DEMOTES && agent[i] == OFF && disk[i].role == PRIMARY ->
			demotes++;
			disk[i].role = FENCED;
			disk[i].fenced_by = disk[i].epoch;
			disk[i].handover = false;
			asked[i] = false;
			disk[i].rejoin = true;
			word[i] = true }
		:: d_step { handovers < HANDOVERS && agent[i] == SERVING && stage[i] == CALM &&
			    ship[i] == STREAMING && disk[i].epoch < EPOCH_MAX ->
			handovers++;
			stage[i] = DRAINING }
		fi;
		i = 0
	   }
	od
}

proctype World()
{
	bit i, k;
	do
	:: atomic { crashes < CRASHES ->
		if
		:: i = 0
		:: i = 1
		fi;
		d_step {
		crashes++;
		hang_up(i);
		stage[i] = CALM;
		agent[i] = OFF;
		engine_open[i] = false;
		promoting[i] = false;
		by_handover[i] = false;
		end_session(other(i));
		i = 0 } }
	   /* Either side loses a connection; what it carried may still arrive at the other one. */
	:: atomic { cuts < CUTS ->
		if
		:: ship[0] != WAITING -> i = 0
		:: ship[1] != WAITING -> i = 1
		fi;
		cuts++;
		hang_up(i);
		i = 0 }
	:: atomic { cuts < CUTS ->
		if
		:: session[0] != NONE -> i = 0
		:: session[1] != NONE -> i = 1
		fi;
		d_step {
		cuts++;
		if
		:: !promoting[other(i)] -> end_session(i)
		:: else
		fi;
		i = 0 } }
	   /* What is still on a connection that the agent has left gets lost. */
	:: atomic {
		if
		:: len(up[wire(0, 1 - dial[0])]) > 0 -> i = 0; k = 1 - dial[0]
		:: len(up[wire(1, 1 - dial[1])]) > 0 -> i = 1; k = 1 - dial[1]
		:: ship[0] == WAITING && nempty(up[wire(0, dial[0])]) -> i = 0; k = dial[0]
		:: ship[1] == WAITING && nempty(up[wire(1, dial[1])]) -> i = 1; k = dial[1]
		fi;
		d_step {
		do
		:: len(up[wire(i, k)]) > 0 -> up[wire(i, k)]?_, _, _, _
		:: else -> break
		od;
		i = 0; k = 0 } }
	od
}

init {
	d_step {
		disk[0].role = PRIMARY;
		disk[0].epoch = 1;
		disk[0].first[1] = 1;
		disk[1].role = STANDBY;
		disk[1].epoch = 1;
		disk[1].first[1] = 1;
	}
	atomic {
		run Serve(0); run Serve(1); run Ship(0); run Ship(1);
		run Engine(0); run Engine(1); run Store(0); run Store(1);
		run Operator(); run World();
	}
}

#ifdef LIVE
#define under_way (stage[0] != CALM || stage[1] != CALM || disk[0].handover || disk[1].handover)
ltl ends { [] (under_way -> <> !under_way) }
#endif
