// The example: the line of its source at which the newest `/sse` producer waits.

import { flash } from "./motion.js";

/** @typedef {{line: number, turns: number} | null} CurrentLine */

/** Return the reader of the fact `example`, which highlights the line. */
export function highlightLine() {
  for (const line of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".line"))) {
    const [indentation] = /^ */.exec(line.textContent ?? "") ?? [""];
    line.style.setProperty("--further", `${indentation.length + 4}ch`);
  }
  const lines = [...document.querySelectorAll("#ping .line")];
  const where = /** @type {HTMLElement} */ (document.querySelector("#where"));
  const loop = lines.filter((line) => line.hasAttribute("data-loop"));
  let turns = 0;
  return (/** @type {CurrentLine} */ current) => {
    const lit = current ? lines[current.line] : undefined;
    for (const line of lines) {
      line.classList.toggle("lit", line === lit);
      if (line === lit) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
    if (!current || !lit) {
      where.textContent = "No stream of /sse is open: connect one below.";
      return;
    }
    const text = `The newest /sse producer waits at “${lit.textContent?.trim()}”.`;
    if (where.textContent !== text) where.textContent = text;
    if (turns && current.turns > turns) {
      for (const line of loop) if (line !== lit) flash(line);
    }
    turns = current.turns;
  };
}
