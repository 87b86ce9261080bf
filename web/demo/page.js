// The demonstration's page: what the server does, and which of it reaches a browser.

import { highlightLine } from "./example.js";
import { drawGraphs } from "./graph.js";
import { offerScenarios } from "./scenarios.js";
import { offerCopy, wire } from "./streams.js";
import { drawTree } from "./tree.js";

for (const card of document.querySelectorAll(".stream")) {
  if (card instanceof HTMLElement) wire(card);
}
offerCopy();
drawTree({ figures: drawGraphs(), example: highlightLine(), ...offerScenarios() });
