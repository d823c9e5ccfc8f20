import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The built page is kept in git, so its files have fixed names and no maps.
export default defineConfig({
  base: "/app/",
  plugins: [svelte()],
  build: {
    outDir: "../shoestring/serve/pages/app",
    emptyOutDir: true,
    sourcemap: false,
    assetsInlineLimit: 0,
    modulePreload: false,
    rollupOptions: {
      output: {
        entryFileNames: "app.js",
        chunkFileNames: "[name].js",
        assetFileNames: "app[extname]",
      },
    },
  },
  server: { proxy: { "^/(v1|auth|account|status|user)": "http://127.0.0.1:8000" } },
});
