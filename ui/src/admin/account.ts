// An account, as admins see it.

export interface Account {
  id: string;
  email: string | null;
  role: "user" | "admin";
  created: number;
  has_codes: boolean;
  is_disabled: boolean;
  priority: "interactive" | "standard" | "batch";
  weight: number;
  max_concurrency: number | null;
  requests_per_minute: number | null;
  tokens_per_minute: number | null;
  day_cap: string | null;
  month_cap: string | null;
  balance: { granted: string; topped_up: string; held: string };
}

export function total({ balance }: Account): number {
  return Number(balance.granted) + Number(balance.topped_up);
}
