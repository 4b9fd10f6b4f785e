import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { announce, type Told } from '../state/announce.ts';
import type { Exchange } from '../state/thread.ts';

const KEPT = 30;

interface Line {
  readonly id: number;
  readonly text: string;
}

/** The log that screen readers follow. Sighted people read the conversation itself, which is no live region. */
export function Announcer({ exchanges }: { exchanges: readonly Exchange[] }): JSX.Element {
  const told = useRef(new Map<string, Told>());
  const [lines, show] = useState<readonly Line[]>([]);
  useEffect(() => {
    const say: string[] = [];
    for (const { key, run } of exchanges) {
      const news = announce(run, told.current.get(key));
      told.current.set(key, news.told);
      say.push(...news.say);
    }
    if (say.length === 0) return;
    show(old => {
      const first = (old.at(-1)?.id ?? 0) + 1;
      return [...old, ...say.map((text, index) => ({ id: first + index, text }))].slice(-KEPT);
    });
  }, [exchanges]);
  return (
    <div class="sr-only" role="log" aria-live="polite" aria-label="What Flotilla says">
      {lines.map(({ id, text }) => (
        <p key={id}>{text}</p>
      ))}
    </div>
  );
}
