import { describe, expect, it } from 'vitest';
import { advance, type Part, QUEUED, type Run, textOf } from '../src/state/run.ts';
import type { Frame } from '../src/wire/frames.ts';
import {
  ANSWER,
  begun,
  failed,
  finished,
  frame,
  reset,
  resync,
  retrying,
  STORY,
  started,
  text,
} from './story.ts';

function play(frames: readonly Frame[], from: Run = QUEUED): Run {
  return frames.reduce((run, next) => advance(run, next, 0), from);
}

function shown(run: Run): readonly string[] {
  const show = (part: Part): string =>
    part.kind === 'text' ? part.text : `[${part.name} ${part.args} ${part.result}]`;
  return run.parts.map(show).filter(line => line !== '');
}

const WHOLE = ['Let me look.', '[clock.now {"zone":"UTC"} noon]', ANSWER];

describe('a run', () => {
  it('tells its whole story', () => {
    const run = play(STORY);
    expect(shown(run)).toEqual(WHOLE);
    expect(run.status).toBe('done');
    expect(textOf(run.parts)).toBe(`Let me look.\n\n${ANSWER}`);
  });

  it('tells the same story when it is resumed after any frame', () => {
    for (let cut = 0; cut <= STORY.length; cut += 1) {
      expect(play(STORY.slice(cut), play(STORY.slice(0, cut))), `resumed after ${cut} frames`).toEqual(
        play(STORY),
      );
    }
  });

  it('takes no frame twice, wherever a resumed stream begins again', () => {
    for (let cut = 0; cut <= STORY.length; cut += 1) {
      for (let back = 0; back <= cut; back += 1) {
        const run = play([...STORY.slice(0, cut), ...STORY.slice(cut - back)]);
        expect(shown(run), `cut after ${cut}, repeated ${back}`).toEqual(WHOLE);
      }
    }
  });

  it('ignores a frame that comes after a later one', () => {
    const run = play([started('1-1'), begun('1-2'), text('1-4', 'b'), text('1-3', 'a'), text('1-5', 'c')]);
    expect(shown(run)).toEqual(['bc']);
  });

  it('ignores what a worker that lost its run still says', () => {
    const run = play([...STORY.slice(0, 17), text('1-14', 'stale'), ...STORY.slice(17)]);
    expect(shown(run)).toEqual(WHOLE);
  });

  it('ends once', () => {
    const run = play([started('1-1'), finished('2-0', ''), text('2-1', 'more'), failed('3-0', 'internal')]);
    expect(run.status).toBe('done');
    expect(run.cursor).toEqual({ epoch: 2, sequence: 0 });
    expect(shown(run)).toEqual([]);
  });

  it('knows how long a tool took from the times of the frames', () => {
    const tool = play(STORY).parts.find(part => part.kind === 'tool');
    expect(tool?.endedAt).toBe(1250);
    expect(tool?.startedAt).toBe(1000);
  });

  it('is not ended by frames that this page does not know, and resumes after them', () => {
    const run = play([started('1-1'), frame('1-2', 'SOMETHING_NEW'), frame('1-3', 'TOOL_CALL_START')]);
    expect(run.status).toBe('running');
    expect(run.cursor).toEqual({ epoch: 1, sequence: 3 });
  });
});

describe('a reset', () => {
  const before = [started('1-1'), begun('1-2'), text('1-3', 'kept '), text('1-4', 'void')];

  it('voids what came after its keep, in the middle of a message too', () => {
    expect(shown(play([...before, reset('2-1', '1-3')]))).toEqual(['kept ']);
  });

  it('voids everything when it keeps nothing', () => {
    expect(shown(play([...before, reset('2-1'), begun('2-2', 'm2'), text('2-3', 'new', 'm2')]))).toEqual([
      'new',
    ]);
  });

  it('keeps everything up to the newest frame', () => {
    expect(shown(play([...before, reset('2-1', '1-4')]))).toEqual(['kept void']);
  });

  it('does not bring back what an earlier reset voided', () => {
    const frames = [
      ...before,
      reset('2-1', '1-3'),
      text('2-2', 'second'),
      reset('3-1', '2-2'),
      text('3-2', '!'),
    ];
    expect(shown(play(frames))).toEqual(['kept second!']);
  });

  it('undoes a resync that came after its keep', () => {
    expect(shown(play([...before, resync('1-9', 'other words'), reset('2-1', '1-4')]))).toEqual([
      'kept void',
    ]);
  });

  it('is also what a RUN_STARTED of a later epoch means, whose log was lost', () => {
    expect(shown(play([...before, started('2-1'), begun('2-2', 'm2'), text('2-3', 'again', 'm2')]))).toEqual([
      'again',
    ]);
  });
});

