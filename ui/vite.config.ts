import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";
import { worker } from "./worker.plugin.ts";
import { words } from "./words.plugin.ts";

/** The file's name of a part of the catalogue, such as words-en-chat. */
const wordsName = (id: string | null): string | undefined =>
  id?.startsWith("virtual:words/") ? id.slice("virtual:".length).replaceAll("/", "-") : undefined;

// The built page is kept in git, so its files have fixed names and no maps.
export default defineConfig({
  base: "/app/",
  plugins: [svelte(), words(`${import.meta.dirname}/words`), worker(import.meta.dirname)],
  build: {
    outDir: "../shoestring/serve/pages/app",
    emptyOutDir: true,
    sourcemap: false,
    assetsInlineLimit: 0,
    modulePreload: false,
    rollupOptions: {
      input: { app: "index.html", share: "share.html" },
      output: {
        entryFileNames: "[name].js",
        chunkFileNames: (chunk) => `${wordsName(chunk.facadeModuleId) ?? chunk.name}.js`,
        assetFileNames: "[name][extname]",
      },
    },
  },
  server: { proxy: { "^/(v1|v2|auth|account|admin|chats|answers|share|shares|memory|attachments|status|user)": "http://127.0.0.1:8000" } },
});
