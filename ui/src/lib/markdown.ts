// Markdown to HTML that is safe to show. This is the only place from which HTML of a model comes.

import DOMPurify from "dompurify";
import { Lexer, Marked, type Token } from "marked";

const marked = new Marked({ gfm: true, breaks: true });

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  }
});

export type Block = { kind: "code"; text: string; language: string } | { kind: "html"; raw: string };

/** The blocks of a text; while it grows, only its last block changes. */
export function blocks(text: string): Block[] {
  const tokens: Token[] = new Lexer({ gfm: true, breaks: true }).lex(text);
  return tokens
    .filter((token) => token.type !== "space")
    .map((token) =>
      token.type === "code"
        ? { kind: "code", text: token.text, language: (token.lang ?? "").split(/\s/)[0] ?? "" }
        : { kind: "html", raw: token.raw },
    );
}

/** Safe HTML of a block, as the browser's TrustedHTML: nothing in it runs, and nothing is fetched. */
export function html(raw: string): string {
  return DOMPurify.sanitize(marked.parse(raw, { async: false }), {
    RETURN_TRUSTED_TYPE: true,
    USE_PROFILES: { html: true },
    FORBID_TAGS: ["img", "picture", "video", "audio", "source", "style", "form", "input", "button", "textarea", "select", "iframe"],
    FORBID_ATTR: ["style", "class", "id", "srcset", "background", "poster"],
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#)/i,
  }) as unknown as string;
}
