/** The page's icons, drawn inline: no icon font, no request, and they take the colour of the text. */

import type { ComponentChildren, JSX } from 'preact';

function Icon({ children, size = 18 }: { children: ComponentChildren; size?: number }): JSX.Element {
  return (
    <svg
      class="icon"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="1.75"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      {children}
    </svg>
  );
}

const stroke = (d: string, size?: number) => (): JSX.Element => (
  <Icon {...(size === undefined ? {} : { size })}>
    <path d={d} />
  </Icon>
);

export const Plus = stroke('M12 5v14M5 12h14');
export const Search = stroke('M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14Zm5-2 4.5 4.5', 16);
export const Pencil = stroke('M4 20h4L19 9a2.8 2.8 0 0 0-4-4L4 16v4Zm9.500-13.500 4 4', 16);
export const Bin = stroke('M4 7h16M9.500 7V4.500h5V7M6.500 7l.8 12.500h9.400L17.500 7M10 11v5m4-5v5', 16);
export const Menu = stroke('M4 7h16M4 12h16M4 17h16', 20);
export const Close = stroke('M6 6l12 12M18 6 6 18');
export const ArrowUp = stroke('M12 19V5m-6 6 6-6 6 6');
export const ArrowDown = stroke('M12 5v14m-6-6 6 6 6-6');
export const Chevron = stroke('m9 6 6 6-6 6', 14);
export const Copy = stroke('M9 9h10v11H9zM5 15V4h10', 16);
export const Check = stroke('m5 12.500 4.500 4.500L19 7.500', 16);
export const Again = stroke('M20 11a8 8 0 1 0-2.300 6.300M20 5v6h-6', 16);
export const Wrench = stroke('M14.500 6.500a4 4 0 0 0 5 5L11 20a2.500 2.500 0 0 1-3.500-3.500l7-10Z', 16);
export const Warning = stroke('M12 4 2.800 19.500h18.400L12 4Zm0 6v4.500m0 2.500v.1');
export const Moon = stroke('M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500Z');
export const Sun = stroke(
  'M12 16.500a4.500 4.500 0 1 0 0-9 4.500 4.500 0 0 0 0 9ZM12 2v2.500m0 15V22M2 12h2.500m15 0H22M5 5l1.700 1.700m10.600 10.600L19 19M5 19l1.700-1.700M17.300 6.700 19 5',
);
export const ChevronLeft = stroke('m15 6-6 6 6 6', 14);
export const Info = stroke('M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16Zm0-8.500V16m0-8v.1', 16);
export const Leave = stroke('M14 4H6v16h8M10 12h10m-3.500-3.500L20 12l-3.500 3.500');
export const Keyboard = stroke('M3 7h18v10H3zM7 10.500v.1m3.300-.1v.1m3.400-.1v.1m3.300-.1v.1M8 14h8');
export const Chat = stroke('M4 5h16v11H9.500L4 20V5Z');
export const Inbox = stroke('M4 13 6.500 5h11L20 13v6H4v-6Zm0 0h5a3 3 0 0 0 6 0h5');
export const Gauge = stroke('M4 17a8.500 8.500 0 1 1 16 0M12 15l4-5');
export const Clock = stroke('M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16Zm0-12v4.500l3 1.800', 20);
export const Percent = stroke(
  'M19 5 5 19M7.500 9.500a2 2 0 1 0 0-4 2 2 0 0 0 0 4Zm9 9a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z',
  20,
);
export const Lines = stroke('M4 6h16M4 10.500h10M4 15h16M4 19.500h7', 20);
export const Book = stroke(
  'M12 6.500C10 5 7 4.500 4 5v13.500c3-.5 6 0 8 1.500 2-1.500 5-2 8-1.500V5c-3-.5-6 0-8 1.500Zm0 0V20',
  20,
);

export function StopSquare(): JSX.Element {
  return (
    <svg class="icon" width="18" height="18" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <rect x="6" y="6" width="12" height="12" rx="2.500" fill="currentColor" />
    </svg>
  );
}

export function Mark({ size = 28 }: { size?: number }): JSX.Element {
  return (
    <svg
      class="mark"
      width={size}
      height={size}
      viewBox="0 0 32 32"
      fill="currentColor"
      aria-hidden="true"
      focusable="false"
    >
      <path d="M16.800 3v16.200h9.500C24.800 12.400 21.600 6.600 16.800 3Z" />
      <path d="M14.400 7.600c-3.700 3-6 6.900-7 11.600h7Z" opacity=".6" />
      <path d="M4.500 22.200h23.600c-1 3.100-3.400 5-6.500 5H11c-3.100 0-5.500-1.900-6.500-5Z" />
    </svg>
  );
}

export function Spinner(): JSX.Element {
  return <span class="spinner" aria-hidden="true" />;
}
