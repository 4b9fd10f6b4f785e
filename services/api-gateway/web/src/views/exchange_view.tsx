import { Component, type JSX } from 'preact';
import { timeOf } from '../state/dates.ts';
import type { Exchange } from '../state/thread.ts';
import { Answer } from './answer.tsx';
import { CopyButton } from './copy_button.tsx';
import { Pencil } from './icons.tsx';
import { ProblemNote } from './problem_note.tsx';

export interface ExchangeActions {
  readonly again: (exchange: Exchange) => void;
  readonly resend: (exchange: Exchange) => void;
  readonly edit: (exchange: Exchange) => void;
  readonly cancel: (exchange: Exchange) => void;
}

export interface ExchangeProps {
  readonly exchange: Exchange;
  readonly behind: boolean;
  readonly last: boolean;
  readonly stopping: boolean;
  readonly actions: ExchangeActions;
}

function Question({ exchange, behind, last, actions }: ExchangeProps): JSX.Element | null {
  const { question, askedAt, delivery } = exchange;
  if (question === null) return null;
  const at = askedAt === null ? null : new Date(askedAt);
  return (
    <article class="question">
      <h3 class="sr-only">You</h3>
      <div class="bubble">{question}</div>
      <div class="actions">
        {last && (
          <button
            type="button"
            class="quiet square"
            title="Edit and send again"
            aria-label="Edit this message and send it again"
            onClick={() => actions.edit(exchange)}
          >
            <Pencil />
          </button>
        )}
        <CopyButton text={() => question} label="Copy this message" />
        {delivery === 'sending' && <span class="note">Sending…</span>}
        {behind && delivery === 'sent' && (
          <>
            <span class="chip">Queued</span>
            <button type="button" class="quiet" onClick={() => actions.cancel(exchange)}>
              Cancel
            </button>
          </>
        )}
        {at !== null && (
          <time dateTime={at.toISOString()} title={at.toLocaleString()}>
            {timeOf(at)}
          </time>
        )}
      </div>
    </article>
  );
}

/** One exchange. Drawn again only when something of it changed: while one answer streams the others rest. */
export class ExchangeView extends Component<ExchangeProps> {
  override shouldComponentUpdate(next: ExchangeProps): boolean {
    const now = this.props;
    return (
      next.exchange !== now.exchange ||
      next.behind !== now.behind ||
      next.last !== now.last ||
      next.stopping !== now.stopping
    );
  }

  override render({ exchange, behind, last, stopping, actions }: ExchangeProps): JSX.Element {
    const { delivery, problem } = exchange;
    return (
      <li class="exchange">
        <Question {...{ exchange, behind, last, stopping, actions }} />
        {delivery === 'refused' && problem !== null && (
          <ProblemNote problem={problem}>
            <button type="button" class="button" onClick={() => actions.resend(exchange)}>
              Send again
            </button>
          </ProblemNote>
        )}
        {delivery !== 'refused' && !behind && (
          <Answer
            exchange={exchange}
            stopping={stopping}
            again={last && exchange.question !== null ? () => actions.again(exchange) : null}
          />
        )}
      </li>
    );
  }
}
