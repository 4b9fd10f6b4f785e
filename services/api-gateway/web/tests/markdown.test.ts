import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Blocks, growBlocks, NO_BLOCKS, wholeBlocks } from '../src/markdown/blocks.ts';
import { decodeEntities } from '../src/markdown/entities.ts';
import { highlight } from '../src/markdown/highlight.ts';
import { safeLink, saysPlace } from '../src/markdown/links.ts';
import { mend } from '../src/markdown/mend.ts';

const DOCUMENT = `# Title

A paragraph with **bold**, *italic*, \`code\` and a [link](https://example.org/a).
It goes on\r\nin a second line.

Setext
------

- one
- two
  - nested

  still two

- three

1. first

2. second
text right after

| a | b |
|---|--:|
| 1 | 2 |
| 3 | 4 |

\`\`\`python
def f():
    return "\`\`"  # - not a list

\`\`\`

> quoted
lazy

<details>
<summary>x</summary>
</details>

***

~~~
tilde
~~~
- [x] done
- [ ] to do

The end`;

const FLOOR_MS = 50; // below it, other work of the machine says more than ours
const MOST_GROWTH = 12; // of four times the text: in proportion it is 4, with the square of the length 16

/** The milliseconds that a text takes at best: of three tries, the one that the machine disturbed least. */
function cost(text: string): number {
  const tries = [1, 2, 3].map(() => {
    const began = performance.now();
    wholeBlocks(`${text}x`);
    growBlocks(NO_BLOCKS, `${text}x`);
    return performance.now() - began;
  });
  return Math.min(...tries);
}

const types = ({ settled, growing }: Blocks): string[] =>
  [...settled, ...growing]
    .filter(({ type }) => type !== 'space')
    .map(({ type, raw }) => `${type}: ${raw.trim()}`);

describe('blocks of a text that grows', () => {
  it('are, once it is whole, those of the whole text, however it was cut', () => {
    for (const step of [1, 2, 3, 7, 50]) {
      let blocks = NO_BLOCKS;
      for (let end = step; end < DOCUMENT.length; end += step)
        blocks = growBlocks(blocks, DOCUMENT.slice(0, end));
      expect(types(growBlocks(blocks, `${DOCUMENT}\n`)), `in steps of ${step}`).toEqual(
        types(wholeBlocks(`${DOCUMENT}\n`)),
      );
    }
  });

  it('settle for good: a settled block is never parsed again', () => {
    let blocks = NO_BLOCKS;
    for (let end = 1; end <= DOCUMENT.length; end += 1) {
      const next = growBlocks(blocks, DOCUMENT.slice(0, end));
      expect(next.settled.slice(0, blocks.settled.length)).toEqual(blocks.settled);
      blocks = next;
    }
    expect(blocks.settled.length).toBeGreaterThan(12);
  });

  it('begin again when the text is replaced', () => {
    const before = growBlocks(NO_BLOCKS, 'one\n\ntwo\n\nthree');
    expect(types(growBlocks(before, 'other\n\nwords'))).toEqual(['paragraph: other', 'paragraph: words']);
  });

  it.each([
    ['quotations', '> '.repeat(20_000)],
    ['lists', '- '.repeat(20_000)],
    ['emphasis', '**a*b_c__d '.repeat(20_000)],
    ['addresses', `${'a.b-'.repeat(50_000)}@`],
    ['brackets', '['.repeat(50_000)],
    ['spaces', ' '.repeat(50_000)],
    ['tables', `${'|a'.repeat(10_000)}\n${'|-'.repeat(10_000)}`],
    ['fences', '```\n'.repeat(10_000)],
    ['tags', '<a '.repeat(20_000)],
    ['references', '&#x0;'.repeat(10_000)],
    ['steps', Array.from({ length: 150 }, (_, n) => `${'  '.repeat(n)}- a`).join('\n')],
  ])('of hostile %s cost no more than in proportion to their length', (_, text) => {
    const quarter = cost(text.slice(0, text.length / 4));
    expect(cost(text) / Math.max(quarter, FLOOR_MS)).toBeLessThan(MOST_GROWTH);
  });
});

