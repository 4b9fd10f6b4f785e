/** How components reach the page's state, and the few things several of them do with the browser. */

import { createContext } from 'preact';
import { useContext, useEffect, useState } from 'preact/hooks';
import type { State, Store } from '../state/store.ts';
import type { Desk } from '../usecases/desk.ts';

export const DeskContext = createContext<Desk | null>(null);

export function useDesk(): Desk {
  const desk = useContext(DeskContext);
  if (desk === null) throw new Error('useDesk needs a DeskContext.Provider above it');
  return desk;
}

/** Runs before the next paint, or soon where nothing is painted (a tab in the background). */
function soon(draw: () => void): void {
  let drawn = false;
  const once = (): void => {
    if (!drawn) draw();
    drawn = true;
  };
  requestAnimationFrame(once);
  setTimeout(once, 250);
}

/** The state, drawn at most once a frame however many tokens arrive in it. */
export function useStore(store: Store): State {
  const [state, show] = useState(store.get());
  useEffect(() => {
    let waiting = false;
    const draw = (): void => {
      waiting = false;
      show(store.get());
    };
    const changed = (): void => {
      if (!waiting) soon(draw);
      waiting = true;
    };
    changed();
    return store.subscribe(changed);
  }, [store]);
  return state;
}

export function useMedia(query: string): boolean {
  const [matches, show] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const changed = (): void => show(list.matches);
    list.addEventListener('change', changed);
    return () => list.removeEventListener('change', changed);
  }, [query]);
  return matches;
}

/** A text that shows for a moment that something was done, such as "Copied". */
export function useMoment(): [shown: boolean, show: () => void] {
  const [shown, show] = useState(0);
  useEffect(() => {
    if (shown === 0) return;
    const timer = setTimeout(() => show(0), 1600);
    return () => clearTimeout(timer);
  }, [shown]);
  return [shown > 0, () => show(shown + 1)];
}
