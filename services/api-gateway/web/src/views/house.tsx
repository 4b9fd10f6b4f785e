/** The house: which pages there are, how each is reached, and how its code is loaded when it is first opened. */

import type { ComponentType, JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { addressOf, type PageName, type PageProps, type Route } from '../state/route.ts';
import type { Identity } from '../wire/api.ts';
import { Chat, Gauge, Inbox, Menu } from './icons.tsx';
import { ErrorNote } from './problem_note.tsx';

type Page = Exclude<PageName, 'chat'>;

interface Entry {
  readonly title: string;
  readonly load: () => Promise<{ readonly default: ComponentType<PageProps> }>;
}

/** A page is a line here, an address in `state/route.ts`, its queries and its view. */
const PAGES: Readonly<Record<Page, Entry>> = {
  inbox: { title: 'Inbox', load: () => import('../pages/inbox.tsx') },
  'dead-letters': { title: 'Operations', load: () => import('../pages/dead_letters.tsx') },
  runs: { title: 'Operations', load: () => import('../pages/runs.tsx') },
};

const DOORS = [
  { name: 'Chat', icon: Chat, pages: ['chat'] },
  { name: 'Inbox', icon: Inbox, pages: ['inbox'] },
  { name: 'Operations', icon: Gauge, pages: ['dead-letters', 'runs'] },
] as const;

/** @param session the conversation that the way back to the chat leads to. */
export function House({ page, session }: { page: PageName; session: string | null }): JSX.Element {
  return (
    <nav class="house" aria-label="Main">
      {DOORS.map(({ name, icon: Icon, pages }) => (
        <a
          key={name}
          href={pages[0] === 'chat' && session !== null ? `#/c/${session}` : addressOf(pages[0])}
          aria-current={(pages as readonly PageName[]).includes(page) ? 'page' : undefined}
        >
          <Icon />
          <span>{name}</span>
        </a>
      ))}
    </nav>
  );
}

type Loaded = ComponentType<PageProps> | 'loading' | 'failed';

function useView(page: Page): readonly [view: Loaded, again: () => void] {
  const [tries, again] = useState(0);
  const [loaded, show] = useState<{ readonly page: Page; readonly view: Loaded }>({ page, view: 'loading' });
  useEffect(() => {
    let left = false;
    const shown = (view: Loaded): void => {
      if (!left) show({ page, view });
    };
    PAGES[page].load().then(
      module => shown(module.default),
      () => shown('failed'),
    );
    return () => {
      left = true;
    };
  }, [page, tries]);
  return [loaded.page === page ? loaded.view : 'loading', () => again(tries + 1)];
}

export function PageView({
  route,
  identity,
  menu,
}: {
  route: Route & { page: Page };
  identity: Identity;
  menu: (() => void) | null;
}): JSX.Element {
  const [view, again] = useView(route.page);
  const { title } = PAGES[route.page];
  useEffect(() => {
    document.title = `${title} · Flotilla`;
  }, [title]);
  const View = typeof view === 'string' ? null : view;
  return (
    <>
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
        <h1>{title}</h1>
      </header>
      {view === 'loading' && (
        <p class="page-wait" role="status">
          Loading…
        </p>
      )}
      {view === 'failed' && (
        <div class="page-wait">
          <ErrorNote
            title="This page could not be loaded"
            detail="Flotilla may have been updated meanwhile."
            facts={[]}
          >
            <button type="button" class="button" onClick={again}>
              Try again
            </button>
          </ErrorNote>
        </div>
      )}
      {View !== null && <View detail={route.detail} identity={identity} />}
    </>
  );
}
