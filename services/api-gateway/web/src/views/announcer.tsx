import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { announce } from '../state/announce.ts';
import { hasEnded, type Run } from '../state/run.ts';
import type { Exchange } from '../state/thread.ts';

const ENDINGS: Partial<Record<Run['status'], string>> = {
  done: 'The answer is complete.',
  stopped: 'The answer was stopped.',
  failed: 'No answer was made.',
};

interface Told {
  readonly key: string;
  readonly upTo: number;
  readonly ended: boolean;
  readonly tools: number;
}

/** The log that screen readers follow. Sighted people read the conversation itself, which is no live region. */
export function Announcer({ exchange }: { exchange: Exchange | null }): JSX.Element {
  const told = useRef<Told | null>(null);
  const [lines, show] = useState<readonly string[]>([]);
  useEffect(() => {
    if (exchange === null) return;
    const { run } = exchange;
    const first = told.current?.key !== exchange.key;
    // What was over before it came into sight is history, not news.
    const start: Told = { key: exchange.key, upTo: 0, ended: hasEnded(run), tools: 0 };
    const before = first || told.current === null ? start : told.current;
    const tools = run.parts.filter(part => part.kind === 'tool');
    const said = first && hasEnded(run) ? [] : tools.slice(before.tools).map(tool => `Using ${tool.name}.`);
    const text = before.ended ? { say: [], upTo: before.upTo } : announce(run, before.upTo);
    const ending = hasEnded(run) && !before.ended ? ENDINGS[run.status] : undefined;
    told.current = { key: exchange.key, upTo: text.upTo, ended: hasEnded(run), tools: tools.length };
    const news = [
      ...(first && !hasEnded(run) ? ['Flotilla is answering.'] : []),
      ...said,
      ...text.say,
      ...(ending ? [ending] : []),
    ];
    if (news.length > 0) show(old => [...old, ...news].slice(-30));
  }, [exchange]);
  return (
    <div class="sr-only" role="log" aria-live="polite" aria-label="What Flotilla says">
      {lines.map((line, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a log, only ever added to
        <p key={index}>{line}</p>
      ))}
    </div>
  );
}
