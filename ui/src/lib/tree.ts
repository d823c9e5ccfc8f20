// A conversation is a tree of messages: every edit and every new answer is a branch, and none is lost.
// Chats and messages have the fields that the service's routes have.

import { untrack } from "svelte";

export interface Figures {
  /** Seconds to the first token, of thinking, and in all. */
  first_s?: number;
  thinking_s?: number;
  total_s?: number;
  prompt_tokens?: number;
  cached_tokens?: number;
  completion_tokens?: number;
  reasoning_tokens?: number;
  cost?: string;
  currency?: string;
  /** Its share of the machine's energy. */
  joules?: number;
}

export interface Attachment {
  name: string;
  text: string;
}

export interface Message {
  id: string;
  parent: string | null;
  role: "user" | "assistant";
  content: string;
  reasoning_content: string;
  model: string | null;
  attachments: Attachment[];
  created_ms: number;
  finish_reason: string | null;
  error: string | null;
  is_running: boolean;
  figures: Figures;
}

export interface Settings {
  model: string;
  /** Further models that answer side by side. */
  models: string[];
  system: string;
  thinking: "auto" | "on" | "off";
  effort: string | null;
  temperature: number | null;
  top_p: number | null;
  max_tokens: number | null;
}

/** Where a chat is kept. */
export type Place = "server" | "browser" | "nowhere";

export interface Chat {
  id: string;
  title: string;
  folder: string | null;
  is_pinned: boolean;
  created_ms: number;
  changed_ms: number;
  /** The newest message of the branch that is shown. */
  leaf: string | null;
  settings: Settings;
  place: Place;
  /** By their ids; null when they have not been read yet. */
  messages: Record<string, Message> | null;
}

export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newMessage(fields: Pick<Message, "role" | "parent"> & Partial<Message>): Message {
  return {
    id: newId(),
    content: "",
    reasoning_content: "",
    model: null,
    attachments: [],
    created_ms: Date.now(),
    finish_reason: null,
    error: null,
    is_running: false,
    figures: {},
    ...fields,
  };
}

/** The messages of the branch that ends with `leaf`, the oldest first. */
export function branch(chat: Chat, leaf = chat.leaf): Message[] {
  const messages: Message[] = [];
  for (let id = leaf; id !== null; ) {
    const message: Message | undefined = chat.messages?.[id];
    if (!message) break;
    messages.push(message);
    id = untrack(() => message.parent);
  }
  return messages.reverse();
}

const byTime = (a: Message, b: Message): number => a.created_ms - b.created_ms || (a.id < b.id ? -1 : 1);

/** Messages by the one that they follow, the oldest first. */
export type Family = Map<string | null, Message[]>;

/** The families of a chat. What a message follows never changes, so only new messages make it anew. */
export function families(chat: Chat): Family {
  const all: Family = new Map();
  const messages = Object.values(chat.messages ?? {});
  untrack(() => {
    for (const message of messages) {
      const family = all.get(message.parent);
      if (family) family.push(message);
      else all.set(message.parent, [message]);
    }
    for (const family of all.values()) family.sort(byTime);
  });
  return all;
}

/** Messages that follow the same one, this one among them. */
export function siblings(family: Family, message: Message): Message[] {
  return family.get(message.parent) ?? [];
}

/** Answers of several models to the same question: they were asked in the same moment. */
export function sideBySide(family: Family, message: Message): Message[] {
  if (message.role === "user") return [message];
  return siblings(family, message).filter((other) => other.created_ms === message.created_ms && other.role !== "user");
}

/** The newest message below one: where a branch that is chosen ends. */
export function newestBelow(family: Family, id: string): string {
  let last = id;
  for (let next = family.get(last)?.at(-1); next; next = family.get(last)?.at(-1)) last = next.id;
  return last;
}

/** A title from the first words. */
export function titleOf(text: string): string {
  const line = text.trim().split("\n")[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()}…` : line;
}

/** Whether a chat has all the words of a search. */
export function matches(chat: Chat, search: string): boolean {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = [chat.title, ...Object.values(chat.messages ?? {}).map((message) => message.content)];
  const text = texts.join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** A message as the model is given it: its text, and the text of each file that came with it. */
export function promptText(message: Message): string {
  const files = message.attachments.map(({ name, text }) => `${name}:\n\n${text}`);
  return [message.content, ...files].filter(Boolean).join("\n\n---\n\n");
}
