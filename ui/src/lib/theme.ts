// Light or dark, as the reader chose; "" is what the system has.

export type Theme = "" | "light" | "dark";

export function readTheme(): Theme {
  const kept = localStorage.getItem("theme");
  return kept === "light" || kept === "dark" ? kept : "";
}

/** Show the page light or dark, from now on. */
export function setTheme(theme: Theme): void {
  if (theme) {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
  } else {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("theme");
  }
}

/** From light to dark, or back. */
export function toggleTheme(): void {
  const isDark = (readTheme() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  setTheme(isDark ? "light" : "dark");
}
