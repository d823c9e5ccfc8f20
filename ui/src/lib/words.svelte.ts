// The words of the page in the reader's language, from the catalogue in ui/words.

type Words = Record<string, string>;

const CATALOGUES = {
  en: () => import("virtual:words/en"),
  de: () => import("virtual:words/de"),
  fr: () => import("virtual:words/fr"),
  zh: () => import("virtual:words/zh"),
};
export type Language = keyof typeof CATALOGUES;
export const NAMES: Record<Language, string> = { en: "English", de: "Deutsch", fr: "Français", zh: "中文" };

const state = $state({ language: "en" as Language, words: {} as Words });

/** The language that the reader chose, or the first one of the browser that there is. */
function preferred(): Language {
  const wanted = [localStorage.getItem("language"), ...navigator.languages].map((name) => name?.slice(0, 2));
  return (wanted.find((name) => name! in CATALOGUES) as Language | undefined) ?? "en";
}

export function language(): Language {
  return state.language;
}

/** Show the page in a language; without one, in the reader's. */
export async function setLanguage(name?: Language): Promise<void> {
  if (name) localStorage.setItem("language", name);
  const chosen = name ?? preferred();
  const words = (await CATALOGUES[chosen]()).default;
  Object.assign(state, { language: chosen, words });
  document.documentElement.lang = chosen;
}

/** A text of the catalogue in the reader's language, with its places filled. */
export function word(name: string, ...values: (string | number)[]): string {
  const text = state.words[name] ?? name;
  return text.replace(/\{(\d)\}/g, (_, index) => String(values[Number(index)]));
}
