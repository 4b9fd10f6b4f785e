/**
 * What this browser keeps between visits. Where storage is refused (private windows, policies) the page works all the
 * same and forgets on reload.
 */

const memory = new Map<string, string>();

export function recallText(name: string): string | null {
  try {
    return localStorage.getItem(`flotilla.${name}`) ?? memory.get(name) ?? null;
  } catch {
    return memory.get(name) ?? null; // storage is blocked
  }
}

export function keepText(name: string, value: string | null): void {
  if (value === null) memory.delete(name);
  else memory.set(name, value);
  try {
    if (value === null) localStorage.removeItem(`flotilla.${name}`);
    else localStorage.setItem(`flotilla.${name}`, value);
  } catch {
    // Blocked or full: memory has it for as long as the page is open.
  }
}

/** Forget everything but how the page looks: whoever comes next to this browser is somebody else. */
export function forgetTexts(): void {
  memory.clear();
  try {
    for (const name of Object.keys(localStorage)) {
      if (name.startsWith('flotilla.') && name !== 'flotilla.theme') localStorage.removeItem(name);
    }
  } catch {
    // Blocked: nothing was kept.
  }
}
