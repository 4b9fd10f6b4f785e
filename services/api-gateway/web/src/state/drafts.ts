/**
 * Text that was typed and not yet accepted, one draft a conversation. A draft that was sent keeps its idempotency key
 * until the server has accepted it: a reload in between and a second press of Enter cannot make two requests of it.
 */

import { keepText, recallText } from './keeping.ts';

/** `shared_models.requests.MAX_CONTENT`. */
export const LONGEST = 131_072;

/** How many characters of a text are too many, counted as the server counts them: in code points. */
export function tooMany(text: string): number {
  // No text has more code points than UTF-16 units: most texts need not be counted.
  if (text.length <= LONGEST) return 0;
  let count = 0;
  for (const _ of text) count += 1;
  return Math.max(count - LONGEST, 0);
}

interface Draft {
  readonly text: string;
  readonly sent?: { readonly text: string; readonly key: string };
}

const EMPTY: Draft = { text: '' };

function name(sessionId: string | null): string {
  return `draft.${sessionId ?? 'new'}`;
}

function recallDraft(sessionId: string | null): Draft {
  try {
    const value = JSON.parse(recallText(name(sessionId)) ?? 'null') as Draft | null;
    return typeof value?.text === 'string' ? value : EMPTY;
  } catch {
    return EMPTY; // written by something else
  }
}

function keepDraft(sessionId: string | null, draft: Draft): void {
  const nothing = draft.text === '' && draft.sent === undefined;
  keepText(name(sessionId), nothing ? null : JSON.stringify(draft));
}

/**
 * What the message box starts with: also a text that was sent and of which nobody knows whether it arrived.
 *
 * @param shown whether a text with this key is on the page already.
 */
export function draftText(sessionId: string | null, shown: (key: string) => boolean): string {
  const { text, sent } = recallDraft(sessionId);
  if (text !== '' || sent === undefined) return text;
  return shown(sent.key) ? '' : sent.text;
}

export function keepDraftText(sessionId: string | null, text: string): void {
  keepDraft(sessionId, { ...recallDraft(sessionId), text });
}

/** The draft is on its way: the key to send it with, the same as before if it was tried before. */
export function sendDraft(sessionId: string | null, text: string): string {
  const { text: typed, sent } = recallDraft(sessionId);
  const key = sent?.text === text ? sent.key : crypto.randomUUID();
  // An example or an earlier question that is sent leaves alone what is in the box.
  keepDraft(sessionId, { text: typed === text ? '' : typed, sent: { text, key } });
  return key;
}

/** The server has it, or has refused it for good. */
export function settleDraft(sessionId: string | null, key: string): void {
  const { text, sent } = recallDraft(sessionId);
  if (sent?.key === key) keepDraft(sessionId, { text });
}

/** A conversation got its id: what was typed in it meanwhile belongs to it. */
export function moveDraft(to: string): void {
  keepDraft(to, recallDraft(null));
  keepDraft(null, EMPTY);
}
