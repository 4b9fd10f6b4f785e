import type { JSX, RefObject } from 'preact';
import { useLayoutEffect, useState } from 'preact/hooks';
import { LONGEST, tooMany } from '../state/drafts.ts';
import { ArrowUp, StopSquare } from './icons.tsx';

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

export function fitHeight(box: HTMLTextAreaElement): void {
  box.style.height = 'auto';
  box.style.height = `${Math.min(box.scrollHeight, TALLEST)}px`;
  box.style.overflowY = box.scrollHeight > TALLEST ? 'auto' : 'hidden';
}

const many = (count: number): string => count.toLocaleString('en');

/** Says how much too long a text is; nothing is ever cut. */
export function TooLong({ by, id }: { by: number; id: string }): JSX.Element {
  return (
    <p class="too-long" id={id} role="alert">
      {many(by)} {by === 1 ? 'character' : 'characters'} too many: a message has at most {many(LONGEST)}.
      Nothing was cut; shorten the text, or send it in parts.
    </p>
  );
}

/** Enter sends only where it does not also choose a word in an input method. */
export function isSend(event: KeyboardEvent): boolean {
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
  const excess = tooMany(text);
  const send = (): void => {
    if (text.trim() === '' || excess > 0) return;
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
          aria-invalid={excess > 0}
          placeholder={running ? 'Ask the next thing…' : 'Ask anything…'}
          aria-label="Message"
          aria-describedby={excess > 0 ? 'message-excess' : 'message-hint'}
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
            disabled={empty || excess > 0}
            aria-label="Send"
            title="Send (Enter)"
          >
            <ArrowUp />
          </button>
        )}
      </div>
      {excess > 0 && <TooLong by={excess} id="message-excess" />}
      <p class="hint" id="message-hint">
        <kbd>Enter</kbd> sends, <kbd>Shift</kbd> + <kbd>Enter</kbd> begins a new line, <kbd>Esc</kbd> stops.
        Answers can be wrong: check what matters.
      </p>
    </div>
  );
}
