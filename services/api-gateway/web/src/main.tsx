/** Starts the page: theme first, so that nothing flashes, then who we are, then what the address names. */

import { type JSX, render } from 'preact';
import { createDesk } from './usecases/desk.ts';
import { listen } from './usecases/listen.ts';
import { changePerson, enter, stay } from './usecases/sign_in.ts';
import { DeskContext, useDesk, useStore } from './views/hooks.ts';
import { Shell } from './views/shell.tsx';
import { SignIn } from './views/sign_in.tsx';
import { applyTheme } from './views/theme.ts';

function Page(): JSX.Element {
  const desk = useDesk();
  const state = useStore(desk.store);
  if (state.who.kind === 'signed-in') return <Shell state={state} identity={state.who.identity} />;
  return (
    <SignIn
      who={state.who}
      retry={() => void enter(desk)}
      changePerson={code => void changePerson(desk, code)}
      stay={() => void stay(desk)}
    />
  );
}

applyTheme();
const desk = createDesk();
listen(desk);
void enter(desk);
const root = document.getElementById('app');
if (root === null) throw new Error('index.html has no element #app');
render(
  <DeskContext.Provider value={desk}>
    <Page />
  </DeskContext.Provider>,
  root,
);
