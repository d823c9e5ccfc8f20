// Formulas as MathML, which browsers draw themselves.

import katex from "katex";

/** The MathML of a formula; one that cannot be read is shown as it was written. */
export function mathMl(formula: string, isBlock: boolean): string {
  return katex.renderToString(formula, {
    output: "mathml",
    displayMode: isBlock,
    throwOnError: false,
    trust: false,
    maxExpand: 100,
    maxSize: 20,
    strict: "ignore",
  });
}
