import type { ComponentChildren, JSX } from 'preact';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Session } from '../wire/api.ts';

function Modal({
  title,
  close,
  children,
}: {
  title: string;
  close: () => void;
  children: ComponentChildren;
}): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      ref={dialog}
      class="modal"
      aria-labelledby="modal-title"
      onClose={close}
      onClick={event => event.target === dialog.current && close()}
      onKeyDown={event => event.stopPropagation()}
    >
      <div class="modal-body">
        <h2 id="modal-title">{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

export function RenameDialog({
  session,
  close,
  rename,
}: {
  session: Session;
  close: () => void;
  rename: (title: string) => void;
}): JSX.Element {
  const [title, setTitle] = useState(session.title ?? '');
  const box = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => box.current?.select(), []);
  const save = (): void => {
    if (title.trim() === '') return;
    if (title.trim() !== session.title) rename(title.trim());
    close();
  };
  return (
    <Modal title="Rename this conversation" close={close}>
      <input
        ref={box}
        type="text"
        aria-label="Name"
        maxLength={200}
        value={title}
        onInput={event => setTitle(event.currentTarget.value)}
        onKeyDown={event => event.key === 'Enter' && !event.isComposing && save()}
      />
      <div class="modal-actions">
        <button type="button" class="button" onClick={close}>
          Cancel
        </button>
        <button type="button" class="button primary" disabled={title.trim() === ''} onClick={save}>
          Rename
        </button>
      </div>
    </Modal>
  );
}

export function DeleteDialog({
  session,
  close,
  remove,
}: {
  session: Session;
  close: () => void;
  remove: () => void;
}): JSX.Element {
  return (
    <Modal title="Delete this conversation?" close={close}>
      <p>
        <strong>{session.title || 'Untitled'}</strong> and all its messages are deleted. This cannot be
        undone.
      </p>
      <div class="modal-actions">
        <button type="button" class="button" onClick={close}>
          Cancel
        </button>
        <button
          type="button"
          class="button danger"
          onClick={() => {
            close();
            remove();
          }}
        >
          Delete
        </button>
      </div>
    </Modal>
  );
}

const KEYS = [
  [['Enter'], 'Send the message'],
  [['Shift', 'Enter'], 'Begin a new line'],
  [['Esc'], 'Stop the answer; give up editing; close a dialog'],
  [['Ctrl', 'K'], 'Search conversations'],
  [['Ctrl', '/'], 'Show this list'],
] as const;

export function KeysDialog({ close }: { close: () => void }): JSX.Element {
  return (
    <Modal title="Keyboard shortcuts" close={close}>
      <dl class="keys">
        {KEYS.map(([keys, does]) => (
          <div key={does}>
            <dt>
              {keys.map(key => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <div class="modal-actions">
        <button type="button" class="button" onClick={close}>
          Close
        </button>
      </div>
    </Modal>
  );
}
