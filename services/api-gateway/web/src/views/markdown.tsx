/**
 * Markdown as elements. What a model writes never becomes HTML: each token becomes one of the elements below or stays
 * text, so there is nothing to sanitise and no address that the browser would load by itself. Images become links.
 */

import type { MarkedToken, Token, Tokens } from 'marked';
import { Component, type ComponentChildren, Fragment, type JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { type Blocks, growBlocks, NO_BLOCKS, wholeBlocks } from '../markdown/blocks.ts';
import { decodeEntities } from '../markdown/entities.ts';
import { safeLink, saysPlace } from '../markdown/links.ts';
import { CodeBlock } from './code_block.tsx';

/** Deeper than this nobody means it, and the browser's layout is not asked to try. */
const DEEPEST = 24;

function Link({
  address,
  label,
  children,
}: {
  address: string;
  label: string;
  children: ComponentChildren;
}): JSX.Element {
  const link = safeLink(decodeEntities(address));
  if (link === null) return <span>{children}</span>;
  return (
    <a class="outside" href={link.href} target="_blank" rel="noopener noreferrer nofollow">
      <bdi>{children}</bdi>
      {!saysPlace(label, link) && <bdi class="place"> ({link.place})</bdi>}
    </a>
  );
}

function Picture({ token }: { token: Tokens.Image }): JSX.Element {
  const label = decodeEntities(token.text) || 'without a description';
  return (
    <Link address={token.href} label="">
      Image: {label}
    </Link>
  );
}

function html(text: string): ComponentChildren {
  if (/^<br\s*\/?>$/i.test(text.trim())) return <br />;
  return /^\s*<!--[\s\S]*-->\s*$/.test(text) ? null : text;
}

function inline(tokens: readonly Token[] | undefined, depth: number): ComponentChildren {
  return tokens?.map((token, index) => (
    <Fragment key={index}>{inlineOne(token as MarkedToken, depth + 1)}</Fragment>
  ));
}

function inlineOne(token: MarkedToken, depth: number): ComponentChildren {
  if (depth > DEEPEST) return token.raw;
  switch (token.type) {
    case 'strong':
      return <strong>{inline(token.tokens, depth)}</strong>;
    case 'em':
      return <em>{inline(token.tokens, depth)}</em>;
    case 'del':
      return <del>{inline(token.tokens, depth)}</del>;
    case 'codespan':
      return <code>{token.text}</code>;
    case 'br':
      return <br />;
    case 'image':
      return <Picture token={token as Tokens.Image} />;
    case 'link':
      return (
        <Link address={token.href} label={token.text}>
          {inline(token.tokens, depth)}
        </Link>
      );
    case 'checkbox':
      return <Box checked={token.checked} />;
    case 'html':
      return html(token.text);
    case 'escape':
      return token.text;
    case 'text':
      return token.tokens === undefined ? decodeEntities(token.text) : inline(token.tokens, depth);
    default:
      return token.raw;
  }
}

function Box({ checked }: { checked: boolean }): JSX.Element {
  return (
    <span class="box" role="img" aria-label={checked ? 'Done:' : 'To do:'}>
      {checked ? '☑' : '☐'}
    </span>
  );
}

function List({ token, depth }: { token: Tokens.List; depth: number }): JSX.Element {
  const items = token.items.map((item, index) => (
    <li key={index} class={item.task ? 'task' : undefined}>
      <BlockList tokens={item.tokens} depth={depth} />
    </li>
  ));
  return token.ordered ? <ol start={token.start || 1}>{items}</ol> : <ul>{items}</ul>;
}

function Table({ token, depth }: { token: Tokens.Table; depth: number }): JSX.Element {
  const cell = (Tag: 'th' | 'td') => (value: Tokens.TableCell, index: number) => (
    <Tag key={index} class={value.align ? `to-${value.align}` : undefined}>
      {inline(value.tokens, depth)}
    </Tag>
  );
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a wide table scrolls, and a keyboard must reach it
    <section class="table" aria-label="Table" tabIndex={0}>
      <table>
        <thead>
          <tr>{token.header.map(cell('th'))}</tr>
        </thead>
        <tbody>
          {token.rows.map((row, index) => (
            <tr key={index}>{row.map(cell('td'))}</tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** Under the page's own h1 to h3. */
const HEADINGS = ['h4', 'h4', 'h4', 'h5', 'h6', 'h6', 'h6'] as const;

function block(token: MarkedToken, depth: number): ComponentChildren {
  switch (token.type) {
    case 'paragraph':
      return <p>{inline(token.tokens, depth)}</p>;
    case 'heading': {
      const Heading = HEADINGS[token.depth] ?? 'h6';
      return <Heading class={`level-${token.depth}`}>{inline(token.tokens, depth)}</Heading>;
    }
    case 'code':
      return <CodeBlock code={token.text} info={token.lang ?? ''} />;
    case 'list':
      return <List token={token as Tokens.List} depth={depth} />;
    case 'table':
      return <Table token={token as Tokens.Table} depth={depth} />;
    case 'blockquote':
      return (
        <blockquote>
          <BlockList tokens={token.tokens} depth={depth} />
        </blockquote>
      );
    case 'hr':
      return <hr />;
    case 'html':
      return <p class="as-written">{html(token.text)}</p>;
    case 'space':
    case 'def':
      return null;
    default:
      return inlineOne(token, depth);
  }
}

/** Whether two tokens draw the same. The same raw text may not: a reference may have found its link in the meantime. */
function sameBlock(a: MarkedToken, b: MarkedToken): boolean {
  return a === b || (a.raw === b.raw && JSON.stringify(a) === JSON.stringify(b));
}

/** A block that did not change is not drawn again. */
class Block extends Component<{ token: MarkedToken; depth: number }> {
  override shouldComponentUpdate(next: { token: MarkedToken }): boolean {
    return !sameBlock(this.props.token, next.token);
  }

  override render(): ComponentChildren {
    const { token, depth } = this.props;
    return depth > DEEPEST ? token.raw : block(token, depth);
  }
}

function BlockList({ tokens, depth }: { tokens: readonly Token[]; depth: number }): JSX.Element {
  return (
    <>
      {tokens.map((token, index) => (
        <Block key={index} token={token as MarkedToken} depth={depth + 1} />
      ))}
    </>
  );
}

/** Blocks of a text that grows. A text that is dear to parse is parsed less often: at most a fifth of the time. */
function useBlocks(text: string, growing: boolean): Blocks {
  const last = useRef({ text: '', blocks: NO_BLOCKS, growing, restUntil: 0 });
  const [, redraw] = useState(0);
  const { current } = last;
  const changed = current.text !== text || current.growing !== growing;
  if (changed && (!growing || performance.now() >= current.restUntil)) {
    const began = performance.now();
    const blocks = growing ? growBlocks(current.blocks, text) : wholeBlocks(text);
    const ended = performance.now();
    last.current = { text, blocks, growing, restUntil: ended + 4 * (ended - began) };
  }
  const behind = last.current.text !== text;
  useEffect(() => {
    if (!behind) return;
    const timer = setTimeout(() => redraw(Date.now()), 100);
    return () => clearTimeout(timer);
  }, [behind]);
  return last.current.blocks;
}

export function Markdown({ text, growing = false }: { text: string; growing?: boolean }): JSX.Element {
  const { settled, growing: tail } = useBlocks(text, growing);
  return (
    <div class="prose">
      <BlockList tokens={[...settled, ...tail]} depth={0} />
    </div>
  );
}
