// The catalogue of the page's words: words/*.txt has lines `name|English|Deutsch|Français|中文`. Each language
// becomes a module of its own, `virtual:words/en` and so on, so that a reader loads one.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

const LANGUAGES = ["en", "de", "fr", "zh"];
const PREFIX = "virtual:words/";

function catalogue(folder: string, language: string): Record<string, string> {
  const column = LANGUAGES.indexOf(language) + 1;
  const words: Record<string, string> = {};
  for (const file of readdirSync(folder).sort()) {
    const lines = readFileSync(join(folder, file), "utf8").split("\n").filter(Boolean);
    for (const line of lines) {
      const fields = line.split("|");
      const name = fields[0]!;
      if (fields.length !== LANGUAGES.length + 1) throw new Error(`${file}: ${name} is not in all languages`);
      if (name in words) throw new Error(`${file}: ${name} is there twice`);
      words[name] = fields[column]!;
    }
  }
  return words;
}

export function words(folder: string): Plugin {
  return {
    name: "words",
    resolveId: (id) => (id.startsWith(PREFIX) ? id : null),
    load: (id) =>
      id.startsWith(PREFIX) ? `export default ${JSON.stringify(catalogue(folder, id.slice(PREFIX.length)))}` : null,
  };
}
