// The words of the page in the reader's language, from the catalogue in ui/words. Words of a page beside the
// chat are in a file with its name, which is loaded with it; all others are there from the start.

import { untrack } from "svelte";
import catalogues from "virtual:words";
import { PAGES } from "./pages";

export type Language = keyof typeof catalogues;
export const NAMES: Record<Language, string> = { en: "English", de: "Deutsch", fr: "Français", zh: "中文" };

const state = $state({ language: "en" as Language, words: {} as Record<string, string> });
const areas = new Set(Object.keys(catalogues.en).filter((area) => !PAGES.some(({ name }) => name === area)));

/** The language that the reader chose, or the first one of the browser that there is. */
function preferred(): Language {
  const wanted = [localStorage.getItem("language"), ...navigator.languages].map((name) => name?.slice(0, 2));
  return (wanted.find((name) => name! in catalogues) as Language | undefined) ?? "en";
}

export function language(): Language {
  return state.language;
}

/** Show the page in a language; without one, in the reader's. */
export async function setLanguage(name?: Language): Promise<void> {
  if (name) localStorage.setItem("language", name);
  const chosen = name ?? preferred();
  const parts = await Promise.all([...areas].map((area) => catalogues[chosen][area]!()));
  Object.assign(state, { language: chosen, words: Object.assign({}, ...parts.map((part) => part.default)) });
  document.documentElement.lang = chosen;
}

/** Load the words of a page, if it has some of its own. */
export async function addWords(area: string): Promise<void> {
  if (areas.has(area) || !(area in catalogues.en)) return;
  const part = await catalogues[untrack(language)][area]!();
  areas.add(area);
  state.words = { ...state.words, ...part.default };
}

/** A text of the catalogue in the reader's language, with its places filled. */
export function word(name: string, ...values: (string | number)[]): string {
  const text = state.words[name] ?? name;
  return text.replace(/\{(\d)\}/g, (_, index) => String(values[Number(index)]));
}
