import type { ComponentChildren, JSX } from 'preact';
import type { Who } from '../state/store.ts';
import { CopyButton } from './copy_button.tsx';
import { Mark } from './icons.tsx';
import { ProblemNote } from './problem_note.tsx';

const COMMAND = './flotilla link';

function Card({ children }: { children: ComponentChildren }): JSX.Element {
  return (
    <main class="gate">
      <div class="gate-card">
        <span class="empty-mark">
          <Mark size={34} />
        </span>
        {children}
      </div>
    </main>
  );
}

const TITLES = {
  'bad-link': 'This link does not work any more',
  'no-cookie': 'Sign in to Flotilla',
  left: 'You are signed out',
} as const;

function HowToSignIn({ why }: { why: keyof typeof TITLES }): JSX.Element {
  return (
    <Card>
      <h1>{TITLES[why]}</h1>
      <p>
        {why === 'bad-link'
          ? 'A link signs in once, and only for a short time. Make a new one where Flotilla runs:'
          : 'Open the link that Flotilla printed when it started. To get a new one, run this where Flotilla runs:'}
      </p>
      <div class="command">
        <code>{COMMAND}</code>
        <CopyButton text={() => COMMAND} label="Copy the command" />
      </div>
      <p class="fine">
        Then open the link in this browser. The link signs in one browser and is used up by that.
      </p>
    </Card>
  );
}

interface Actions {
  readonly retry: () => void;
  readonly changePerson: (code: string) => void;
  readonly stay: () => void;
}

export function SignIn({ who, retry, changePerson, stay }: Actions & { who: Who }): JSX.Element {
  if (who.kind === 'signed-out') return <HowToSignIn why={who.why} />;
  if (who.kind === 'other-person') {
    return (
      <Card>
        <h1>Sign in as somebody else?</h1>
        <p>{who.problem.detail}</p>
        <button type="button" class="button" onClick={stay}>
          Stay signed in
        </button>
        <button type="button" class="button" onClick={() => changePerson(who.code)}>
          Change
        </button>
        <p class="fine">
          If somebody sent you this link, stay: what you write after a change is theirs to read.
        </p>
      </Card>
    );
  }
  if (who.kind === 'unreachable') {
    return (
      <Card>
        <h1>Flotilla does not answer</h1>
        <ProblemNote problem={who.problem}>
          <button type="button" class="button" onClick={retry}>
            Try again
          </button>
        </ProblemNote>
      </Card>
    );
  }
  return (
    <main class="gate" aria-busy="true">
      <h1 class="sr-only">Flotilla</h1>
      <span class="empty-mark late">
        <Mark size={34} />
      </span>
    </main>
  );
}
