// Chats as files: Markdown and HTML for people, JSON for this page and others.

import { download } from "./download";
import { html } from "./markdown";
import { branch, type Chat, type Message } from "./tree";
import { word } from "./words.svelte";

export type Form = "markdown" | "html" | "json";
export const FORMAT = "shoestring-chats-2";

const KINDS: Record<Form, { ending: string; type: string; make: (chats: Chat[]) => string }> = {
  markdown: { ending: "md", type: "text/markdown", make: (chats) => chats.map(asMarkdown).join("\n\n") },
  html: { ending: "html", type: "text/html", make: asHtml },
  json: { ending: "json", type: "application/json", make: asJson },
};

const STYLE = `
body { font: 16px/1.6 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 2rem 1rem; color: #1d1b18; background: #fbfaf7; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } article { margin: 0 0 2rem; } .user { background: #efeae0; border-radius: 12px; padding: 1px 1rem; }
.who { color: #655f56; font-size: 0.85rem; margin: 0.6rem 0; } .plain, pre { white-space: pre-wrap; } pre, code { font-family: monospace; font-size: 0.9em; }
details { color: #655f56; border-left: 2px solid #ddd7cb; padding-left: 1rem; } table { border-collapse: collapse; } td, th { border: 1px solid #ddd7cb; padding: 4px 8px; }
@media (prefers-color-scheme: dark) { body { color: #ece7dd; background: #171512; } .user { background: #2b2721; } .who, details { color: #a59d90; } }`;

/** Save one chat: the branch that is shown, or all branches as JSON. */
export async function saveChat(chat: Chat, form: Form): Promise<void> {
  save([chat], form, chat.title || "chat");
}

export async function saveAll(chats: Chat[], form: Form): Promise<void> {
  save(chats, form, "shoestring-chats");
}

function save(chats: Chat[], form: Form, name: string): void {
  const { ending, type, make } = KINDS[form];
  const safe = name.replace(/[\\/:*?"<>|\u0000-\u001f]+/g, " ").trim();
  download(make(chats), `${safe}.${ending}`, type);
}

const speaker = (message: Message): string => (message.role === "user" ? word("you") : (message.model ?? ""));

function asMarkdown(chat: Chat): string {
  const parts = branch(chat).map((message) => {
    const thinking = message.reasoning_content.trim();
    const files = message.attachments.map(({ name, text }) => `${name}:\n\n${fenced(text)}`);
    const quote = thinking ? [`> ${thinking.replaceAll("\n", "\n> ")}`] : [];
    return [`**${speaker(message)}**`, ...quote, message.content, ...files].join("\n\n");
  });
  return `# ${chat.title}\n\n${parts.join("\n\n---\n\n")}\n`;
}

/** A code block whose fence is longer than any in the text. */
function fenced(text: string): string {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text}\n${fence}`;
}

function asJson(chats: Chat[]): string {
  const plain = chats.map(({ place: _, messages, ...chat }) => ({ ...chat, messages: Object.values(messages ?? {}) }));
  return JSON.stringify({ format: FORMAT, chats: plain }, null, 1);
}

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (letter) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[letter]!);

/** One file that needs nothing else and runs nothing. */
function asHtml(chats: Chat[]): string {
  const title = chats.length === 1 ? chats[0]!.title : "shoestring";
  const policy = "default-src 'none'; style-src 'unsafe-inline'";
  const head = `<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${policy}"><meta name="viewport" content="width=device-width"><title>${escaped(title)}</title><style>${STYLE}</style>`;
  return `<!doctype html><html><head>${head}</head><body>${chats.map(chatHtml).join("<hr>")}</body></html>\n`;
}

function chatHtml(chat: Chat): string {
  const articles = branch(chat).map((message) => {
    const thinking = message.reasoning_content.trim();
    const files = message.attachments.map(
      ({ name, text }) => `<details><summary>${escaped(name)}</summary><pre>${escaped(text)}</pre></details>`,
    );
    const body = message.role === "user" ? `<p class="plain">${escaped(message.content)}</p>` : html(message.content);
    const thoughts = thinking
      ? `<details><summary>${escaped(word("thinking"))}</summary><p class="plain">${escaped(thinking)}</p></details>`
      : "";
    return `<article class="${message.role}"><p class="who">${escaped(speaker(message))}</p>${thoughts}${body}${files.join("")}</article>`;
  });
  return `<h1>${escaped(chat.title)}</h1>${articles.join("")}`;
}
