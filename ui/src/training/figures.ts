// Figures of a training: which charts there are, and how their values are written.

import { language } from "../lib/words.svelte";
import type { Point } from "./runs";

/** The charts in their order; `dots` is a figure that a few steps have, on the same axes. */
export const CHARTS: { name: string; dots?: string }[] = [
  { name: "accuracy", dots: "eval_accuracy" },
  { name: "answer_tokens" },
  { name: "bits_per_byte", dots: "heldout_bits_per_byte" },
  { name: "loss" },
  { name: "reward" },
  { name: "entropy" },
  { name: "truncated" },
  { name: "kl" },
  { name: "grad_norm" },
  { name: "tokens_per_s" },
  { name: "samples_per_s" },
  { name: "lr" },
];
const SHARES = ["accuracy", "eval_accuracy", "truncated"];

export function isShare(figure: string): boolean {
  return SHARES.includes(figure);
}

/** A value as a person reads it. */
export function written(figure: string, value: number): string {
  if (isShare(figure)) return percent(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return value.toExponential(1);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return new Intl.NumberFormat(language(), { maximumFractionDigits: digits }).format(value);
}

export function percent(value: number): string {
  return new Intl.NumberFormat(language(), { style: "percent", maximumFractionDigits: 1 }).format(value);
}

/** Seconds as minutes and hours: 4 min 10 s, 2 h 1 min. */
export function duration(seconds: number): string {
  const whole = Math.max(Math.round(seconds), 0);
  const parts = whole >= 3600 ? [[Math.floor(whole / 3600), "hour"], [Math.floor((whole % 3600) / 60), "minute"]]
    : whole >= 60 ? [[Math.floor(whole / 60), "minute"], [whole % 60, "second"]] : [[whole, "second"]];
  return (parts as [number, string][])
    .filter(([amount], index) => amount > 0 || index === 0)
    .map(([value, unit]) => new Intl.NumberFormat(language(), { style: "unit", unit, unitDisplay: "short" }).format(value))
    .join(" ");
}

/** The running mean of a curve. */
export function smooth(points: Point[]): Point[] {
  const half = Math.max(Math.floor(points.length / 40), 1);
  return points.map(([step], index) => {
    const near = points.slice(Math.max(index - half, 0), index + half + 1);
    return [step, near.reduce((sum, [, value]) => sum + value, 0) / near.length];
  });
}

/** Round values from the lowest to the highest, so many at most and half as many at least. */
export function ticks(low: number, high: number, most = 4): number[] {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const first = Math.ceil(low / unit - 1e-9);
  const count = Math.floor(high / unit + 1e-9) - first + 1;
  return Array.from({ length: Math.max(count, 0) }, (_, index) => (first + index) * unit);
}
