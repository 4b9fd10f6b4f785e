/** Send a message, try again what was refused, and stop what runs. */

import { noteAccepted } from '../state/accepted.ts';
import { lastSaid, newestRequest, withAsked } from '../state/branches.ts';
import { moveDraft, settleDraft } from '../state/drafts.ts';
import { QUEUED } from '../state/run.ts';
import { currentThread, withThread } from '../state/store.ts';
import { type Exchange, nameOf, type Thread, withExchange } from '../state/thread.ts';
import { cancelRequest, type NewChat, startChat } from '../wire/api.ts';
import { delayBefore } from '../wire/follow.ts';
import { Refused } from '../wire/http.ts';
import { type Desk, notify, pause, problemOf, tell } from './desk.ts';
import { followRuns } from './follow_runs.ts';
import { listEarly, refreshSessions } from './list_sessions.ts';
import { showInAddress } from './open_thread.ts';

/** How often a message is sent by itself: for half a minute in all, then the person decides. */
const ATTEMPTS = 8;
const NO_ANSWER_AFTER = 30_000;
const LONG = 60_000;

/** The same key each time: whatever was lost on the way, the server makes one request of it. */
async function post(desk: Desk, body: NewChat, key: string): Promise<Response> {
  for (let failures = 0; ; failures += navigator.onLine ? 1 : 0) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(new DOMException('', 'TimeoutError')), NO_ANSWER_AFTER);
    try {
      return await startChat(body, key, controller.signal);
    } catch (error) {
      if (!(error instanceof Refused) || !error.passing || failures + 1 === ATTEMPTS) throw error;
      desk.store.change(state => ({ ...state, connection: 'lost' }));
      // Offline nothing is worth a try, and the pause ends when that does.
      const wait = navigator.onLine ? delayBefore(failures, null, error.retryAfter, Math.random) : LONG;
      await pause(wait, new AbortController().signal);
    } finally {
      clearTimeout(timer);
    }
  }
}

function accepted(desk: Desk, thread: string, exchange: Exchange, response: Response): void {
  const requestId = response.headers.get('Flotilla-Execution-Id');
  const sessionId = response.headers.get('Flotilla-Session-Id');
  if (requestId === null || sessionId === null) {
    throw new Refused({
      title: 'The answer cannot be followed',
      detail:
        'The server sent no Flotilla-Execution-Id or Flotilla-Session-Id header. Is a proxy removing them?',
      status: response.status,
      traceId: null,
    });
  }
  const question = exchange.question ?? '';
  const before = desk.store.get().threads.find(({ key }) => key === thread)?.sessionId ?? null;
  settleDraft(before, exchange.key);
  if (before === null) moveDraft(sessionId);
  desk.store.change(state =>
    withThread({ ...state, connection: 'good' }, thread, found => ({
      ...withExchange(found, exchange.key, old => ({ ...old, requestId, delivery: 'sent', problem: null })),
      sessionId,
      phase: 'ready',
    })),
  );
  if (desk.store.get().current === thread) showInAddress(sessionId, 'replace');
  listEarly(desk, sessionId, question);
  const askedAt = exchange.askedAt ?? new Date().toISOString();
  const asked = desk.store.get().threads.find(({ key }) => key === thread);
  const after = asked === undefined ? exchange.after : requestOf(asked, exchange.after);
  const note = { requestId, question, askedAt, after };
  noteAccepted(sessionId, note);
  tell(desk, { kind: 'asked', sessionId, ...note });
  followRuns(desk, { requestId, response });
}

/** The request behind a name; what was never accepted is passed over. */
function requestOf(thread: Thread, name: string | null): string | null {
  const live = thread.live.find(({ key, requestId }) => key === name || requestId === name);
  if (live === undefined) return name;
  return live.requestId ?? requestOf(thread, live.after);
}

/** Where a question stands among the others, in the words of the API; what follows the newest request says nothing. */
function placeOf(thread: Thread | undefined, exchange: Exchange): Partial<NewChat> {
  if (!thread?.sessionId) return {};
  const session = { session_id: thread.sessionId };
  if (exchange.insteadOf !== null) return { ...session, instead_of: exchange.insteadOf };
  const before = requestOf(thread, exchange.after);
  if (before === null || before === newestRequest(thread, exchange.key)) return session;
  return { ...session, after: before };
}

async function deliver(desk: Desk, thread: string, exchange: Exchange): Promise<void> {
  const found = desk.store.get().threads.find(({ key }) => key === thread);
  // The key belongs to these words in this place: tried again, they are the same, whatever was asked meanwhile.
  const body = exchange.sentAs ?? { content: exchange.question ?? '', ...placeOf(found, exchange) };
  desk.store.change(state =>
    withThread(state, thread, kept => withExchange(kept, exchange.key, old => ({ ...old, sentAs: body }))),
  );
  try {
    accepted(desk, thread, exchange, await post(desk, body, exchange.key));
  } catch (error) {
    const problem = problemOf(desk, error);
    // Refused for good: the words are still in the exchange, so the draft need not keep them.
    if (problem.status >= 400 && problem.status < 500 && problem.status !== 401) {
      settleDraft(found?.sessionId ?? null, exchange.key);
    }
    desk.store.change(state =>
      withThread({ ...state, connection: 'good' }, thread, kept =>
        withExchange(kept, exchange.key, old => ({ ...old, delivery: 'refused', problem })),
      ),
    );
  }
}

/** One after the other: the first message of a conversation is what gives it its id. */
function inTurn(desk: Desk, thread: string, exchange: Exchange): Promise<void> {
  const sent = (desk.sending.get(thread) ?? Promise.resolve()).then(() => deliver(desk, thread, exchange));
  desk.sending.set(thread, sent);
  return sent.then(() => refreshSessions(desk));
}

/**
 * Ask a question after what is shown, or in the place of another one.
 *
 * @param key the idempotency key; one per message that a person means to send.
 */
export async function ask(
  desk: Desk,
  question: string,
  key: string,
  replaced: Exchange | null = null,
): Promise<void> {
  const thread = currentThread(desk.store.get());
  const before = thread.live.find(exchange => exchange.key === key);
  if (before !== undefined) {
    // The same words once more: they are on their way, or they were refused and are meant to be tried again.
    if (before.delivery === 'refused') await sendAgain(desk, before);
    return;
  }
  const last = lastSaid(thread);
  const exchange: Exchange = {
    key,
    requestId: null,
    after: replaced !== null ? replaced.after : last === null ? null : nameOf(last),
    insteadOf: replaced?.requestId ?? null,
    question,
    askedAt: new Date().toISOString(),
    run: QUEUED,
    delivery: 'sending',
    sentAs: null,
    problem: null,
    details: null,
  };
  desk.store.change(state => withThread(state, thread.key, found => withAsked(found, exchange)));
  await inTurn(desk, thread.key, exchange);
}

export async function sendAgain(desk: Desk, exchange: Exchange): Promise<void> {
  const thread = currentThread(desk.store.get());
  desk.store.change(state =>
    withThread(state, thread.key, found =>
      withExchange(found, exchange.key, old => ({ ...old, delivery: 'sending', problem: null })),
    ),
  );
  await inTurn(desk, thread.key, exchange);
}

/** Ask for the run's end; the run itself says when it has ended. False when nobody took the wish. */
export async function stop(desk: Desk, requestId: string): Promise<boolean> {
  try {
    await cancelRequest(requestId);
    return true;
  } catch (error) {
    notify(desk, error);
    return false;
  }
}
