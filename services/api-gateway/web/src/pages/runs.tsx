/** Runs of all people of the tenant, without their words: states, tries, epochs, and the steps of one as a waterfall. */

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { durationOf } from '../state/dates.ts';
import { addressOf, type PageProps } from '../state/route.ts';
import { ProblemNote } from '../views/problem_note.tsx';
import type { Status } from '../wire/api.ts';
import { FactList, moment, Nothing, Operations } from './operations.tsx';
import { useQuery } from './query.ts';

/** `agent_service.domain.run_reports.RunSummary`. */
interface Run {
  readonly request_id: string;
  readonly session_id: string;
  readonly turn: number;
  readonly status: Status;
  readonly agent?: string;
  readonly revision?: string;
  readonly tries: number;
  readonly epoch: number;
  readonly reason?: string;
  readonly usage?: {
    readonly input_tokens: number;
    readonly output_tokens: number;
    readonly model_calls: number;
  };
  readonly created_at: string;
  readonly started_at?: string;
  readonly finished_at?: string;
  readonly expires_at: string;
}

interface Step {
  readonly key: string;
  readonly kind: 'model' | 'tool';
  readonly name: string;
  readonly epoch: number;
  readonly started_at: string;
  readonly finished_at: string;
  readonly failed: boolean;
  readonly input_tokens?: number;
  readonly output_tokens?: number;
  readonly calls?: number;
}

interface Report extends Run {
  readonly steps: readonly Step[];
}

interface Page {
  readonly runs: readonly Run[];
  readonly next?: string;
}

const RUNS = '/api/v1/runs';
const between = (from: string, to: string): number => Math.max(Date.parse(to) - Date.parse(from), 0);

function tookOf({ started_at, finished_at }: Run): string {
  if (!started_at) return '';
  return durationOf(between(started_at, finished_at ?? new Date().toISOString()));
}

function State({ run }: { run: Run }): JSX.Element {
  return <span class={`tag is-${run.status}`}>{run.status}</span>;
}

function stepNote(step: Step): string {
  if (step.kind === 'tool') return step.failed ? 'failed' : 'tool';
  const tokens = `${step.input_tokens ?? 0} in, ${step.output_tokens ?? 0} out`;
  return step.calls ? `${tokens}, ${step.calls === 1 ? '1 tool' : `${step.calls} tools`}` : tokens;
}

/** Each step as a bar on one scale of time, from the first claim to the end. */
function Waterfall({ run }: { run: Report }): JSX.Element {
  const begin = run.started_at ?? run.created_at;
  const end = run.finished_at ?? run.steps.at(-1)?.finished_at ?? begin;
  const whole = Math.max(between(begin, end), 1);
  const place = (step: Step): { left: string; width: string } => ({
    left: `${Math.min((between(begin, step.started_at) / whole) * 100, 100)}%`,
    width: `max(${(between(step.started_at, step.finished_at) / whole) * 100}%, 3px)`,
  });
  return (
    <figure class="waterfall">
      <figcaption>
        <span>{run.steps.length} finished steps</span>
        <span>{durationOf(whole)}</span>
      </figcaption>
      <ol>
        {run.steps.map(step => (
          <li key={step.key}>
            <span class="step-name" title={step.name}>
              {step.name}
            </span>
            <span class="step-note">
              {stepNote(step)}
              {run.epoch > 1 && `, epoch ${step.epoch}`}
            </span>
            <span class="step-line" aria-hidden="true">
              <i class={step.failed ? 'is-failed' : `is-${step.kind}`} style={place(step)} />
            </span>
            <span class="step-took">{durationOf(between(step.started_at, step.finished_at))}</span>
          </li>
        ))}
      </ol>
    </figure>
  );
}

function One({ id }: { id: string }): JSX.Element {
  const query = useQuery<Report>(`${RUNS}/${encodeURIComponent(id)}`);
  const run = query.value;
  return (
    <article class="one" aria-busy={query.busy}>
      <a class="back" href={addressOf('runs')}>
        All runs
      </a>
      {query.problem !== null && <ProblemNote problem={query.problem} />}
      {run !== null && (
        <>
          <h2>
            {run.agent ?? 'Run'} <State run={run} />
          </h2>
          {run.steps.length > 0 ? (
            <Waterfall run={run} />
          ) : (
            <p class="why">No step of it has finished{run.finished_at ? '.' : ' yet.'}</p>
          )}
          <FactList
            facts={[
              ['Reason', run.reason],
              ['Tries', run.tries],
              ['Epochs', run.epoch],
              ['Took', tookOf(run)],
              ['Model calls', run.usage?.model_calls],
              ['Tokens', run.usage && `${run.usage.input_tokens} in, ${run.usage.output_tokens} out`],
              ['Accepted', moment(run.created_at)],
              ['Started', moment(run.started_at)],
              ['Ended', moment(run.finished_at)],
              ['Deadline', moment(run.expires_at)],
              ['Revision', run.revision],
              ['Turn', run.turn],
              ['Request', run.request_id],
              ['Session', run.session_id],
            ]}
          />
        </>
      )}
    </article>
  );
}

function List({ runs }: { runs: readonly Run[] }): JSX.Element {
  return (
    <ul class="entries">
      {runs.map(run => (
        <li key={run.request_id}>
          <a href={addressOf('runs', run.request_id)}>
            <span class="entry-main">
              <strong>{run.agent ?? 'No agent yet'}</strong>
              <State run={run} />
            </span>
            <span class="entry-more">
              {[
                run.reason,
                run.epoch > 1 && `${run.epoch} epochs`,
                run.tries > 1 && `${run.tries} tries`,
                run.usage && `${run.usage.input_tokens + run.usage.output_tokens} tokens`,
              ]
                .filter(Boolean)
                .join(' · ')}
            </span>
            <span class="entry-side">
              {tookOf(run)}
              <time dateTime={run.created_at}>{moment(run.created_at)}</time>
            </span>
          </a>
        </li>
      ))}
    </ul>
  );
}

export default function RunsPage({ detail }: PageProps): JSX.Element {
  const [before, page] = useState<string | null>(null);
  const query = useQuery<Page>(`${RUNS}?limit=50${before === null ? '' : `&before=${before}`}`);
  const runs = query.value?.runs ?? [];
  const next = query.value?.next ?? null;
  return (
    <Operations page="runs" query={query}>
      {detail !== null ? (
        <One key={detail} id={detail} />
      ) : (
        <>
          <List runs={runs} />
          {query.value !== null && runs.length === 0 && (
            <Nothing title="No runs yet">Every request becomes a run, and is listed here.</Nothing>
          )}
          {(next !== null || before !== null) && (
            <div class="pager">
              <button type="button" class="button" disabled={before === null} onClick={() => page(null)}>
                Newest
              </button>
              <button type="button" class="button" disabled={next === null} onClick={() => page(next)}>
                Older
              </button>
            </div>
          )}
        </>
      )}
    </Operations>
  );
}
