import { describe, expect, it } from 'vitest';
import { exchangesOf, lastSaid, newestRequest, shownIn, switched, withAsked } from '../src/state/branches.ts';
import { QUEUED } from '../src/state/run.ts';
import { type Exchange, newThread, type Thread, withMessages } from '../src/state/thread.ts';
import type { Message } from '../src/wire/api.ts';

/** A turn that was asked and answered. */
function turn(number: number, after: number, question = `q${number}`): readonly Message[] {
  const shared = {
    turn: number,
    after_turn: after,
    request_id: `r${number}`,
    status: 'completed' as const,
    created_at: '2026-11-20T10:00:00Z',
  };
  const answer = { type: 'text' as const, id: `m${number}`, text: `a${number}` };
  return [
    { ...shared, id: `r${number}:user`, role: 'user', content: question },
    { ...shared, id: `r${number}:assistant`, role: 'assistant', content: answer.text, parts: [answer] },
  ];
}

function asked(key: string, after: string | null, insteadOf: string | null = null): Exchange {
  return {
    key,
    requestId: null,
    after,
    insteadOf,
    question: key,
    askedAt: null,
    run: QUEUED,
    delivery: 'sending',
    sentAs: null,
    problem: null,
    details: null,
  };
}

function talk(...turns: readonly (readonly Message[])[]): Thread {
  return withMessages(newThread('s', 's'), turns.flat());
}

const shown = (thread: Thread): readonly string[] =>
  shownIn(thread).map(({ exchange, place }) =>
    place.of === 1 ? `${exchange.question}` : `${exchange.question} ${place.number}/${place.of}`,
  );

/** q1, q2, then q2 again as turn 3, and q4 after that. */
const FORKED = talk(turn(1, 0), turn(2, 1), turn(3, 1, 'q2'), turn(4, 3));

describe('branches', () => {
  it('are none in a plain conversation', () => {
    expect(shown(talk(turn(1, 0), turn(2, 1), turn(3, 2)))).toEqual(['q1', 'q2', 'q3']);
  });

  it('show the newest one, and how many there are', () => {
    expect(shown(FORKED)).toEqual(['q1', 'q2 2/2', 'q4']);
  });

  it('can be switched there and back', () => {
    const second = exchangesOf(FORKED)[1] as Exchange;
    const older = switched(FORKED, second, -1);
    expect(shown(older)).toEqual(['q1', 'q2 1/2']);
    expect(shown(switched(older, exchangesOf(older)[1] as Exchange, 1))).toEqual(['q1', 'q2 2/2', 'q4']);
    expect(switched(FORKED, second, 1)).toBe(FORKED);
  });

  it('begin at the first question too', () => {
    expect(shown(talk(turn(1, 0), turn(2, 1), turn(3, 0, 'other')))).toEqual(['other 2/2']);
  });

  it('show what is asked again at once, whatever was chosen there', () => {
    const older = switched(FORKED, exchangesOf(FORKED)[1] as Exchange, -1);
    const again = withAsked(older, asked('q2 again', 'r1', 'r2'));
    expect(shown(again)).toEqual(['q1', 'q2 again 3/3']);
  });

  it('go on where a person reads, also in an older one', () => {
    const older = switched(FORKED, exchangesOf(FORKED)[1] as Exchange, -1);
    expect(lastSaid(older)?.requestId).toBe('r2');
    expect(newestRequest(older, 'next')).toBe('r4');
    const next = withAsked(older, asked('next', 'r2'));
    expect(shown(next)).toEqual(['q1', 'q2 1/2', 'next']);
  });

  it('are not made by a page of messages that is not loaded yet', () => {
    const late = talk(turn(5, 4), turn(6, 5), turn(7, 2, 'q3'), turn(8, 7));
    expect(shown(late)).toEqual(['q3', 'q8']);
    const later = talk(turn(5, 4), turn(6, 5));
    expect(shown(later)).toEqual(['q5', 'q6']);
  });

  it('show what another tab asked behind something that is not here', () => {
    const thread = talk(turn(1, 0));
    const known = { ...thread, live: [asked('from elsewhere', 'a key of another tab')] };
    expect(shown(known)).toEqual(['q1', 'from elsewhere']);
  });
});
