// An answer as the model sees it, as the service gives it; and what the page computes from it.

import { call } from "../lib/api";

export interface Token {
  id: number;
  text: string;
  is_special: boolean;
}

export interface Alternative {
  id: number | null;
  text: string;
  logprob: number;
}

export interface AnswerToken extends Token {
  logprob: number;
  alternatives: Alternative[];
}

export interface Inspection {
  model: string;
  prompt: Token[];
  answer: AnswerToken[];
  is_cut: boolean;
  /** Of each token of the answer, in each of the shape's moe_layers. */
  experts: number[][][] | null;
  shape: {
    layers: number;
    hidden_size: number;
    vocab_size: number;
    moe_layers: number[];
    experts: number;
    active_experts: number;
    shared_experts: number;
  };
  engine: {
    prompt_tokens: number;
    cached_tokens: number;
    generated_tokens: number;
    drafted_tokens: number;
    accepted_tokens: number;
  };
  prompt_tokens: number;
}

/** Ask the service about the last message of a request. Throws ServiceError. */
export function inspect(request: object): Promise<Inspection> {
  return call<Inspection>("POST", "/inspect", { ...request, stream: false, stream_options: undefined });
}

/** A probability in words of the page: 97 %, 0.4 %, <0.1 %. */
export function percent(logprob: number, language: string): string {
  const share = Math.exp(logprob);
  if (share < 0.001) return "< 0.1 %";
  const digits = share < 0.1 || share > 0.999 ? 1 : 0;
  return `${(share * 100).toLocaleString(language, { maximumFractionDigits: digits, minimumFractionDigits: digits })} %`;
}

/** An energy with its unit: 0.42 J, 12 J, 3.1 kJ. */
export function energy(joules: number, language: string): string {
  const [value, unit] = joules < 1000 ? [joules, "J"] : [joules / 1000, "kJ"];
  return `${value.toLocaleString(language, { maximumSignificantDigits: 2 })} ${unit}`;
}

/** The text of a token with its spaces and line ends to be seen. */
export function visible(text: string): string {
  return text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

export interface Summary {
  /** Share of tokens that were the likeliest in their place. */
  likeliest: number;
  perplexity: number;
  /** The number of the token that surprised the model most. */
  rarest: number;
}

export function summary(answer: AnswerToken[]): Summary {
  const sum = answer.reduce((total, token) => total + token.logprob, 0);
  const likeliest = answer.filter((token) => token.alternatives[0]?.id === token.id).length;
  const rarest = answer.reduce((best, token, number) => (token.logprob < answer[best]!.logprob ? number : best), 0);
  return { likeliest: likeliest / answer.length, perplexity: Math.exp(-sum / answer.length), rarest };
}

/** How often each expert of each layer was used: rows are layers. */
export function loads(inspection: Inspection): number[][] {
  const rows = inspection.shape.moe_layers.map(() => Array<number>(inspection.shape.experts).fill(0));
  for (const layers of inspection.experts ?? [])
    layers.forEach((experts, place) => experts.forEach((expert) => rows[place]![expert]!++));
  return rows;
}
