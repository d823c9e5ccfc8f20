// The state of the page: who is here, which models there are, and what is shown.

import { call, whoIsHere, type Model, type Person } from "./api";
import { chats, listChats, listOwnChats } from "./chats.svelte";
import { memory } from "./memory.svelte";
import { chooseOwner } from "./store";

export const page = $state({
  here: null as Person | "nobody" | "local" | null,
  models: [] as Model[],
  route: location.hash.slice(1) || "/",
  error: "",
  /** Whether the service does not answer, and only what this browser keeps is shown. */
  isOffline: false,
});

addEventListener("hashchange", () => (page.route = location.hash.slice(1) || "/"));

export function go(route: string): void {
  location.hash = route;
}

/** Whether the reader runs the service. */
export function isOperator(): boolean {
  return page.here === "local" || (typeof page.here === "object" && page.here?.role === "admin");
}

export async function readModels(): Promise<void> {
  const models = (await call<{ data: Model[] }>("GET", "/v1/models")).data;
  const names = (list: Model[]) => list.map(({ id }) => id).join("\n");
  if (names(models) !== names(page.models)) page.models = models;
}

// On one's own machine models come and go while the page is open: a training makes them, or somebody loads one.
setInterval(() => {
  if (page.here === "local" && !document.hidden) void readModels().catch(() => undefined);
}, 10_000);

/** Read who is here, the models and the chats. */
export async function refresh(): Promise<void> {
  page.error = "";
  try {
    const { has_accounts, person, has_chats } = await whoIsHere();
    const here = has_accounts ? (person ?? "nobody") : "local";
    chats.hasServer = has_chats;
    if (here !== "nobody") {
      chooseOwner(typeof here === "string" ? here : here.id);
      // A new question does not wait for the chats that there are.
      listChats().catch(showKept);
      if (has_chats) memory.read().catch(() => undefined);
      await readModels();
    }
    remember(here);
    page.here = here;
    page.isOffline = false;
  } catch {
    await showKept();
  }
}

/** Keep whose chats this browser may show when the service does not answer. */
function remember(here: Person | "nobody" | "local"): void {
  if (here === "nobody") localStorage.removeItem("owner");
  else localStorage.setItem("owner", here === "local" ? here : here.id);
}

/** Show the chats that this browser keeps. */
async function showKept(): Promise<void> {
  const owner = localStorage.getItem("owner");
  if (owner === null) {
    page.error = "unreachable";
    return;
  }
  chooseOwner(owner);
  await listOwnChats();
  page.here ??= owner === "local" ? owner : { id: owner, email: null, role: "user", has_codes: false };
  page.isOffline = true;
}

// No event says that the service is there again.
addEventListener("online", () => page.isOffline && void refresh());
setInterval(() => {
  if (page.isOffline && !document.hidden) void refresh();
}, 3000);
