// The catalogue of the page's words: words/*.txt has lines `name|English|Deutsch|Français|中文`. Each language of
// each file is a module of its own, such as `virtual:words/en/chat`, so that a reader loads what is shown;
// `virtual:words` has them all by language and file.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

const LANGUAGES = ["en", "de", "fr", "zh"];
const INDEX = "virtual:words";

function read(folder: string, area: string): string[][] {
  const lines = readFileSync(join(folder, `${area}.txt`), "utf8").split("\n").filter(Boolean);
  return lines.map((line) => line.split("|"));
}

function areasOf(folder: string): string[] {
  const files = readdirSync(folder).filter((file) => file.endsWith(".txt"));
  return files.sort().map((file) => file.slice(0, -4));
}

function index(folder: string): string {
  const names = new Set<string>();
  for (const area of areasOf(folder)) {
    for (const [name, ...texts] of read(folder, area)) {
      if (texts.length !== LANGUAGES.length) throw new Error(`${area}.txt: ${name} is not in all languages`);
      if (names.has(name!)) throw new Error(`${area}.txt: ${name} is there twice`);
      names.add(name!);
    }
  }
  const modules = (language: string) =>
    areasOf(folder).map((area) => `${area}: () => import("${INDEX}/${language}/${area}")`);
  return `export default {${LANGUAGES.map((language) => `${language}: {${modules(language)}}`)}}`;
}

function catalogue(folder: string, language: string, area: string): string {
  const column = LANGUAGES.indexOf(language) + 1;
  const words = Object.fromEntries(read(folder, area).map((fields) => [fields[0], fields[column]]));
  return `export default ${JSON.stringify(words)}`;
}

export function words(folder: string): Plugin {
  return {
    name: "words",
    resolveId: (id) => (id === INDEX || id.startsWith(`${INDEX}/`) ? id : null),
    load(id) {
      if (id === INDEX) return index(folder);
      if (!id.startsWith(`${INDEX}/`)) return null;
      const [, language, area] = id.split("/");
      return catalogue(folder, language!, area!);
    },
  };
}
