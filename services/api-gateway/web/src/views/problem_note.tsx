import type { ComponentChildren, JSX } from 'preact';
import type { Problem } from '../wire/http.ts';
import { Warning } from './icons.tsx';

/** What went wrong in plain words; what only a developer needs is in a fold. */
export function ErrorNote({
  title,
  detail,
  facts,
  children,
}: {
  title: string;
  detail: string;
  facts: readonly (readonly [name: string, value: string | null])[];
  children?: ComponentChildren;
}): JSX.Element {
  const known = facts.filter(([, value]) => value !== null && value !== '');
  return (
    <div class="error-note" role="alert">
      <Warning />
      <div class="error-text">
        <strong>{title}</strong>
        {detail !== '' && <p>{detail}</p>}
        {known.length > 0 && (
          <details>
            <summary>Details</summary>
            <dl>
              {known.map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value}</dd>
                </div>
              ))}
            </dl>
          </details>
        )}
        {children !== undefined && <div class="error-actions">{children}</div>}
      </div>
    </div>
  );
}

export function ProblemNote({
  problem,
  children,
}: {
  problem: Problem;
  children?: ComponentChildren;
}): JSX.Element {
  const facts = [
    ['Status', problem.status === 0 ? null : String(problem.status)],
    ['Trace', problem.traceId],
  ] as const;
  return (
    <ErrorNote title={problem.title} detail={problem.detail} facts={facts}>
      {children}
    </ErrorNote>
  );
}
