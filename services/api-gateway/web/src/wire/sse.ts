/**
 * Server-sent events from a fetch body. The browser's EventSource cannot set headers, so it cannot resume a run from a
 * cursor that we choose; this parser (WHATWG HTML, "interpreting an event stream") can, whatever the chunks are.
 */

export interface SseEvent {
  readonly id: string;
  readonly data: string;
}

export interface SseParser {
  push(bytes: Uint8Array): SseEvent[];
  /** Milliseconds the server asked to wait before a reconnect; null until it did. */
  retry(): number | null;
}

export function sseParser(): SseParser {
  const decoder = new TextDecoder();
  let rest = '';
  let afterReturn = false;
  let id = '';
  let retry: number | null = null;
  let data: string[] = [];

  function takeField(line: string): void {
    const colon = line.indexOf(':');
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') data.push(value);
    else if (name === 'id' && !value.includes('\0')) id = value;
    else if (name === 'retry' && /^\d+$/.test(value)) retry = Number(value);
  }

  /** The lines that are complete by now. */
  function takeLines(added: string): string[] {
    const text = afterReturn && added.startsWith('\n') ? added.slice(1) : added;
    // A carriage return ends its line at once; the line feed that may follow in the next chunk belongs to it.
    afterReturn = text.endsWith('\r');
    const lines = (rest + text).split(/\r\n|\r|\n/);
    rest = lines.pop() ?? '';
    return lines;
  }

  function push(bytes: Uint8Array): SseEvent[] {
    const text = decoder.decode(bytes, { stream: true });
    const events: SseEvent[] = [];
    for (const line of text === '' ? [] : takeLines(text)) {
      if (line !== '') {
        takeField(line);
      } else if (data.length > 0) {
        events.push({ id, data: data.join('\n') });
        data = [];
      }
    }
    return events;
  }

  return { push, retry: () => retry };
}
