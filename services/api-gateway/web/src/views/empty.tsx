import type { JSX } from 'preact';
import { Book, Clock, Lines, Mark, Percent } from './icons.tsx';

const EXAMPLES = [
  { icon: Clock, text: 'What time is it?', hint: 'Uses a tool' },
  { icon: Percent, text: 'What is 12.5 % of 480?', hint: 'Calculates' },
  { icon: Lines, text: 'Show me some Markdown', hint: 'Tables, lists and code' },
  { icon: Book, text: 'Tell me a long story', hint: 'Streams for a while' },
] as const;

export function Empty({ ask }: { ask: (text: string) => void }): JSX.Element {
  return (
    <div class="empty">
      <span class="empty-mark">
        <Mark size={34} />
      </span>
      <h2>What can I do for you?</h2>
      <p>Ask anything, or begin with one of these.</p>
      <ul class="examples">
        {EXAMPLES.map(({ icon: Icon, text, hint }) => (
          <li key={text}>
            <button type="button" onClick={() => ask(text)}>
              <Icon />
              <span class="example-text">{text}</span>
              <span class="example-hint">{hint}</span>
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
