// The lesson: at which line of the source the newest `/sse` producer waits.

import { flash } from "./motion.js";

/** @typedef {{line: number, turns: number} | null} Lesson */

/** Return what lights a line when there is news of it. */
export function readAlong() {
  for (const line of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".line"))) {
    const [indentation] = /^ */.exec(line.textContent ?? "") ?? [""];
    line.style.setProperty("--further", `${indentation.length + 4}ch`);
  }
  const lines = [...document.querySelectorAll("#ping .line")];
  const where = /** @type {HTMLElement} */ (document.querySelector("#where"));
  const loop = lines.filter((line) => line.hasAttribute("data-loop"));
  let turns = 0;
  return (/** @type {Lesson} */ lesson) => {
    const lit = lesson ? lines[lesson.line] : undefined;
    for (const line of lines) {
      line.classList.toggle("lit", line === lit);
      if (line === lit) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
    if (!lesson || !lit) {
      where.textContent = "No stream of /sse is open: connect one below.";
      return;
    }
    const words = `The newest /sse producer waits at “${lit.textContent?.trim()}”.`;
    if (where.textContent !== words) where.textContent = words;
    if (turns && lesson.turns > turns) {
      for (const line of loop) if (line !== lit) flash(line);
    }
    turns = lesson.turns;
  };
}
