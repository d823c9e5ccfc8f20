// The models of this machine as the service shows them to whoever runs it.

import { language } from "../lib/words.svelte";

export interface LocalModel {
  name: string;
  source: "package" | "folder" | "hub" | "training" | "server" | "other";
  state: "here" | "served" | "loading" | "loaded";
  parameters: number | null;
  active_parameters: number | null;
  form: string;
  disk_bytes: number | null;
  memory_bytes: number | null;
  max_model_len: number | null;
  problem: string;
}

export interface Job {
  id: number;
  kind: "pull" | "quantize";
  name: string;
  bytes: number | null;
  total: number | null;
  failure: string;
}

export interface Local {
  models: LocalModel[];
  jobs: Job[];
  free_bytes: number;
}

/** Bytes as a person reads them: 3.3 MB. */
export function bytes(size: number): string {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const power = Math.min(Math.floor(Math.log10(Math.max(size, 1)) / 3), units.length - 1);
  const value = size / 1000 ** power;
  const style = { style: "unit", unit: units[power]!, unitDisplay: power ? "short" : "long" } as const;
  return new Intl.NumberFormat(language(), { ...style, maximumFractionDigits: value < 100 ? 1 : 0 }).format(value);
}
