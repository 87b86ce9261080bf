// The outcomes of scenarios: what was promised, what happened, and after how long.

import { enter } from "./motion.js";
import { span } from "./row.js";

/**
 * One run of a scenario; times in milliseconds.
 * @typedef {object} Row
 * @property {number} id
 * @property {string} scenario
 * @property {string} title
 * @property {"running" | "ended"} state
 * @property {number} started
 * @property {number | null} triggered
 * @property {string | null} reason
 * @property {number | null} took
 * @property {number} sent
 * @property {number | null} [received] how many events the client received, if it read to the end
 * @property {string | null} [error] what interfered
 * @property {{reasons: string[], within: number, text: string}} promise
 * @property {boolean | null} kept
 */

/**
 * Return a duration in a readable unit.
 * @param {number} milliseconds
 */
export function duration(milliseconds) {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 2 : 1)} s`;
}

/**
 * Return a text with a capital first letter.
 * @param {string} text
 */
export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * @param {Row} row
 * @returns {"running" | "kept" | "not kept" | "ended"} the last if nothing was promised
 */
function verdictOf(row) {
  if (row.state === "running") return "running";
  return row.kept === null ? "ended" : row.kept ? "kept" : "not kept";
}

/**
 * Return an outcome in a sentence, for screen readers.
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
    this.element.dataset.scenario = row.scenario;
    this.#verdict.textContent = verdict;
    this.#title.textContent = capital(row.title);
    this.#promise.textContent = `Promised: ${row.promise.text}.`;
    const events = row.sent === 1 ? "1 event" : `${row.sent} events`;
    const sent = row.sent ? `${events} sent` : "no event was sent";
    const received = typeof row.received === "number" ? `, ${row.received} received` : "";
    const happened = row.error ?? row.reason;
    this.#happened.textContent = happened ? `Happened: ${happened}; ${sent}${received}.` : "";
  }

  /** @param {number} now */
  tick(now) {
    const { row } = this;
    if (!row) return;
    let text = "";
    if (typeof row.took === "number") text = `after ${duration(row.took)}`;
    else if (row.state === "running") {
      text =
        row.triggered === null
          ? "about to start"
          : `for ${(Math.max(0, now - row.triggered) / 1000).toFixed(1)} s`;
    }
    if (this.#took.textContent !== text) this.#took.textContent = text;
  }
}

/** The list of outcomes, the newest first. */
export class Outcomes {
  /** @type {Map<number, Outcome>} */
  #outcomes = new Map();
  #now = Date.now;

  // Runs that were seen running: their verdicts are to be announced.
  #pending = new Set();
  #first = true;

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} announced the live region that announces each verdict
   */
  constructor(list, announced) {
    this.list = list;
    this.announced = announced;
    setInterval(() => this.#tick(), 200);
  }

  /** Forget all rows: another process has other runs with the same numbers. */
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
    this.#announce(rows);
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
   * Announce the verdicts that are new since the last call, in one sentence each.
   * @param {Row[]} rows
   */
  #announce(rows) {
    const news = [];
    for (const row of rows) {
      if (row.state === "running") this.#pending.add(row.id);
      // One that was never seen running may have started and ended between two calls.
      else if (this.#pending.delete(row.id) || !(this.#first || this.#outcomes.has(row.id))) {
        news.push(sentence(row));
      }
    }
    this.#first = false;
    if (news.length) this.announced.textContent = news.join(" ");
  }

  #tick() {
    for (const outcome of this.#outcomes.values()) outcome.tick(this.#now());
  }
}
