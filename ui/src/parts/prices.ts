// Prices of a million tokens, as decimal text.

export interface Price {
  cache_hit: string;
  cache_miss: string;
  output: string;
  /** Hours, in UTC, at which all of them are multiplied. */
  hours: { start: string; end: string; factor: string; days: string[] }[];
}
