// The chats: on the server of whoever runs it, in this browser alone, or nowhere.

import { call } from "./api";
import * as browser from "./store";
import { newId, type Chat, type Message, type Place } from "./tree";

export const chats = $state({
  all: [] as Chat[],
  /** Where new chats are kept. */
  place: (localStorage.getItem("place") ?? "server") as Place,
  /** Whether this service keeps chats. */
  hasServer: false,
  /** Whether the list has been read. */
  isRead: false,
});

type Fields = Omit<Chat, "messages" | "place">;

// Other tabs of this browser hear which chat has changed.
const channel = new BroadcastChannel("chats");
channel.onmessage = ({ data }: MessageEvent<string>) => void reread(data);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) void listChats().catch(() => undefined);
});

/** Tell other tabs of this browser that a chat has changed. */
export function tell(chat: Chat): void {
  if (chat.place !== "nowhere") channel.postMessage(chat.id);
}

/** Keep new chats on the server, or in this browser alone. */
export function choosePlace(place: Place): void {
  chats.place = place;
  localStorage.setItem("place", place);
}

/** Read the list of chats; what is known of their messages stays. */
export async function listChats(): Promise<void> {
  const beginMs = Date.now();
  const [own, onServer] = await Promise.all([browser.readChats().catch(() => []), serverChats()]);
  const known = new Map(chats.all.map((chat) => [chat.id, chat]));
  const listed = [...onServer, ...own].map((chat) => {
    const old = known.get(chat.id);
    known.delete(chat.id);
    if (!old) return chat;
    const isSame = old.changed_ms === chat.changed_ms;
    if (!isSame) Object.assign(old, { ...chat, messages: chat.messages ?? old.messages });
    if (!isSame && old.place === "server" && old.messages) void readMessages(old, true);
    return old;
  });
  chats.all = [...listed, ...[...known.values()].filter((chat) => chat.place === "nowhere" || chat.changed_ms >= beginMs)];
  chats.all.sort((a, b) => b.changed_ms - a.changed_ms);
  chats.isRead = true;
}

/** Read the list of chats that this browser keeps, when the service does not answer. */
export async function listOwnChats(): Promise<void> {
  const own = await browser.readChats().catch(() => []);
  if (chats.all.length === 0) chats.all = own.sort((a, b) => b.changed_ms - a.changed_ms);
}

async function serverChats(): Promise<Chat[]> {
  if (!chats.hasServer) return [];
  const reply = await call<{ chats: Fields[] }>("GET", "/chats");
  return reply.chats.map((fields) => ({ ...fields, place: "server", messages: null }));
}

/** Read the messages of a chat, once or again. Messages that are being written here are left alone. */
export async function readMessages(chat: Chat, isAgain = false): Promise<void> {
  if (chat.place !== "server" || (chat.messages && !isAgain)) {
    chat.messages ??= {};
    return;
  }
  const { messages, ...fields } = await call<Fields & { messages: Message[] }>("GET", `/chats/${chat.id}`);
  const known = chat.messages ?? {};
  for (const message of messages) if (!known[message.id]?.is_running) known[message.id] = message;
  Object.assign(chat, fields, { messages: known });
}

/** A chat that another tab has changed. */
async function reread(id: string): Promise<void> {
  const chat = chats.all.find((each) => each.id === id);
  if (!chat) return listChats();
  if (chat.place === "server") return chat.messages ? readMessages(chat, true) : listChats();
  const kept = await browser.readChat(id);
  if (!kept) chats.all = chats.all.filter((each) => each.id !== id);
  else {
    const running = Object.values(chat.messages ?? {}).filter((message) => message.is_running);
    const messages = { ...kept.messages, ...Object.fromEntries(running.map((message) => [message.id, message])) };
    Object.assign(chat, kept, { messages });
  }
}

/** A chat with nothing in it; it enters the list with its first message. */
export function newChat(model: string, place: Place): Chat {
  const now = Date.now();
  return {
    id: newId(),
    title: "",
    folder: null,
    is_pinned: false,
    created_ms: now,
    changed_ms: now,
    leaf: null,
    settings: { model, models: [], system: "", thinking: "auto", effort: null, temperature: null, top_p: null, max_tokens: null },
    place: place === "server" && !chats.hasServer ? "browser" : place,
    messages: {},
  };
}

function fieldsOf(chat: Chat): Fields {
  const { messages: _, place: __, ...fields } = chat;
  return fields;
}

/** Put a chat that has changed first in the list. */
export function putFirst(chat: Chat): void {
  chat.changed_ms = Date.now();
  chats.all = [chat, ...chats.all.filter((other) => other.id !== chat.id)];
}

/** Keep a chat that has changed, and its new or changed messages; it comes first in the list. */
export async function keep(chat: Chat, ...messages: Message[]): Promise<void> {
  putFirst(chat);
  if (chat.place === "nowhere") return;
  if (chat.place === "browser") await browser.writeChat(chat);
  else await call("PUT", `/chats/${chat.id}`, { ...fieldsOf(chat), ...(messages.length ? { messages } : {}) });
  tell(chat);
}

/** Take in chats with their messages, from a file; one that is here already is brought up to date. */
export async function takeIn(all: Chat[]): Promise<void> {
  for (const chat of all) {
    const known = chats.all.find((other) => other.id === chat.id);
    const copy: Chat = { ...chat, place: known?.place ?? (chats.hasServer ? chats.place : "browser") };
    if (copy.place === "browser") await browser.writeChat(copy);
    else await call("PUT", `/chats/${copy.id}`, { ...fieldsOf(copy), messages: Object.values(copy.messages ?? {}) });
  }
  await listChats();
}

/** Delete a chat; returns how to bring it back. */
export async function remove(chat: Chat): Promise<() => Promise<void>> {
  chats.all = chats.all.filter((other) => other.id !== chat.id);
  if (chat.place === "server") await call("DELETE", `/chats/${chat.id}`);
  else if (chat.place === "browser") await browser.deleteChat(chat.id);
  tell(chat);
  return async () => {
    if (chat.place === "server") await call("POST", `/chats/${chat.id}/restore`);
    else await keep(chat);
    await listChats();
  };
}

/** The ids of the server's chats that have all words of a search. */
export async function searchServer(words: string): Promise<Set<string>> {
  if (!chats.hasServer) return new Set();
  const reply = await call<{ chats: Fields[] }>("GET", `/chats?search=${encodeURIComponent(words)}`);
  return new Set(reply.chats.map((chat) => chat.id));
}
