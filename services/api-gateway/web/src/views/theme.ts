/** Light or dark: the system's choice until a person chooses; the choice is kept and holds in all tabs. */

import { useEffect, useState } from 'preact/hooks';
import { keepText, recallText } from '../state/keeping.ts';
import { useMedia } from './hooks.ts';

export type Theme = 'light' | 'dark';

function chosen(): Theme | null {
  const kept = recallText('theme');
  return kept === 'light' || kept === 'dark' ? kept : null;
}

/** Before the first paint, so that the page never flashes in the other theme. */
export function applyTheme(): void {
  const theme = chosen();
  if (theme === null) delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme;
}

export function useTheme(): [theme: Theme, change: () => void] {
  const system = useMedia('(prefers-color-scheme: dark)') ? 'dark' : 'light';
  const [choice, show] = useState(chosen);
  useEffect(() => {
    const changed = (): void => {
      applyTheme();
      show(chosen());
    };
    addEventListener('storage', changed);
    return () => removeEventListener('storage', changed);
  }, []);
  const theme = choice ?? system;
  const change = (): void => {
    const next = theme === 'dark' ? 'light' : 'dark';
    // Back to what the system says: then it goes on following the system.
    keepText('theme', next === system ? null : next);
    applyTheme();
    show(chosen());
  };
  return [theme, change];
}
