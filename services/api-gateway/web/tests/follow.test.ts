import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { advance, hasEnded, QUEUED, type Run, textOf } from '../src/state/run.ts';
import { delayBefore, type Ending, type Following, follow, SILENCE } from '../src/wire/follow.ts';
import { type Cursor, compareCursors, type Frame, showCursor } from '../src/wire/frames.ts';
import { Refused } from '../src/wire/http.ts';
import { ANSWER, event, finished, STORY, started, text } from './story.ts';

const encoder = new TextEncoder();
const SAID = `Let me look.\n\n${ANSWER}`;

/** What one connection does: gives frames and ends, hangs after them, or is refused. */
type Connection = { frames?: number; after?: 'end' | 'hang' | 'break'; status?: number; beats?: number };

function bytesOf(frame: Frame): Uint8Array {
  const { cursor, type, ...fields } = frame;
  const names: Record<string, unknown> = { ...fields };
  let agui: string = type;
  if (type === 'RESET') {
    agui = 'CUSTOM';
    names['name'] = 'reset';
    names['value'] = frame.type === 'RESET' && frame.keep ? { keep: showCursor(frame.keep) } : {};
  } else if (frame.type === 'RESYNC') {
    const told = frame.messages.map(({ id, content }) => ({ messageId: id, content }));
    agui = 'CUSTOM';
    names['name'] = 'resync';
    names['value'] = { ...told.at(-1), earlier: told.slice(0, -1) };
  } else if (frame.type === 'RUN_FINISHED') {
    names['result'] = { response: { content: frame.content } };
  } else if (frame.type === 'TOOL_CALL_START') {
    names['toolCallName'] = frame.name;
  }
  const { id, data } = event(showCursor(cursor), agui, names);
  return encoder.encode(`id: ${id}\ndata: ${data}\n\n`);
}

/** A server that holds a run's log and has a bad day: each connection goes as `connections` says, the last ones well. */
function server(log: readonly Frame[], connections: readonly Connection[]) {
  const asked: (string | null)[] = [];
  const open = async (after: Cursor | null, signal: AbortSignal): Promise<Response> => {
    const plan = connections[asked.length] ?? {};
    asked.push(after === null ? null : showCursor(after));
    if (plan.status !== undefined) {
      throw new Refused({ title: 'No', detail: '', status: plan.status, traceId: null });
    }
    const rest = log.filter(({ cursor }) => after === null || compareCursors(cursor, after) > 0);
    const body = new ReadableStream<Uint8Array>({
      async start(controller) {
        for (const frame of rest.slice(0, plan.frames)) controller.enqueue(bytesOf(frame));
        for (let beat = 0; beat < (plan.beats ?? 0); beat += 1) {
          await new Promise(resolve => setTimeout(resolve, 15_000));
          controller.enqueue(encoder.encode(':\n\n'));
        }
        if (plan.after === 'break') controller.error(new TypeError('network error'));
        else if (plan.after !== 'hang') controller.close();
        signal.addEventListener('abort', () => controller.error(signal.reason));
      },
    });
    return new Response(body);
  };
  return { asked, open };
}

function watch(open: Following['open'], signal = new AbortController().signal) {
  const seen = { run: QUEUED as Run, lost: 0, pauses: [] as number[] };
  const ending: Promise<Ending> = follow({
    open,
    signal,
    seen: () => seen.run.cursor,
    take: frame => {
      seen.run = advance(seen.run, frame, 0);
      return hasEnded(seen.run);
    },
    connected: yes => {
      seen.lost += yes ? 0 : 1;
    },
    pause: async milliseconds => {
      seen.pauses.push(milliseconds);
    },
    random: () => 0.5,
  });
  return { seen, ending };
}

