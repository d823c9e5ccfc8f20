// A conversation is a tree of messages: every edit and every new answer is a branch, and none is lost.

export interface Message {
  id: string;
  parent: string | null;
  role: "user" | "assistant";
  text: string;
  thinking: string;
  model?: string;
  /** Seconds of thinking, to the first token, and in all. */
  thinkingS?: number;
  firstS?: number;
  totalS?: number;
  promptTokens?: number;
  cachedTokens?: number;
  answerTokens?: number;
  thinkingTokens?: number;
  finish?: string;
  error?: string;
  timeMs: number;
}

export interface Settings {
  model: string;
  system: string;
  thinking: "auto" | "on" | "off";
  temperature: number | null;
  maxTokens: number | null;
}

export interface Chat {
  id: string;
  title: string;
  isPinned: boolean;
  isTemporary: boolean;
  createdMs: number;
  changedMs: number;
  /** The newest message of the branch that is shown. */
  leaf: string | null;
  messages: Record<string, Message>;
  settings: Settings;
}

export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The messages of the branch that is shown, the oldest first. */
export function branch(chat: Chat): Message[] {
  const messages: Message[] = [];
  for (let id = chat.leaf; id !== null; id = chat.messages[id]?.parent ?? null) {
    const message = chat.messages[id];
    if (message) messages.unshift(message);
  }
  return messages;
}

/** Messages that follow the same one, this one among them, the oldest first. */
export function siblings(chat: Chat, message: Message): Message[] {
  const all = Object.values(chat.messages).filter((other) => other.parent === message.parent);
  return all.sort((a, b) => a.timeMs - b.timeMs);
}

/** The newest message below one: where a branch that is chosen ends. */
export function newestBelow(chat: Chat, id: string): string {
  const children = Object.values(chat.messages).filter((message) => message.parent === id);
  if (children.length === 0) return id;
  return newestBelow(chat, children.sort((a, b) => b.timeMs - a.timeMs)[0]!.id);
}

/** A title from the first words. */
export function titleOf(text: string): string {
  const line = text.trim().split("\n")[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()}…` : line;
}

/** Whether a chat has all the words of a search. */
export function matches(chat: Chat, search: string): boolean {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const texts = [chat.title, ...Object.values(chat.messages).map((message) => message.text)];
  const text = texts.join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** A chat as Markdown, the branch that is shown. */
export function asMarkdown(chat: Chat): string {
  const parts = branch(chat).map((message) => {
    const thinking = message.thinking ? `> ${message.thinking.trim().replaceAll("\n", "\n> ")}\n\n` : "";
    return `**${message.role === "user" ? "User" : (message.model ?? "Assistant")}**\n\n${thinking}${message.text}`;
  });
  return `# ${chat.title}\n\n${parts.join("\n\n---\n\n")}\n`;
}
