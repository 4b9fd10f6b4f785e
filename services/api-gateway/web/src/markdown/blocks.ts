/**
 * Markdown to tokens, block by block, so that a long answer costs as much per frame as a short one: a block is settled
 * once another has begun after it, and is not parsed or drawn again. No HTML comes out of this: tokens become elements in
 * views/markdown.tsx.
 */

import { Lexer, type MarkedToken, type Token, type TokensList } from 'marked';
import { mend } from './mend.ts';

export interface Blocks {
  readonly settled: readonly MarkedToken[];
  /** How much of the text the settled blocks are. */
  readonly settledText: string;
  readonly growing: readonly MarkedToken[];
}

export const NO_BLOCKS: Blocks = { settled: [], settledText: '', growing: [] };

/** Emphasis and addresses cost quadratic time in the parser: a longer paragraph, which no person writes, stays plain. */
const LONGEST_INLINE = 6000;

class BoundedLexer extends Lexer {
  override inlineTokens(src: string, tokens: Token[] = []): Token[] {
    if (src.length <= LONGEST_INLINE) return super.inlineTokens(src, tokens);
    tokens.push({ type: 'text', raw: src, text: src, escaped: false });
    return tokens;
  }
}

/** Lists in lists in quotations, deeper than anybody means it: the parser takes quadratic time for each level. */
const TOO_DEEP = /^(?:[ \t]*(?:>|(?:[-*+]|\d{1,9}[.)])[ \t])){40}/m;

function asWritten(text: string): MarkedToken[] {
  return [{ type: 'paragraph', raw: text, text, tokens: [{ type: 'text', raw: text, text }] }];
}

function lex(text: string): MarkedToken[] {
  if (TOO_DEEP.test(text)) return asWritten(text);
  try {
    return new BoundedLexer({ gfm: true }).lex(text) as TokensList & MarkedToken[];
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return asWritten(text); // deeper than the parser's stack, in a way that is not known yet
  }
}

/** What follows the last complete line is not looked at: half a marker must not close the block before it. */
function settle(text: string): MarkedToken[] {
  const lines = text.slice(0, text.lastIndexOf('\n') + 1);
  const tokens = lines === '' ? [] : lex(lines);
  const last = tokens.findLastIndex(token => token.type !== 'space' && token.type !== 'def');
  const settled = tokens.slice(0, Math.max(last, 0));
  const raw = settled.map(token => token.raw).join('');
  return text.startsWith(raw) ? settled : [];
}

/** The blocks of a text that grows: `before` are those of an earlier state of it. */
export function growBlocks(before: Blocks, source: string): Blocks {
  const text = source.replaceAll(/\r\n?/g, '\n');
  const start = text.startsWith(before.settledText) ? before : NO_BLOCKS;
  const rest = text.slice(start.settledText.length);
  const settled = settle(rest);
  const raw = settled.map(token => token.raw).join('');
  return {
    settled: settled.length === 0 ? start.settled : [...start.settled, ...settled],
    settledText: start.settledText + raw,
    growing: lex(mend(rest.slice(raw.length))),
  };
}

/** The blocks of a text that is complete: references to links that are defined further down are known now. */
export function wholeBlocks(source: string): Blocks {
  return { settled: lex(source.replaceAll(/\r\n?/g, '\n')), settledText: source, growing: [] };
}
