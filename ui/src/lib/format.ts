// Numbers, money and times in the reader's language.

import { language } from "./words.svelte";

/** An amount of a currency; small amounts keep the digits that say something. */
export function money(amount: string | number, currency: string): string {
  const digits = Math.abs(Number(amount)) < 1 ? 6 : 2;
  const style = { style: "currency", currency, maximumFractionDigits: digits } as const;
  return new Intl.NumberFormat(language(), style).format(Number(amount));
}

export function count(value: number): string {
  return new Intl.NumberFormat(language()).format(value);
}

/** A large number in few characters: 12K, 1.2M. */
export function short(value: number): string {
  return new Intl.NumberFormat(language(), { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

/** The day of a time in seconds since 1970. */
export function day(seconds: number): string {
  return new Date(seconds * 1000).toLocaleDateString(language(), { dateStyle: "medium" });
}

/** The day and minute of a time in seconds since 1970. */
export function moment(seconds: number): string {
  return new Date(seconds * 1000).toLocaleString(language(), { dateStyle: "medium", timeStyle: "short" });
}

/** How long ago a time in seconds since 1970 was. */
export function ago(seconds: number): string {
  const elapsed = Math.max(Date.now() / 1000 - seconds, 0);
  const steps = [["day", 86_400], ["hour", 3600], ["minute", 60]] as const;
  const [unit, length] = steps.find(([, least]) => elapsed >= least) ?? (["minute", 60] as const);
  return new Intl.RelativeTimeFormat(language(), { numeric: "auto" }).format(-Math.floor(elapsed / length), unit);
}
