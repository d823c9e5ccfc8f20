// Training runs as the service shows them.

export type State = "waiting" | "running" | "scoring" | "stopped" | "finished";

export interface RunHead {
  name: string;
  title: string;
  state: State;
  stage: string;
  num_finished: number;
  num_stages: number;
  tags: string[];
  note: string;
}

export interface Stage {
  name: string;
  title: string;
  kind: string;
  state: State;
  step: number | null;
  steps: number | null;
  share: number | null;
  eta_s: number | null;
  figures: Record<string, number>;
  scores: Record<string, number>;
}

export interface Receipt {
  stage: string;
  seconds: number | null;
  tokens: number | null;
  train_flops: number | null;
  joules: number | null;
  energy: string;
  currency: string;
  machine_rent: number | null;
  electricity: number | null;
  cpu: string;
  cores: number | null;
}

export interface Run extends RunHead {
  failure: string;
  stages: Stage[];
  receipts: Receipt[];
}

export type Point = [step: number, value: number];

export interface Sample {
  question: string;
  text: string;
  is_right: boolean;
  is_cut: boolean;
}

export interface Curves {
  curves: Record<string, Point[]>;
  samples: { step: number; samples: Sample[] }[];
}

/** The stage to look at first: the one that goes on, else the last that has learned something. */
export function presentStage(run: Run): string {
  const open = run.stages.find(({ state }) => state === "running" || state === "scoring" || state === "stopped");
  const learned = run.stages.filter(({ step }) => step !== null);
  const last = learned.findLast(({ kind }) => kind === "grpo") ?? learned.at(-1);
  return (open ?? last ?? run.stages[0])?.name ?? "";
}
