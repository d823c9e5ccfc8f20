// The service worker of the built page: worker.js with the names of all files, and a version made from them.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

export function worker(folder: string): Plugin {
  return {
    name: "worker",
    apply: "build",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        const files = new Map<string, string | Uint8Array>();
        for (const name of readdirSync(join(folder, "public"))) files.set(name, readFileSync(join(folder, "public", name)));
        for (const file of Object.values(bundle)) files.set(file.fileName, file.type === "chunk" ? file.code : file.source);
        // "/" is the page; a shared chat is never read without the service.
        const names = [...files.keys()].filter((name) => !name.endsWith(".html")).sort();
        const digest = createHash("sha256");
        for (const name of [...files.keys()].sort()) digest.update(`${name}\0`).update(files.get(name)!);
        const source = readFileSync(join(folder, "worker.js"), "utf8")
          .replace("__VERSION__", `shoestring ${digest.digest("hex").slice(0, 16)}`)
          .replace("__FILES__", JSON.stringify(names));
        this.emitFile({ type: "asset", fileName: "worker.js", source });
      },
    },
  };
}
