// A translation: of a text, piece by piece as it comes, or of a document.

import { sentence } from "../lib/answer.svelte";
import { call, events, send, ServiceError } from "../lib/api";

export interface Offer {
  model: string;
  sources: string[];
  targets: { code: string; has_formality: boolean }[];
  formats: string[];
  max_characters: number;
}

export interface Wish {
  /** Empty: the language is found out. */
  source: string;
  target: string;
  formality: "default" | "more" | "less";
  model: string;
}

interface Handle {
  document_id: string;
  document_key: string;
}

interface DocumentState {
  status: "queued" | "translating" | "done" | "error";
  share?: number;
  billed_characters?: number;
  error_message?: string;
}

const POLL_MS = 400;

export class Work {
  pieces = $state<string[]>([]);
  /** The source language that was found out. */
  found = $state("");
  isRunning = $state(false);
  isDone = $state(false);
  /** Part that is final, from 0 to 1. */
  share = $state(0);
  characters = $state(0);
  model = $state("");
  failure = $state("");
  /** The translated document, and its name. */
  file = $state<{ name: string; content: Blob } | null>(null);
  #abort = new AbortController();

  get text(): string {
    return this.pieces.join("");
  }

  async translate(text: string, wish: Wish): Promise<void> {
    await this.#run(async (signal) => {
      const body = { text, ...fields(wish) };
      const finished = new Set<number>();
      for await (const { data } of events(await send("POST", "/translations", body, signal))) {
        if (data === null) continue;
        if (data.error) throw new ServiceError(data.error.message, 500);
        if (data.pieces !== undefined) {
          this.pieces = Array(data.pieces).fill("");
          this.model = data.model;
        } else if (data.piece !== undefined) {
          this.pieces[data.piece] = data.text;
          if (data.is_final) finished.add(data.piece);
          this.share = finished.size / this.pieces.length;
        }
        this.found = data.source ?? this.found;
        this.characters = data.characters ?? this.characters;
      }
    });
  }

  async translateFile(file: File, wish: Wish): Promise<void> {
    await this.#run(async (signal) => {
      const form = new FormData();
      for (const [name, value] of Object.entries(fields(wish))) form.set(name, value);
      form.set("file", file);
      const handle: Handle = await (await send("POST", "/v2/document", form, signal)).json();
      const path = `/v2/document/${handle.document_id}`;
      let state: DocumentState;
      do {
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        signal.throwIfAborted();
        state = await call<DocumentState>("POST", path, { document_key: handle.document_key });
        this.share = state.share ?? this.share;
      } while (state.status === "queued" || state.status === "translating");
      if (state.status === "error") throw new ServiceError(state.error_message!, 400);
      const result = await send("POST", `${path}/result`, { document_key: handle.document_key }, signal);
      this.file = { name: named(file.name, wish.target), content: await result.blob() };
      Object.assign(this, { characters: state.billed_characters ?? 0, model: wish.model });
    });
  }

  stop(): void {
    this.#abort.abort();
  }

  /** Forget the result. */
  clear(): void {
    this.stop();
    Object.assign(this, { pieces: [], found: "", isDone: false, share: 0, characters: 0, failure: "", file: null });
  }

  async #run(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.clear();
    const abort = (this.#abort = new AbortController());
    this.isRunning = true;
    try {
      await work(abort.signal);
      this.share = 1;
      this.isDone = true;
    } catch (error) {
      if (!abort.signal.aborted) this.failure = sentence(error);
    } finally {
      if (this.#abort === abort) this.isRunning = false;
    }
  }
}

function fields(wish: Wish): Record<string, string> {
  const source: Record<string, string> = wish.source ? { source_lang: wish.source } : {};
  return { ...source, target_lang: wish.target, formality: wish.formality, model: wish.model };
}

/** The name of a translated file: notes.docx becomes notes.de.docx. */
export function named(name: string, target: string): string {
  const dot = name.lastIndexOf(".");
  return `${name.slice(0, dot)}.${target.toLowerCase()}${name.slice(dot)}`;
}
