/** What a page of the house asks of the server, and what it shows meanwhile. */

import { useEffect, useState } from 'preact/hooks';
import { type Problem, Refused, request } from '../wire/http.ts';

export interface Query<T> {
  /** The last answer; it stays while a newer one is awaited. */
  readonly value: T | null;
  readonly problem: Problem | null;
  readonly busy: boolean;
  readonly reload: () => void;
}

const PATIENCE = 20_000;

export async function readJson<T>(path: string, signal: AbortSignal): Promise<T> {
  const both = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]);
  return (await (await request(path, { signal: both })).json()) as T;
}

export async function postJson<T>(path: string, body: unknown): Promise<T> {
  const response = await request(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE),
  });
  return (await response.json()) as T;
}

/** @param path asked again whenever it changes; null asks nothing. */
export function useQuery<T>(path: string | null): Query<T> {
  const [answer, show] = useState<{ path: string; value: T | null; problem: Problem | null } | null>(null);
  const [asked, again] = useState(0);
  const [busy, wait] = useState(false);
  useEffect(() => {
    if (path === null) return;
    const leaving = new AbortController();
    wait(true);
    readJson<T>(path, leaving.signal)
      .then(value => show({ path, value, problem: null }))
      .catch((error: unknown) => {
        if (leaving.signal.aborted) return;
        if (!(error instanceof Refused)) throw error;
        show({ path, value: null, problem: error.problem });
      })
      .finally(() => leaving.signal.aborted || wait(false));
    return () => leaving.abort();
  }, [path, asked]);
  const known = answer?.path === path ? answer : null;
  return {
    value: known?.value ?? null,
    problem: known?.problem ?? null,
    busy,
    reload: () => again(asked + 1),
  };
}

/** A call that a person asked for: whether it goes on, and why it was refused. */
export function useCall(): {
  readonly busy: boolean;
  readonly problem: Problem | null;
  readonly run: (call: () => Promise<void>) => void;
} {
  const [busy, wait] = useState(false);
  const [problem, show] = useState<Problem | null>(null);
  const run = (call: () => Promise<void>): void => {
    wait(true);
    show(null);
    call()
      .catch((error: unknown) => {
        if (!(error instanceof Refused)) throw error;
        show(error.problem);
      })
      .finally(() => wait(false));
  };
  return { busy, problem, run };
}
