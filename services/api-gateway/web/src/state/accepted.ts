/**
 * Requests that were accepted here and have not been seen to end. A service that is slow or down does not list them yet;
 * with this note a reload, or another tab, follows them all the same.
 */

import { keepText, recallText } from './keeping.ts';
import { QUEUED } from './run.ts';
import type { Exchange } from './thread.ts';

export interface Accepted {
  readonly requestId: string;
  readonly question: string;
  readonly askedAt: string;
  readonly after: string | null;
}

const name = (sessionId: string): string => `accepted.${sessionId}`;

export function acceptedIn(sessionId: string): readonly Accepted[] {
  try {
    const value: unknown = JSON.parse(recallText(name(sessionId)) ?? '[]');
    return Array.isArray(value) ? (value as Accepted[]) : [];
  } catch {
    return []; // written by something else
  }
}

function keep(sessionId: string, accepted: readonly Accepted[]): void {
  keepText(name(sessionId), accepted.length === 0 ? null : JSON.stringify(accepted));
}

export function noteAccepted(sessionId: string, accepted: Accepted): void {
  keep(sessionId, [...acceptedIn(sessionId), accepted]);
}

export function forgetAccepted(sessionId: string, requestId?: string): void {
  keep(
    sessionId,
    requestId === undefined ? [] : acceptedIn(sessionId).filter(each => each.requestId !== requestId),
  );
}

export function exchangeOfAccepted({ requestId, question, askedAt, after }: Accepted): Exchange {
  return {
    key: requestId,
    requestId,
    after: after ?? null,
    insteadOf: null,
    question,
    askedAt,
    run: QUEUED,
    delivery: 'sent',
    sentAs: null,
    problem: null,
    details: null,
  };
}
