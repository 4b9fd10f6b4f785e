import { Fragment, type JSX } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { type Shown, shownIn } from '../state/branches.ts';
import { dayOf } from '../state/dates.ts';
import { hasEnded } from '../state/run.ts';
import type { Exchange, Thread } from '../state/thread.ts';
import { Announcer } from './announcer.tsx';
import { Empty } from './empty.tsx';
import { type ExchangeActions, ExchangeView } from './exchange_view.tsx';
import { ArrowDown } from './icons.tsx';
import { ProblemNote } from './problem_note.tsx';
import type { Stick } from './stick.ts';

function dayBefore(exchanges: readonly Exchange[], index: number, now: Date): string | null {
  const at = exchanges[index]?.askedAt;
  if (!at) return null;
  const day = dayOf(new Date(at), now);
  const before = exchanges[index - 1]?.askedAt;
  if (before) return dayOf(new Date(before), now) === day ? null : day;
  return index === 0 && day !== 'Today' ? day : null;
}

function Exchanges({
  shown,
  stopping,
  editing,
  actions,
}: {
  shown: readonly Shown[];
  stopping: string | null;
  editing: string | null;
  actions: ExchangeActions;
}): JSX.Element {
  const now = new Date();
  const exchanges = shown.map(({ exchange }) => exchange);
  const first = exchanges.findIndex(({ run, delivery }) => delivery !== 'refused' && !hasEnded(run));
  return (
    <ol class="exchanges">
      {shown.map(({ exchange, place }, index) => {
        const day = dayBefore(exchanges, index, now);
        return (
          <Fragment key={exchange.key}>
            {day !== null && (
              <li class="day">
                <span>{day}</span>
              </li>
            )}
            <ExchangeView
              exchange={exchange}
              behind={
                !hasEnded(exchange.run) && exchange.run.status === 'queued' && index > first && first >= 0
              }
              place={place}
              editing={editing === exchange.key}
              stopping={stopping !== null && stopping === exchange.requestId}
              actions={actions}
            />
          </Fragment>
        );
      })}
    </ol>
  );
}

function Loading(): JSX.Element {
  return (
    <div class="skeleton" role="status" aria-label="Loading the conversation">
      <i class="right" />
      <i />
      <i />
      <i class="short" />
    </div>
  );
}

export interface ThreadViewProps {
  readonly thread: Thread;
  readonly stopping: string | null;
  /** The key of the exchange whose question is being edited. */
  readonly editing: string | null;
  readonly actions: ExchangeActions;
  readonly stick: Stick;
  readonly box: { current: HTMLDivElement | null };
  readonly content: { current: HTMLDivElement | null };
  readonly ask: (text: string) => void;
  readonly loadEarlier: () => void;
  readonly reload: () => void;
}

/** Older messages are put above what is read, and what is read does not move. */
function useSteady(box: ThreadViewProps['box'], first: string | undefined, thread: string): void {
  const before = useRef({ first, thread });
  const { current: last } = before;
  const grown = last.thread === thread && last.first !== undefined && last.first !== first;
  // Now, while nothing is drawn yet, it still has the height that is to be kept below.
  const height = grown ? (box.current?.scrollHeight ?? 0) : 0;
  useLayoutEffect(() => {
    if (grown && box.current !== null) box.current.scrollTop += box.current.scrollHeight - height;
    before.current = { first, thread };
  });
}

export function ThreadView(props: ThreadViewProps): JSX.Element {
  const { thread, stick, box, content } = props;
  const shown = shownIn(thread);
  const exchanges = shown.map(({ exchange }) => exchange);
  useSteady(box, exchanges[0]?.key, thread.key);
  return (
    <div class="thread">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: the conversation scrolls, and a keyboard must reach it */}
      <section class="scroll" ref={box} tabIndex={0} aria-label="Conversation">
        <div class="column" ref={content}>
          {thread.earlier !== null && (
            <button type="button" class="button earlier" onClick={props.loadEarlier}>
              Earlier messages
            </button>
          )}
          {thread.phase === 'loading' && exchanges.length === 0 && <Loading />}
          {thread.phase === 'failed' && thread.problem !== null && (
            <ProblemNote problem={thread.problem}>
              <button type="button" class="button" onClick={props.reload}>
                Try again
              </button>
            </ProblemNote>
          )}
          {exchanges.length === 0 && (thread.phase === 'new' || thread.phase === 'ready') && (
            <Empty ask={props.ask} />
          )}
          {exchanges.length > 0 && (
            <Exchanges
              shown={shown}
              stopping={props.stopping}
              editing={props.editing}
              actions={props.actions}
            />
          )}
        </div>
      </section>
      {stick.away && (
        <button type="button" class="to-end" onClick={() => stick.toEnd(true)}>
          <ArrowDown />
          <span>Latest</span>
        </button>
      )}
      <Announcer key={thread.key} exchanges={exchanges} />
    </div>
  );
}
