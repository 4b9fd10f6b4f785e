/** Keeps the runs of the shown conversation streaming; leaving it closes its streams, never its runs. */

import { forgetAccepted } from '../state/accepted.ts';
import { advance, hasEnded } from '../state/run.ts';
import { currentThread, withThread } from '../state/store.ts';
import { type Exchange, withExchange, withMessages } from '../state/thread.ts';
import { listMessages, resumeChat } from '../wire/api.ts';
import { follow } from '../wire/follow.ts';
import type { Frame } from '../wire/frames.ts';
import { type Desk, pause, problemOf, tell } from './desk.ts';
import { refreshSessions } from './list_sessions.ts';

/** The one that runs and the next. A browser opens six connections to an origin, for all tabs together. */
const STREAMS = 2;

function change(desk: Desk, thread: string, key: string, by: (exchange: Exchange) => Exchange): void {
  desk.store.change(state => withThread(state, thread, found => withExchange(found, key, by)));
}

function exchangeNow(desk: Desk, thread: string, key: string): Exchange | undefined {
  const found = desk.store.get().threads.find(({ key: its }) => its === thread);
  return found?.live.find(exchange => exchange.key === key);
}

function take(desk: Desk, thread: string, key: string, frame: Frame): boolean {
  change(desk, thread, key, exchange => ({ ...exchange, run: advance(exchange.run, frame, Date.now()) }));
  const run = exchangeNow(desk, thread, key)?.run;
  return run === undefined || hasEnded(run);
}

async function followOne(desk: Desk, thread: string, exchange: Exchange, first?: Response): Promise<void> {
  const requestId = exchange.requestId;
  if (requestId === null) return;
  const controller = new AbortController();
  desk.followers.set(requestId, controller);
  const ending = await follow({
    ...(first === undefined ? {} : { first }),
    open: (after, signal) => resumeChat(requestId, after, signal),
    seen: () => exchangeNow(desk, thread, exchange.key)?.run.cursor ?? null,
    take: frame => take(desk, thread, exchange.key, frame),
    connected: yes => desk.store.change(state => ({ ...state, connection: yes ? 'good' : 'lost' })),
    pause,
    random: Math.random,
    signal: controller.signal,
  });
  desk.followers.delete(requestId);
  if (ending === 'left') return;
  desk.store.change(state => ({ ...state, connection: 'good' }));
  if (ending !== 'ended') {
    const problem = problemOf(desk, ending);
    if (problem.status === 401) return; // it goes on after the person has signed in again
    const failure = { code: 'stream_refused', message: `${problem.title}. ${problem.detail}` };
    change(desk, thread, exchange.key, found => ({
      ...found,
      run: { ...found.run, status: 'failed', failure, endedAt: Date.now() },
    }));
  }
  const sessionId = desk.store.get().threads.find(({ key }) => key === thread)?.sessionId;
  if (sessionId) {
    forgetAccepted(sessionId, requestId);
    tell(desk, { kind: 'changed', sessionId });
  }
  followRuns(desk);
  await settle(desk, thread);
  await refreshSessions(desk);
}

/** Read what the server has kept of the runs that have ended; where it does not answer, the page keeps what it saw. */
async function settle(desk: Desk, thread: string): Promise<void> {
  const sessionId = desk.store.get().threads.find(({ key }) => key === thread)?.sessionId;
  if (!sessionId) return;
  try {
    const { messages } = await listMessages(sessionId, null);
    desk.store.change(state => withThread(state, thread, found => withMessages(found, messages)));
  } catch (error) {
    problemOf(desk, error);
  }
}

/**
 * Follow what the shown conversation is waiting for, oldest first.
 *
 * @param opened the answer to POST /chat by request id; closed here when its turn to be followed has not come.
 */
export function followRuns(desk: Desk, opened?: { requestId: string; response: Response }): void {
  const thread = currentThread(desk.store.get());
  const waiting = thread.live.filter(({ requestId, run }) => requestId !== null && !hasEnded(run));
  let used = false;
  for (const exchange of waiting.slice(0, STREAMS)) {
    if (exchange.requestId === null || desk.followers.has(exchange.requestId)) continue;
    const first = opened?.requestId === exchange.requestId ? opened.response : undefined;
    used ||= first !== undefined;
    void followOne(desk, thread.key, exchange, first);
  }
  if (opened !== undefined && !used) void opened.response.body?.cancel();
}

export function stopFollowing(desk: Desk): void {
  for (const controller of desk.followers.values()) controller.abort();
  desk.followers.clear();
  desk.store.change(state => ({ ...state, connection: 'good' }));
}
