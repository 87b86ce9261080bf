// The tree on the page: nested lists, as tasks open nurseries and nurseries hold tasks.

import { enter, flash, leave } from "./motion.js";
import { Row } from "./row.js";

/** @typedef {import("./picture.js").TreeNode} TreeNode */
/** @typedef {import("./picture.js").Difference} Difference */
/** @typedef {{element: HTMLElement, row?: Row, parent: number | null}} Branch */

// Milliseconds for which cancelled branches stay visible after they have gone.
const SEEN = 1000;

// Beyond these numbers, branches that open or go at once are not animated, or not kept visible.
const MOST_ANIMATED = 12;
const MOST_SEEN = 40;

/** Draws nodes under a list, each with its number as `data-node`. */
export class Branches {
  /** @type {Map<number, Branch>} */
  #branches = new Map();
  #dying = 0;
  /** The address of this page's own connection. */
  you = "";

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
  }

  /** Remove everything: another process has other tasks with the same numbers. */
  clear() {
    this.#branches.clear();
    this.root.replaceChildren();
  }

  /**
   * Show changes.
   * @param {Difference} difference
   * @param {boolean} moving whether to animate them
   */
  show({ put, gone, cancelled }, moving) {
    /** @type {HTMLElement[]} */
    const grown = [];
    const fresh = put.filter((node) => !this.#branches.has(node.id));
    const made = new Map(fresh.map((node) => [node.id, this.#make(node)]));
    for (const node of put) {
      const branch = /** @type {Branch} */ (this.#branches.get(node.id));
      const known = !made.has(node.id);
      const parent = node.parent ?? null;
      if (branch.parent !== parent || !known) {
        branch.parent = parent;
        this.#place(branch.element, node);
      }
      if (!known && !this.#isIn(grown, branch.element)) grown.push(branch.element);
      if (node.kind === "nursery") {
        branch.element.classList.toggle("cancelled", Boolean(node.cancelled));
        branch.element.classList.toggle("shielded", Boolean(node.shielded));
      } else {
        branch.element.classList.toggle("cancelled", Boolean(node.cancelled));
        branch.row?.show(node, this.#isMine(node));
        if (known && branch.row && moving) flash(branch.row.element);
      }
    }
    if (moving && grown.length <= MOST_ANIMATED) grown.forEach(enter);
    // Last, because `nursery.start` moves its task out of a nursery that goes at the same time.
    this.#part(gone, cancelled, moving);
  }

  /**
   * Count all deadlines down.
   * @param {number} now of the server's clock
   */
  tick(now) {
    for (const { row } of this.#branches.values()) row?.tick(now);
  }

  /**
   * Mark each node with its role on the page.
   * @param {(id: number) => string} role
   */
  sort(role) {
    for (const [id, { element }] of this.#branches) element.dataset.role = role(id);
  }

  /** @param {TreeNode} node */
  #isMine(node) {
    return this.you !== "" && node.name === `connection ${this.you}`;
  }

  /**
   * @param {HTMLElement[]} elements
   * @param {HTMLElement} element
   */
  #isIn(elements, element) {
    return elements.some((each) => each.contains(element));
  }

  /**
   * @param {TreeNode} node
   * @returns {Branch}
   */
  #make(node) {
    /** @type {Branch} */
    let branch;
    if (node.kind === "nursery") {
      const element = document.createElement("ul");
      element.setAttribute("role", "list"); // Safari drops it from lists without bullets
      branch = { element, parent: null };
    } else {
      const row = new Row();
      const element = document.createElement("li");
      element.append(row.element);
      branch = { element, row, parent: null };
    }
    branch.element.className = node.kind;
    branch.element.dataset.node = String(node.id);
    this.#branches.set(node.id, branch);
    return branch;
  }

  /**
   * Insert an element under its node's parent, the oldest first.
   * @param {HTMLElement} element
   * @param {TreeNode} node
   */
  #place(element, node) {
    const parent = node.parent == null ? undefined : this.#branches.get(node.parent);
    const within = parent?.element ?? this.root;
    const after = [...within.children].find(
      (each) => each instanceof HTMLElement && Number(each.dataset.node) > node.id,
    );
    within.insertBefore(element, after ?? null);
  }

  /**
   * Remove branches as wholes; cancelled ones stay visible for a second.
   * @param {TreeNode[]} gone
   * @param {Set<number>} cancelled
   * @param {boolean} moving
   */
  #part(gone, cancelled, moving) {
    const ids = new Set(gone.map((node) => node.id));
    const tops = gone.filter((node) => node.parent == null || !ids.has(node.parent));
    const dead = new Set(cancelled);
    // A parent that goes with a cancelled node is part of the same cancelled branch.
    for (const node of [...gone].sort((a, b) => b.id - a.id)) {
      if (dead.has(node.id) && node.parent != null && ids.has(node.parent)) dead.add(node.parent);
    }
    for (const node of gone) {
      const branch = this.#branches.get(node.id);
      if (!branch) continue;
      this.#branches.delete(node.id);
      branch.element.removeAttribute("data-node");
      branch.element.classList.add("gone");
      branch.element.classList.toggle("cancelled", cancelled.has(node.id));
      branch.row?.die(cancelled.has(node.id));
      if (!tops.includes(node)) continue;
      if (dead.has(node.id) && moving && this.#dying < MOST_SEEN) this.#removeLater(branch.element);
      else if (moving && tops.length <= MOST_ANIMATED) leave(branch.element);
      else branch.element.remove();
    }
  }

  /** @param {HTMLElement} element */
  #removeLater(element) {
    this.#dying += 1;
    setTimeout(() => {
      this.#dying -= 1;
      leave(element);
    }, SEEN);
  }
}
