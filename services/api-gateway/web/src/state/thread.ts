/**
 * A conversation as the page shows it: exchanges, each a question and the run that answers it. What the server keeps
 * (messages) and what goes on here (live runs with their tool calls) are laid over each other by request id. Exchanges
 * form a tree, because a question that is asked again or edited begins a branch; `branches.ts` finds what is shown.
 */

import type { Message, MessagePart, NewChat, Status } from '../wire/api.ts';
import type { Problem } from '../wire/http.ts';
import { type Failure, hasEnded, type Part, QUEUED, type Run, type RunStatus } from './run.ts';

/** What a person may want to know of an answer that the server keeps. */
export interface Details {
  readonly agent: string | null;
  readonly revision: string | null;
  readonly models: readonly string[];
  readonly inputTokens: number | null;
  readonly outputTokens: number | null;
  readonly startedAt: string | null;
  readonly endedAt: string;
}

export interface Exchange {
  /** The idempotency key of what was sent here, otherwise the request id. */
  readonly key: string;
  readonly requestId: string | null;
  /** The name of the exchange that this one follows; null at the beginning. */
  readonly after: string | null;
  /** The request in whose place this one was asked, while it is being sent. */
  readonly insteadOf: string | null;
  /** Null when the page of messages that has it is not there yet. */
  readonly question: string | null;
  readonly askedAt: string | null;
  readonly run: Run;
  readonly delivery: 'sending' | 'sent' | 'refused';
  /** The body that was sent with the key; null before that, and for what was not sent here. */
  readonly sentAs: NewChat | null;
  readonly problem: Problem | null;
  readonly details: Details | null;
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
  /** The branch that a person chose, by the name of the exchange before it ('' at the beginning). */
  readonly chosen: Readonly<Record<string, string>>;
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
    chosen: {},
  };
}

/** The name of a turn on a page of messages that is not here yet. */
export function notLoaded(turn: number): string {
  return `turn ${turn}`;
}

