/** What the pages of Operations share: their tabs, their list with one entry opened beside it, and how facts look. */

import type { ComponentChildren, JSX } from 'preact';
import { addressOf, type PageName } from '../state/route.ts';
import { ProblemNote } from '../views/problem_note.tsx';
import './operations.css';
import type { Query } from './query.ts';

const TABS = [
  { page: 'dead-letters', name: 'Dead letters' },
  { page: 'runs', name: 'Runs' },
] as const;

export function Operations({
  page,
  query,
  children,
}: {
  page: PageName;
  query: Query<unknown>;
  children: ComponentChildren;
}): JSX.Element {
  return (
    <section class="page" aria-busy={query.busy}>
      <div class="page-bar">
        <nav class="tabs" aria-label="Operations">
          {TABS.map(({ page: its, name }) => (
            <a key={its} href={addressOf(its)} aria-current={its === page ? 'page' : undefined}>
              {name}
            </a>
          ))}
        </nav>
        <button type="button" class="button" disabled={query.busy} onClick={query.reload}>
          Refresh
        </button>
      </div>
      {query.problem !== null && (
        <ProblemNote problem={query.problem}>
          <button type="button" class="button" onClick={query.reload}>
            Try again
          </button>
        </ProblemNote>
      )}
      {children}
    </section>
  );
}

export type Facts = readonly (readonly [name: string, value: string | number | null | undefined])[];

export function FactList({ facts }: { facts: Facts }): JSX.Element {
  return (
    <dl class="facts">
      {facts
        .filter(([, value]) => value !== null && value !== undefined && value !== '')
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

export function moment(time: string | null | undefined): string {
  if (!time) return '';
  return new Date(time).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
}

export function Nothing({ title, children }: { title: string; children: ComponentChildren }): JSX.Element {
  return (
    <div class="nothing-here">
      <h2>{title}</h2>
      <p>{children}</p>
    </div>
  );
}
