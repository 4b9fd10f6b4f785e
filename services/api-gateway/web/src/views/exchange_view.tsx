import { Component, type JSX } from 'preact';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Place } from '../state/branches.ts';
import { timeOf } from '../state/dates.ts';
import { tooMany } from '../state/drafts.ts';
import type { Exchange } from '../state/thread.ts';
import { Answer } from './answer.tsx';
import { fitHeight, isSend, TooLong } from './composer.tsx';
import { CopyButton } from './copy_button.tsx';
import { Chevron, ChevronLeft, Pencil } from './icons.tsx';
import { ProblemNote } from './problem_note.tsx';

export interface ExchangeActions {
  readonly again: (exchange: Exchange) => void;
  readonly resend: (exchange: Exchange) => void;
  readonly edit: (exchange: Exchange | null) => void;
  readonly replace: (exchange: Exchange, text: string) => void;
  readonly cancel: (exchange: Exchange) => void;
  readonly switchBranch: (exchange: Exchange, by: number) => void;
}

export interface ExchangeProps {
  readonly exchange: Exchange;
  readonly place: Place;
  readonly behind: boolean;
  readonly stopping: boolean;
  readonly editing: boolean;
  readonly actions: ExchangeActions;
}

/** Another wording of a question, in the question's own place. Escape gives it up. */
function EditBox({ exchange, actions }: ExchangeProps): JSX.Element {
  const box = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(exchange.question ?? '');
  useLayoutEffect(() => {
    box.current?.focus();
    box.current?.setSelectionRange(text.length, text.length);
  }, []);
  useLayoutEffect(() => {
    if (box.current !== null) fitHeight(box.current);
  }, [text]);
  const excess = tooMany(text);
  const useless = text.trim() === '' || excess > 0;
  const send = (): void => {
    if (useless) return;
    actions.edit(null);
    actions.replace(exchange, text);
  };
  return (
    <div class="edit-box">
      <textarea
        ref={box}
        rows={1}
        value={text}
        aria-label="Edit your message"
        aria-describedby={excess > 0 ? 'edit-excess' : 'edit-hint'}
        onInput={event => setText(event.currentTarget.value)}
        onKeyDown={event => {
          if (event.key === 'Escape' && !event.isComposing) {
            event.preventDefault();
            actions.edit(null);
          }
          if (!isSend(event)) return;
          event.preventDefault();
          send();
        }}
      />
      {excess > 0 && <TooLong by={excess} id="edit-excess" />}
      <div class="edit-actions">
        <p id="edit-hint">
          A new answer is made; the old one is kept. <kbd>Esc</kbd> gives up.
        </p>
        <button type="button" class="button" onClick={() => actions.edit(null)}>
          Cancel
        </button>
        <button type="button" class="button primary" disabled={useless} onClick={send}>
          Send
        </button>
      </div>
    </div>
  );
}

/** 2/3: which of several questions or answers in one place is shown. */
function Branches({ exchange, place, actions }: ExchangeProps): JSX.Element | null {
  if (place.of < 2) return null;
  return (
    <span class="branches">
      <button
        type="button"
        class="quiet square"
        aria-label="Show the version before"
        disabled={place.number === 1}
        onClick={() => actions.switchBranch(exchange, -1)}
      >
        <ChevronLeft />
      </button>
      <span role="status" aria-label={`Version ${place.number} of ${place.of}`}>
        {place.number}/{place.of}
      </span>
      <button
        type="button"
        class="quiet square"
        aria-label="Show the version after"
        disabled={place.number === place.of}
        onClick={() => actions.switchBranch(exchange, 1)}
      >
        <Chevron />
      </button>
    </span>
  );
}

function Queued({ exchange, actions }: ExchangeProps): JSX.Element {
  return (
    <>
      <span class="chip">Queued</span>
      <button type="button" class="quiet" onClick={() => actions.cancel(exchange)}>
        Cancel
      </button>
    </>
  );
}

function Question(props: ExchangeProps): JSX.Element | null {
  const { exchange, behind, actions } = props;
  const { question, askedAt, delivery } = exchange;
  if (question === null) return null;
  const at = askedAt === null ? null : new Date(askedAt);
  if (props.editing) {
    return (
      <article class="question">
        <h3 class="sr-only">You</h3>
        <EditBox {...props} />
      </article>
    );
  }
  return (
    <article class="question">
      <h3 class="sr-only">You</h3>
      <div class="bubble">{question}</div>
      <div class="actions">
        {exchange.requestId !== null && (
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
        {behind && delivery === 'sent' && <Queued {...props} />}
        <Branches {...props} />
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
      next.editing !== now.editing ||
      next.stopping !== now.stopping ||
      next.place.number !== now.place.number ||
      next.place.of !== now.place.of
    );
  }

  override render(props: ExchangeProps): JSX.Element {
    const { exchange, behind, stopping, actions } = props;
    const { delivery, problem } = exchange;
    const askable = exchange.question !== null && exchange.requestId !== null;
    return (
      <li class="exchange">
        <Question {...props} />
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
            again={askable ? () => actions.again(exchange) : null}
          />
        )}
      </li>
    );
  }
}