/** The name of an exchange in `after` and in `chosen`. */
export function nameOf(exchange: Exchange): string {
  return exchange.requestId ?? exchange.key;
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

function recallPart(part: MessagePart): Part {
  if (part.type !== 'tool') return { kind: part.type, id: part.id, text: part.text };
  return {
    kind: 'tool',
    id: part.id,
    name: part.name,
    args: part.arguments,
    result: part.result ?? null,
    failed: part.failed,
    milliseconds: part.milliseconds ?? null,
  };
}

/** A server of before has no parts: its answer is one text, and in the place of an answer it has the reason. */
function partsOf(answer: Message | undefined, status: RunStatus): readonly Part[] {
  if (answer?.parts !== undefined) return answer.parts.map(recallPart);
  if (answer === undefined || status !== 'done') return [];
  return [{ kind: 'text', id: answer.id, text: answer.content }];
}

function failureOf(last: Message, answer: Message | undefined): Failure {
  const said = answer?.parts === undefined ? answer?.content : undefined;
  return {
    code: answer?.error?.reason ?? last.status,
    message: answer?.error?.message ?? said ?? NOTICES[last.status] ?? '',
  };
}

function recall(last: Message, answer: Message | undefined): Run {
  const status = OUTCOMES[last.status];
  // Finished, yet without its answer here: the run's own stream has it, so it is followed like a running one.
  if (status === 'queued' || status === 'running' || (status === 'done' && answer === undefined)) {
    return { ...QUEUED, status: status === 'queued' ? 'queued' : 'running' };
  }
  return {
    ...QUEUED,
    status,
    endedAt: Date.parse(last.created_at),
    truncated: answer?.truncated ?? null,
    parts: partsOf(answer, status),
    failure: status === 'done' ? null : failureOf(last, answer),
  };
}

function detailsOf(answer: Message | undefined): Details | null {
  if (answer === undefined) return null;
  return {
    agent: answer.agent ?? null,
    revision: answer.revision ?? null,
    models: answer.models ?? [],
    inputTokens: answer.usage?.input_tokens ?? null,
    outputTokens: answer.usage?.output_tokens ?? null,
    startedAt: answer.started_at ?? null,
    endedAt: answer.created_at,
  };
}

function exchangeOf(messages: readonly Message[], byTurn: ReadonlyMap<number, string>): Exchange | null {
  const question = messages.find(message => message.role === 'user');
  const answer = messages.find(message => message.role === 'assistant');
  const last = answer ?? question;
  if (last === undefined) return null;
  const turn = last.after_turn ?? last.turn - 1;
  return {
    key: last.request_id,
    requestId: last.request_id,
    after: turn === 0 ? null : (byTurn.get(turn) ?? notLoaded(turn)),
    insteadOf: null,
    question: question?.content ?? null,
    askedAt: question?.created_at ?? null,
    run: recall(last, answer),
    delivery: 'sent',
    sentAs: null,
    problem: null,
    details: detailsOf(answer),
  };
}

/** What the server keeps of an ended run is the truth; only what the page itself knows of it stays. */
function settled(live: Exchange, stored: Exchange | undefined): Exchange {
  if (stored === undefined || !hasEnded(stored.run) || !hasEnded(live.run)) return live;
  const run: Run = { ...live.run, ...stored.run, cursor: live.run.cursor, endedAt: live.run.endedAt };
  const fresh: Exchange = { ...live, run, after: stored.after, details: stored.details };
  return JSON.stringify(fresh) === JSON.stringify(live) ? live : fresh;
}

/** Add pages of messages, whatever was there before, and group them by request in the order of their turns. */
export function withMessages(thread: Thread, added: readonly Message[]): Thread {
  const byId = new Map([...thread.messages, ...added].map(message => [message.id, message]));
  const messages = [...byId.values()].sort(
    (a, b) => a.turn - b.turn || Number(a.role === 'assistant') - Number(b.role === 'assistant'),
  );
  const byTurn = new Map(messages.map(({ turn, request_id }) => [turn, request_id]));
  const groups = new Map<string, Message[]>();
  for (const message of messages) {
    groups.set(message.request_id, [...(groups.get(message.request_id) ?? []), message]);
  }
  const known = new Map(thread.history.map(exchange => [exchange.key, exchange]));
  const history = [...groups.values()].flatMap(group => {
    const fresh = exchangeOf(group, byTurn);
    if (fresh === null) return [];
    const old = known.get(fresh.key);
    // What did not change stays the same object: the page draws it once.
    return [old !== undefined && JSON.stringify(old) === JSON.stringify(fresh) ? old : fresh];
  });
  const stored = new Map(history.map(exchange => [exchange.key, exchange]));
  const live = thread.live.map(exchange => settled(exchange, stored.get(exchange.requestId ?? '')));
  return { ...thread, messages, history, live };
}

/** Runs of the history that go on become live, so that they are followed. */
export function withRunsGoingOn(thread: Thread): Thread {
  const followed = new Set(thread.live.map(exchange => exchange.requestId));
  const found = thread.history.filter(({ run, requestId }) => !hasEnded(run) && !followed.has(requestId));
  return found.length === 0 ? thread : { ...thread, live: [...thread.live, ...found] };
}

/** All exchanges of all branches, oldest first. A live exchange stands in for the stored one of the same request. */
export function allExchanges(thread: Thread): readonly Exchange[] {
  const live = new Map(thread.live.map(exchange => [nameOf(exchange), exchange]));
  const stored = thread.history.map(exchange => {
    const standIn = live.get(exchange.key);
    live.delete(exchange.key);
    return standIn ?? exchange;
  });
  return [...stored, ...live.values()];
}

/** The oldest run that has not ended: the one that Stop stops. */
export function currentRun(thread: Thread): Exchange | null {
  return (
    allExchanges(thread).find(exchange => exchange.delivery === 'sent' && !hasEnded(exchange.run)) ?? null
  );
}

export function withExchange(thread: Thread, key: string, change: (exchange: Exchange) => Exchange): Thread {
  return {
    ...thread,
    live: thread.live.map(exchange => (exchange.key === key ? change(exchange) : exchange)),
  };
}
