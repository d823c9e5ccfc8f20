// Formulas as MathML, which browsers draw themselves.

import katex from "katex";

/** The MathML of a formula. Throws an error for one that cannot be read. */
export function mathMl(formula: string, isBlock: boolean): string {
  const text = katex.renderToString(formula, {
    output: "mathml",
    displayMode: isBlock,
    trust: false,
    maxExpand: 100,
    maxSize: 20,
    strict: "ignore",
  });
  return text.replace(/ style="[^"]*"/g, ""); // the page allows no styles of its content
}
