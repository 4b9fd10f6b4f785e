import type { JSX } from 'preact';
import type { Notice } from '../state/store.ts';
import { Close, Spinner } from './icons.tsx';
import { ProblemNote } from './problem_note.tsx';

/** Whether the page is cut off. Lies over the page, so that nothing moves when it comes and goes. */
export function ConnectionBanner({
  online,
  lost,
  retry,
}: {
  online: boolean;
  lost: boolean;
  retry: () => void;
}): JSX.Element {
  const said = online
    ? 'Connection lost. Reconnecting…'
    : 'You are offline. The page continues when you are online again.';
  return (
    <div class="banner-place" role="status">
      {(lost || !online) && (
        <p class="banner">
          <Spinner />
          {said}
          {online && (
            <button type="button" class="quiet" onClick={retry}>
              Retry now
            </button>
          )}
        </p>
      )}
    </div>
  );
}

export function Notices({
  notices,
  dismiss,
}: {
  notices: readonly Notice[];
  dismiss: (id: number) => void;
}): JSX.Element {
  return (
    <div class="notices">
      {notices.map(({ id, problem }) => (
        <div class="notice" key={id}>
          <ProblemNote problem={problem} />
          <button type="button" class="quiet square" aria-label="Dismiss" onClick={() => dismiss(id)}>
            <Close />
          </button>
        </div>
      ))}
    </div>
  );
}
