/** What the use cases share: the state, the runs that are being followed, and the other tabs of this browser. */

import { createStore, type Store, withNotice } from '../state/store.ts';
import { type Problem, Refused } from '../wire/http.ts';

/** What a tab tells the others. */
export type News =
  | { readonly kind: 'signed-in' }
  | { readonly kind: 'signed-out' }
  | { readonly kind: 'changed-person' }
  | { readonly kind: 'changed'; readonly sessionId: string }
  | { readonly kind: 'deleted'; readonly sessionId: string }
  | {
      readonly kind: 'asked';
      readonly sessionId: string;
      readonly requestId: string;
      readonly question: string;
      readonly askedAt: string;
      readonly after: string | null;
    };

export interface Desk {
  readonly store: Store;
  /** By request id. */
  readonly followers: Map<string, AbortController>;
  /** By thread key: sends of one conversation go out one after the other. */
  readonly sending: Map<string, Promise<void>>;
  readonly tabs: BroadcastChannel;
}

export function createDesk(): Desk {
  return {
    store: createStore(),
    followers: new Map(),
    sending: new Map(),
    tabs: new BroadcastChannel('flotilla'),
  };
}

export function tell(desk: Desk, news: News): void {
  desk.tabs.postMessage(news);
}

/** The problem of a refused call; anything else is a fault of this page and rises. A 401 also signs the page out. */
export function problemOf(desk: Desk, error: unknown): Problem {
  if (!(error instanceof Refused)) throw error;
  if (error.problem.status === 401) {
    desk.store.change(state => ({ ...state, who: { kind: 'signed-out', why: 'no-cookie' } }));
  }
  return error.problem;
}

/** Tell the person about a refused call that has no place of its own on the page. */
export function notify(desk: Desk, error: unknown): void {
  const problem = problemOf(desk, error);
  if (problem.status !== 401) desk.store.change(state => withNotice(state, problem));
}

const RETRY_NOW = 'flotilla:retry-now';

/** End every pause before another try, because a person does not want to wait. */
export function retryNow(): void {
  dispatchEvent(new Event(RETRY_NOW));
}

/** Waits, but not once the network is back or a person is impatient: then it is worth trying at once. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      clearTimeout(timer);
      removeEventListener('online', done);
      removeEventListener(RETRY_NOW, done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener('online', done);
    addEventListener(RETRY_NOW, done);
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  });
}
