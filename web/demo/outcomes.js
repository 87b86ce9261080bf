// What has become of those who were hurt: what was promised, what happened, after how long.

import { enter } from "./motion.js";
import { span } from "./row.js";

/**
 * One client that was hurt; times in milliseconds.
 * @typedef {object} Row
 * @property {number} id
 * @property {string} fate
 * @property {string} title
 * @property {"running" | "ended"} state
 * @property {number} since
 * @property {number | null} hurt
 * @property {string | null} reason
 * @property {number | null} took
 * @property {number} sent
 * @property {number | null} [heard] how many events the client heard, once it listens no more
 * @property {string | null} [error] what came between
 * @property {{reasons: string[], within: number, text: string}} promise
 * @property {boolean | null} kept
 */

/**
 * Return milliseconds as one says them.
 * @param {number} milliseconds
 */
export function duration(milliseconds) {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 2 : 1)} s`;
}

/**
 * Return a sentence's beginning as one writes it.
 * @param {string} text
 */
export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * @param {Row} row
 * @returns {"running" | "kept" | "not kept" | "ended"} the last: of what nothing was promised
 */
function verdictOf(row) {
  if (row.state === "running") return "running";
  return row.kept === null ? "ended" : row.kept ? "kept" : "not kept";
}

/**
 * Return what has become of one, for those who hear the page.
 * @param {Row} row
 */
function sentence(row) {
  const took = typeof row.took === "number" ? ` after ${duration(row.took)}` : "";
  const happened = row.error ?? `${row.reason ?? "nothing"}${took}`;
  const verdict = { kept: "promise kept", "not kept": "promise not kept" };
  const judged = verdict[/** @type {"kept"} */ (verdictOf(row))] ?? "nothing was promised";
  return `${capital(row.title)}: ${happened}; ${judged}.`;
}

/** One outcome on the page. */
class Outcome {
  element = document.createElement("li");
  #verdict = span("verdict");
  #title = span("title");
  #promise = span("promise");
  #happened = span("happened");
  #took = span("took");

  constructor() {
    const parts = [this.#verdict, this.#title, this.#took, this.#promise, this.#happened];
    this.element.append(...parts.flatMap((part) => [part, " "]));
  }

  /** @param {Row} row */
  show(row) {
    this.row = row;
    const verdict = verdictOf(row);
    this.element.dataset.kept = verdict;
    this.element.dataset.fate = row.fate;
    this.#verdict.textContent = verdict;
    this.#title.textContent = capital(row.title);
    this.#promise.textContent = `Promised: ${row.promise.text}.`;
    const events = row.sent === 1 ? "1 event" : `${row.sent} events`;
    const sent = row.sent ? `${events} sent` : "not one event got through";
    const heard = typeof row.heard === "number" ? `, ${row.heard} heard` : "";
    const happened = row.error ?? row.reason;
    this.#happened.textContent = happened ? `Happened: ${happened}; ${sent}${heard}.` : "";
  }

  /** @param {number} now */
  tick(now) {
    const { row } = this;
    if (!row) return;
    let said = "";
    if (typeof row.took === "number") said = `after ${duration(row.took)}`;
    else if (row.state === "running") {
      said =
        row.hurt === null
          ? "not hurt yet"
          : `for ${(Math.max(0, now - row.hurt) / 1000).toFixed(1)} s`;
    }
    if (this.#took.textContent !== said) this.#took.textContent = said;
  }
}

/** The list of them, the newest first. */
export class Outcomes {
  /** @type {Map<number, Outcome>} */
  #outcomes = new Map();
  #now = Date.now;

  // Those that were seen running: their verdicts are news.
  #pending = new Set();
  #first = true;

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} said the live region that says each verdict
   */
  constructor(list, said) {
    this.list = list;
    this.said = said;
    setInterval(() => this.#tick(), 200);
  }

  /** Forget all rows: they are of another process, and so is what their numbers mean. */
  forget() {
    for (const outcome of this.#outcomes.values()) outcome.element.remove();
    this.#outcomes.clear();
    this.#pending.clear();
    this.#first = true;
  }

  /**
   * @param {Row[]} rows
   * @param {() => number} now the server's clock
   */
  show(rows, now) {
    this.#now = now;
    this.#say(rows);
    const ids = new Set(rows.map((row) => row.id));
    for (const [id, outcome] of this.#outcomes) {
      if (ids.has(id)) continue;
      outcome.element.remove();
      this.#outcomes.delete(id);
    }
    for (const row of [...rows].sort((a, b) => a.id - b.id)) {
      let outcome = this.#outcomes.get(row.id);
      const fresh = !outcome;
      if (!outcome) {
        outcome = new Outcome();
        this.#outcomes.set(row.id, outcome);
        this.list.prepend(outcome.element);
      }
      outcome.show(row);
      outcome.tick(now());
      if (fresh) enter(outcome.element);
    }
  }

  /**
   * Say the verdicts that have come in since the last call, in one sentence each.
   * @param {Row[]} rows
   */
  #say(rows) {
    const news = [];
    for (const row of rows) {
      if (row.state === "running") this.#pending.add(row.id);
      // One that was not seen running may have begun and ended between two looks.
      else if (this.#pending.delete(row.id) || !(this.#first || this.#outcomes.has(row.id))) {
        news.push(sentence(row));
      }
    }
    this.#first = false;
    if (news.length) this.said.textContent = news.join(" ");
  }

  #tick() {
    for (const outcome of this.#outcomes.values()) outcome.tick(this.#now());
  }
}
