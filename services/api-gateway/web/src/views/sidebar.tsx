import type { JSX, RefObject } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { ageOf } from '../state/dates.ts';
import type { State } from '../state/store.ts';
import type { Identity, Session } from '../wire/api.ts';
import { House } from './house.tsx';
import { Bin, Close, Keyboard, Leave, Mark, Moon, Pencil, Plus, Search, Sun } from './icons.tsx';
import { ProblemNote } from './problem_note.tsx';
import type { Theme } from './theme.ts';

export interface SessionActions {
  readonly rename: (session: Session) => void;
  readonly remove: (session: Session) => void;
}

/** Ways in other than this page. */
const CHANNELS: Readonly<Record<string, { readonly short: string; readonly long: string }>> = {
  api: { short: 'API', long: 'over the API' },
  cli: { short: 'CLI', long: 'from the command line' },
};

function Row({
  session,
  current,
  actions,
}: {
  session: Session;
  current: boolean;
  actions: SessionActions;
}): JSX.Element {
  const title = session.title || 'Untitled';
  const tabIndex = current ? 0 : -1;
  const way = CHANNELS[session.channel ?? ''];
  return (
    <li class={current ? 'row is-current' : 'row'}>
      <a href={`#/c/${session.session_id}`} aria-current={current ? 'page' : undefined} title={title}>
        {session.active_request_id !== null && (
          <span class="live" role="img" aria-label="Answering">
            <i />
          </span>
        )}
        <span class="row-text">
          <span class="row-title">{title}</span>
          {session.match && <span class="row-match">{session.match}</span>}
        </span>
        {way !== undefined && (
          <span class="tag" title={`Asked ${way.long}`}>
            {way.short}
          </span>
        )}
      </a>
      <span class="row-actions">
        <button
          type="button"
          class="quiet square"
          tabIndex={tabIndex}
          aria-label={`Rename ${title}`}
          title="Rename"
          onClick={() => actions.rename(session)}
        >
          <Pencil />
        </button>
        <button
          type="button"
          class="quiet square"
          tabIndex={tabIndex}
          aria-label={`Delete ${title}`}
          title="Delete"
          onClick={() => actions.remove(session)}
        >
          <Bin />
        </button>
      </span>
    </li>
  );
}

function grouped(sessions: readonly Session[]): readonly (readonly [string, readonly Session[]])[] {
  const now = new Date();
  const groups = new Map<string, Session[]>();
  for (const session of sessions) {
    const age = ageOf(new Date(session.updated_at), now);
    groups.set(age, [...(groups.get(age) ?? []), session]);
  }
  return [...groups];
}

function matching(sessions: readonly Session[], query: string): readonly Session[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return sessions.filter(({ title }) =>
    words.every(word => (title ?? 'untitled').toLowerCase().includes(word)),
  );
}

function Group({
  name,
  sessions,
  current,
  actions,
}: {
  name: string;
  sessions: readonly Session[];
  current: string | null;
  actions: SessionActions;
}): JSX.Element {
  return (
    <section aria-label={name}>
      <h3>{name}</h3>
      <ul>
        {sessions.map(session => (
          <Row
            key={session.session_id}
            session={session}
            current={session.session_id === current}
            actions={actions}
          />
        ))}
      </ul>
    </section>
  );
}

/** The conversations in which the words were said, once the person pauses; those of the list are not repeated. */
function useSaid(
  query: string,
  search: SidebarProps['searchSaid'],
  listed: readonly Session[],
): readonly Session[] {
  const [found, show] = useState<{ words: string; sessions: readonly Session[] }>({
    words: '',
    sessions: [],
  });
  const words = query.trim();
  useEffect(() => {
    if (words.length < 2) return;
    const leaving = new AbortController();
    const timer = setTimeout(() => {
      void search(words, leaving.signal).then(sessions => sessions !== null && show({ words, sessions }));
    }, 250);
    return () => {
      clearTimeout(timer);
      leaving.abort();
    };
  }, [words, search]);
  const known = new Set(listed.map(({ session_id }) => session_id));
  return found.words === words ? found.sessions.filter(({ session_id }) => !known.has(session_id)) : [];
}

