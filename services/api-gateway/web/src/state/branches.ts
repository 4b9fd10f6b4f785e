/**
 * Branches of a conversation. An exchange follows another one; where several follow the same one, because a question was
 * asked again or edited, one of them is shown, and a person can switch between them. The newest one is shown until then.
 */

import { keepText, recallText } from './keeping.ts';
import { allExchanges, type Exchange, nameOf, notLoaded, type Thread } from './thread.ts';

/** Which of several exchanges is shown, counted from 1. */
export interface Place {
  readonly number: number;
  readonly of: number;
}

export interface Shown {
  readonly exchange: Exchange;
  readonly place: Place;
}

interface Tree {
  readonly all: readonly Exchange[];
  readonly parents: ReadonlyMap<string, string>;
  readonly children: ReadonlyMap<string, readonly Exchange[]>;
}

const BEGINNING = '';

/** What another tab asked may follow something that is not here; then it follows what is before it. */
function parentOf({ after }: Exchange, names: ReadonlyMap<string, string>, before: string): string {
  if (after === null) return BEGINNING;
  return names.get(after) ?? (after.startsWith(notLoaded(0).slice(0, -1)) ? after : before);
}

/** Names of live exchanges may be their keys, as long as they have no request id. */
function treeOf(thread: Thread): Tree {
  const all = allExchanges(thread);
  const names = new Map(
    all.flatMap(each => [each.key, nameOf(each)].map((name): [string, string] => [name, nameOf(each)])),
  );
  const parents = new Map<string, string>();
  const children = new Map<string, Exchange[]>();
  let before = BEGINNING;
  for (const exchange of all) {
    const parent = parentOf(exchange, names, before);
    before = nameOf(exchange);
    parents.set(nameOf(exchange), parent);
    children.set(parent, [...(children.get(parent) ?? []), exchange]);
  }
  return { all, parents, children };
}

interface Path {
  /** What its first exchange follows: the beginning, or a turn that is not loaded yet. */
  readonly start: string;
  readonly names: ReadonlySet<string>;
}

/** The newest exchange and all that it follows: the branch that the API calls current. */
function newestPath(tree: Tree): Path {
  const names = new Set<string>();
  const newest = tree.all.at(-1);
  let at = newest === undefined ? BEGINNING : nameOf(newest);
  while (tree.parents.has(at) && !names.has(at)) {
    names.add(at);
    at = tree.parents.get(at) ?? BEGINNING;
  }
  return { start: at, names };
}

/** What is shown, oldest first: from the beginning along the chosen branches, else along the newest. */
export function shownIn(thread: Thread): readonly Shown[] {
  const tree = treeOf(thread);
  const newest = newestPath(tree);
  const shown: Shown[] = [];
  let at = newest.start;
  for (;;) {
    const choices = tree.children.get(at) ?? [];
    const chosen = thread.chosen[at];
    const exchange =
      choices.find(each => chosen !== undefined && (nameOf(each) === chosen || each.key === chosen)) ??
      choices.find(each => newest.names.has(nameOf(each))) ??
      choices.at(-1);
    if (exchange === undefined || shown.length > tree.all.length) return shown;
    shown.push({ exchange, place: { number: choices.indexOf(exchange) + 1, of: choices.length } });
    at = nameOf(exchange);
  }
}

export function exchangesOf(thread: Thread): readonly Exchange[] {
  return shownIn(thread).map(({ exchange }) => exchange);
}

/** Show another of the exchanges that follow the same one; `by` is 1 or -1. */
export function switched(thread: Thread, exchange: Exchange, by: number): Thread {
  const tree = treeOf(thread);
  const parent = tree.parents.get(nameOf(exchange)) ?? BEGINNING;
  const choices = tree.children.get(parent) ?? [];
  const next = choices[choices.findIndex(each => nameOf(each) === nameOf(exchange)) + by];
  if (next === undefined) return thread;
  return { ...thread, chosen: { ...thread.chosen, [parent]: nameOf(next) } };
}

/** A new exchange is shown, whatever was chosen in its place before. */
export function withAsked(thread: Thread, exchange: Exchange): Thread {
  const added = { ...thread, live: [...thread.live, exchange] };
  const parent = treeOf(added).parents.get(nameOf(exchange)) ?? BEGINNING;
  const { [parent]: _, ...chosen } = thread.chosen;
  return { ...added, chosen };
}

/** What was said last in the shown branch and has reached the server: what a new question follows. */
export function lastSaid(thread: Thread): Exchange | null {
  return exchangesOf(thread).findLast(({ delivery }) => delivery !== 'refused') ?? null;
}

/** The request that the server would let the next question follow: the newest one that it knows. */
export function newestRequest(thread: Thread, except: string): string | null {
  return (
    allExchanges(thread).findLast(each => each.requestId !== null && each.key !== except)?.requestId ?? null
  );
}

const kept = (sessionId: string): string => `branches.${sessionId}`;

export function keepChosen({ sessionId, chosen }: Thread): void {
  if (sessionId === null) return;
  keepText(kept(sessionId), Object.keys(chosen).length === 0 ? null : JSON.stringify(chosen));
}

export function recallChosen(sessionId: string): Readonly<Record<string, string>> {
  try {
    const value: unknown = JSON.parse(recallText(kept(sessionId)) ?? '{}');
    return typeof value === 'object' && value !== null ? (value as Record<string, string>) : {};
  } catch {
    return {}; // written by something else
  }
}
