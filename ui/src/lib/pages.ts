// The pages beside the chat: each is loaded when it is first opened.

import type { Component } from "svelte";

export interface Page {
  /** The first part of its route, the word that names it, and the file with its words. */
  name: string;
  /** Files with further words. */
  words?: string[];
  load: () => Promise<{ default: Component }>;
  /** For everyone, for those who run the service, or for the admins of one with accounts. */
  audience: "all" | "operator" | "admin";
  /** No link leads to it but from a chat. */
  isHidden?: boolean;
}

export const PAGES: Page[] = [
  { name: "translate", load: () => import("../translate/Translate.svelte"), audience: "all" },
  { name: "training", load: () => import("../training/Training.svelte"), audience: "operator" },
  { name: "models", load: () => import("../models/Models.svelte"), audience: "all" },
  { name: "api", load: () => import("../api/Api.svelte"), audience: "all" },
  { name: "memory", load: () => import("../memory/Memory.svelte"), audience: "all" },
  { name: "thinking", load: () => import("../thinking/Inspect.svelte"), audience: "all", isHidden: true },
  { name: "account", load: () => import("../account/Account.svelte"), audience: "all" },
  { name: "admin", load: () => import("../admin/Admin.svelte"), audience: "admin", words: ["account", "api"] },
];

/** The page of a route such as /account; undefined for a chat's. */
export function pageOf(route: string): Page | undefined {
  return PAGES.find((page) => page.name === route.split("/")[1]);
}
