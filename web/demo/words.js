// Changes of the tree in words: for screen readers, and for everyone who looked away.

/** @typedef {import("./picture.js").TreeNode} TreeNode */
/** @typedef {import("./picture.js").Difference} Difference */
/** @typedef {import("./picture.js").Picture} Picture */

// Milliseconds between two sentences, at least.
const PAUSE = 2000;

// First words of names that have a plural.
const KINDS = new Set(["connection", "producer", "client"]);
// First words of the names of clients, and of tasks that work for one.
const MENTIONED = /^(connection|producer|client|healthy client|behaviour|crowd) /;

/**
 * Return a single name, or the number of names.
 * @param {string[]} names
 */
function count(names) {
  if (names.length === 1) return names[0];
  const [first] = names[0].split(" ");
  const alike = KINDS.has(first) && names.every((name) => name.startsWith(`${first} `));
  return `${names.length} ${alike ? first : "task"}s`;
}

/**
 * Return a single name, or the number of names with an example.
 * @param {string[]} names
 */
function some(names) {
  return names.length === 1 ? names[0] : `${count(names)}, such as ${names[0]}`;
}

/**
 * Whether to mention a task: clients and tasks that work for one, but no requests, as those
 * without a producer are too short.
 * @param {TreeNode} node
 */
const mentioned = ({ kind, name }) => kind === "task" && MENTIONED.test(`${name} `);

/** Describes what has opened, was cancelled and has gone, in a sentence every two seconds at most. */
export class Words {
  /** @type {Map<number, string>} */
  #opened = new Map();
  /** @type {string[]} */
  #cancelled = [];
  /** @type {string[]} */
  #gone = [];
  #due = false;

  /**
   * @param {HTMLElement} region the live region
   * @param {HTMLInputElement} spoken switches announcements
   */
  constructor(region, spoken) {
    this.region = region;
    const obey = () => region.setAttribute("aria-live", spoken.checked ? "polite" : "off");
    spoken.addEventListener("change", obey);
    obey();
  }

  /**
   * Take note of changes.
   * @param {Difference} difference
   * @param {Picture} picture after them
   */
  note({ fresh, gone, cancelled }, picture) {
    for (const node of fresh) {
      if (mentioned(node)) this.#opened.set(node.id, node.name);
    }
    const crowded = new Set(
      [...picture.nodes.values()].filter(({ kind }) => kind === "more").map(({ parent }) => parent),
    );
    const ids = new Set(gone.map((node) => node.id));
    for (const node of gone) {
      this.#opened.delete(node.id);
      if (!mentioned(node)) continue;
      if (cancelled.has(node.id)) this.#cancelled.push(node.name);
      // In a crowd, a task that is no longer drawn may still exist.
      else if (!crowded.has(node.parent) && !ids.has(node.parent ?? 0)) this.#gone.push(node.name);
    }
    if (this.#due || !(this.#opened.size || this.#cancelled.length || this.#gone.length)) return;
    this.#due = true;
    setTimeout(() => this.#describe(), PAUSE);
  }

  /** Forget all changes: they are of another process. */
  forget() {
    this.#forget();
    this.region.textContent = "";
  }

  #forget() {
    this.#opened.clear();
    this.#cancelled = [];
    this.#gone = [];
  }

  #describe() {
    const opened = [...this.#opened.values()];
    const producers = (/** @type {string[]} */ names) => {
      const found = names.filter((name) => name.startsWith("producer "));
      return found.length ? found : names;
    };
    const parts = [
      opened.length ? `opened: ${some(producers(opened))}` : "",
      this.#cancelled.length ? `cancelled: ${some(producers(this.#cancelled))}` : "",
      this.#gone.length ? `gone: ${count(this.#gone)}` : "",
    ].filter(Boolean);
    if (parts.length) {
      const sentence = parts.join("; ");
      this.region.textContent = `${sentence[0].toUpperCase()}${sentence.slice(1)}.`;
    }
    this.#forget();
    this.#due = false;
  }
}
