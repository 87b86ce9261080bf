// The live tree: the stream `/tree`, drawn.

import { Branches } from "./branches.js";
import { Feed } from "./feed.js";
import { follow } from "./motion.js";
import { Picture } from "./picture.js";
import { Words } from "./words.js";

/** @typedef {import("./feed.js").State} State */
/** @typedef {import("./picture.js").TreeNode} TreeNode */
/** @typedef {import("./picture.js").Difference} Difference */

/**
 * Functions that read a fact, by its name; `now` is the server's clock. `run` is called when
 * another server process answers.
 * @typedef {Record<string, (value: any, now: () => number) => void>} Readers
 */

/** @type {Record<State, string>} */
const SAID = {
  connecting: "connecting",
  open: "live",
  reconnecting: "reconnecting",
  paused: "paused",
  hidden: "not watching while hidden",
  closed: "closed permanently",
  waiting: "waiting: a browser opens at most six connections to a host, in all tabs",
};

/** @type {Record<State, string>} */
const BUTTON = {
  connecting: "Pause",
  open: "Pause",
  reconnecting: "Pause",
  paused: "Resume",
  hidden: "Resume",
  closed: "Reconnect",
  waiting: "Pause",
};

// Prefixes of the names of tasks to show: connections, and clients in the same process.
const CONNECTION = "connection ";
const CLIENTS = ["client ", "healthy client", "crowd "];

/**
 * Return each node's role: "wanted", or on the way to one that is, from the root to the first
 * branching ("spine") or from there ("path"). All others belong to the process itself.
 * @param {Picture} picture
 */
function roles(picture) {
  /** @type {Map<number, string>} */
  const found = new Map();
  const nodes = [...picture.nodes.values()].sort((a, b) => a.id - b.id);
  /**
   * @param {TreeNode} node
   * @param {string} role
   */
  const lead = (node, role) => {
    for (const each of picture.above(node)) if (!found.has(each.id)) found.set(each.id, role);
  };
  for (const node of nodes) {
    if (!node.name.startsWith(CONNECTION) || node.parent == null) continue;
    found.set(node.parent, "path");
    lead(node, "spine");
  }
  for (const node of nodes) {
    const within = node.parent == null ? undefined : found.get(node.parent);
    if (node.name.startsWith(CONNECTION) || within === "wanted") found.set(node.id, "wanted");
    else if (node.kind === "more" && within) found.set(node.id, "wanted");
    else if (CLIENTS.some((beginning) => node.name.startsWith(beginning))) {
      found.set(node.id, "wanted");
      lead(node, "path");
    }
  }
  return found;
}

/**
 * Draw the tree, and pass the stream's other facts on.
 * @param {Readers} readers
 */
export function drawTree(readers) {
  const section = /** @type {HTMLElement} */ (document.querySelector("#live"));
  const root = /** @type {HTMLElement} */ (section.querySelector("#tree"));
  const stateText = /** @type {HTMLElement} */ (section.querySelector(".state-text"));
  const pause = /** @type {HTMLButtonElement} */ (section.querySelector("#pause"));
  const fold = /** @type {HTMLButtonElement} */ (section.querySelector("#fold"));
  const words = new Words(
    /** @type {HTMLElement} */ (section.querySelector("#words")),
    /** @type {HTMLInputElement} */ (section.querySelector("#spoken")),
  );
  const branches = new Branches(root);
  let picture = new Picture();
  let run = "";
  let ahead = 0; // milliseconds by which the server's clock is ahead
  const now = () => Date.now() + ahead;

  /** @param {Difference} difference */
  function sort(difference) {
    if (!difference.fresh.length && !difference.gone.length) return;
    const found = roles(picture);
    branches.sort((id) => found.get(id) ?? "quiet");
    const quiet = [...picture.nodes.values()].filter(
      (node) => node.kind === "task" && !found.has(node.id),
    ).length;
    /** @type {HTMLElement} */ (fold.querySelector(".number")).textContent = String(quiet);
  }

  /** @param {Record<string, unknown>} facts */
  function tell(facts) {
    for (const [name, value] of Object.entries(facts)) readers[name]?.(value, now);
  }

  const feed = new Feed("tree", {
    state(state) {
      section.dataset.state = state;
      stateText.textContent = SAID[state];
      pause.textContent = BUTTON[state];
      // The picture may be stale.
      root.classList.toggle("stale", state !== "open");
    },
    you(address) {
      branches.you = address;
    },
    snapshot(snapshot, of) {
      ahead = snapshot.now - Date.now();
      if (of !== run) {
        branches.clear();
        words.forget();
        picture = new Picture();
        run = of;
        readers.run?.(of, now);
      }
      const difference = picture.replace(snapshot.nodes);
      branches.show(difference, false);
      sort(difference);
      branches.tick(now());
      tell(snapshot.facts);
    },
    change(change) {
      ahead = change.now - Date.now();
      const difference = picture.change(change.put, change.gone, change.cancelled);
      branches.show(difference, true);
      sort(difference);
      branches.tick(now());
      words.note(difference, picture);
      tell(change.facts);
    },
  });

  const box = /** @type {HTMLElement} */ (section.querySelector(".scroll"));
  const toBeginning = follow(box, root);
  setInterval(() => branches.tick(now()), 250);
  pause.addEventListener("click", () => feed.toggle());
  fold.addEventListener("click", () => {
    const whole = root.classList.toggle("whole");
    fold.setAttribute("aria-expanded", String(whole));
    if (whole) toBeginning();
  });
}
