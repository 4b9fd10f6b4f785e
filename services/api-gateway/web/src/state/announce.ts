/**
 * What a screen reader is told of an answer that streams: whole paragraphs, as they are finished, never single tokens.
 */

import { hasEnded, type Run, textOf } from './run.ts';

export interface Announced {
  /** How much of the answer's text has been told. */
  readonly upTo: number;
  readonly say: readonly string[];
}

export function announce(run: Run, upTo: number): Announced {
  const text = textOf(run.parts);
  // A reset or resync can leave less text than was told: go on from its end, and do not tell it all again.
  const from = Math.min(upTo, text.length);
  const end = hasEnded(run) ? text.length : Math.max(from, text.lastIndexOf('\n\n'));
  const say = text
    .slice(from, end)
    .split(/\n{2,}/)
    .map(paragraph => paragraph.replaceAll(/[*_`#|>]+/g, ' ').trim())
    .filter(paragraph => paragraph !== '');
  return { upTo: end, say };
}
