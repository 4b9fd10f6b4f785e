/**
 * The frames of a run (AG-UI 1.0), read once at the door: past this module a frame is a typed value. A frame that this
 * page does not know, or that lacks a field, still moves the cursor, so that a newer server cannot break a resume.
 */

import type { SseEvent } from './sse.ts';

export interface Cursor {
  readonly epoch: number;
  readonly sequence: number;
}

/** A message as a resync tells it; one without an id is the answer as a whole. */
export interface WholeMessage {
  readonly id: string | null;
  readonly content: string;
}

export type FrameBody =
  | { readonly type: 'RUN_STARTED' }
  | { readonly type: 'TEXT_MESSAGE_START'; readonly messageId: string }
  | { readonly type: 'TEXT_MESSAGE_CONTENT'; readonly messageId: string; readonly delta: string }
  | { readonly type: 'TOOL_CALL_START'; readonly toolCallId: string; readonly name: string }
  | { readonly type: 'TOOL_CALL_ARGS'; readonly toolCallId: string; readonly delta: string }
  | { readonly type: 'TOOL_CALL_END'; readonly toolCallId: string }
  | { readonly type: 'TOOL_CALL_RESULT'; readonly toolCallId: string; readonly content: string }
  | { readonly type: 'RESET'; readonly keep: Cursor | null }
  | { readonly type: 'RESYNC'; readonly messages: readonly WholeMessage[] }
  | { readonly type: 'RETRYING' }
  | {
      readonly type: 'RUN_FINISHED';
      readonly content: string | null;
      /** Why the answer ends before the model was done, or null. */
      readonly truncated: string | null;
    }
  | { readonly type: 'RUN_ERROR'; readonly message: string; readonly code: string }
  | { readonly type: 'OTHER' };

export type Frame = FrameBody & {
  readonly cursor: Cursor;
  /** Milliseconds since 1970 as the writer stamped it, or null. */
  readonly timestamp: number | null;
};

export function compareCursors(a: Cursor, b: Cursor): number {
  return a.epoch - b.epoch || a.sequence - b.sequence;
}

export function showCursor(cursor: Cursor): string {
  return `${cursor.epoch}-${cursor.sequence}`;
}

export function readCursor(text: unknown): Cursor | null {
  const match = typeof text === 'string' ? /^(\d{1,15})-(\d{1,15})$/.exec(text) : null;
  return match ? { epoch: Number(match[1]), sequence: Number(match[2]) } : null;
}

type Json = Readonly<Record<string, unknown>>;

function asObject(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}

function text(fields: Json, name: string): string | null {
  const value = fields[name];
  return typeof value === 'string' ? value : null;
}

const OTHER: FrameBody = { type: 'OTHER' };

function readToolCall(type: string, fields: Json): FrameBody {
  const toolCallId = text(fields, 'toolCallId');
  if (toolCallId === null) return OTHER;
  switch (type) {
    case 'TOOL_CALL_START':
      return { type, toolCallId, name: text(fields, 'toolCallName') ?? 'tool' };
    case 'TOOL_CALL_ARGS':
      return { type, toolCallId, delta: text(fields, 'delta') ?? '' };
    case 'TOOL_CALL_END':
      return { type, toolCallId };
    default:
      return { type: 'TOOL_CALL_RESULT', toolCallId, content: text(fields, 'content') ?? '' };
  }
}

function readCustom(fields: Json): FrameBody {
  const value = asObject(fields['value']);
  if (fields['name'] === 'reset') return { type: 'RESET', keep: readCursor(value['keep']) };
  if (fields['name'] === 'retrying') return { type: 'RETRYING' };
  if (fields['name'] !== 'resync' || text(value, 'content') === null) return OTHER;
  const earlier: readonly unknown[] = Array.isArray(value['earlier']) ? value['earlier'] : [];
  const told = [...earlier.map(asObject), value].map(message => ({
    id: text(message, 'messageId'),
    content: text(message, 'content') ?? '',
  }));
  return { type: 'RESYNC', messages: told.filter(({ content }) => content !== '') };
}

function readBody(type: string, fields: Json): FrameBody {
  const messageId = text(fields, 'messageId');
  switch (type) {
    case 'RUN_STARTED':
      return { type };
    case 'TEXT_MESSAGE_START':
      return messageId === null ? OTHER : { type, messageId };
    case 'TEXT_MESSAGE_CONTENT':
      return messageId === null ? OTHER : { type, messageId, delta: text(fields, 'delta') ?? '' };
    case 'TOOL_CALL_START':
    case 'TOOL_CALL_ARGS':
    case 'TOOL_CALL_END':
    case 'TOOL_CALL_RESULT':
      return readToolCall(type, fields);
    case 'CUSTOM':
      return readCustom(fields);
    case 'RUN_FINISHED': {
      const response = asObject(asObject(fields['result'])['response']);
      return { type, content: text(response, 'content'), truncated: text(response, 'truncated') };
    }
    case 'RUN_ERROR':
      return { type, message: text(fields, 'message') ?? '', code: text(fields, 'code') ?? 'internal' };
    default:
      return OTHER;
  }
}

function parse(data: string): Json | null {
  try {
    return asObject(JSON.parse(data));
  } catch {
    return null; // not ours: nothing in it could be used, and the next frame says where we are
  }
}

/** Read one event; null when it is no frame at all (no JSON, or no cursor to place it by). */
export function readFrame(event: SseEvent): Frame | null {
  const fields = parse(event.data);
  if (fields === null) return null;
  const metadata = asObject(fields['metadata']);
  const cursor = readCursor(event.id) ?? readCursor(`${metadata['epoch']}-${metadata['sequence']}`);
  if (cursor === null) return null;
  const timestamp = typeof fields['timestamp'] === 'number' ? fields['timestamp'] : null;
  return { ...readBody(String(fields['type']), fields), cursor, timestamp };
}
