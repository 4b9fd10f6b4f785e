import type { JSX } from 'preact';
import { useMoment } from './hooks.ts';
import { Check, Copy } from './icons.tsx';

/** Copies a text and says so, on the button and to screen readers. */
export function CopyButton({
  text,
  label,
  wordy = false,
}: {
  text: () => string;
  label: string;
  wordy?: boolean;
}): JSX.Element {
  const [copied, show] = useMoment();
  const copy = (): void => {
    navigator.clipboard.writeText(text()).then(show, () => undefined); // refused: nothing was copied, nothing is said
  };
  return (
    <button
      type="button"
      class={wordy ? 'quiet' : 'quiet square'}
      onClick={copy}
      title={label}
      aria-label={label}
    >
      {copied ? <Check /> : <Copy />}
      {wordy && <span>{copied ? 'Copied' : 'Copy'}</span>}
      <span class="sr-only" role="status">
        {copied ? 'Copied' : ''}
      </span>
    </button>
  );
}
