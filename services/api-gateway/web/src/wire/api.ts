/** The gateway's addresses that this page uses, as typed calls. Nothing is decided here. */

import { type Cursor, showCursor } from './frames.ts';
import { request } from './http.ts';

export interface Identity {
  readonly subject: string;
  readonly tenant: string;
}

export interface Session {
  readonly session_id: string;
  readonly title: string | null;
  readonly agent: string | null;
  readonly created_at: string;
  readonly updated_at: string;
  readonly active_request_id: string | null;
  /** The way in which its first request came: `web`, `api` or `cli`. */
  readonly channel?: string | null;
  /** In a search: where the words were said; null where they are in the title. */
  readonly match?: string | null;
}

/** `shared_models.requests.Status`. */
export type Status =
  | 'accepted'
  | 'running'
  | 'waiting'
  | 'completed'
  | 'failed'
  | 'cancelled'
  | 'expired'
  | 'refused';

export type MessagePart =
  | { readonly type: 'text' | 'reasoning'; readonly id: string; readonly text: string }
  | {
      readonly type: 'tool';
      readonly id: string;
      readonly name: string;
      readonly arguments: string;
      readonly result?: string | null;
      readonly failed: boolean;
      readonly milliseconds?: number | null;
    };

export interface Message {
  readonly id: string;
  readonly turn: number;
  readonly role: 'user' | 'assistant';
  readonly content: string;
  /** All that an agent said and did, in the order in which it was seen. */
  readonly parts?: readonly MessagePart[];
  /** Why an answer ends before the model was done. */
  readonly truncated?: string | null;
  /** Why the run ended before it had an answer. */
  readonly error?: { readonly reason: string; readonly message: string } | null;
  readonly request_id: string;
  readonly status: Status;
  /** The turn that this one follows; 0 at the beginning. */
  readonly after_turn?: number;
  readonly agent?: string | null;
  readonly revision?: string | null;
  readonly models?: readonly string[];
  readonly usage?: { readonly input_tokens: number; readonly output_tokens: number } | null;
  readonly started_at?: string | null;
  readonly created_at: string;
}

export interface SessionPage {
  readonly sessions: readonly Session[];
  readonly next: string | null;
}

export interface MessagePage {
  readonly messages: readonly Message[];
  readonly next: string | null;
}

export interface NewChat {
  readonly content: string;
  readonly session_id?: string;
  readonly instead_of?: string;
  readonly after?: string;
}

const PATIENCE = 20_000;

function briefly(): RequestInit {
  return { signal: AbortSignal.timeout(PATIENCE) };
}

function json(method: string, body: unknown): RequestInit {
  return { method, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
}

function page(limit: number, before: string | null): string {
  const query = new URLSearchParams({ limit: String(limit) });
  if (before !== null) query.set('before', before);
  return query.toString();
}

const session = (id: string): string => `/api/v1/sessions/${encodeURIComponent(id)}`;

export async function me(): Promise<Identity> {
  return (await (await request('/auth/me', briefly())).json()) as Identity;
}

/** `replace` confirms that another person than before is signed in. */
export async function signIn(code: string, replace = false): Promise<void> {
  await request('/auth/link', { ...json('POST', { code, replace }), ...briefly() });
}

export async function signOut(): Promise<void> {
  await request('/auth/logout', { method: 'POST', ...briefly() });
}

export async function listSessions(before: string | null): Promise<SessionPage> {
  return (await (await request(`/api/v1/sessions?${page(50, before)}`, briefly())).json()) as SessionPage;
}

export async function searchSessions(words: string, signal: AbortSignal): Promise<SessionPage> {
  const query = new URLSearchParams({ search: words, limit: '50' });
  return (await (await request(`/api/v1/sessions?${query}`, { signal })).json()) as SessionPage;
}

export async function listMessages(id: string, before: string | null): Promise<MessagePage> {
  return (await (
    await request(`${session(id)}/messages?branches=all&${page(100, before)}`, briefly())
  ).json()) as MessagePage;
}

export async function renameSession(id: string, title: string): Promise<void> {
  await request(session(id), { ...json('PATCH', { title }), ...briefly() });
}

export async function deleteSession(id: string): Promise<void> {
  await request(session(id), { method: 'DELETE', ...briefly() });
}

export async function cancelRequest(id: string): Promise<void> {
  await request(`/api/v1/requests/${encodeURIComponent(id)}`, { method: 'DELETE', ...briefly() });
}

export function startChat(body: NewChat, key: string, signal: AbortSignal): Promise<Response> {
  const init = json('POST', body);
  return request('/chat', {
    ...init,
    headers: { ...init.headers, 'Idempotency-Key': key, Accept: 'text/event-stream' },
    signal,
  });
}

export function resumeChat(id: string, after: Cursor | null, signal: AbortSignal): Promise<Response> {
  const place: HeadersInit = after === null ? {} : { 'Last-Event-ID': showCursor(after) };
  return request(`/chat/${encodeURIComponent(id)}`, {
    headers: { Accept: 'text/event-stream', ...place },
    signal,
  });
}
