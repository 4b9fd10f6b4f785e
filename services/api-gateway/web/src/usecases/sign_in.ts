/**
 * Signing in by the printed link. Its code is taken out of the address before anything else happens, is posted once, and
 * is kept nowhere: the cookie that comes back is HttpOnly, so this page never holds a secret.
 */

import { forgetTexts } from '../state/keeping.ts';
import { routeOf } from '../state/route.ts';
import { currentThread, START } from '../state/store.ts';
import * as api from '../wire/api.ts';
import { type Problem, Refused } from '../wire/http.ts';
import { type Desk, notify, tell } from './desk.ts';
import { stopFollowing } from './follow_runs.ts';
import { refreshSessions } from './list_sessions.ts';
import { openThread, refreshThread, sessionInAddress, showInAddress } from './open_thread.ts';

function takeCode(shown: string | null): string | null {
  const code = /^#code=(.+)$/.exec(location.hash)?.[1];
  if (code === undefined) return null;
  showInAddress(shown, 'replace');
  return code;
}

/** Who the cookie says we are; shows the sign-in page when it says nothing. */
async function recognise(desk: Desk, linkFailed: boolean): Promise<void> {
  try {
    const identity = await api.me();
    desk.store.change(state => ({ ...state, who: { kind: 'signed-in', identity } }));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const { problem } = error;
    desk.store.change(state => ({
      ...state,
      who:
        problem.status === 401
          ? { kind: 'signed-out', why: linkFailed ? 'bad-link' : 'no-cookie' }
          : { kind: 'unreachable', problem },
    }));
  }
}

/** The problem of a link that did not work, or null. */
async function useCode(code: string, replace: boolean): Promise<Problem | null> {
  try {
    await api.signIn(code, replace);
    return null;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return error.problem; // a used link does no harm to somebody who is signed in already
  }
}

/** Leave this browser: nothing of what was typed or chosen in it stays. */
export function leave(desk: Desk): void {
  stopFollowing(desk);
  forgetTexts();
  desk.store.change(state => ({ ...START, online: state.online, who: { kind: 'signed-out', why: 'left' } }));
}

export async function signOut(desk: Desk): Promise<void> {
  try {
    await api.signOut();
  } catch (error) {
    notify(desk, error);
    return;
  }
  tell(desk, { kind: 'signed-out' });
  leave(desk);
}

/** Sign in if the address has a code, find out who we are, and show what the address names. */
export async function enter(desk: Desk): Promise<void> {
  const shown = currentThread(desk.store.get()).sessionId;
  const code = takeCode(shown);
  const problem = code === null ? null : await useCode(code, false);
  if (code !== null && problem?.status === 409) {
    desk.store.change(state => ({ ...state, who: { kind: 'other-person', code, problem } }));
    return;
  }
  if (code !== null && problem === null) tell(desk, { kind: 'signed-in' });
  await stay(desk, problem !== null);
}

/** Sign in as the person of the link, and start the page and the other tabs again: they show another person's data. */
export async function changePerson(desk: Desk, code: string): Promise<void> {
  if ((await useCode(code, true)) !== null) return stay(desk, true);
  tell(desk, { kind: 'changed-person' });
  location.assign('/');
}

/** Find out who we are, and show what the address names. */
export async function stay(desk: Desk, linkFailed = false): Promise<void> {
  const shown = currentThread(desk.store.get()).sessionId;
  await recognise(desk, linkFailed);
  if (desk.store.get().who.kind !== 'signed-in') return;
  const route = routeOf(location.hash);
  desk.store.change(state => ({ ...state, route }));
  const wanted = sessionInAddress();
  // Who is here already, with a message on its way perhaps, stays where they are.
  const thread =
    wanted === shown || route.page !== 'chat' ? refreshThread(desk) : openThread(desk, wanted, 'replace');
  await Promise.all([refreshSessions(desk), thread]);
}
