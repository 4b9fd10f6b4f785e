import { describe, expect, it } from 'vitest';
import { announce, type Told } from '../src/state/announce.ts';
import { ageOf, dayOf, durationOf } from '../src/state/dates.ts';
import { draftText, keepDraftText, moveDraft, sendDraft, settleDraft } from '../src/state/drafts.ts';
import { advance, QUEUED, type Run } from '../src/state/run.ts';
import type { Frame } from '../src/wire/frames.ts';
import { ANSWER, begun, failed, finished, reset, STORY, started, text } from './story.ts';

function hear(frames: readonly Frame[]): readonly string[] {
  let run: Run = QUEUED;
  let told: Told | undefined;
  const heard: string[] = [];
  for (const frame of frames) {
    run = advance(run, frame, 0);
    const news = announce(run, told);
    told = news.told;
    heard.push(...news.say);
  }
  return heard;
}

describe('what a screen reader is told', () => {
  it('is whole paragraphs, not tokens, and each once', () => {
    const words = 'One **bold**\n\nparagraph, and\n\nanother'.split(/(?<= )|(?<=\n)/);
    const frames = words.map((word, index) => text(`1-${index + 3}`, word));
    expect(hear([started('1-1'), begun('1-2'), ...frames, finished('2-0', words.join(''))])).toEqual([
      'Flotilla is answering.',
      'One  bold',
      'paragraph, and',
      'another',
      'The answer is complete.',
    ]);
  });

  it('names tools, and the end of a story with a restart', () => {
    const heard = hear(STORY);
    expect(heard).toContain('Using clock.now.');
    expect(heard.at(-1)).toBe('The answer is complete.');
    expect(heard.filter(line => line.includes('Let me look'))).toHaveLength(1);
    expect(heard.join(' ')).toContain(ANSWER.slice(-5));
  });

  it('is nothing of an answer that was there before', () => {
    const run = STORY.reduce((so, frame) => advance(so, frame, 0), QUEUED);
    expect(announce(run, undefined).say).toEqual([]);
  });

  it('goes on after a restart with what replaces the void words', () => {
    const frames = [
      started('1-1'),
      begun('1-2'),
      text('1-3', 'First.\n\nSecond'),
      reset('2-1'),
      begun('2-2', 'm2'),
    ];
    const heard = hear([...frames, text('2-3', 'F', 'm2'), failed('3-0', 'internal')]);
    expect(heard).toEqual(['Flotilla is answering.', 'First.', 'F', 'No answer was made.']);
  });
});

const nobody = (): boolean => false;

describe('drafts', () => {
  it('are kept for each conversation', () => {
    keepDraftText('a', 'for a');
    keepDraftText(null, 'for a new one');
    expect([draftText('a', nobody), draftText(null, nobody), draftText('b', nobody)]).toEqual([
      'for a',
      'for a new one',
      '',
    ]);
  });

  it('that were sent go out with the same key until they are accepted', () => {
    const key = sendDraft('c', 'hello');
    expect(sendDraft('c', 'hello')).toBe(key);
    expect(sendDraft('c', 'hello there')).not.toBe(key);
    const last = sendDraft('c', 'hello');
    settleDraft('c', last);
    expect(sendDraft('c', 'hello')).not.toBe(last);
  });

  it('that were sent and not accepted are there after a reload, unless the page shows them', () => {
    const key = sendDraft('d', 'on its way');
    expect(draftText('d', nobody)).toBe('on its way');
    expect(draftText('d', shown => shown === key)).toBe('');
    settleDraft('d', key);
    expect(draftText('d', nobody)).toBe('');
  });

  it('in the box stay there when something else is sent', () => {
    keepDraftText('f', 'half a thought');
    sendDraft('f', 'What time is it?');
    expect(draftText('f', nobody)).toBe('half a thought');
  });

  it('typed before a conversation had its id go with it', () => {
    keepDraftText(null, 'meanwhile');
    moveDraft('e');
    expect([draftText('e', nobody), draftText(null, nobody)]).toEqual(['meanwhile', '']);
  });
});

describe('dates', () => {
  const now = new Date(2026, 10, 20, 0, 30);
  it('are told by calendar days, not by hours', () => {
    expect(ageOf(new Date(2026, 10, 20, 0, 5), now)).toBe('Today');
    expect(ageOf(new Date(2026, 10, 19, 23, 55), now)).toBe('Yesterday');
    expect(ageOf(new Date(2026, 10, 13, 9), now)).toBe('Previous 7 days');
    expect(ageOf(new Date(2026, 10, 12, 9), now)).toBe('Older');
    expect(dayOf(new Date(2025, 0, 1), now)).toContain('2025');
  });

  it('of a clock that runs ahead are today', () => {
    expect(ageOf(new Date(2026, 10, 21), now)).toBe('Today');
  });

  it('have durations in the unit that fits', () => {
    expect([38, 1900, 125_000, 10_124_000].map(durationOf)).toEqual([
      '38 ms',
      '1.9 s',
      '2 min 5 s',
      '2 h 48 min',
    ]);
  });
});