function Sessions({
  state,
  query,
  current,
  actions,
  loadMore,
  searchSaid,
}: {
  state: State;
  query: string;
  current: string | null;
  actions: SessionActions;
  loadMore: () => void;
  searchSaid: SidebarProps['searchSaid'];
}): JSX.Element {
  const found = matching(state.sessions, query);
  const said = useSaid(query, searchSaid, found);
  const more = state.moreSessions;
  const searching = query.trim() !== '';
  // A search looks through all conversations, so the pages that are not here yet are fetched for it.
  useEffect(() => {
    if (searching && more !== null && more !== 'unknown') loadMore();
  }, [searching, more, loadMore]);
  return (
    <div class="sessions">
      <p class="sr-only" role="status">
        {searching ? `${found.length + said.length} conversations found` : ''}
      </p>
      {grouped(found).map(([age, sessions]) => (
        <Group key={age} name={age} sessions={sessions} current={current} actions={actions} />
      ))}
      {said.length > 0 && (
        <Group name="In what was said" sessions={said} current={current} actions={actions} />
      )}
      {state.sessionsProblem !== null && state.sessions.length === 0 && (
        <ProblemNote problem={state.sessionsProblem} />
      )}
      {found.length + said.length === 0 && more !== 'unknown' && state.sessionsProblem === null && (
        <p class="nothing">
          {searching
            ? 'No conversation has this in its name or in what was said.'
            : 'Your conversations will be listed here.'}
        </p>
      )}
      {more !== null && more !== 'unknown' && !searching && (
        <button type="button" class="button more" onClick={loadMore}>
          Older conversations
        </button>
      )}
    </div>
  );
}

export interface SidebarProps {
  readonly state: State;
  readonly identity: Identity;
  readonly current: string | null;
  readonly theme: Theme;
  readonly search: RefObject<HTMLInputElement | null>;
  /** Given where the sidebar is a drawer. */
  readonly close: (() => void) | null;
  readonly actions: SessionActions;
  readonly loadMore: () => void;
  readonly searchSaid: (words: string, signal: AbortSignal) => Promise<readonly Session[] | null>;
  readonly switchTheme: () => void;
  readonly showKeys: () => void;
  readonly signOut: () => void;
}

function Me(props: SidebarProps): JSX.Element {
  const { identity, theme } = props;
  const other = theme === 'dark' ? 'light' : 'dark';
  return (
    <div class="me">
      <span class="initial" aria-hidden="true">
        {identity.subject.slice(0, 1).toUpperCase()}
      </span>
      <span class="me-text">
        <span class="me-name">{identity.subject}</span>
        <span class="me-tenant">{identity.tenant}</span>
      </span>
      <button
        type="button"
        class="quiet square"
        aria-label="List the keyboard shortcuts"
        title="Keyboard shortcuts (Ctrl /)"
        onClick={props.showKeys}
      >
        <Keyboard />
      </button>
      <button
        type="button"
        class="quiet square"
        aria-label={`Use the ${other} theme`}
        title={`Use the ${other} theme`}
        onClick={props.switchTheme}
      >
        {theme === 'dark' ? <Sun /> : <Moon />}
      </button>
      <button
        type="button"
        class="quiet square"
        aria-label="Sign out"
        title="Sign out"
        onClick={props.signOut}
      >
        <Leave />
      </button>
    </div>
  );
}

export function Sidebar(props: SidebarProps): JSX.Element {
  const { state } = props;
  const [query, setQuery] = useState('');
  return (
    <div class="sidebar">
      <div class="brand">
        <Mark size={24} />
        <span>Flotilla</span>
        {props.close !== null && (
          <button type="button" class="quiet square" aria-label="Close the list" onClick={props.close}>
            <Close />
          </button>
        )}
      </div>
      <House page={state.route.page} session={props.current} />
      <nav class="conversations" aria-label="Conversations">
        <a class="new-chat" href="#/">
          <Plus />
          New chat
        </a>
        <label class="search">
          <Search />
          <input
            ref={props.search}
            type="search"
            placeholder="Search"
            aria-label="Search conversations"
            title="Search conversations (Ctrl K)"
            value={query}
            onInput={event => setQuery(event.currentTarget.value)}
          />
        </label>
        <Sessions
          state={state}
          query={query}
          current={state.route.page === 'chat' ? props.current : null}
          actions={props.actions}
          loadMore={props.loadMore}
          searchSaid={props.searchSaid}
        />
      </nav>
      <Me {...props} />
    </div>
  );
}
