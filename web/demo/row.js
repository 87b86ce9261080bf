// One row of the tree.

/** @typedef {import("./picture.js").TreeNode} TreeNode */

/**
 * @param {string} className
 * @param {string} [text]
 */
export function span(className, text = "") {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

/**
 * Return the time until a deadline as text.
 * @param {number} milliseconds
 */
export function left(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 1) return "< 1 s left";
  return seconds < 120 ? `${seconds} s left` : `${Math.floor(seconds / 60)} min left`;
}

/** A dot, the name, badges, what the task waits for, and its deadline. */
export class Row {
  element = document.createElement("div");
  #name = span("name");
  #you = span("badge you", "this page");
  #shielded = span("badge", "shielded");
  #cancelled = span("badge dead", "cancelled");
  #waits = span("waits");
  #deadline = span("deadline");
  /** @type {number | undefined} */
  deadline;

  constructor() {
    this.element.className = "row";
    const dot = span("dot");
    dot.setAttribute("aria-hidden", "true");
    for (const hidden of [this.#you, this.#shielded, this.#cancelled]) hidden.hidden = true;
    const parts = [dot, this.#name, this.#you, this.#shielded, this.#cancelled];
    // With spaces, for copying and for screen readers.
    this.element.append(...parts.flatMap((each) => [each, " "]), this.#waits, " ", this.#deadline);
  }

  /**
   * @param {TreeNode} node
   * @param {boolean} you whether it is this page's own connection
   */
  show(node, you) {
    this.#showName(node);
    this.#you.hidden = !you;
    this.#shielded.hidden = !node.shielded;
    this.#cancelled.hidden = !node.cancelled;
    if (node.kind === "task") {
      this.element.classList.toggle("running", !node.waits_for);
      this.#waits.textContent = node.waits_for ? `waits for ${node.waits_for}` : "running";
    }
    this.deadline = node.deadline;
  }

  /** @param {TreeNode} node */
  #showName(node) {
    if (this.#name.title === node.name) return;
    this.#name.title = node.name;
    if (node.kind === "more") {
      this.#name.textContent = `and ${node.name} more, not drawn`;
      return;
    }
    // The address at the end, or its alias, is set apart: inside a connection it is repeated.
    const [, what, who] = /^(.*?)((?: \S+:\d+| #[0-9a-f]{8})?)$/.exec(node.name) ?? ["", node.name, ""];
    this.#name.replaceChildren(what, ...(who ? [span("who", who)] : []));
  }

  /** @param {number} now of the server's clock */
  tick(now) {
    const said = this.deadline === undefined ? "" : left(Math.max(0, this.deadline - now));
    if (this.#deadline.textContent === said) return;
    // A narrow window hides the last word.
    const [time] = said.split(/ (?=left$)/);
    this.#deadline.replaceChildren(...(said ? [time, span("left", " left")] : []));
  }

  /** @param {boolean} cancelled whether a cancellation had reached it */
  die(cancelled) {
    this.#cancelled.hidden = !cancelled;
    this.#waits.textContent = cancelled ? "" : "ended";
    this.#deadline.textContent = "";
    this.deadline = undefined;
    this.element.classList.remove("running");
  }
}
