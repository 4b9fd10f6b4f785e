/** What the address names: the chat, or a page of the house with an address below it. */

import type { Identity } from '../wire/api.ts';

export type PageName = 'chat' | 'inbox' | 'dead-letters' | 'runs';

export interface Route {
  readonly page: PageName;
  /** What of the page is shown, such as one run; null for the page itself. */
  readonly detail: string | null;
}

/** What a page of the house gets; everything else it asks the server for. */
export interface PageProps {
  readonly detail: string | null;
  readonly identity: Identity;
}

export const CHAT: Route = { page: 'chat', detail: null };

const PAGES: Readonly<Record<string, PageName>> = {
  inbox: 'inbox',
  'operations/dead-letters': 'dead-letters',
  'operations/runs': 'runs',
  operations: 'dead-letters',
};

/** @param hash of the address, with its `#`. */
export function routeOf(hash: string): Route {
  const path = hash.replace(/^#\/?/, '');
  for (const [prefix, page] of Object.entries(PAGES)) {
    if (path === prefix) return { page, detail: null };
    if (path.startsWith(`${prefix}/`)) {
      return { page, detail: decodeURIComponent(path.slice(prefix.length + 1)) };
    }
  }
  return CHAT;
}

export function addressOf(page: PageName, detail: string | null = null): string {
  const prefix = Object.entries(PAGES).find(([, name]) => name === page)?.[0];
  if (prefix === undefined) return '#/';
  return detail === null ? `#/${prefix}` : `#/${prefix}/${encodeURIComponent(detail)}`;
}