describe('following a run', () => {
  it.each(['end', 'break'] as const)(
    'loses and doubles nothing when streams %s after any number of frames',
    async how => {
      for (let first = 0; first <= STORY.length; first += 1) {
        for (const second of [0, 1, 4]) {
          const plan: Connection[] = [
            { frames: first, after: how },
            { frames: second, after: how },
          ];
          const { open } = server(STORY, plan);
          const { seen, ending } = watch(open);
          expect(await ending).toBe('ended');
          expect(textOf(seen.run.parts), `cut after ${first}, then after ${second}`).toBe(SAID);
        }
      }
    },
  );

  it('asks for what comes after the last frame it has', async () => {
    const { open, asked } = server(STORY, [{ frames: 3 }, { frames: 0 }]);
    await watch(open).ending;
    expect(asked).toEqual([null, '1-3', '1-3']);
  });

  it('begins with a stream that is open already', async () => {
    const { open, asked } = server(STORY, []);
    const first = await open(null, new AbortController().signal);
    const run = { ...QUEUED } as Run;
    let now = run;
    const ending = await follow({
      first,
      open,
      seen: () => now.cursor,
      take: frame => {
        now = advance(now, frame, 0);
        return hasEnded(now);
      },
      connected: () => undefined,
      pause: async () => undefined,
      random: Math.random,
      signal: new AbortController().signal,
    });
    expect([ending, asked.length, textOf(now.parts)]).toEqual(['ended', 1, SAID]);
  });

  it('comes back after refusals that pass, and waits longer each time', async () => {
    const { open } = server(STORY, [
      { status: 503 },
      { status: 0 },
      { status: 429 },
      { frames: 2 },
      { status: 502 },
    ]);
    const { seen, ending } = watch(open);
    expect(await ending).toBe('ended');
    expect(seen.pauses).toEqual([375, 750, 1500, 375, 750]);
    expect(seen.lost).toBe(5);
  });

  it.each([401, 403, 404])('ends with the refusal %i, which no waiting changes', async status => {
    const ending = await watch(server(STORY, [{ frames: 2 }, { status }]).open).ending;
    expect(ending).toBeInstanceOf(Refused);
  });

  it('does not hide a fault of this page as a lost connection', async () => {
    const open = async (): Promise<Response> => {
      throw new RangeError('a bug');
    };
    await expect(watch(open).ending).rejects.toThrow('a bug');
  });
});

describe('silence', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('of thirty seconds is a lost connection', async () => {
    const { open, asked } = server(STORY, [{ frames: 3, after: 'hang' }]);
    const { seen, ending } = watch(open);
    await vi.advanceTimersByTimeAsync(SILENCE - 1);
    expect(seen.lost).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    expect(await ending).toBe('ended');
    expect(asked).toEqual([null, '1-3']);
    expect(textOf(seen.run.parts)).toBe(SAID);
  });

  it('is broken by beats, however long they go on', async () => {
    const { open } = server(STORY, [{ frames: 3, beats: 20, after: 'hang' }]);
    const controller = new AbortController();
    const { seen, ending } = watch(open, controller.signal);
    await vi.advanceTimersByTimeAsync(20 * 15_000);
    expect(seen.lost).toBe(0);
    controller.abort();
    expect(await ending).toBe('left');
  });

  it('before the first byte of an answer counts too', async () => {
    let tries = 0;
    const open = (_: Cursor | null, signal: AbortSignal): Promise<Response> => {
      tries += 1;
      if (tries > 1) return server(STORY, []).open(null, signal);
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    };
    const { ending } = watch(open);
    await vi.advanceTimersByTimeAsync(SILENCE);
    expect([await ending, tries]).toEqual(['ended', 2]);
  });
});

describe('leaving', () => {
  it('ends the following and neither the run nor an error', async () => {
    const controller = new AbortController();
    const { open } = server([started('1-1'), text('1-2', 'half')], [{ after: 'hang' }]);
    const { seen, ending } = watch(open, controller.signal);
    await vi.waitFor(() => expect(textOf(seen.run.parts)).toBe('half'));
    controller.abort();
    expect(await ending).toBe('left');
    expect(seen.run.status).toBe('running');
  });

  it('takes nothing that was still on its way', async () => {
    const controller = new AbortController();
    controller.abort();
    const { open } = server([started('1-1'), finished('2-0', '')], []);
    const { seen, ending } = watch(open, controller.signal);
    expect(await ending).toBe('left');
    expect(seen.run.status).toBe('queued');
  });
});

describe('the wait before a reconnect', () => {
  it('doubles, is capped, and is never less than half', () => {
    const waits = [0, 1, 2, 3, 4, 5, 50].map(failures => delayBefore(failures, null, null, () => 1));
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    expect(delayBefore(0, null, null, () => 0)).toBe(250);
  });

  it('begins where the stream asked for, and is at least what Retry-After asked for', () => {
    expect(delayBefore(1, 100, null, () => 1)).toBe(200);
    expect(delayBefore(0, null, 7, () => 1)).toBe(7000);
    expect(delayBefore(0, null, 86_400, () => 1)).toBe(60_000);
  });
});