describe('the end of a text that grows', () => {
  it.each([
    ['a **bold', 'a **bold**'],
    ['a **', 'a '],
    ['a **bold*', 'a **bold**'],
    ['an *italic', 'an *italic*'],
    ['2 * 3', '2 * 3'],
    ['some `code', 'some `code`'],
    ['some `', 'some '],
    ['~~gone', '~~gone~~'],
    ['see [the page', 'see the page'],
    ['see [the page](https://exa', 'see the page'],
    ['see ![a picture](https://exa', 'see a picture'],
    ['see [the page](https://e.org)', 'see [the page](https://e.org)'],
    ['text\n-', 'text'],
    ['text\n--', 'text'],
    ['text\n##', 'text'],
    ['text\n1.', 'text'],
    ['- one\n- [', '- one'],
    ['text\n``', 'text'],
    ['| a | b', ''],
    ['text\n\n| a | b |\n|--', 'text\n\n'],
    ['| a |\n|---|\n| 1 |\n|', '| a |\n|---|\n| 1 |\n|'],
    ['| a |\n|---|\n| 1', '| a |\n|---|\n| 1'],
    ['a<br', 'a'],
    ['a &am', 'a '],
    ['a < b', 'a < b'],
    ['```js\nlet a = **b', '```js\nlet a = **b'],
  ])('is closed or held back: %j', (tail, mended) => {
    expect(mend(tail)).toBe(mended);
  });
});

describe('links', () => {
  it.each([
    'javascript:alert(1)',
    'java\tscript:alert(1)',
    ' JavaScript:alert(1)',
    'data:text/html,<script>',
    'vbscript:x',
    'file:///etc/passwd',
    'blob:https://e.org/x',
    '/api/v1/sessions',
    '//evil.example/',
    '#top',
    'https://bank.example@evil.example/',
    'https://',
    '',
  ])('are not made of %j', address => {
    expect(safeLink(address)).toBeNull();
  });

  it('show where they lead, look-alikes in their true form', () => {
    expect(safeLink('https://example.org:8443/a?b#c')?.place).toBe('example.org:8443');
    expect(safeLink('mailto:crew@example.org?subject=x')?.place).toBe('crew@example.org');
    expect(safeLink('https://аpple.com/')?.place).toBe('xn--pple-43d.com');
  });

  it('repeat the host unless the label is the address', () => {
    const link = safeLink('https://example.org/a');
    expect(link && saysPlace('https://example.org/a', link)).toBe(true);
    expect(link && saysPlace('example.org/a', link)).toBe(true);
    expect(link && saysPlace('https://bank.example/', link)).toBe(false);
    expect(link && saysPlace('our bank', link)).toBe(false);
  });
});

