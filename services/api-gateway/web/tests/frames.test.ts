import { describe, expect, it } from 'vitest';
import { compareCursors, readCursor, readFrame } from '../src/wire/frames.ts';
import { event } from './story.ts';

describe('reading a frame', () => {
  it('finds its place in the metadata when the event has no id', () => {
    const { data } = event('4-2', 'RUN_STARTED');
    expect(readFrame({ id: '', data })?.cursor).toEqual({ epoch: 4, sequence: 2 });
  });

  it('takes what is no JSON, or has no place, for no frame', () => {
    expect(readFrame({ id: '1-1', data: 'half a fra' })).toBeNull();
    expect(readFrame({ id: '', data: '{"type":"RUN_STARTED"}' })).toBeNull();
  });

  it.each([
    ['TEXT_MESSAGE_CONTENT', { delta: 'x' }],
    ['TOOL_CALL_RESULT', { content: 'x' }],
    ['CUSTOM', { name: 'resync', value: {} }],
    ['CUSTOM', { name: 'resync', value: null }],
    ['CUSTOM', { name: 'novelty' }],
    ['NOVELTY', {}],
  ])('only moves the cursor for %s %j', (type, fields) => {
    expect(readFrame(event('1-7', type, fields))).toMatchObject({
      type: 'OTHER',
      cursor: { epoch: 1, sequence: 7 },
    });
  });

  it('takes a result without an answer for no truth', () => {
    expect(readFrame(event('2-0', 'RUN_FINISHED', { result: { response: null } }))).toMatchObject({
      content: null,
    });
  });
});

describe('cursors', () => {
  it('are ordered by epoch, then by sequence, as numbers', () => {
    const order = ['1-2', '1-10', '2-1', '10-0'].map(readCursor);
    const sorted = [...order].reverse().sort((a, b) => (a && b ? compareCursors(a, b) : 0));
    expect(sorted).toEqual(order);
  });

  it.each(['', '1', '1-', '-1', '1-2-3', 'a-b', ' 1-2', undefined, null, 12])(
    'are not read from %j',
    value => {
      expect(readCursor(value)).toBeNull();
    },
  );
});
