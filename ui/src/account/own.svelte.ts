// The reader's account, as all parts of its page show it.

import { sentence } from "../lib/answer.svelte";
import { call } from "../lib/api";

export interface Account {
  id: string;
  email: string | null;
  role: "user" | "admin";
  has_codes: boolean;
  has_password: boolean;
  payment_link: string | null;
}

export const own = $state({ account: null as Account | null, failure: "" });

export async function readOwn(): Promise<void> {
  try {
    own.account = await call<Account>("GET", "/account");
    own.failure = "";
  } catch (error) {
    own.failure = sentence(error);
  }
}
