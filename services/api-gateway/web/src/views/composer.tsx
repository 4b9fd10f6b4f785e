import type { JSX, RefObject } from 'preact';
import { useLayoutEffect, useState } from 'preact/hooks';
import { ArrowUp, StopSquare } from './icons.tsx';

/** `shared_models.requests.MAX_CONTENT`, in UTF-16 units, which are at least as many as characters. */
const LONGEST = 131_072;
const TALLEST = 220;

export interface ComposerProps {
  readonly box: RefObject<HTMLTextAreaElement | null>;
  readonly initial: string;
  readonly running: boolean;
  readonly stopping: boolean;
  readonly changed: (text: string) => void;
  readonly send: (text: string) => void;
  readonly stop: () => void;
}

function fitHeight(box: HTMLTextAreaElement): void {
  box.style.height = 'auto';
  box.style.height = `${Math.min(box.scrollHeight, TALLEST)}px`;
  box.style.overflowY = box.scrollHeight > TALLEST ? 'auto' : 'hidden';
}

/** Enter sends only where it does not also choose a word in an input method. */
function isSend(event: KeyboardEvent): boolean {
  return event.key === 'Enter' && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

export function Composer(props: ComposerProps): JSX.Element {
  const { box, running, stopping } = props;
  const [text, setText] = useState(props.initial);

  // The height follows the text
  useLayoutEffect(() => {
    if (box.current !== null) fitHeight(box.current);
  }, [text]);
  useLayoutEffect(() => {
    // A phone would open its keyboard over the page.
    if (matchMedia('(hover: hover)').matches) box.current?.focus({ preventScroll: true });
  }, [box]);

  const change = (value: string): void => {
    setText(value);
    props.changed(value);
  };
  const send = (): void => {
    if (text.trim() === '') return;
    setText('');
    props.send(text);
    box.current?.focus();
  };
  const empty = text.trim() === '';
  return (
    <div class="composer">
      <div class="composer-box">
        <textarea
          id="message"
          ref={box}
          rows={1}
          value={text}
          maxLength={LONGEST}
          placeholder={running ? 'Ask the next thing…' : 'Ask anything…'}
          aria-label="Message"
          aria-describedby="message-hint"
          enterkeyhint="send"
          onInput={event => change(event.currentTarget.value)}
          onKeyDown={event => {
            if (!isSend(event)) return;
            event.preventDefault();
            send();
          }}
        />
        {running && (
          <button
            type="button"
            class="round stop"
            onClick={props.stop}
            disabled={stopping}
            aria-label="Stop answering"
            title="Stop (Esc)"
          >
            <StopSquare />
          </button>
        )}
        {(!running || !empty) && (
          <button
            type="button"
            class="round send"
            onClick={send}
            disabled={empty}
            aria-label="Send"
            title="Send (Enter)"
          >
            <ArrowUp />
          </button>
        )}
      </div>
      <p class="hint" id="message-hint">
        <kbd>Enter</kbd> sends, <kbd>Shift</kbd> + <kbd>Enter</kbd> begins a new line, <kbd>Esc</kbd> stops.
        Answers can be wrong: check what matters.
      </p>
    </div>
  );
}
