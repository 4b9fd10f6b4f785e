/**
 * Colours for code: comments, strings, numbers and the keywords that most languages share. No grammar of any language:
 * that would be ten times this page. What it does not know stays plain.
 */

export type Shade = 'comment' | 'string' | 'number' | 'keyword' | 'name' | null;
export type Shaded = readonly [shade: Shade, text: string];

const HASH =
  'bash sh shell zsh console python py ruby rb yaml yml toml ini dockerfile makefile make r perl elixir';
const SLASH =
  'javascript js jsx typescript ts tsx java kotlin c h cpp c++ cs csharp go rust rs swift scala dart php css scss json jsonc json5 graphql proto groovy zig';
const DASH = 'sql postgresql mysql sqlite lua haskell hs';

const COMMENTS: Readonly<Record<string, string>> = Object.fromEntries([
  ...HASH.split(' ').map(name => [name, '(?<![^\\s;])#[^\\n]*']),
  ...SLASH.split(' ').map(name => [name, '//[^\\n]*|/\\*[\\s\\S]*?(?:\\*/|$)']),
  ...DASH.split(' ').map(name => [name, '--[^\\n]*']),
]);

const KEYWORDS = new Set(
  (
    'abstract and as assert async await begin break case catch class const continue create def default defer del delete do done drop elif else elsif end ' +
    'enum esac except export extends extern false False fi final finally fn for foreach from func function global go goto if impl implements import in ' +
    'inner insert instanceof interface into is join lambda left let limit match mod module mut namespace new nil None nonlocal not null of on or order ' +
    'package pass private protected pub public raise readonly return select self set static struct super switch table then this throw trait true True ' +
    'try type typeof undefined union update use using values var void when where while with yield'
  ).split(' '),
);

const LONGEST = 50_000;

function shadeOf(word: string, language: string): Shade {
  const known = KEYWORDS.has(word) || (language.endsWith('sql') && KEYWORDS.has(word.toLowerCase()));
  return known ? 'keyword' : null;
}

const STRINGS = '"(?:[^"\\\\\\n]|\\\\.)*"?|\'(?:[^\'\\\\\\n]|\\\\.)*\'?|`(?:[^`\\\\]|\\\\[\\s\\S])*`?';
const NUMBERS = '0[xob][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?';
const WORDS = '(?<word>[A-Za-z_$][\\w$]*)(?:(?<call>(?=\\s*\\())|)';

function shadeOfPiece(groups: Readonly<Record<string, string | undefined>>, language: string): Shade {
  const { comment, string, number, word, call } = groups;
  if (comment !== undefined) return 'comment';
  if (string !== undefined) return 'string';
  if (number !== undefined) return 'number';
  return shadeOf(word ?? '', language) ?? (call === undefined ? null : 'name');
}

/** Split code into shaded pieces; joined they are the code again. */
export function highlight(code: string, info: string): readonly Shaded[] {
  const language = info.toLowerCase();
  const comment = COMMENTS[language];
  if (comment === undefined || code.length > LONGEST) return [[null, code]];
  const pattern = new RegExp(
    `(?<comment>${comment})|(?<string>${STRINGS})|\\b(?<number>${NUMBERS})\\b|${WORDS}`,
    'g',
  );
  const pieces: Shaded[] = [];
  let end = 0;
  for (const found of code.matchAll(pattern)) {
    if (found.index > end) pieces.push([null, code.slice(end, found.index)]);
    pieces.push([shadeOfPiece(found.groups ?? {}, language), found[0]]);
    end = found.index + found[0].length;
  }
  if (end < code.length) pieces.push([null, code.slice(end)]);
  return pieces;
}
