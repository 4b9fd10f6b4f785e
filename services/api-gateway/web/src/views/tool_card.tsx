import type { JSX } from 'preact';
import { durationOf } from '../state/dates.ts';
import type { ToolPart } from '../state/run.ts';
import { CopyButton } from './copy_button.tsx';
import { Check, Chevron, Spinner, Wrench } from './icons.tsx';

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

/** A tool that the agent used. `waiting` is false once the run has ended: then no result comes any more. */
export function ToolCard({ tool, waiting }: { tool: ToolPart; waiting: boolean }): JSX.Element {
  const done = tool.result !== null;
  const took = tool.endedAt === null || tool.startedAt === 0 ? null : tool.endedAt - tool.startedAt;
  const state = done ? 'done' : waiting ? 'running' : 'no result';
  return (
    <details class="tool">
      <summary>
        <span class={`tool-state ${done ? 'is-done' : ''}`}>
          {done ? <Check /> : waiting ? <Spinner /> : <Wrench />}
        </span>
        <span class="tool-name">{tool.name}</span>
        <span class="tool-summary">{summary(tool.args)}</span>
        <span class="sr-only">({state})</span>
        {took !== null && took > 0 && <span class="tool-took">{durationOf(took)}</span>}
        <Chevron />
      </summary>
      <div class="tool-body">
        <Field name="Arguments" text={tool.args || 'none'} />
        {tool.result !== null && <Field name="Result" text={tool.result} />}
      </div>
    </details>
  );
}
