// The page of the demonstration: what the server does, and what of it reaches a browser.

import { offerCopy } from "./copy.js";
import { offerFates } from "./fates.js";
import { drawGraphs } from "./graph.js";
import { readAlong } from "./lesson.js";
import { wire } from "./streams.js";
import { drawTree } from "./tree.js";

for (const card of document.querySelectorAll(".stream")) {
  if (card instanceof HTMLElement) wire(card);
}
offerCopy();
drawTree({ figures: drawGraphs(), lesson: readAlong(), ...offerFates() });
