/**
 * What a screen reader is told of an answer that streams: that it has begun, which tools it uses, whole paragraphs as
 * they are finished (never single tokens), and how it ended.
 */

import { hasEnded, type Run, type RunStatus, textOf } from './run.ts';

/** How far one run has been told. */
export interface Told {
  readonly begun: boolean;
  /** How much of its text. */
  readonly upTo: number;
  readonly tools: number;
  readonly ended: boolean;
}

const ENDINGS: Partial<Record<RunStatus, string>> = {
  done: 'The answer is complete.',
  stopped: 'The answer was stopped.',
  failed: 'No answer was made.',
};

function spoken(text: string): readonly string[] {
  return text
    .split(/\n{2,}/)
    .map(paragraph => paragraph.replaceAll(/[*_`#|>]+/g, ' ').trim())
    .filter(paragraph => paragraph !== '');
}

/** @param told what was told of this run before; undefined at first. */
export function announce(run: Run, told: Told | undefined): { told: Told; say: readonly string[] } {
  // A run that was over before it came into sight is history, not news.
  const before = told ?? { begun: false, upTo: 0, tools: 0, ended: hasEnded(run) };
  if (before.ended || run.status === 'queued') return { told: before, say: [] };
  const text = textOf(run.parts);
  const ended = hasEnded(run);
  // A reset or resync can leave less text than was told: what is left is not told again, what replaces the rest is.
  const from = Math.min(before.upTo, text.length);
  const upTo = ended ? text.length : Math.max(from, text.lastIndexOf('\n\n'));
  const tools = run.parts.filter(part => part.kind === 'tool');
  const say = [
    ...(before.begun ? [] : ['Flotilla is answering.']),
    ...tools.slice(before.tools).map(tool => `Using ${tool.name}.`),
    ...spoken(text.slice(from, upTo)),
    ...(ended ? [ENDINGS[run.status] ?? ''] : []),
  ];
  return { told: { begun: true, upTo, tools: tools.length, ended }, say };
}
