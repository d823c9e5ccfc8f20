// The request that the reader tries, and what the service answers.

import { sentence } from "../lib/answer.svelte";
import { ServiceError } from "../lib/api";
import { page } from "../lib/page.svelte";
import type { Operation } from "./openapi";

export class Trial {
  method = $state("POST");
  path = $state("/v1/chat/completions");
  body = $state("");
  status = $state("");
  reply = $state("");
  isBusy = $state(false);
  private controller: AbortController | null = null;

  /** Take an operation, with the least body that it takes. */
  take({ method, path, example }: Pick<Operation, "method" | "path" | "example">): void {
    const body = typeof example === "object" && example ? { ...example } : null;
    if (body && "model" in body) body.model = page.models[0]?.id ?? "";
    this.method = method;
    this.path = path;
    this.body = body ? JSON.stringify(body, null, 2) : "";
    this.status = this.reply = "";
  }

  /** Send it; the reply is shown as it comes. */
  async send(): Promise<void> {
    this.controller = new AbortController();
    this.isBusy = true;
    this.status = this.reply = "";
    const begin = performance.now();
    const hasBody = this.method !== "GET" && this.body.trim() !== "";
    try {
      const reply = await fetch(this.path, {
        method: this.method,
        headers: hasBody ? { "Content-Type": "application/json" } : {},
        body: hasBody ? this.body : undefined,
        signal: this.controller.signal,
      });
      await this.read(reply);
      const cost = reply.headers.get("x-request-cost");
      const parts = [`${reply.status} ${reply.statusText}`, `${Math.round(performance.now() - begin)} ms`];
      this.status = [...parts, ...(cost ? [`x-request-cost: ${cost}`] : [])].join(" · ");
    } catch (error) {
      if (!this.controller.signal.aborted) this.status = sentence(error instanceof ServiceError ? error : null);
    } finally {
      this.isBusy = false;
    }
  }

  stop(): void {
    this.controller?.abort();
  }

  private async read(reply: Response): Promise<void> {
    const reader = reply.body!.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) this.reply += part.value;
    try {
      this.reply = JSON.stringify(JSON.parse(this.reply), null, 2);
    } catch {
      // A stream of events, or plain text: shown as it came.
    }
  }
}
