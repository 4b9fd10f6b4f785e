/** Events that no service could handle: each is replayed or discarded by an operator. */

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';
import { addressOf, type PageProps } from '../state/route.ts';
import { ProblemNote } from '../views/problem_note.tsx';
import { FactList, moment, Nothing, Operations } from './operations.tsx';
import { postJson, useCall, useQuery } from './query.ts';

/** `shared_models.dead_letters.DeadLetter`. */
interface Letter {
  readonly id: string;
  readonly service: string;
  readonly box: 'inbox' | 'outbox';
  readonly state: 'dead' | 'parked';
  readonly type: string;
  readonly source: string;
  readonly tenant: string;
  readonly subject?: string;
  readonly correlation_id?: string;
  readonly reason: string;
  readonly attempts: number;
  readonly first_seen: string;
  readonly died_at?: string;
  readonly size: number;
  readonly malformed: boolean;
  readonly content?: { readonly attributes: Readonly<Record<string, string>>; readonly data_base64: string };
}

interface Page {
  readonly letters: readonly Letter[];
  readonly next?: string;
}

interface Settled {
  readonly outcome: 'replayed' | 'discarded';
  readonly request_id?: string;
}

const LETTERS = '/api/v1/dead-letters';

/** `flotilla.request.created.v1` is long, and all types begin and end alike. */
function shortType(type: string): string {
  return type.replace(/^flotilla\./, '').replace(/\.v\d+$/, '');
}

function textOf(base64: string): string {
  const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
  const text = new TextDecoder().decode(bytes);
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // a letter may be dead for just that reason
  }
}

function Content({ id }: { id: string }): JSX.Element {
  const [wanted, want] = useState(false);
  const query = useQuery<Letter>(wanted ? `${LETTERS}/${encodeURIComponent(id)}?content=true` : null);
  const content = query.value?.content;
  if (content === undefined) {
    return (
      <>
        <button type="button" class="button" disabled={query.busy} onClick={() => want(true)}>
          Show its content
        </button>
        <p class="fine">It may hold what people wrote. Reading it is recorded in the audit log.</p>
        {query.problem !== null && <ProblemNote problem={query.problem} />}
      </>
    );
  }
  return (
    <>
      <FactList facts={Object.entries(content.attributes)} />
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: long content scrolls, and a keyboard must reach it */}
      <pre tabIndex={0}>{textOf(content.data_base64)}</pre>
    </>
  );
}

function Decide({ letter, settled }: { letter: Letter; settled: (said: string) => void }): JSX.Element {
  const call = useCall();
  const [reason, setReason] = useState('');
  const path = `${LETTERS}/${encodeURIComponent(letter.id)}`;
  const replay = async (): Promise<void> => {
    const { request_id } = await postJson<Settled>(`${path}/replay`, {});
    settled(request_id ? `It is replayed, as the new request ${request_id}.` : 'It is replayed.');
  };
  const discard = async (): Promise<void> => {
    await postJson<Settled>(`${path}/discard`, { reason: reason.trim() });
    settled('It is discarded.');
  };
  return (
    <div class="decide">
      <button
        type="button"
        class="button primary"
        disabled={call.busy || letter.malformed}
        title={letter.malformed ? 'It cannot be read, so it cannot be replayed' : 'Handle it again'}
        onClick={() => call.run(replay)}
      >
        Replay
      </button>
      <form
        onSubmit={event => {
          event.preventDefault();
          if (reason.trim() !== '') call.run(discard);
        }}
      >
        <input
          type="text"
          maxLength={500}
          placeholder="Reason to discard it"
          aria-label="Reason to discard it"
          value={reason}
          onInput={event => setReason(event.currentTarget.value)}
        />
        <button type="submit" class="button danger" disabled={call.busy || reason.trim() === ''}>
          Discard
        </button>
      </form>
      {call.problem !== null && <ProblemNote problem={call.problem} />}
    </div>
  );
}

function One({ id, settled }: { id: string; settled: (said: string) => void }): JSX.Element {
  const query = useQuery<Letter>(`${LETTERS}/${encodeURIComponent(id)}`);
  const letter = query.value;
  return (
    <article class="one" aria-busy={query.busy}>
      <a class="back" href={addressOf('dead-letters')}>
        All dead letters
      </a>
      {query.problem !== null && <ProblemNote problem={query.problem} />}
      {letter !== null && (
        <>
          <h2>{letter.type}</h2>
          <p class="why">{letter.reason}</p>
          {letter.state === 'dead' && <Decide letter={letter} settled={settled} />}
          <FactList
            facts={[
              ['State', letter.state],
              ['Service', `${letter.service} (${letter.box})`],
              ['From', letter.source],
              ['Tries', letter.attempts],
              ['Arrived', moment(letter.first_seen)],
              ['Died', moment(letter.died_at)],
              ['Size', `${letter.size.toLocaleString('en')} bytes`],
              ['Subject', letter.subject],
              ['Request', letter.correlation_id],
              ['Tenant', letter.tenant],
              ['Letter', letter.id],
            ]}
          />
          <Content key={letter.id} id={letter.id} />
        </>
      )}
    </article>
  );
}

function List({ letters }: { letters: readonly Letter[] }): JSX.Element {
  return (
    <ul class="entries">
      {letters.map(letter => (
        <li key={letter.id}>
          <a href={addressOf('dead-letters', letter.id)}>
            <span class="entry-main">
              <strong>{shortType(letter.type)}</strong>
              <span class="tag">{letter.service}</span>
            </span>
            <span class="entry-more">{letter.reason}</span>
            <span class="entry-side">
              {letter.attempts} {letter.attempts === 1 ? 'try' : 'tries'}
              <time dateTime={letter.died_at ?? letter.first_seen}>
                {moment(letter.died_at ?? letter.first_seen)}
              </time>
            </span>
          </a>
        </li>
      ))}
    </ul>
  );
}

export default function DeadLettersPage({ detail }: PageProps): JSX.Element {
  const [state, choose] = useState<'dead' | 'parked'>('dead');
  const [before, page] = useState<string | null>(null);
  const [said, say] = useState('');
  const more = before === null ? '' : `&before=${encodeURIComponent(before)}`;
  const query = useQuery<Page>(`${LETTERS}?state=${state}&limit=50${more}`);
  const letters = query.value?.letters ?? [];
  const next = query.value?.next ?? null;
  const settled = (what: string): void => {
    say(what);
    query.reload();
    location.hash = addressOf('dead-letters');
  };
  return (
    <Operations page="dead-letters" query={query}>
      <p class="said" role="status">
        {said}
      </p>
      {detail !== null ? (
        <One key={detail} id={detail} settled={settled} />
      ) : (
        <>
          <fieldset class="choice" aria-label="Which letters">
            {(['dead', 'parked'] as const).map(each => (
              <button
                key={each}
                type="button"
                aria-pressed={each === state}
                onClick={() => {
                  choose(each);
                  page(null);
                }}
              >
                {each === 'dead' ? 'Dead' : 'Being retried'}
              </button>
            ))}
          </fieldset>
          <List letters={letters} />
          {query.value !== null && letters.length === 0 && (
            <Nothing title={state === 'dead' ? 'No dead letters' : 'Nothing is being retried'}>
              {state === 'dead'
                ? 'Every event was handled. One that cannot be handled is kept here until somebody decides about it.'
                : 'Events whose handling failed for the moment are listed here until they are handled.'}
            </Nothing>
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
