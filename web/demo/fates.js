// Hurting clients: which fates there are, and the buttons for them.

import { capital, Outcomes } from "./outcomes.js";

/** @typedef {import("./outcomes.js").Row} Row */

/**
 * A fate that a client can be made to meet.
 * @typedef {object} Fate
 * @property {string} name
 * @property {string} title
 * @property {string | null} why_not
 * @property {{text: string}} promise
 */

/**
 * @typedef {object} Offer
 * @property {boolean} allowed
 * @property {string | null} why why not
 * @property {Fate[]} fates
 * @property {{why_not: string | null, text: string}} drain
 */

/**
 * How many clients are wanted and are there, or why not.
 * @typedef {object} Crowd
 * @property {number} wanted
 * @property {number} open
 * @property {string | null} error
 */

// Milliseconds after which a request that has had no answer is given up, and that is explained: what
// still waits in the browser would be done at some time when nobody thinks of it.
const PATIENCE = 3000;
const GIVEN_UP =
  "Given up: no answer in 3 s. Over HTTP/1.1 a browser holds six connections to a host, in all its " +
  "tabs: close one, and try again.";
const UNREACHABLE = "The server cannot be reached.";

const section = /** @type {HTMLElement} */ (document.querySelector("#hurt"));
const wrong = /** @type {HTMLElement} */ (section.querySelector("#wrong"));

/**
 * Return the element that there is, surely.
 * @param {string} selector
 */
function one(selector) {
  return /** @type {HTMLElement} */ (section.querySelector(selector));
}

/**
 * Ask the server to do something; what went wrong is shown beside the buttons.
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<boolean>} whether it does
 */
async function ask(path, body) {
  wrong.textContent = "";
  const patience = AbortSignal.timeout(PATIENCE);
  try {
    const response = await fetch(path, {
      method: "POST",
      signal: patience,
      ...(body && {
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      }),
    });
    if (response.ok) return true;
    const said = await response.json().catch(() => ({}));
    wrong.textContent = `${capital(said.error ?? `the server answered ${response.status}`)}.`;
  } catch {
    wrong.textContent = patience.aborted ? GIVEN_UP : UNREACHABLE;
  }
  return false;
}

/** @param {string} text */
function small(text) {
  const element = document.createElement("small");
  element.textContent = text.replace(/(\d) (m?s)\b/g, "$1\u00a0$2"); // a number and its unit
  return element;
}

/** @param {Fate} fate */
function button(fate) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "fate";
  element.dataset.fate = fate.name;
  element.disabled = fate.why_not !== null; // and the text says why
  // What comes after the colon is told when it has been put to the test.
  const promise = fate.why_not ?? fate.promise.text.split(": ")[0];
  const [, whose, what] = /^(.* that|an?) (.*)$/.exec(fate.title) ?? ["", "", fate.title];
  const title = document.createElement("strong");
  title.textContent = what;
  element.append(small(capital(whose)), " ", title, " ", small(capital(promise)));
  element.addEventListener("click", () => ask(`fates/${fate.name}`));
  return element;
}

let shown = 0; // calls of the following

/**
 * Show what can be done, or why nothing can.
 * @returns {Promise<boolean>} whether the server said it
 */
async function show() {
  const mine = (shown += 1);
  section.hidden = false;
  const refusal = one("#refusal");
  try {
    const response = await fetch("fates");
    if (!response.ok) throw new Error(String(response.status));
    /** @type {Offer} */
    const offer = await response.json();
    if (mine !== shown) return true; // a later call has asked again, another server perhaps
    refusal.textContent = offer.allowed ? "" : `${capital(offer.why ?? "not here")}.`;
    one(".acts").hidden = false;
    one(".fates").replaceChildren(...offer.fates.map(button));
    /** @type {HTMLInputElement} */ (one("#crowd")).disabled = !offer.allowed;
    const { why_not, text } = offer.drain;
    /** @type {HTMLButtonElement} */ (one("#drain")).disabled = why_not !== null;
    one("#no-drain").textContent = why_not === null ? "" : `No drain: ${why_not}.`;
    one("#drain-text").textContent = `${capital(text)}. This page waits, and goes on by itself.`;
    return true;
  } catch {
    refusal.textContent = "The server did not say which fates there are.";
    return false;
  }
}

/** Set up the section, and return who is told of the facts `fates` and `crowd`. */
export function offerFates() {
  const outcomes = new Outcomes(one("#outcomes"), one("#verdict"));
  const crowd = /** @type {HTMLInputElement} */ (one("#crowd"));
  const sure = /** @type {HTMLDialogElement} */ (one("#sure"));
  crowd.addEventListener("change", async () => {
    if (!(await ask("crowd", { on: crowd.checked }))) crowd.checked = !crowd.checked;
  });
  one("#drain").addEventListener("click", () => sure.showModal());
  sure.addEventListener("close", () => {
    if (sure.returnValue === "drain") ask("drain");
    sure.returnValue = "";
  });
  let known = false;
  return {
    /** Another process serves the page now: its settings, promises and clients are its own. */
    run() {
      known = false;
      outcomes.forget();
    },
    /**
     * @param {Row[]} rows
     * @param {() => number} now
     */
    async fates(rows, now) {
      outcomes.show(rows, now);
      if (wrong.textContent === UNREACHABLE) wrong.textContent = "";
      if (known) return;
      known = true;
      if (!(await show())) known = false;
    },
    /** @param {Crowd} state */
    crowd(state) {
      crowd.checked = state.wanted > 0;
      const there = `${state.open.toLocaleString("en")} of ${state.wanted.toLocaleString("en")} here`;
      one("#there").textContent = state.wanted ? there : (state.error ?? "");
    },
  };
}
