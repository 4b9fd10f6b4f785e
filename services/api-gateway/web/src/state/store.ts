/** The page's whole state: one immutable value, changed by plain functions, drawn at most once a frame. */

import type { Identity, Session } from '../wire/api.ts';
import type { Problem } from '../wire/http.ts';
import { CHAT, type Route } from './route.ts';
import { newThread, type Thread } from './thread.ts';

export type Who =
  | { readonly kind: 'checking' }
  | { readonly kind: 'signed-in'; readonly identity: Identity }
  | { readonly kind: 'signed-out'; readonly why: 'no-cookie' | 'bad-link' | 'left' }
  /** The link in the address is of another person than the one who is signed in. */
  | { readonly kind: 'other-person'; readonly code: string; readonly problem: Problem }
  | { readonly kind: 'unreachable'; readonly problem: Problem };

export interface Notice {
  readonly id: number;
  readonly problem: Problem;
}

export interface State {
  readonly who: Who;
  readonly route: Route;
  readonly sessions: readonly Session[];
  /** `unknown` until the first page is there; otherwise the cursor of the next page, or null. */
  readonly moreSessions: string | null | 'unknown';
  readonly sessionsProblem: Problem | null;
  readonly threads: readonly Thread[];
  /** Key of the thread that is shown. */
  readonly current: string;
  readonly connection: 'good' | 'lost';
  readonly online: boolean;
  readonly notices: readonly Notice[];
}

const FIRST = 'new-0';

export const START: State = {
  who: { kind: 'checking' },
  route: CHAT,
  sessions: [],
  moreSessions: 'unknown',
  sessionsProblem: null,
  threads: [newThread(FIRST)],
  current: FIRST,
  connection: 'good',
  online: true,
  notices: [],
};

export interface Store {
  get(): State;
  change(by: (state: State) => State): void;
  subscribe(listener: () => void): () => void;
}

export function createStore(initial: State = START): Store {
  let state = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => state,
    change(by) {
      const next = by(state);
      if (next === state) return;
      state = next;
      for (const listener of listeners) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export function currentThread(state: State): Thread {
  return state.threads.find(thread => thread.key === state.current) ?? newThread(state.current);
}

export function withThread(state: State, key: string, change: (thread: Thread) => Thread): State {
  return { ...state, threads: state.threads.map(thread => (thread.key === key ? change(thread) : thread)) };
}

let notices = 0;

export function withNotice(state: State, problem: Problem): State {
  notices += 1;
  return { ...state, notices: [...state.notices.slice(-2), { id: notices, problem }] };
}
