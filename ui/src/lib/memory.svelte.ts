// Facts that the models are told in every chat, once a person has switched that on.

import { call } from "./api";

export interface Fact {
  id: string;
  text: string;
  created_ms: number;
}

class Memory {
  is_on = $state(false);
  facts = $state<Fact[]>([]);

  async read(): Promise<void> {
    Object.assign(this, await call<{ is_on: boolean; facts: Fact[] }>("GET", "/memory"));
  }

  async switch(is_on: boolean): Promise<void> {
    await call("PUT", "/memory", { is_on });
    this.is_on = is_on;
  }

  async add(text: string): Promise<void> {
    await call("POST", "/memory/facts", { text });
    await this.read();
  }

  async forget(fact: Fact): Promise<void> {
    await call("DELETE", `/memory/facts/${fact.id}`);
    await this.read();
  }

  async forgetAll(): Promise<void> {
    await call("DELETE", "/memory");
    await this.read();
  }

  /** The facts as instructions for a model; empty when the memory is off. */
  prompt(): string {
    if (!this.is_on || this.facts.length === 0) return "";
    return ["About the person who asks:", ...this.facts.map((fact) => `- ${fact.text}`)].join("\n");
  }
}

export const memory = new Memory();
