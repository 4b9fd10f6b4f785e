/** An answer: its text, its tool calls, and under them what can be done with it. */

import { Component, type ComponentChildren, type JSX } from 'preact';
import { timeOf } from '../state/dates.ts';
import { hasEnded, type Part, type Run, textOf } from '../state/run.ts';
import type { Exchange } from '../state/thread.ts';
import { CopyButton } from './copy_button.tsx';
import { Again, Mark } from './icons.tsx';
import { Markdown } from './markdown.tsx';
import { ErrorNote } from './problem_note.tsx';
import { ToolCard } from './tool_card.tsx';

const FAILURES: Readonly<Record<string, string>> = {
  model_unavailable: 'The model did not answer',
  model_refused: 'The model refused to answer',
  model_cut: 'The answer was cut off',
  context_too_long: 'This conversation is too long',
  unknown_agent: 'There is no such agent',
  too_many_steps: 'The agent took too many steps',
  deadline: 'The answer took longer than allowed',
  expired: 'The answer took longer than allowed',
  session_deleted: 'This conversation was deleted',
  session_busy: 'This conversation is busy',
  refused: 'The server did not accept this request',
  stream_refused: 'The answer could not be read',
};

const CUT: Readonly<Record<string, string>> = {
  length: 'Cut at the model’s length limit',
  size: 'Cut: the answer is too large',
};

/** A text that cannot be drawn is shown as it was written, and the rest of the page stays. */
class Written extends Component<{ text: string; children: ComponentChildren }, { broken: boolean }> {
  override state = { broken: false };

  static override getDerivedStateFromError(): { broken: boolean } {
    return { broken: true };
  }

  override render(): ComponentChildren {
    return this.state.broken ? <p class="as-written">{this.props.text}</p> : this.props.children;
  }
}

function PartView({
  part,
  growing,
  waiting,
}: {
  part: Part;
  growing: boolean;
  waiting: boolean;
}): JSX.Element {
  if (part.kind === 'tool') return <ToolCard tool={part} waiting={waiting} />;
  return (
    <Written text={part.text}>
      <Markdown text={part.text} growing={growing} />
    </Written>
  );
}

function Progress({ run, stopping }: { run: Run; stopping: boolean }): JSX.Element {
  const asked = run.retrying ? 'Asking again…' : 'Thinking…';
  const word = !run.retrying && run.parts.at(-1)?.kind === 'text' ? 'Answering…' : asked;
  return (
    <p class="progress">
      <span class="dots" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      {stopping ? 'Stopping…' : word}
    </p>
  );
}

function Ended({ exchange, again }: { exchange: Exchange; again: (() => void) | null }): JSX.Element {
  const { run } = exchange;
  const text = textOf(run.parts);
  return (
    <div class="actions">
      {text !== '' && <CopyButton text={() => text} label="Copy this answer" wordy />}
      {again !== null && (
        <button type="button" class="quiet" onClick={again} title="Ask the same again">
          <Again />
          <span>{run.status === 'failed' ? 'Try again' : 'Regenerate'}</span>
        </button>
      )}
      {run.truncated !== null && <span class="note">{CUT[run.truncated] ?? 'Cut before its end'}</span>}
      {run.status === 'stopped' && <span class="note">Stopped</span>}
      {run.endedAt !== null && (
        <time dateTime={new Date(run.endedAt).toISOString()} title={new Date(run.endedAt).toLocaleString()}>
          {timeOf(new Date(run.endedAt))}
        </time>
      )}
    </div>
  );
}

export interface AnswerProps {
  readonly exchange: Exchange;
  readonly stopping: boolean;
  /** Asks the same question again; null where that is not offered. */
  readonly again: (() => void) | null;
}

export function Answer({ exchange, stopping, again }: AnswerProps): JSX.Element {
  const { run, requestId } = exchange;
  const waiting = !hasEnded(run);
  const { failure } = run;
  return (
    <article class="answer" aria-busy={waiting}>
      <h3 class="sr-only">Flotilla</h3>
      <span class="avatar">
        <Mark size={18} />
      </span>
      <div class="answer-body">
        {run.parts.map((part, index) => (
          <PartView
            key={`${part.kind}-${part.id}`}
            part={part}
            waiting={waiting}
            growing={waiting && index === run.parts.length - 1}
          />
        ))}
        {run.status === 'failed' && failure !== null && (
          <ErrorNote
            title={FAILURES[failure.code] ?? 'No answer was made'}
            detail={failure.message}
            facts={[
              ['Code', failure.code],
              ['Request', requestId],
            ]}
          />
        )}
        {waiting ? <Progress run={run} stopping={stopping} /> : <Ended exchange={exchange} again={again} />}
      </div>
    </article>
  );
}
