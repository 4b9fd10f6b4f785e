/** The list of conversations: read, page, rename, delete. */

import { withNotice } from '../state/store.ts';
import type { Session } from '../wire/api.ts';
import * as api from '../wire/api.ts';
import { type Desk, notify, problemOf, tell } from './desk.ts';

const updated = (session: Session): number => Date.parse(session.updated_at);

/** Newest first; `added` replaces what was known of the same session. */
function merged(known: readonly Session[], added: readonly Session[]): readonly Session[] {
  const byId = new Map([...known, ...added].map(session => [session.session_id, session]));
  return [...byId.values()].sort((a, b) => updated(b) - updated(a));
}

/**
 * Read the newest page again. What the page shows beyond it stays; what is missing from the page's own span was deleted
 * elsewhere, unless it is younger than the answer.
 */
export async function refreshSessions(desk: Desk): Promise<void> {
  const young = Date.now() - 30_000;
  try {
    const { sessions, next } = await api.listSessions(null);
    const last = sessions.at(-1);
    const oldest = next === null || last === undefined ? 0 : updated(last);
    desk.store.change(state => {
      const beyond = state.sessions.filter(known => updated(known) > young || updated(known) < oldest);
      const more = state.moreSessions === 'unknown' || next === null ? next : state.moreSessions;
      return { ...state, sessions: merged(beyond, sessions), moreSessions: more, sessionsProblem: null };
    });
  } catch (error) {
    const problem = problemOf(desk, error);
    desk.store.change(state => ({ ...state, sessionsProblem: problem }));
  }
}

export async function loadMoreSessions(desk: Desk): Promise<void> {
  const before = desk.store.get().moreSessions;
  if (before === null || before === 'unknown') return;
  try {
    const { sessions, next } = await api.listSessions(before);
    desk.store.change(state => ({
      ...state,
      sessions: merged(state.sessions, sessions),
      moreSessions: next,
    }));
  } catch (error) {
    notify(desk, error);
  }
}

/** The conversations in which the words were said; null where the search was left or refused. */
export async function searchSaid(
  desk: Desk,
  words: string,
  signal: AbortSignal,
): Promise<readonly Session[] | null> {
  try {
    return (await api.searchSessions(words, signal)).sessions;
  } catch (error) {
    if (!signal.aborted) notify(desk, error);
    return null;
  }
}

/** Show a conversation in the list before the server lists it. */
export function listEarly(desk: Desk, sessionId: string, title: string): void {
  const now = new Date().toISOString();
  desk.store.change(state => {
    const known = state.sessions.find(session => session.session_id === sessionId);
    const session: Session = {
      session_id: sessionId,
      title: title.trim().split('\n')[0]?.slice(0, 80) ?? '',
      agent: null,
      created_at: now,
      active_request_id: null,
      ...known,
      updated_at: now,
    };
    return { ...state, sessions: merged(state.sessions, [session]) };
  });
}

export async function renameSession(desk: Desk, session: Session, title: string): Promise<void> {
  const show = (text: string | null): void =>
    desk.store.change(state => ({
      ...state,
      sessions: state.sessions.map(old =>
        old.session_id === session.session_id ? { ...old, title: text } : old,
      ),
    }));
  show(title);
  try {
    await api.renameSession(session.session_id, title);
    tell(desk, { kind: 'changed', sessionId: session.session_id });
  } catch (error) {
    show(session.title);
    notify(desk, error);
  }
}

/** True once it is gone; a conversation that somebody else deleted is gone too. */
export async function deleteSession(desk: Desk, session: Session): Promise<boolean> {
  try {
    await api.deleteSession(session.session_id);
  } catch (error) {
    const problem = problemOf(desk, error);
    if (problem.status !== 404) {
      desk.store.change(state => withNotice(state, problem));
      return false;
    }
  }
  tell(desk, { kind: 'deleted', sessionId: session.session_id });
  return true;
}
