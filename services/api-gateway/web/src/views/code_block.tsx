import type { JSX } from 'preact';
import { useMemo } from 'preact/hooks';
import { highlight } from '../markdown/highlight.ts';
import { CopyButton } from './copy_button.tsx';

export function CodeBlock({ code, info }: { code: string; info: string }): JSX.Element {
  const language = /^[\w+#.-]{1,24}/.exec(info)?.[0] ?? '';
  const pieces = useMemo(() => highlight(code, language), [code, language]);
  return (
    <figure class="code">
      <figcaption>
        <span>{language || 'text'}</span>
        <CopyButton text={() => code} label="Copy this code" wordy />
      </figcaption>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: long lines scroll, and a keyboard must reach them */}
      <pre tabIndex={0}>
        <code>
          {pieces.map(([shade, text], index) =>
            shade === null ? (
              text
            ) : (
              <span key={index} class={`shade-${shade}`}>
                {text}
              </span>
            ),
          )}
        </code>
      </pre>
    </figure>
  );
}
