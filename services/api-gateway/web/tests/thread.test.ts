import { describe, expect, it } from 'vitest';
import { exchangesOf } from '../src/state/branches.ts';
import { hasEnded, QUEUED } from '../src/state/run.ts';
import {
  currentRun,
  type Exchange,
  newThread,
  type Thread,
  withExchange,
  withMessages,
  withRunsGoingOn,
} from '../src/state/thread.ts';
import type { Message, Status } from '../src/wire/api.ts';

function message(
  turn: number,
  role: Message['role'],
  status: Status = 'completed',
  content = `${role} ${turn}`,
): Message {
  const request_id = `r${turn}`;
  return {
    id: `${request_id}-${role}`,
    turn,
    role,
    content,
    request_id,
    status,
    created_at: '2026-11-20T10:00:00Z',
  };
}

const asked = (turn: number, status?: Status): Message => message(turn, 'user', status);
const told = (turn: number, status?: Status): Message => message(turn, 'assistant', status);

function live(
  key: string,
  requestId: string | null,
  question = 'live',
  after: string | null = null,
): Exchange {
  return {
    key,
    requestId,
    after,
    insteadOf: null,
    question,
    askedAt: null,
    run: QUEUED,
    delivery: 'sent',
    sentAs: null,
    problem: null,
    details: null,
  };
}

function shown(thread: Thread): readonly string[] {
  return exchangesOf(thread).map(({ question, run }) => {
    const answer = run.parts.map(part => (part.kind === 'tool' ? part.name : part.text)).join();
    return `${question} > ${answer || run.status}`;
  });
}

const EMPTY = newThread('s', 's');

describe('a conversation', () => {
  it('pairs questions with their answers', () => {
    const thread = withMessages(EMPTY, [asked(1), told(1), asked(2), told(2)]);
    expect(shown(thread)).toEqual(['user 1 > assistant 1', 'user 2 > assistant 2']);
  });

  it('joins pages that cut an exchange in two, in whatever order they come', () => {
    const late = withMessages(EMPTY, [told(2), asked(3), told(3)]);
    const all = withMessages(late, [asked(1), told(1), asked(2)]);
    expect(shown(all)).toEqual(['user 1 > assistant 1', 'user 2 > assistant 2', 'user 3 > assistant 3']);
  });

  it('shows a message once, however often it is read', () => {
    const once = withMessages(EMPTY, [asked(1), told(1)]);
    expect(shown(withMessages(once, [asked(1), told(1)]))).toHaveLength(1);
  });

  it('keeps the objects of what did not change, so that they are not drawn again', () => {
    const once = withMessages(EMPTY, [asked(1), told(1)]);
    expect(withMessages(once, [asked(1), told(1), asked(2)]).history[0]).toBe(once.history[0]);
  });

  it.each([
    ['accepted', 'queued'],
    ['running', 'running'],
    ['waiting', 'running'],
    ['failed', 'failed'],
    ['expired', 'failed'],
    ['refused', 'failed'],
    ['cancelled', 'stopped'],
    ['completed', 'running'],
  ] as const)('shows a question that is %s and has no answer as %s', (status, outcome) => {
    expect(withMessages(EMPTY, [asked(1, status)]).history[0]?.run.status).toBe(outcome);
  });

  it('says of a request that failed earlier that it did', () => {
    const run = withMessages(EMPTY, [asked(1, 'failed')]).history[0]?.run;
    expect(run?.failure?.message).toBe('Something went wrong and no answer was made.');
  });

  it('takes the reason that is kept in the place of an answer for a reason, not for an answer', () => {
    const why = message(1, 'assistant', 'failed', 'The model was not reached.');
    const run = withMessages(EMPTY, [asked(1, 'failed'), why]).history[0]?.run;
    expect([run?.parts, run?.failure]).toEqual([
      [],
      { code: 'failed', message: 'The model was not reached.' },
    ]);
  });
});

describe('runs that go on', () => {
  it('are found in the messages after a reload', () => {
    const thread = withRunsGoingOn(
      withMessages(EMPTY, [asked(1), told(1), asked(2, 'running'), asked(3, 'accepted')]),
    );
    expect(thread.live.map(({ requestId }) => requestId)).toEqual(['r2', 'r3']);
    expect(currentRun(thread)?.requestId).toBe('r2');
  });

  it('are taken up once', () => {
    const thread = withRunsGoingOn(withMessages(EMPTY, [asked(1, 'running')]));
    expect(withRunsGoingOn(thread)).toBe(thread);
  });

  it('stand in for what is stored of them, in their place', () => {
    const run = { ...QUEUED, status: 'running' as const };
    const known = {
      ...EMPTY,
      live: [{ ...live('key', 'r1', 'what I typed'), run }, live('other', null, 'live', 'r2')],
    };
    expect(shown(withMessages(known, [asked(1), told(1), asked(2), told(2)]))).toEqual([
      'what I typed > running',
      'user 2 > assistant 2',
      'live > queued',
    ]);
  });

  it('are not what has not been accepted', () => {
    const sending: Exchange = { ...live('key', null), delivery: 'sending' };
    expect(currentRun({ ...EMPTY, live: [sending] })).toBeNull();
  });

  it('are changed by their key alone', () => {
    const thread = { ...EMPTY, live: [live('a', 'r1'), live('b', 'r2')] };
    const ended = withExchange(thread, 'b', it => ({ ...it, run: { ...it.run, status: 'done' } }));
    expect(ended.live.map(({ run }) => hasEnded(run))).toEqual([false, true]);
    expect(ended.live[0]).toBe(thread.live[0]);
  });
});
