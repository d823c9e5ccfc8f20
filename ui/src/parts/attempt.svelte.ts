// Something that the reader asks the service to do: while it is done, and what came of it.

import { sentence } from "../lib/answer.svelte";

export class Attempt {
  isBusy = $state(false);
  failure = $state("");
  notice = $state("");

  /** Do it; returns whether it was done. `notice` is shown then. */
  async run(work: () => Promise<unknown>, notice = ""): Promise<boolean> {
    Object.assign(this, { isBusy: true, failure: "", notice: "" });
    try {
      await work();
      this.notice ||= notice;
      return true;
    } catch (error) {
      this.failure = sentence(error);
      return false;
    } finally {
      this.isBusy = false;
    }
  }
}
