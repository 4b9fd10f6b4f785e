/**
 * Scrolling that follows an answer while the reader is at its end, and leaves the reader alone otherwise. It follows the
 * size of the content, not the tokens, so that tool cards and code that unfold are followed too.
 */

import type { RefObject } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

const AT_END = 4;
const FAR = 160;

export interface Stick {
  /** The reader has scrolled so far away that a way back is worth showing. */
  readonly away: boolean;
  readonly toEnd: (smooth?: boolean) => void;
}

function fromEnd(box: HTMLElement): number {
  return box.scrollHeight - box.clientHeight - box.scrollTop;
}

export function useStick(
  box: RefObject<HTMLElement | null>,
  content: RefObject<HTMLElement | null>,
  thread: string,
): Stick {
  const stuck = useRef(true);
  const [away, show] = useState(false);

  const toEnd = (smooth = false): void => {
    stuck.current = true;
    box.current?.scrollTo({ top: box.current.scrollHeight, behavior: smooth ? 'smooth' : 'instant' });
  };

  // Another conversation begins at its end
  useEffect(() => {
    const element = box.current;
    const inner = content.current;
    if (element === null || inner === null) return;
    toEnd();
    let top = element.scrollTop;
    const scrolled = (): void => {
      if (fromEnd(element) <= AT_END) stuck.current = true;
      else if (element.scrollTop < top) stuck.current = false;
      top = element.scrollTop;
      show(!stuck.current && fromEnd(element) > FAR);
    };
    const sizes = new ResizeObserver(() => {
      if (stuck.current) toEnd();
      else show(fromEnd(element) > FAR);
    });
    element.addEventListener('scroll', scrolled, { passive: true });
    sizes.observe(inner);
    sizes.observe(element);
    return () => {
      element.removeEventListener('scroll', scrolled);
      sizes.disconnect();
    };
  }, [thread]);

  return { away, toEnd };
}
