// What one row of the tree says of its node.

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
 * Return the words for the time until a deadline.
 * @param {number} milliseconds
 */
export function left(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 1) return "< 1 s left";
  return seconds < 120 ? `${seconds} s left` : `${Math.floor(seconds / 60)} min left`;
}

/** A row: a dot, the name, words that mark it, what it waits for, and its deadline. */
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
    const said = [dot, this.#name, this.#you, this.#shielded, this.#cancelled];
    // Spaces, for those who copy or hear it.
    this.element.append(...said.flatMap((each) => [each, " "]), this.#waits, " ", this.#deadline);
  }

  /**
   * @param {TreeNode} node
   * @param {boolean} you whether it is this page's own
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
    // The address at the end, or what stands for it, says who; inside a connection it matters less.
    const [, what, who] = /^(.*?)((?: \S+:\d+| #[0-9a-f]{8})?)$/.exec(node.name) ?? ["", node.name, ""];
    this.#name.replaceChildren(what, ...(who ? [span("who", who)] : []));
  }

  /** @param {number} now of the server's clock */
  tick(now) {
    const said = this.deadline === undefined ? "" : left(Math.max(0, this.deadline - now));
    if (this.#deadline.textContent === said) return;
    // The last word is for those who have room for it.
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
