/**
 * Follows one run to its end over as many connections as that takes. A connection that ends early, says nothing for too
 * long, or cannot be opened is replaced, from the cursor of the last frame seen: so nothing is lost, and what a server
 * sends twice is dropped by the reducer.
 */

import { type Cursor, type Frame, readFrame } from './frames.ts';
import { Refused } from './http.ts';
import { type SseParser, sseParser } from './sse.ts';

/** The server is never silent for longer than 15 s; twice that means that nobody is there. */
export const SILENCE = 30_000;
const FIRST_DELAY = 500;
const LONGEST_DELAY = 10_000;

export interface Following {
  /** Opens the stream after this cursor; null means from its beginning. */
  readonly open: (after: Cursor | null, signal: AbortSignal) => Promise<Response>;
  /** A stream that is open already, such as the answer to POST /chat. */
  readonly first?: Response;
  /** The cursor of the last frame taken. */
  readonly seen: () => Cursor | null;
  /** Takes a frame; true when it ended the run. */
  readonly take: (frame: Frame) => boolean;
  /** Called with false when the connection is lost, and true when it is back. */
  readonly connected: (yes: boolean) => void;
  readonly pause: (milliseconds: number, signal: AbortSignal) => Promise<void>;
  readonly random: () => number;
  readonly signal: AbortSignal;
}

/** How the following ended: with the run, because the caller left, or because the server will not show this run. */
export type Ending = 'ended' | 'left' | Refused;

type Piece = 'ended' | 'frames' | 'nothing';

/**
 * Milliseconds before the next attempt: doubling, capped, and spread so that many pages do not come back at once.
 *
 * @param failures attempts in a row that brought nothing.
 * @param first what the stream's `retry:` asked for, in milliseconds.
 * @param least what Retry-After asked for, in seconds.
 */
export function delayBefore(
  failures: number,
  first: number | null,
  least: number | null,
  random: () => number,
): number {
  const ceiling = Math.min(LONGEST_DELAY, (first ?? FIRST_DELAY) * 2 ** Math.min(failures, 10));
  return Math.max(ceiling * (0.5 + random() / 2), Math.min(least ?? 0, 60) * 1000);
}

interface Watchdog {
  readonly signal: AbortSignal;
  readonly heard: () => void;
  readonly stop: () => void;
}

/** Aborts when the caller leaves, and when nothing is heard for SILENCE. */
function watchdog(caller: AbortSignal): Watchdog {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  let timer = setTimeout(abort, SILENCE);
  caller.addEventListener('abort', abort);
  if (caller.aborted) abort();
  return {
    signal: controller.signal,
    heard: () => {
      clearTimeout(timer);
      timer = setTimeout(abort, SILENCE);
    },
    stop: () => {
      clearTimeout(timer);
      caller.removeEventListener('abort', abort);
    },
  };
}

/** The next chunk, or null once no more can come, whatever the reason. */
function nextChunk(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Uint8Array | null> {
  return reader.read().then(
    ({ value }) => value ?? null,
    () => null,
  );
}

function takeChunk(parser: SseParser, chunk: Uint8Array, run: Following): Piece {
  let piece: Piece = 'nothing';
  for (const event of parser.push(chunk)) {
    const frame = readFrame(event);
    if (frame === null) continue;
    if (run.take(frame)) return 'ended';
    piece = 'frames';
  }
  return piece;
}

interface Attempt {
  readonly piece: Piece;
  /** Milliseconds the stream asked to wait before a reconnect. */
  readonly retry: number | null;
  readonly refused: Refused | null;
}

async function readThrough(response: Response, run: Following, watch: Watchdog): Promise<Attempt> {
  const parser = sseParser();
  const reader = response.body?.getReader();
  // A cancelled reader answers the read that is waiting; a broken stream refuses, and is gone all the same.
  const leave = (): void => void reader?.cancel().catch(() => undefined);
  watch.signal.addEventListener('abort', leave, { once: true });
  if (watch.signal.aborted) leave();
  let piece: Piece = 'nothing';
  while (reader !== undefined && piece !== 'ended') {
    const chunk = await nextChunk(reader);
    if (chunk === null) break;
    watch.heard();
    const taken = takeChunk(parser, chunk, run);
    if (taken !== 'nothing') piece = taken;
  }
  leave();
  return { piece, retry: parser.retry(), refused: null };
}

async function attempt(run: Following, first: Response | undefined): Promise<Attempt> {
  const watch = watchdog(run.signal);
  try {
    const response = first ?? (await run.open(run.seen(), watch.signal));
    run.connected(true);
    return await readThrough(response, run, watch);
  } catch (error) {
    if (error instanceof Refused) return { piece: 'nothing', retry: null, refused: error };
    if (watch.signal.aborted) return { piece: 'nothing', retry: null, refused: null };
    throw error;
  } finally {
    watch.stop();
  }
}

export async function follow(run: Following): Promise<Ending> {
  let failures = 0;
  let first = run.first;
  while (!run.signal.aborted) {
    const { piece, retry, refused } = await attempt(run, first);
    first = undefined;
    if (piece === 'ended') return 'ended';
    if (run.signal.aborted) break;
    if (refused !== null && !refused.passing) return refused;
    if (piece === 'frames') failures = 0;
    run.connected(false);
    await run.pause(delayBefore(failures, retry, refused?.retryAfter ?? null, run.random), run.signal);
    failures += 1;
  }
  return 'left';
}
