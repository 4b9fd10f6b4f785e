/// <reference types="vitest/config" />
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig, type Plugin } from 'vite';

const here = import.meta.dirname;
const INPUTS = ['index.html', 'package.json', 'package-lock.json', 'tsconfig.json', 'vite.config.ts'];

function sources(): string[] {
  const below = readdirSync(join(here, 'src'), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name).slice(here.length + 1));
  return [...INPUTS, ...below].sort();
}

/** Writes beside the built files what they were made from, so that a test without Node sees when they are stale. */
function sourceDigests(): Plugin {
  return {
    name: 'flotilla:source-digests',
    generateBundle() {
      const digest = (path: string): string =>
        createHash('sha256')
          .update(readFileSync(join(here, path)))
          .digest('hex');
      const digests = Object.fromEntries(sources().map(path => [path, digest(path)]));
      this.emitFile({
        type: 'asset',
        fileName: 'sources.json',
        source: `${JSON.stringify(digests, null, 2)}\n`,
      });
    },
  };
}

/** A chosen theme is applied before the first paint; without this, which Vite drops, the other one would flash. */
function paintAfterScript(): Plugin {
  return {
    name: 'flotilla:paint-after-script',
    transformIndexHtml: {
      order: 'post',
      handler: html => html.replace('<script type="module"', '<script type="module" blocking="render"'),
    },
  };
}

export default defineConfig({
  root: here,
  base: '/',
  plugins: [sourceDigests(), paintAfterScript()],
  build: {
    outDir: '../src/api_gateway/static',
    emptyOutDir: true,
    target: ['chrome125', 'firefox128', 'safari17.5'],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    license: false,
  },
  // `npm run dev` against a gateway that runs already.
  server: {
    proxy: Object.fromEntries(['/auth', '/chat', '/api'].map(path => [path, 'http://localhost:8080'])),
  },
  test: { include: ['tests/**/*.test.ts'], environment: 'node' },
});
