// Markdown to HTML that is safe to show. This is the only place from which HTML of a model comes.

import DOMPurify, { type Config } from "dompurify";
import { Lexer, Marked, type TokenizerAndRendererExtension } from "marked";

const MATH = "data-math";

/** Formulas between $…$, $$…$$, \(…\) and \[…\]: they become code that says that it is a formula. */
function formula(name: string, level: "inline" | "block", start: RegExp, rule: RegExp): TokenizerAndRendererExtension {
  return {
    name,
    level,
    start: (text) => start.exec(text)?.index,
    tokenizer(text) {
      const match = rule.exec(text);
      return match ? { type: name, raw: match[0], text: (match[1] ?? match[2] ?? "").trim() } : undefined;
    },
    renderer: (token) => `<code ${MATH}="${level}">${escaped(token.text)}</code>`,
  };
}

const escaped = (text: string): string => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

/** Tags that a text may have, without attributes. Any other is shown as it was written. */
const TAG = /<(?!\/?(?:b|blockquote|br|code|details|em|hr|i|kbd|li|mark|ol|p|s|small|strong|sub|summary|sup|u|ul)\s*\/?>)/gi;

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: { html: ({ text }) => text.replace(TAG, "&lt;") },
  extensions: [
    formula("blockMath", "block", /\$\$|\\\[/, /^(?:\$\$([^$]{1,4000}?)\$\$|\\\[([^]{1,4000}?)\\\])\s*(?:\n|$)/),
    // A dollar sign before a space or a figure after the formula is money.
    formula("inlineMath", "inline", /\$|\\\(/, /^(?:\$(?!\s|\$)([^$\n]{1,1000}?)(?<![\s\\])\$(?!\d)|\\\(([^\n]{1,1000}?)\\\))/),
  ],
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  }
});

const TEXT: Config = {
  USE_PROFILES: { html: true },
  FORBID_TAGS: ["img", "picture", "video", "audio", "source", "style", "form", "input", "button", "textarea", "select", "iframe"],
  FORBID_ATTR: ["style", "class", "id", "name", "srcset", "background", "poster"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#)/i,
};

export type Block = { kind: "code" | "text"; raw: string; text: string; language: string };

/** The blocks of a text. With the blocks of its beginning, only what follows them is read anew. */
export function blocks(text: string, earlier: Block[] = []): Block[] {
  const settled: Block[] = [];
  let position = 0;
  for (const block of earlier.slice(0, -1)) {
    if (!text.startsWith(block.raw, position)) break;
    settled.push(block);
    position += block.raw.length;
  }
  const tokens = new Lexer(marked.defaults).lex(text.slice(position));
  const fresh: Block[] = [];
  for (const token of tokens) {
    const last = fresh.at(-1) ?? settled.at(-1);
    if (token.type === "space" && last) last.raw += token.raw;
    else
      fresh.push({
        kind: token.type === "code" ? "code" : "text",
        raw: token.raw,
        text: token.type === "code" ? token.text : token.raw,
        language: token.type === "code" ? (token.lang ?? "").split(/\s/)[0] : "",
      });
  }
  return [...settled, ...fresh];
}

/** Safe HTML of a text. */
export function html(text: string): string {
  return DOMPurify.sanitize(marked.parse(text, { async: false }), TEXT);
}

/** Show a text in an element: nothing in it runs, and nothing is fetched. */
export function show(element: HTMLElement, text: string): void {
  const safe = DOMPurify.sanitize(marked.parse(text, { async: false }), { ...TEXT, RETURN_TRUSTED_TYPE: true });
  element.innerHTML = safe as unknown as string;
  for (const place of element.querySelectorAll<HTMLElement>(`code[${MATH}]`)) void showFormula(place);
}

async function showFormula(place: HTMLElement): Promise<void> {
  try {
    const { mathMl } = await import("./math");
    const formula = mathMl(place.textContent, place.getAttribute(MATH) === "block");
    const safe = DOMPurify.sanitize(formula, { USE_PROFILES: { mathMl: true }, RETURN_TRUSTED_TYPE: true });
    const shown = document.createElement("span");
    shown.innerHTML = safe as unknown as string;
    place.replaceWith(shown);
  } catch {
    // A formula that cannot be read stays as it was written.
  }
}
