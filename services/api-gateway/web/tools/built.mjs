// @ts-check
/**
 * Proves that the committed built files are what the sources make: builds into a folder of its own, compares every byte,
 * and keeps the page within its sizes. `npm run build` is what to do when this fails.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'vite';

/** Bytes of gzip: of all that the page loads at its start, and of what one page of the house adds when it is opened. */
const ENTRY = 60_000;
const LAZY = 25_000;
const web = join(import.meta.dirname, '..');
const committed = join(web, '../src/api_gateway/static');

/** @param {string} folder */
function filesOf(folder) {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name).slice(folder.length + 1));
  return new Map(names.sort().map(name => [name, readFileSync(join(folder, name))]));
}

const fresh = mkdtempSync(join(tmpdir(), 'flotilla-web-'));
try {
  await build({
    root: web,
    configFile: join(web, 'vite.config.ts'),
    logLevel: 'warn',
    build: { outDir: fresh },
  });
  const made = filesOf(fresh);
  const there = filesOf(committed);
  const names = [...new Set([...made.keys(), ...there.keys()])].sort();
  const stale = names.filter(name => !made.get(name)?.equals(there.get(name) ?? Buffer.alloc(0)));
  const index = String(made.get('index.html'));
  let entry = 0;
  let lazy = 0;
  for (const [name, bytes] of made) {
    if (name === 'sources.json') continue; // no browser asks for it
    const zipped = gzipSync(bytes, { level: 9 }).length;
    const atStart = name === 'index.html' || index.includes(`/${name}`);
    if (atStart) entry += zipped;
    else lazy += zipped;
    process.stdout.write(
      `${String(zipped).padStart(7)} B gzip  ${name}${atStart ? '' : '  (when it is opened)'}\n`,
    );
  }
  process.stdout.write(`${String(entry).padStart(7)} B gzip  at the start, of at most ${ENTRY}\n`);
  process.stdout.write(
    `${String(lazy).padStart(7)} B gzip  for all other pages together, of at most ${LAZY} for each\n`,
  );
  if (entry > ENTRY || lazy > LAZY) process.exitCode = 1;
  if (stale.length > 0) {
    process.stderr.write(`built files differ from their sources, run npm run build: ${stale.join(', ')}\n`);
    process.exitCode = 1;
  }
} finally {
  rmSync(fresh, { recursive: true });
}
