/** What waits for a person. Each kind of it comes with the service that asks for it. */

import type { JSX } from 'preact';
import { Nothing } from './operations.tsx';

export default function InboxPage(): JSX.Element {
  return (
    <section class="page">
      <Nothing title="Nothing waits for you">
        Approvals, tasks for people and conversations that are handed over to you will be listed here.
      </Nothing>
    </section>
  );
}
