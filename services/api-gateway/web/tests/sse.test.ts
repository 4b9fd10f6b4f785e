import { describe, expect, it } from 'vitest';
import { type SseEvent, sseParser } from '../src/wire/sse.ts';

const STREAM =
  '\uFEFFretry: 250\r\n\r\n' +
  ': a beat\n\n' +
  'id: 1-1\ndata: {"delta":"Grüße ✓ 🚢"}\n\n' +
  'id: 1-2\r\ndata:first line\r\ndata: second line\r\n\r\n' +
  'id\rdata: by carriage return\r\r' +
  'id: 1-3\ndata\n\n' +
  'event: ignored\nid: 1-4\n\n' +
  'data: after an event without data\n\n' +
  'data: never finished';

const EVENTS: readonly SseEvent[] = [
  { id: '1-1', data: '{"delta":"Grüße ✓ 🚢"}' },
  { id: '1-2', data: 'first line\nsecond line' },
  { id: '', data: 'by carriage return' },
  { id: '1-3', data: '' },
  { id: '1-4', data: 'after an event without data' },
];

const BYTES = new TextEncoder().encode(STREAM);

function parse(...chunks: Uint8Array[]): { events: SseEvent[]; retry: number | null } {
  const parser = sseParser();
  return { events: chunks.flatMap(chunk => parser.push(chunk)), retry: parser.retry() };
}

describe('the event stream parser', () => {
  it('reads a stream that comes in one piece', () => {
    expect(parse(BYTES)).toEqual({ events: EVENTS, retry: 250 });
  });

  it('reads the same events wherever the bytes are cut', () => {
    for (let cut = 0; cut <= BYTES.length; cut += 1) {
      expect(parse(BYTES.slice(0, cut), BYTES.slice(cut)).events, `cut at byte ${cut}`).toEqual(EVENTS);
    }
  });

  it('reads the same events byte by byte, with empty chunks in between', () => {
    const chunks = [...BYTES].flatMap(byte => [Uint8Array.of(byte), new Uint8Array()]);
    expect(parse(...chunks).events).toEqual(EVENTS);
  });

  it('gives out an event as soon as its blank line is there', () => {
    const parser = sseParser();
    expect(parser.push(new TextEncoder().encode('data: x\r\n\r'))).toEqual([{ id: '', data: 'x' }]);
    expect(parser.push(new TextEncoder().encode('\ndata: y\n\n'))).toEqual([{ id: '', data: 'y' }]);
  });

  it('ignores an id with a null character and a retry that is no number', () => {
    const { events, retry } = parse(new TextEncoder().encode('id: a\0b\nretry: soon\ndata: x\n\n'));
    expect(events).toEqual([{ id: '', data: 'x' }]);
    expect(retry).toBeNull();
  });
});
