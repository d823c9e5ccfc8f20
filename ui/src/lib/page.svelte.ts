// The state of the page: who is here, which models there are, the chats, and what is shown.

import { call, whoIsHere, type Model, type Person } from "./api";
import { chooseOwner, deleteChat, readChats, writeChat } from "./store";
import { newId, type Chat } from "./tree";

export const page = $state({
  here: null as Person | "nobody" | "local" | null,
  models: [] as Model[],
  chats: [] as Chat[],
  route: location.hash.slice(1) || "/",
  error: "",
});

addEventListener("hashchange", () => (page.route = location.hash.slice(1) || "/"));

export function go(route: string): void {
  location.hash = route;
}

/** Read who is here, the models and the chats. */
export async function refresh(): Promise<void> {
  page.error = "";
  try {
    const here = await whoIsHere();
    if (here !== "nobody") page.models = (await call<{ data: Model[] }>("GET", "/v1/models")).data;
    chooseOwner(typeof here === "string" ? here : here.id);
    const known = await readChats().catch(() => [] as Chat[]);
    page.chats = known.sort((a, b) => b.changedMs - a.changedMs);
    page.here = here;
  } catch {
    page.error = "unreachable";
  }
}

/** A chat with nothing in it, which is not kept yet. */
export function newChat(isTemporary = false): Chat {
  const now = Date.now();
  const last = page.chats[0]?.settings.model;
  const model = page.models.some((each) => each.id === last) ? last! : (page.models[0]?.id ?? "");
  return {
    id: newId(),
    title: "",
    isPinned: false,
    isTemporary,
    createdMs: now,
    changedMs: now,
    leaf: null,
    messages: {},
    settings: { model, system: "", thinking: "auto", temperature: null, maxTokens: null },
  };
}

/** Keep a chat that has changed, first in the list. */
export function keep(chat: Chat): void {
  if (chat.isTemporary) return;
  chat.changedMs = Date.now();
  if (!page.chats.some((other) => other.id === chat.id)) page.chats.unshift(chat);
  void writeChat(chat);
}

/** Delete a chat; returns how to bring it back. */
export function remove(chat: Chat): () => void {
  page.chats = page.chats.filter((other) => other.id !== chat.id);
  void deleteChat(chat.id);
  return () => keep(chat);
}
