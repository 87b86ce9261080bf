// What happens in the tree, in words: for those who hear the page, and for those who looked away.

/** @typedef {import("./picture.js").TreeNode} TreeNode */
/** @typedef {import("./picture.js").Difference} Difference */
/** @typedef {import("./picture.js").Picture} Picture */

// Milliseconds from one sentence to the next, at least.
const BREATH = 2000;

// What names begin with that make a plural.
const KINDS = new Set(["connection", "producer", "client"]);
// What names begin with of those who work for a client, or are one.
const WORTHY = /^(connection|producer|client|healthy client|behaviour|crowd) /;

/**
 * Return one name, or how many there are and one of them.
 * @param {string[]} names
 */
function some(names) {
  if (names.length === 1) return names[0];
  const [first] = names[0].split(" ");
  const alike = KINDS.has(first) && names.every((name) => name.startsWith(`${first} `));
  return `${names.length} ${alike ? first : "task"}s, such as ${names[0]}`;
}

/**
 * Whether a task is worth a word: one that works for a client or is one, but no request, since those
 * without a producer come and go too fast.
 * @param {TreeNode} node
 */
const worthy = ({ kind, name }) => kind === "task" && WORTHY.test(`${name} `);

/** Says what was opened, cancelled and gone: a sentence every two seconds at most. */
export class Words {
  /** @type {Map<number, string>} */
  #opened = new Map();
  /** @type {string[]} */
  #cancelled = [];
  /** @type {string[]} */
  #gone = [];
  #due = false;

  /**
   * @param {HTMLElement} said the live region
   * @param {HTMLInputElement} spoken whether it is one
   */
  constructor(said, spoken) {
    this.said = said;
    const obey = () => said.setAttribute("aria-live", spoken.checked ? "polite" : "off");
    spoken.addEventListener("change", obey);
    obey();
  }

  /**
   * Take note of what is otherwise.
   * @param {Difference} difference
   * @param {Picture} picture as it is now
   */
  note({ fresh, gone, cancelled }, picture) {
    for (const node of fresh) {
      if (worthy(node)) this.#opened.set(node.id, node.name);
    }
    const crowded = new Set(
      [...picture.nodes.values()].filter(({ kind }) => kind === "more").map(({ parent }) => parent),
    );
    const ids = new Set(gone.map((node) => node.id));
    for (const node of gone) {
      this.#opened.delete(node.id);
      if (!worthy(node)) continue;
      if (cancelled.has(node.id)) this.#cancelled.push(node.name);
      // In a crowd, who has gone from the picture may only be drawn no more.
      else if (!crowded.has(node.parent) && !ids.has(node.parent ?? 0)) this.#gone.push(node.name);
    }
    if (this.#due || !(this.#opened.size || this.#cancelled.length || this.#gone.length)) return;
    this.#due = true;
    setTimeout(() => this.#say(), BREATH);
  }

  /** Forget what was said and what is to be said: it was of another process. */
  forget() {
    this.#forget();
    this.said.textContent = "";
  }

  #forget() {
    this.#opened.clear();
    this.#cancelled = [];
    this.#gone = [];
  }

  #say() {
    const opened = [...this.#opened.values()];
    const producers = (/** @type {string[]} */ names) => {
      const found = names.filter((name) => name.startsWith("producer "));
      return found.length ? found : names;
    };
    const parts = [
      opened.length ? `opened: ${some(producers(opened))}` : "",
      this.#cancelled.length ? `cancelled: ${some(producers(this.#cancelled))}` : "",
      this.#gone.length ? `gone: ${some(this.#gone)}` : "",
    ].filter(Boolean);
    if (parts.length) {
      const sentence = parts.join("; ");
      this.said.textContent = `${sentence[0].toUpperCase()}${sentence.slice(1)}.`;
    }
    this.#forget();
    this.#due = false;
  }
}