describe('links to write a mail', () => {
  it.each([
    ['mailto:a@x.org,b@y.org', 'a@x.org, b@y.org', 'mailto:a@x.org,b@y.org'],
    ['mailto:a@x.org?bcc=b@y.org', 'a@x.org, bcc b@y.org', 'mailto:a@x.org?bcc=b%40y.org'],
    ['mailto:a@x.org?BCC=b@y.org', 'a@x.org, bcc b@y.org', 'mailto:a@x.org?bcc=b%40y.org'],
    ['mailto:a@x.org?%62cc=%62@y.org', 'a@x.org, bcc b@y.org', 'mailto:a@x.org?bcc=b%40y.org'],
    [
      'mailto:a@x.org?cc=b@y.org,c@z.org',
      'a@x.org, cc b@y.org, cc c@z.org',
      'mailto:a@x.org?cc=b%40y.org&cc=c%40z.org',
    ],
    ['mailto:?to=a@x.org&bcc=b@y.org', 'a@x.org, bcc b@y.org', 'mailto:a@x.org?bcc=b%40y.org'],
    ['mailto:a@x.org?to=b@y.org', 'a@x.org, b@y.org', 'mailto:a@x.org,b@y.org'],
    ['mailto:a@x.org?subject=hi&attach=/etc/passwd', 'a@x.org', 'mailto:a@x.org?subject=hi'],
    [
      'mailto:a@x.org?subject=a&bcc=b@y.org&body=c',
      'a@x.org, bcc b@y.org',
      'mailto:a@x.org?subject=a&bcc=b%40y.org&body=c',
    ],
  ])('name every recipient: %j', (address, place, href) => {
    expect(safeLink(address)).toEqual({ href, place });
  });

  it.each([
    'mailto:',
    'mailto:?subject=x',
    'mailto:a@x.org?bcc=b',
    'mailto:a@x.org%2Cb@y.org',
    'mailto:a@x.org;b@y.org',
    'mailto:a@x.org%0D%0ABcc:b@y.org',
    'mailto:a@x.org?cc=b@y.org%3Bc@z.org',
    'mailto:%22a@x.org%22@y.org',
    'mailto:a%E2%80%AE@x.org',
    'mailto:a@x.org?bcc=%FF',
  ])('are not made of %j', address => {
    expect(safeLink(address)).toBeNull();
  });

  it('name hidden recipients although the label is the address', () => {
    const hidden = safeLink('mailto:a@x.org?bcc=b@y.org');
    expect(hidden && saysPlace('a@x.org', hidden)).toBe(false);
    expect(hidden && saysPlace('a@x.org?bcc=b%40y.org', hidden)).toBe(false);
    const open = safeLink('mailto:a@x.org');
    expect(open && saysPlace('mailto:a@x.org', open)).toBe(true);
  });
});

describe('character references', () => {
  it('become characters once, and nothing else does', () => {
    expect(
      decodeEntities('a &lt;b&gt; &amp;amp; &#169; &#x1F6A2; &hellip; &unknown; &constructor; & x'),
    ).toBe('a <b> &amp; © 🚢 … &unknown; &constructor; & x');
    expect(decodeEntities('&#0; &#xD800; &#99999999;')).toBe('\ufffd \ufffd &#99999999;');
  });
});

describe('highlighting', () => {
  it.each([
    ['python', 'def f(a):\n    return "x # y"  # note\n'],
    ['ts', "const a = `b c` // d\n/* e */ if (a) call('f', 0x1F)"],
    ['sql', "SELECT a FROM b WHERE c = 'd''e' -- f"],
    ['rust', 'fn main() { println!("{}", 1_000.5); } /* open'],
    ['nonsense', 'anything "goes'],
  ])('changes no character of %s', (language, code) => {
    expect(
      highlight(code, language)
        .map(([, text]) => text)
        .join(''),
    ).toBe(code);
  });

  it('knows comments, strings, numbers, keywords and calls', () => {
    const shades = new Map(
      highlight('def f(a):\n    return g("x # y", 42)  # note', 'Python').map(([s, t]) => [t, s]),
    );
    expect(shades.get('def')).toBe('keyword');
    expect(shades.get('"x # y"')).toBe('string');
    expect(shades.get('42')).toBe('number');
    expect(shades.get('# note')).toBe('comment');
    expect(shades.get('g')).toBe('name');
  });
});

describe('the sources', () => {
  it('have no way from a text to HTML or code, so that there is nothing to sanitise', () => {
    const folder = new URL('../src/', import.meta.url);
    const sinks =
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function|srcdoc|setHTML/;
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(name =>
      /\.tsx?$/.test(name),
    );
    expect(files.length).toBeGreaterThan(30);
    expect(files.filter(name => sinks.test(readFileSync(new URL(name, folder), 'utf8')))).toEqual([]);
  });
});
