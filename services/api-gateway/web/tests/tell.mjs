// @ts-check
/**
 * Tells what the page shows, for a test that is not in Node: reads cases as JSON from stdin, each the events of some runs
 * and the messages of their session, and writes each run as its frames tell it and as its messages do.
 */

import { join } from 'node:path';
import { createServer } from 'vite';

const web = join(import.meta.dirname, '..');
const server = await createServer({
  root: web,
  configFile: false,
  logLevel: 'error',
  server: { middlewareMode: true, ws: false },
  optimizeDeps: { noDiscovery: true },
});
try {
  const { sseParser } = await server.ssrLoadModule('/src/wire/sse.ts');
  const { readFrame } = await server.ssrLoadModule('/src/wire/frames.ts');
  const { advance, QUEUED } = await server.ssrLoadModule('/src/state/run.ts');
  const { newThread, withMessages } = await server.ssrLoadModule('/src/state/thread.ts');
  const { exchangesOf } = await server.ssrLoadModule('/src/state/branches.ts');

  /** @param {{ status: string, parts: unknown, failure: { code: string } | null, truncated: string | null }} run */
  const told = ({ status, parts, failure, truncated }) => ({
    status,
    parts,
    failure: failure?.code ?? null,
    truncated,
  });

  /** @param {string} events */
  const live = events =>
    told(
      sseParser()
        .push(new TextEncoder().encode(events))
        .map(readFrame)
        .filter(/** @param {unknown} frame */ frame => frame !== null)
        .reduce(
          /** @param {unknown} run @param {unknown} frame */ (run, frame) => advance(run, frame, 0),
          QUEUED,
        ),
    );

  let input = '';
  for await (const chunk of process.stdin) input += chunk;
  const answers = JSON.parse(input).map(
    /** @param {{ runs: Record<string, string>, messages: unknown[] }} of */ ({ runs, messages }) => {
      const thread = withMessages(newThread('s', 's'), messages);
      return {
        live: Object.fromEntries(Object.entries(runs).map(([id, events]) => [id, live(events)])),
        stored: Object.fromEntries(
          thread.history.map(/** @param {any} each */ each => [each.requestId, told(each.run)]),
        ),
        shown: exchangesOf(thread).map(/** @param {any} each */ each => each.requestId),
      };
    },
  );
  process.stdout.write(JSON.stringify(answers));
} finally {
  await server.close();
}
