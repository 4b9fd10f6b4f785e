/** The signed-in page: the list at the side, the conversation, the message box, and the keys that work everywhere. */

import type { JSX } from 'preact';
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { draftText, keepDraftText, sendDraft } from '../state/drafts.ts';
import { currentThread, type State } from '../state/store.ts';
import { currentRun, type Exchange, type Thread } from '../state/thread.ts';
import { ask, sendAgain, stop } from '../usecases/ask.ts';
import { type Desk, retryNow } from '../usecases/desk.ts';
import { deleteSession, loadMoreSessions, renameSession, searchSaid } from '../usecases/list_sessions.ts';
import { forgetSession, loadEarlier, refreshThread, switchBranch } from '../usecases/open_thread.ts';
import { signOut } from '../usecases/sign_in.ts';
import type { Identity, Session } from '../wire/api.ts';
import { Composer } from './composer.tsx';
import { DeleteDialog, KeysDialog, RenameDialog } from './dialogs.tsx';
import type { ExchangeActions } from './exchange_view.tsx';
import { Header } from './header.tsx';
import { useDesk, useMedia } from './hooks.ts';
import { PageView } from './house.tsx';
import { ConnectionBanner, Notices } from './overlays.tsx';
import { Sidebar } from './sidebar.tsx';
import { useStick } from './stick.ts';
import { useTheme } from './theme.ts';
import { ThreadView } from './thread_view.tsx';

type Dialog =
  | { readonly kind: 'rename' | 'delete'; readonly session: Session }
  | { readonly kind: 'keys' }
  | null;

/** Stop: which run was asked to stop, and the way to ask. */
function useStop(desk: Desk): [stopping: string | null, stopRun: (exchange: Exchange | null) => void] {
  const [stopping, show] = useState<string | null>(null);
  const stopRun = (exchange: Exchange | null): void => {
    const requestId = exchange?.requestId ?? null;
    if (requestId === null || requestId === stopping) return;
    show(requestId);
    void stop(desk, requestId).then(taken => taken || show(null));
  };
  return [stopping, stopRun];
}

/** With Ctrl, or with Cmd on a Mac. */
const SHORTCUTS: Readonly<Record<string, 'search' | 'list'>> = { k: 'search', '/': 'list' };

/** They work with the first drawing: whoever sees the page can use it, and no later focus takes theirs away. */
function useKeys(keys: { escape: () => void; search: () => void; list: () => void }): void {
  const now = useRef(keys);
  now.current = keys;
  useLayoutEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.isComposing) return;
      if (event.key === 'Escape' && !(event.target instanceof HTMLInputElement)) now.current.escape();
      const shortcut = event.ctrlKey || event.metaKey ? SHORTCUTS[event.key] : undefined;
      if (shortcut === undefined) return;
      event.preventDefault();
      now.current[shortcut]();
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  }, []);
}

/** @param shown whether the conversation is what the page shows; other pages have titles of their own. */
function useTitle(thread: Thread, session: Session | null, running: boolean, shown: boolean): string {
  const title = session?.title || (thread.sessionId === null ? 'New chat' : 'Untitled');
  useEffect(() => {
    if (shown) document.title = `${running ? '● ' : ''}${title} · Flotilla`;
  }, [title, running, shown]);
  return title;
}

function Conversation({
  state,
  thread,
  stopping,
  stopRun,
}: {
  state: State;
  thread: Thread;
  stopping: string | null;
  stopRun: (exchange: Exchange | null) => void;
}): JSX.Element {
  const desk = useDesk();
  const message = useRef<HTMLTextAreaElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const stick = useStick(box, content, thread.key);
  const running = currentRun(thread);
  const session = thread.sessionId;

  const [editing, edit] = useState<string | null>(null);
  const send = (text: string): void => {
    stick.toEnd();
    void ask(desk, text, sendDraft(session, text));
  };
  // Nothing of it is a draft: the box keeps what is typed in it.
  const replace = (exchange: Exchange, text: string): void => {
    stick.toEnd();
    void ask(desk, text, crypto.randomUUID(), exchange);
  };
  const actions: ExchangeActions = {
    again: exchange => replace(exchange, exchange.question ?? ''),
    resend: exchange => void sendAgain(desk, exchange),
    edit: exchange => {
      edit(exchange?.key ?? null);
      if (exchange === null) message.current?.focus();
    },
    replace,
    cancel: stopRun,
    switchBranch: (exchange, by) => switchBranch(desk, exchange, by),
  };
  const shown = (key: string): boolean => thread.live.some(exchange => exchange.key === key);
  // Read once a conversation; then the box itself has it
  const initial = useMemo(() => draftText(session, shown), [thread.key]);
  return (
    <>
      <ThreadView
        {...{ thread, stopping, editing, actions, stick, box, content }}
        ask={send}
        loadEarlier={() => void loadEarlier(desk)}
        reload={() => void refreshThread(desk)}
      />
      <ConnectionBanner online={state.online} lost={state.connection === 'lost'} retry={retryNow} />
      <Composer
        key={thread.key}
        box={message}
        initial={initial}
        running={running !== null}
        stopping={running !== null && stopping === running.requestId}
        changed={text => keepDraftText(session, text)}
        send={send}
        stop={() => stopRun(running)}
      />
    </>
  );
}

