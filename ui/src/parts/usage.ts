// Usage by day and model, as the service reports it, and the marks of its chart.

export interface Row {
  day: string;
  model: string;
  requests: number;
  cached_tokens: number;
  missed_tokens: number;
  completion_tokens: number;
  charge: string;
}

export type Measure = "charge" | "tokens";

/** The last days, in UTC as the service counts them, such as 2026-11-30. */
export function daysOf(number: number): string[] {
  const now = Date.now();
  return Array.from({ length: number }, (_, index) =>
    new Date(now - (number - 1 - index) * 86_400_000).toISOString().slice(0, 10),
  );
}

export function valueOf(row: Row, measure: Measure): number {
  return measure === "charge" ? Number(row.charge) : row.cached_tokens + row.missed_tokens + row.completion_tokens;
}

/** Models by what they used, the most first; from the sixth on they are one group, whose name is empty. */
export function modelsOf(rows: Row[], measure: Measure): string[] {
  const totals = new Map<string, number>();
  for (const row of rows) totals.set(row.model, (totals.get(row.model) ?? 0) + valueOf(row, measure));
  const names = [...totals].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  return names.length > 6 ? [...names.slice(0, 5), ""] : names;
}

/** A round number at or above the largest value, for the top of an axis. */
export function roundTop(value: number): number {
  if (value <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((factor) => factor * unit >= value)! * unit;
}
