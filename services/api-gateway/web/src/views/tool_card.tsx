import type { JSX } from 'preact';
import { durationOf } from '../state/dates.ts';
import type { ToolPart } from '../state/run.ts';
import { CopyButton } from './copy_button.tsx';
import { Check, Chevron, Spinner, Warning, Wrench } from './icons.tsx';

/** JSON as a person reads it; anything else as it is. */
function readable(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  } catch {
    return text; // still streaming, or no JSON at all
  }
}

/** The arguments in a few words, for the folded card. */
function summary(args: string): string {
  try {
    const value: unknown = JSON.parse(args);
    if (typeof value !== 'object' || value === null) return '';
    return Object.values(value)
      .filter(each => typeof each === 'string' || typeof each === 'number')
      .join(', ');
  } catch {
    return ''; // half of the arguments: better nothing than a word that changes
  }
}

function Field({ name, text }: { name: string; text: string }): JSX.Element {
  const shown = readable(text);
  return (
    <div class="tool-field">
      <div class="tool-field-head">
        <span>{name}</span>
        <CopyButton text={() => shown} label={`Copy ${name.toLowerCase()}`} />
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: long results scroll, and a keyboard must reach them */}
      <pre tabIndex={0}>{shown}</pre>
    </div>
  );
}

type State = 'done' | 'failed' | 'running' | 'no result';

function stateOf(tool: ToolPart, waiting: boolean): State {
  if (tool.result === null) return waiting ? 'running' : 'no result';
  return tool.failed ? 'failed' : 'done';
}

const SIGNS: Readonly<Record<State, () => JSX.Element>> = {
  done: Check,
  failed: Warning,
  running: Spinner,
  'no result': Wrench,
};

/** A tool that the agent used. `waiting` is false once the run has ended: then no result comes any more. */
export function ToolCard({ tool, waiting }: { tool: ToolPart; waiting: boolean }): JSX.Element {
  const state = stateOf(tool, waiting);
  const Sign = SIGNS[state];
  const took = tool.milliseconds;
  return (
    <details class={state === 'failed' ? 'tool has-failed' : 'tool'}>
      <summary>
        <span class={`tool-state is-${state.replace(' ', '-')}`}>
          <Sign />
        </span>
        <span class="tool-name">{tool.name}</span>
        <span class="tool-summary">{summary(tool.args)}</span>
        {state === 'done' || state === 'running' ? (
          <span class="sr-only">({state})</span>
        ) : (
          <span class="tool-word">{state === 'failed' ? 'Failed' : 'No result'}</span>
        )}
        {took !== null && took > 0 && <span class="tool-took">{durationOf(took)}</span>}
        <Chevron />
      </summary>
      <div class="tool-body">
        <Field name="Arguments" text={tool.args || 'none'} />
        {tool.result !== null && <Field name={tool.failed ? 'Error' : 'Result'} text={tool.result} />}
      </div>
    </details>
  );
}