/** The list of conversations: a column where there is room, a drawer over the page on a phone. */
function useDrawer(thread: string): { narrow: boolean; open: boolean; show: (open: boolean) => void } {
  const narrow = useMedia('(max-width: 50rem)');
  const [shown, show] = useState(false);
  const open = narrow && shown;
  useLayoutEffect(() => show(false), [narrow, thread]);
  useLayoutEffect(() => {
    const chosen = (event: Event): void => {
      if (event.target instanceof Element && event.target.closest('.sidebar a')) show(false);
    };
    addEventListener('click', chosen);
    return () => removeEventListener('click', chosen);
  }, []);
  const was = useRef(false);
  useLayoutEffect(() => {
    // The focus goes in with the drawer and comes back to what opened it.
    const place = open ? '.sidebar .new-chat' : '.header .menu';
    if (open !== was.current) document.querySelector<HTMLElement>(place)?.focus();
    was.current = open;
  }, [open]);
  return { narrow, open, show };
}

function focusMessage(): void {
  document.getElementById('message')?.focus();
}

function Dialogs({ dialog, close }: { dialog: Dialog; close: () => void }): JSX.Element | null {
  const desk = useDesk();
  if (dialog === null) return null;
  if (dialog.kind === 'keys') return <KeysDialog close={close} />;
  const { kind, session } = dialog;
  const remove = async (): Promise<void> => {
    if (await deleteSession(desk, session)) await forgetSession(desk, session.session_id);
  };
  return kind === 'rename' ? (
    <RenameDialog
      session={session}
      close={close}
      rename={title => void renameSession(desk, session, title)}
    />
  ) : (
    <DeleteDialog session={session} close={close} remove={() => void remove()} />
  );
}

export function Shell({ state, identity }: { state: State; identity: Identity }): JSX.Element {
  const desk = useDesk();
  const [theme, switchTheme] = useTheme();
  const [dialog, open] = useState<Dialog>(null);
  const [stopping, stopRun] = useStop(desk);
  const search = useRef<HTMLInputElement>(null);
  const thread = currentThread(state);
  const drawer = useDrawer(`${state.route.page} ${thread.key}`);
  const running = currentRun(thread);
  const session = state.sessions.find(({ session_id }) => session_id === thread.sessionId) ?? null;
  const { page, detail } = state.route;
  const title = useTitle(thread, session, running !== null, page === 'chat');
  const find = useCallback((words: string, signal: AbortSignal) => searchSaid(desk, words, signal), [desk]);
  const loadMore = useCallback(() => void loadMoreSessions(desk), [desk]);
  useKeys({
    escape: () => {
      if (drawer.open) drawer.show(false);
      else if (page === 'chat') stopRun(running);
    },
    search: () => {
      search.current?.focus();
      if (!drawer.narrow) return;
      drawer.show(true); // and then it can have the focus
      requestAnimationFrame(() => search.current?.focus());
    },
    list: () => open({ kind: 'keys' }),
  });
  const menu = drawer.narrow ? (): void => drawer.show(true) : null;
  const actions = {
    rename: (its: Session): void => open({ kind: 'rename', session: its }),
    remove: (its: Session): void => open({ kind: 'delete', session: its }),
  };
  return (
    <div class={drawer.open ? 'shell drawer-open' : 'shell'}>
      <button type="button" class="skip" onClick={focusMessage}>
        Skip to the message box
      </button>
      <Sidebar
        {...{ state, identity, theme, switchTheme, search, actions, loadMore }}
        current={thread.sessionId}
        searchSaid={find}
        showKeys={() => open({ kind: 'keys' })}
        signOut={() => void signOut(desk)}
        close={drawer.narrow ? () => drawer.show(false) : null}
      />
      {drawer.open && (
        <button type="button" class="scrim" aria-label="Close the list" onClick={() => drawer.show(false)} />
      )}
      <main inert={drawer.open}>
        {page === 'chat' ? (
          <>
            <Header {...{ title, session, actions, menu }} />
            <Conversation {...{ state, thread, stopping, stopRun }} />
          </>
        ) : (
          <PageView route={{ page, detail }} identity={identity} menu={menu} />
        )}
      </main>
      <Notices
        notices={state.notices}
        dismiss={id =>
          desk.store.change(now => ({ ...now, notices: now.notices.filter(notice => notice.id !== id) }))
        }
      />
      <Dialogs dialog={dialog} close={() => open(null)} />
    </div>
  );
}
