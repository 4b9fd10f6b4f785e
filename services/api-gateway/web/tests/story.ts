/** Frames for the tests, as the server sends them. */

import { type Frame, readFrame } from '../src/wire/frames.ts';

export type Fields = Readonly<Record<string, unknown>>;

export function event(cursor: string, type: string, fields: Fields = {}): { id: string; data: string } {
  const [epoch, sequence] = cursor.split('-').map(Number);
  const metadata = { execution_id: '0197', epoch, sequence };
  return { id: cursor, data: JSON.stringify({ type, ...fields, metadata }) };
}

export function frame(cursor: string, type: string, fields: Fields = {}): Frame {
  const read = readFrame(event(cursor, type, fields));
  if (read === null) throw new Error(`no frame: ${cursor} ${type}`);
  return read;
}

export const started = (cursor: string): Frame => frame(cursor, 'RUN_STARTED', { threadId: 's', runId: 'r' });
export const begun = (cursor: string, messageId = 'm1'): Frame =>
  frame(cursor, 'TEXT_MESSAGE_START', { messageId, role: 'assistant' });
export const text = (cursor: string, delta: string, messageId = 'm1'): Frame =>
  frame(cursor, 'TEXT_MESSAGE_CONTENT', { messageId, delta });
export const reset = (cursor: string, keep?: string): Frame =>
  frame(cursor, 'CUSTOM', { name: 'reset', value: keep === undefined ? {} : { keep } });
export const resync = (cursor: string, content: string, more: Fields = {}): Frame =>
  frame(cursor, 'CUSTOM', { name: 'resync', value: { content, ...more } });
export const finished = (cursor: string, content: string, more: Fields = {}): Frame =>
  frame(cursor, 'RUN_FINISHED', { threadId: 's', runId: 'r', result: { response: { content, ...more } } });
export const retrying = (cursor: string): Frame =>
  frame(cursor, 'CUSTOM', { name: 'retrying', value: { reason: 'model_unavailable' } });
export const failed = (cursor: string, code: string): Frame =>
  frame(cursor, 'RUN_ERROR', { message: 'In plain words.', code });

/** A run with everything in it: a tool call, a restart after a finished step, a resync. Its answer is `ANSWER`. */
export const STORY: readonly Frame[] = [
  started('1-1'),
  begun('1-2'),
  text('1-3', 'Let me '),
  text('1-4', 'look.'),
  frame('1-5', 'TEXT_MESSAGE_END', { messageId: 'm1' }),
  frame('1-6', 'TOOL_CALL_START', { toolCallId: 't1', toolCallName: 'clock.now', timestamp: 1000 }),
  frame('1-7', 'TOOL_CALL_ARGS', { toolCallId: 't1', delta: '{"zone":' }),
  frame('1-8', 'TOOL_CALL_ARGS', { toolCallId: 't1', delta: '"UTC"}' }),
  frame('1-9', 'TOOL_CALL_END', { toolCallId: 't1' }),
  frame('1-10', 'TOOL_CALL_RESULT', { messageId: 'm2', toolCallId: 't1', content: 'noon', timestamp: 1250 }),
  begun('1-11', 'm3'),
  text('1-12', 'This is ', 'm3'),
  text('1-13', 'lost work.', 'm3'),
  frame('2-1', 'TEXT_MESSAGE_END', { messageId: 'm3' }),
  reset('2-2', '1-10'),
  frame('2-3', 'MESSAGES_SNAPSHOT', { messages: [] }),
  begun('2-4', 'm4'),
  text('2-5', 'It is ', 'm4'),
  resync('2-9', 'It is nearly ', {
    messageId: 'm4',
    earlier: [{ messageId: 'm1', content: 'Let me look.' }],
  }),
  text('2-10', 'noon.', 'm4'),
  finished('3-0', 'It is nearly noon.'),
];

export const ANSWER = 'It is nearly noon.';
