// What the service says now, asked for again every two seconds while somebody looks.

import { sentence } from "./answer.svelte";
import { call } from "./api";

const PULSE_MS = 2000;

export class Poll<T> {
  value = $state.raw<T | null>(null);
  failure = $state("");
  #path = "";

  /** Ask a path from now on; call it in an effect and return what it returns. */
  follow(path: string): () => void {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isOver = false;
    if (path !== this.#path) this.value = null;
    this.#path = path;
    const ask = async () => {
      if (!document.hidden || this.value === null) await this.read(path, () => isOver);
      if (!isOver) timer = setTimeout(ask, PULSE_MS);
    };
    void ask();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }

  async read(path = this.#path, isOver = () => false): Promise<void> {
    try {
      const value = await call<T>("GET", path);
      if (isOver()) return;
      this.value = value;
      this.failure = "";
    } catch (error) {
      if (!isOver()) this.failure = sentence(error);
    }
  }
}
