/**
 * A conversation as the page shows it: exchanges, each a question and the run that answers it. What the server keeps
 * (messages) and what goes on here (live runs with their tool calls) are laid over each other by request id.
 */

import type { Message, Status } from '../wire/api.ts';
import type { Problem } from '../wire/http.ts';
import { hasEnded, QUEUED, type Run, type RunStatus, type TextPart } from './run.ts';

export interface Exchange {
  /** The idempotency key of what was sent here, otherwise the request id. */
  readonly key: string;
  readonly requestId: string | null;
  /** Null when the page of messages that has it is not there yet. */
  readonly question: string | null;
  readonly askedAt: string | null;
  readonly run: Run;
  readonly delivery: 'sending' | 'sent' | 'refused';
  readonly problem: Problem | null;
}

export interface Thread {
  readonly key: string;
  readonly sessionId: string | null;
  readonly phase: 'new' | 'loading' | 'ready' | 'failed';
  readonly problem: Problem | null;
  readonly messages: readonly Message[];
  /** Where the page of messages before the first one begins, or null. */
  readonly earlier: string | null;
  readonly history: readonly Exchange[];
  readonly live: readonly Exchange[];
}

export function newThread(key: string, sessionId: string | null = null): Thread {
  return {
    key,
    sessionId,
    phase: sessionId === null ? 'new' : 'loading',
    problem: null,
    messages: [],
    earlier: null,
    history: [],
    live: [],
  };
}

const OUTCOMES: Record<Status, RunStatus> = {
  accepted: 'queued',
  running: 'running',
  waiting: 'running',
  completed: 'done',
  failed: 'failed',
  expired: 'failed',
  refused: 'failed',
  cancelled: 'stopped',
};

const NOTICES: Partial<Record<Status, string>> = {
  failed: 'Something went wrong and no answer was made.',
  expired: 'This request ran out of time.',
  refused: 'This request was not taken on.',
  cancelled: 'This request was cancelled.',
};

function recall(messages: readonly Message[]): Run {
  const last = messages.at(-1);
  const answers = messages.filter(message => message.role === 'assistant');
  if (last === undefined) return QUEUED;
  const status = OUTCOMES[last.status];
  // Finished, yet without its answer here: the run's own stream has it, so it is followed like a running one.
  if (status === 'queued' || status === 'running' || (status === 'done' && answers.length === 0)) {
    return { ...QUEUED, status: status === 'queued' ? 'queued' : 'running' };
  }
  const ended: Run = { ...QUEUED, status, endedAt: Date.parse(last.created_at) };
  if (status === 'done') {
    return {
      ...ended,
      truncated: answers.at(-1)?.truncated ?? null,
      parts: answers.map(({ id, content }): TextPart => ({ kind: 'text', id, text: content })),
    };
  }
  // What stands in for an answer that was not made says why.
  const message = answers.at(-1)?.content ?? NOTICES[last.status] ?? '';
  return { ...ended, failure: { code: last.status, message } };
}

function exchangeOf(requestId: string, messages: readonly Message[]): Exchange {
  const question = messages.find(message => message.role === 'user');
  return {
    key: requestId,
    requestId,
    question: question?.content ?? null,
    askedAt: question?.created_at ?? null,
    run: recall(messages),
    delivery: 'sent',
    problem: null,
  };
}

/** Add pages of messages, whatever was there before, and group them by request in the order of their turns. */
export function withMessages(thread: Thread, added: readonly Message[]): Thread {
  const byId = new Map([...thread.messages, ...added].map(message => [message.id, message]));
  const messages = [...byId.values()].sort(
    (a, b) => a.turn - b.turn || Number(a.role === 'assistant') - Number(b.role === 'assistant'),
  );
  const groups = new Map<string, Message[]>();
  for (const message of messages) {
    groups.set(message.request_id, [...(groups.get(message.request_id) ?? []), message]);
  }
  const known = new Map(thread.history.map(exchange => [exchange.key, exchange]));
  const history = [...groups].map(([requestId, group]) => {
    const fresh = exchangeOf(requestId, group);
    const old = known.get(requestId);
    // What did not change stays the same object: the page draws it once.
    return old !== undefined && JSON.stringify(old) === JSON.stringify(fresh) ? old : fresh;
  });
  return { ...thread, messages, history };
}

/** Runs of the history that go on become live, so that they are followed. */
export function withRunsGoingOn(thread: Thread): Thread {
  const followed = new Set(thread.live.map(exchange => exchange.requestId));
  const found = thread.history.filter(({ run, requestId }) => !hasEnded(run) && !followed.has(requestId));
  return found.length === 0 ? thread : { ...thread, live: [...thread.live, ...found] };
}

/** What is shown, oldest first. A live exchange stands in for the stored one of the same request. */
export function exchangesOf(thread: Thread): readonly Exchange[] {
  const live = new Map(thread.live.map(exchange => [exchange.requestId ?? exchange.key, exchange]));
  const shown = thread.history.map(stored => {
    const standIn = live.get(stored.key);
    live.delete(stored.key);
    return standIn ?? stored;
  });
  return [...shown, ...live.values()];
}

/** The oldest run that has not ended: the one that Stop stops. */
export function currentRun(thread: Thread): Exchange | null {
  return (
    exchangesOf(thread).find(exchange => exchange.delivery === 'sent' && !hasEnded(exchange.run)) ?? null
  );
}

export function withExchange(thread: Thread, key: string, change: (exchange: Exchange) => Exchange): Thread {
  return {
    ...thread,
    live: thread.live.map(exchange => (exchange.key === key ? change(exchange) : exchange)),
  };
}