describe('a resync', () => {
  const before = [started('1-1'), begun('1-2'), text('1-3', 'a')];

  it('replaces the text and lets the same message go on', () => {
    expect(shown(play([...before, resync('1-7', 'abc', { messageId: 'm1' }), text('1-8', 'd')]))).toEqual([
      'abcd',
    ]);
  });

  it('tells messages of which nothing was seen', () => {
    const told = resync('1-7', 'new', { messageId: 'm2', earlier: [{ messageId: 'm1', content: 'abc' }] });
    expect(shown(play([...before, told, text('1-8', '!', 'm2')]))).toEqual(['abc', 'new!']);
    expect(shown(play([told, text('1-8', '!', 'm2')]))).toEqual(['abc', 'new!']);
  });

  it('keeps its messages in their places among the tool calls', () => {
    const told = { messageId: 'm4', earlier: [{ messageId: 'm1', content: 'Let me look.' }] };
    expect(shown(play([...STORY.slice(0, 18), resync('2-9', 'It', told)]))).toEqual([
      WHOLE[0],
      WHOLE[1],
      'It',
    ]);
  });

  it('voids a message that it does not tell', () => {
    const frames = [
      ...before,
      begun('1-4', 'm2'),
      text('1-5', 'b', 'm2'),
      resync('1-7', 'c', { messageId: 'm3' }),
    ];
    expect(shown(play(frames))).toEqual(['c']);
  });

  it('without any message voids all text', () => {
    expect(shown(play([...STORY.slice(0, 13), resync('1-20', '')]))).toEqual([WHOLE[1]]);
  });

  it('of the whole answer replaces all text, and stands where the newest message stood', () => {
    expect(shown(play([...STORY.slice(0, 19), resync('2-99', ANSWER), finished('3-0', ANSWER)]))).toEqual([
      WHOLE[1],
      ANSWER,
    ]);
  });

  it('shows the answer of a run of which nothing was seen', () => {
    expect(shown(play([resync('2-5', 'all of it'), finished('3-0', 'all of it')]))).toEqual(['all of it']);
  });
});

describe('the result', () => {
  it('replaces a text that differs from it', () => {
    expect(
      shown(play([started('1-1'), begun('1-2'), text('1-3', 'half'), finished('2-0', 'half and whole')])),
    ).toEqual(['half and whole']);
  });

  it('leaves the words before a tool call when it holds only the last message', () => {
    expect(shown(play(STORY))[0]).toBe('Let me look.');
  });

  it('leaves the text when it holds all messages', () => {
    const all = [...STORY.slice(0, -1), finished('3-0', `Let me look.${ANSWER}`)];
    expect(shown(play(all))).toEqual(WHOLE);
  });

  it('of a run that was stopped keeps what was said', () => {
    const run = play([
      started('1-1'),
      begun('1-2'),
      text('1-3', 'half'),
      failed('2-0', 'cancelled_by_caller'),
    ]);
    expect([run.status, shown(run)]).toEqual(['stopped', ['half']]);
  });

  it('of a run that failed says why', () => {
    const run = play([started('1-1'), failed('2-0', 'model_unavailable')]);
    expect([run.status, run.failure]).toEqual([
      'failed',
      { code: 'model_unavailable', message: 'In plain words.' },
    ]);
  });
});

describe('a model that has trouble', () => {
  it('is said to be asked again until something comes', () => {
    expect(play([started('1-1'), retrying('1-2')]).retrying).toBe(true);
    expect(play([started('1-1'), retrying('1-2'), begun('1-3')]).retrying).toBe(false);
    expect(play([started('1-1'), retrying('1-2'), failed('2-0', 'model_unavailable')]).retrying).toBe(false);
  });

  it('may cut its answer, which says so', () => {
    expect(play([started('1-1'), finished('2-0', 'One, two,', { truncated: 'length' })]).truncated).toBe(
      'length',
    );
    expect(play([started('1-1'), finished('2-0', 'One.')]).truncated).toBe(null);
  });
});

describe('a long answer', () => {
  it('of twenty thousand frames loses none', () => {
    const many = Array.from({ length: 20_000 }, (_, n) => text(`1-${n + 1}`, 'word '));
    expect(textOf(play(many).parts).length).toBe(100_000);
  });
});
