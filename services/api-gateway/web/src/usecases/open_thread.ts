/** Show a conversation: what was said, and what still goes on. The address names it, so that a reload comes back to it. */

import { acceptedIn, exchangeOfAccepted, forgetAccepted } from '../state/accepted.ts';
import { keepChosen, recallChosen, switched } from '../state/branches.ts';
import { keepDraftText } from '../state/drafts.ts';
import { CHAT } from '../state/route.ts';
import { currentThread, withThread } from '../state/store.ts';
import { type Exchange, newThread, type Thread, withMessages, withRunsGoingOn } from '../state/thread.ts';
import { listMessages } from '../wire/api.ts';
import { type Desk, notify, problemOf } from './desk.ts';
import { followRuns, stopFollowing } from './follow_runs.ts';
import { listEarly } from './list_sessions.ts';

const ADDRESS = /^#\/c\/([0-9a-f-]{36})$/i;

export function sessionInAddress(): string | null {
  return ADDRESS.exec(location.hash)?.[1]?.toLowerCase() ?? null;
}

/** @param how whether "back" shall lead to what was shown before. */
export function showInAddress(sessionId: string | null, how: 'push' | 'replace'): void {
  const address = sessionId === null ? location.pathname : `#/c/${sessionId}`;
  if (sessionInAddress() === sessionId && !location.hash.startsWith('#code=')) return;
  if (how === 'push') history.pushState(null, '', address);
  else history.replaceState(null, '', address);
}

/** Read the newest messages of the shown conversation and follow what goes on in it. */
export async function refreshThread(desk: Desk): Promise<void> {
  const { key, sessionId } = currentThread(desk.store.get());
  if (sessionId === null) return;
  const change = (by: (thread: Thread) => Thread): void =>
    desk.store.change(state => withThread(state, key, by));
  try {
    const { messages, next } = await listMessages(sessionId, null);
    change(thread => {
      const earlier = thread.phase === 'ready' && thread.messages.length > 0 ? thread.earlier : next;
      const filled = withMessages({ ...thread, phase: 'ready', problem: null, earlier }, messages);
      return withRunsGoingOn(filled);
    });
  } catch (error) {
    const problem = problemOf(desk, error);
    // What is on the page stays: only a conversation that could not be shown at all says why.
    const unseen = (thread: Thread): boolean => thread.phase === 'loading' && thread.live.length === 0;
    change(thread => (unseen(thread) ? { ...thread, phase: 'failed', problem } : thread));
  }
  followRuns(desk);
}

export async function loadEarlier(desk: Desk): Promise<void> {
  const { key, sessionId, earlier } = currentThread(desk.store.get());
  if (sessionId === null || earlier === null) return;
  try {
    const { messages, next } = await listMessages(sessionId, earlier);
    desk.store.change(state =>
      withThread(state, key, thread => withMessages({ ...thread, earlier: next }, messages)),
    );
  } catch (error) {
    notify(desk, error);
  }
}

let opened = 0;

function select(desk: Desk, sessionId: string | null): void {
  stopFollowing(desk);
  desk.store.change(state => {
    const known = state.threads.find(
      thread => thread.sessionId === sessionId && (sessionId !== null || thread.live.length === 0),
    );
    if (known !== undefined) {
      const thread: Thread = known.phase === 'failed' ? { ...known, phase: 'loading', problem: null } : known;
      return withThread({ ...state, current: known.key }, known.key, () => thread);
    }
    opened += 1;
    const thread = newThread(sessionId ?? `new-${opened}`, sessionId);
    const live = sessionId === null ? [] : acceptedIn(sessionId).map(exchangeOfAccepted);
    const chosen = sessionId === null ? {} : recallChosen(sessionId);
    return { ...state, threads: [...state.threads, { ...thread, live, chosen }], current: thread.key };
  });
  const { sessions } = desk.store.get();
  const [first] = sessionId === null ? [] : acceptedIn(sessionId);
  if (
    sessionId !== null &&
    first !== undefined &&
    !sessions.some(({ session_id }) => session_id === sessionId)
  ) {
    listEarly(desk, sessionId, first.question);
  }
}

export async function openThread(
  desk: Desk,
  sessionId: string | null,
  how: 'push' | 'replace' = 'push',
): Promise<void> {
  desk.store.change(state => (state.route.page === 'chat' ? state : { ...state, route: CHAT }));
  const shown = currentThread(desk.store.get());
  const same = shown.sessionId === sessionId && (sessionId !== null || shown.live.length === 0);
  if (!same) select(desk, sessionId);
  showInAddress(sessionId, how);
  await refreshThread(desk);
}

/** The conversation is gone: forget it, and leave it if it is shown. */
export async function forgetSession(desk: Desk, sessionId: string): Promise<void> {
  const shown = currentThread(desk.store.get()).sessionId === sessionId;
  forgetAccepted(sessionId);
  keepDraftText(sessionId, '');
  if (shown) await openThread(desk, null, 'replace');
  desk.store.change(state => ({
    ...state,
    sessions: state.sessions.filter(session => session.session_id !== sessionId),
    threads: state.threads.filter(thread => thread.sessionId !== sessionId),
  }));
}

/** Show another branch at an exchange; a reload shows it again. */
export function switchBranch(desk: Desk, exchange: Exchange, by: number): void {
  const { key } = currentThread(desk.store.get());
  desk.store.change(state => withThread(state, key, thread => switched(thread, exchange, by)));
  keepChosen(currentThread(desk.store.get()));
}
