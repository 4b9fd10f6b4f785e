/** What happens outside the page: other tabs, the network, the address, the window coming back to the front. */

import { exchangeOfAccepted } from '../state/accepted.ts';
import { routeOf } from '../state/route.ts';
import { withNotice, withThread } from '../state/store.ts';
import type { Thread } from '../state/thread.ts';
import type { Desk, News } from './desk.ts';
import { followRuns } from './follow_runs.ts';
import { refreshSessions } from './list_sessions.ts';
import { forgetSession, openThread, refreshThread, sessionInAddress } from './open_thread.ts';
import { enter, leave } from './sign_in.ts';

function withAsked(thread: Thread, news: News & { kind: 'asked' }): Thread {
  if (thread.live.some(({ requestId }) => requestId === news.requestId)) return thread;
  return { ...thread, live: [...thread.live, exchangeOfAccepted(news)] };
}

async function hear(desk: Desk, news: News): Promise<void> {
  if (news.kind === 'changed-person') return location.assign('/');
  if (news.kind === 'signed-in') {
    if (desk.store.get().who.kind !== 'signed-in') await enter(desk);
    return;
  }
  if (desk.store.get().who.kind !== 'signed-in') return;
  if (news.kind === 'signed-out') return leave(desk);
  if (news.kind === 'deleted') return forgetSession(desk, news.sessionId);
  const thread = desk.store.get().threads.find(({ sessionId }) => sessionId === news.sessionId);
  if (news.kind === 'asked' && thread !== undefined) {
    desk.store.change(state => withThread(state, thread.key, found => withAsked(found, news)));
    followRuns(desk);
  }
  await refreshSessions(desk);
  if (thread?.key === desk.store.get().current) await refreshThread(desk);
}

async function comeBack(desk: Desk): Promise<void> {
  if (document.visibilityState !== 'visible' || desk.store.get().who.kind !== 'signed-in') return;
  await refreshSessions(desk);
  await refreshThread(desk);
}

async function followAddress(desk: Desk): Promise<void> {
  const route = routeOf(location.hash);
  if (location.hash.startsWith('#code=')) await enter(desk);
  else if (route.page === 'chat') await openThread(desk, sessionInAddress(), 'replace');
  else desk.store.change(state => ({ ...state, route }));
}

/** A fault of this page itself: told once, in words, instead of a page that has silently stopped. */
function admit(desk: Desk, event: PromiseRejectionEvent): void {
  const detail = `Reload the page; nothing that was sent is lost. (${String(event.reason).slice(0, 200)})`;
  const problem = { title: 'Something in this page went wrong', detail, status: 0, traceId: null };
  desk.store.change(state => withNotice(state, problem));
}

export function listen(desk: Desk): void {
  const online = (): void => desk.store.change(state => ({ ...state, online: navigator.onLine }));
  addEventListener('online', online);
  addEventListener('offline', online);
  online();
  addEventListener('unhandledrejection', event => admit(desk, event));
  addEventListener('popstate', () => void followAddress(desk));
  document.addEventListener('visibilitychange', () => void comeBack(desk));
  desk.tabs.addEventListener('message', event => void hear(desk, event.data as News));
}
