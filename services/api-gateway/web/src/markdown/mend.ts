/**
 * Closes what the end of a growing text leaves open, so that an answer does not flicker while it streams: half a link, a
 * bold word without its end, a table of which only the head has come, a line of dashes that would turn the line above
 * into a heading. The finished text is never mended.
 */

const HELD_BACK: readonly RegExp[] = [
  /(?:^|\n)[ \t]*(?:#{1,6}|[-*+=_]+|\d{1,9}[.)]?|`{1,2}|~{1,3})[ \t]*$/, // a marker whose line has not begun
  /(?:^|\n)[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\[?[ x]?\]?[ \t]*$/, // a list item of which only the box has come
  /<[a-z/!][^<>\n]*$/i, // half a tag
  /&#?\w{0,30}$/, // half a character reference
  /(?<=^|\n)(?<!\|[ \t]*\n)\|[^\n]*(?:\n[ \t|:-]*)?$/, // a table's head without the line below it, which makes it one
];

/** The patterns look back from each bracket: in a longer line, which is no sentence, that would take too long. */
const LONGEST_LINE = 2000;

function withoutLooseEnd(text: string): string {
  let shown = text;
  for (const pattern of HELD_BACK) shown = shown.replace(pattern, '');
  return shown;
}

function close(line: string, mark: string): string {
  if (line.split(mark).length % 2 === 1) return line;
  const after = line.slice(line.lastIndexOf(mark) + mark.length);
  return after.trim() === '' ? line.slice(0, line.lastIndexOf(mark)) : line.trimEnd() + mark;
}

function mendLine(text: string): string {
  if (text.length > LONGEST_LINE) return text;
  let line = text.replace(/!?\[([^\]]*)$/, '$1').replace(/!?\[([^\]]*)\](?:\([^)]*)?$/, '$1');
  line = close(line, '`');
  if (!line.endsWith('`')) {
    line = close(line.replace(/([^*])\*$/, '$1'), '**');
    if (/(?:^|[\s(])\*[^*\s][^*]*$/.test(line)) line = `${line.trimEnd()}*`;
    line = close(line, '~~');
  }
  return line;
}

/** @param tail the text from the beginning of the block that is still growing. */
export function mend(tail: string): string {
  const fences = tail.match(/^[ \t]*(?:```|~~~)/gm)?.length ?? 0;
  if (fences % 2 === 1) return tail;
  const shown = withoutLooseEnd(tail);
  const line = shown.lastIndexOf('\n') + 1;
  return shown.slice(0, line) + mendLine(shown.slice(line));
}
