/**
 * One run as its frames tell it: a pure reducer, so that any cut, resume, repeat or restart gives the same answer.
 *
 * The frames that made the answer are kept as a log (a linked list: adding one is O(1) without changing the old state).
 * A `reset` drops those after its `keep` and plays the rest again.
 */

import { type Cursor, compareCursors, type Frame, type WholeMessage } from '../wire/frames.ts';

export interface TextPart {
  readonly kind: 'text';
  readonly id: string;
  readonly text: string;
}

export interface ToolPart {
  readonly kind: 'tool';
  readonly id: string;
  readonly name: string;
  readonly args: string;
  readonly result: string | null;
  readonly startedAt: number;
  /** When the result came; null while it is awaited, or when that is not known. */
  readonly endedAt: number | null;
}

export type Part = TextPart | ToolPart;

export type RunStatus = 'queued' | 'running' | 'done' | 'failed' | 'stopped';

export interface Failure {
  readonly code: string;
  readonly message: string;
}

interface Logged {
  readonly frame: Frame;
  readonly at: number;
  readonly before: Logged | null;
}

export interface Run {
  readonly status: RunStatus;
  readonly cursor: Cursor | null;
  readonly parts: readonly Part[];
  readonly failure: Failure | null;
  /** A model is asked again, and nothing of its answer has come yet. */
  readonly retrying: boolean;
  /** Why the answer ends before the model was done, or null. */
  readonly truncated: string | null;
  readonly endedAt: number | null;
  readonly log: Logged | null;
}

export const QUEUED: Run = {
  status: 'queued',
  cursor: null,
  parts: [],
  failure: null,
  retrying: false,
  truncated: null,
  endedAt: null,
  log: null,
};

/** Codes of a run that a person ended; without a reason the code is the request's status. */
const STOPPED: ReadonlySet<string> = new Set(['cancelled_by_caller', 'cancelled']);

export function hasEnded(run: Run): boolean {
  return run.status === 'done' || run.status === 'failed' || run.status === 'stopped';
}

/** All the text of an answer, as it is copied. */
export function textOf(parts: readonly Part[]): string {
  return parts
    .filter(part => part.kind === 'text')
    .map(part => part.text)
    .filter(text => text.trim() !== '')
    .join('\n\n');
}

/** Replace a part, or add it at the end. The one that changes is nearly always the last. */
function put<P extends Part>(
  parts: readonly Part[],
  kind: P['kind'],
  id: string,
  make: (old: P | null) => P,
): readonly Part[] {
  const index = parts.findLastIndex(part => part.kind === kind && part.id === id);
  if (index < 0) return [...parts, make(null)];
  return parts.with(index, make(parts[index] as P));
}

function withText(parts: readonly Part[], id: string, delta: string): readonly Part[] {
  return put<TextPart>(parts, 'text', id, old => ({ kind: 'text', id, text: (old?.text ?? '') + delta }));
}

function withTool(parts: readonly Part[], id: string, change: (tool: ToolPart) => ToolPart): readonly Part[] {
  const unknown: ToolPart = {
    kind: 'tool',
    id,
    name: 'tool',
    args: '',
    result: null,
    startedAt: 0,
    endedAt: null,
  };
  return put<ToolPart>(parts, 'tool', id, old => change(old ?? unknown));
}

/**
 * The text messages are exactly these. One that is here keeps its place among the tool calls, and its id, so that it can
 * go on; a message without an id stands for the newest.
 */
function withMessages(parts: readonly Part[], messages: readonly WholeMessage[]): readonly Part[] {
  const newest = parts.findLast(part => part.kind === 'text')?.id ?? 'answer';
  const told = new Map(messages.map(({ id, content }) => [id ?? newest, content]));
  return [...told].reduce(
    (all, [id, text]) => put<TextPart>(all, 'text', id, () => ({ kind: 'text', id, text })),
    parts.filter(part => part.kind === 'tool' || told.has(part.id)) as readonly Part[],
  );
}

function apply(parts: readonly Part[], frame: Frame, arrived: number): readonly Part[] {
  const at = frame.timestamp ?? arrived;
  switch (frame.type) {
    case 'TEXT_MESSAGE_START':
      return withText(parts, frame.messageId, '');
    case 'TEXT_MESSAGE_CONTENT':
      return withText(parts, frame.messageId, frame.delta);
    case 'TOOL_CALL_START':
      return withTool(parts, frame.toolCallId, tool => ({ ...tool, name: frame.name, startedAt: at }));
    case 'TOOL_CALL_ARGS':
      return withTool(parts, frame.toolCallId, tool => ({ ...tool, args: tool.args + frame.delta }));
    case 'TOOL_CALL_RESULT':
      return withTool(parts, frame.toolCallId, tool => ({ ...tool, result: frame.content, endedAt: at }));
    case 'RESYNC':
      return withMessages(parts, frame.messages);
    default:
      return parts;
  }
}

function keepUpTo(log: Logged | null, keep: Cursor | null): Logged | null {
  let entry = keep === null ? null : log;
  while (entry !== null && keep !== null && compareCursors(entry.frame.cursor, keep) > 0)
    entry = entry.before;
  return entry;
}

function replay(log: Logged | null): readonly Part[] {
  const entries: Logged[] = [];
  for (let entry = log; entry !== null; entry = entry.before) entries.push(entry);
  return entries.reduceRight<readonly Part[]>((parts, { frame, at }) => apply(parts, frame, at), []);
}

/**
 * The result is the truth. A result that holds only the last message is told apart from one that differs, so that what
 * was said before a tool call stays on the page.
 */
function withTruth(parts: readonly Part[], content: string | null): readonly Part[] {
  if (content === null) return parts;
  const texts = parts.filter(part => part.kind === 'text');
  const shown = [texts.map(part => part.text).join(''), textOf(parts), texts.at(-1)?.text ?? ''];
  return shown.includes(content) ? parts : withMessages(parts, [{ id: null, content }]);
}

/** Nothing can be voided any more, so the frames need not be kept. */
const ended = (at: number): Pick<Run, 'endedAt' | 'log' | 'retrying'> => ({
  endedAt: at,
  log: null,
  retrying: false,
});

/**
 * Take one frame.
 *
 * @param at milliseconds since 1970 when it arrived; used where the writer stamped no time.
 */
export function advance(run: Run, frame: Frame, at: number): Run {
  if (hasEnded(run)) return run;
  if (run.cursor !== null && compareCursors(frame.cursor, run.cursor) <= 0) return run;
  const moved: Run = { ...run, cursor: frame.cursor };
  switch (frame.type) {
    case 'OTHER':
      return moved;
    case 'RETRYING':
      return { ...moved, status: 'running', retrying: true };
    case 'RUN_STARTED':
      // A later epoch begins like this when the log of the earlier one is lost: what it said is void.
      return { ...moved, status: 'running', parts: [], log: null };
    case 'RESET': {
      const log = keepUpTo(run.log, frame.keep);
      return { ...moved, status: 'running', parts: replay(log), log };
    }
    case 'RUN_FINISHED': {
      const parts = withTruth(run.parts, frame.content);
      return { ...moved, ...ended(at), status: 'done', parts, truncated: frame.truncated };
    }
    case 'RUN_ERROR': {
      const status = STOPPED.has(frame.code) ? 'stopped' : 'failed';
      return { ...moved, ...ended(at), status, failure: { code: frame.code, message: frame.message } };
    }
    default:
      return {
        ...moved,
        status: 'running',
        retrying: false,
        parts: apply(run.parts, frame, at),
        log: { frame, at, before: run.log },
      };
  }
}
