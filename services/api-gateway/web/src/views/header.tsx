import type { JSX } from 'preact';
import type { Session } from '../wire/api.ts';
import { Bin, Menu, Pencil, Plus } from './icons.tsx';
import type { SessionActions } from './sidebar.tsx';

export function Header({
  title,
  session,
  actions,
  menu,
}: {
  title: string;
  session: Session | null;
  actions: SessionActions;
  /** Opens the list where it is a drawer. */
  menu: (() => void) | null;
}): JSX.Element {
  return (
    <header class="header">
      {menu !== null && (
        <button
          type="button"
          class="quiet square menu"
          aria-label="Open the list of conversations"
          onClick={menu}
        >
          <Menu />
        </button>
      )}
      <h1 title={title}>{title}</h1>
      {session !== null && (
        <>
          <button
            type="button"
            class="quiet square"
            aria-label="Rename this conversation"
            title="Rename"
            onClick={() => actions.rename(session)}
          >
            <Pencil />
          </button>
          <button
            type="button"
            class="quiet square"
            aria-label="Delete this conversation"
            title="Delete"
            onClick={() => actions.remove(session)}
          >
            <Bin />
          </button>
        </>
      )}
      {menu !== null && (
        <a class="quiet square" href="#/" aria-label="New chat" title="New chat">
          <Plus />
        </a>
      )}
    </header>
  );
}
