// The buttons: scenarios, a crowd of clients, and the restart.

import { capital, Outcomes } from "./outcomes.js";

/** @typedef {import("./outcomes.js").Row} Row */

/**
 * A scenario that can be started.
 * @typedef {object} Scenario
 * @property {string} name
 * @property {string} title
 * @property {string | null} why_not
 * @property {{text: string}} promise
 */

/**
 * @typedef {object} Offer
 * @property {boolean} allowed
 * @property {string | null} why why not
 * @property {Scenario[]} scenarios
 * @property {{why_not: string | null, text: string}} drain
 */

/**
 * How many clients are wanted and open, or what went wrong.
 * @typedef {object} Crowd
 * @property {number} wanted
 * @property {number} open
 * @property {string | null} error
 */

// Milliseconds after which a request without an answer is aborted, and that is explained: a request
// that still waits in the browser would take effect when nobody expects it any more.
const PATIENCE = 3000;
const NO_ANSWER =
  "No answer in 3 s. Over HTTP/1.1 a browser opens at most six connections to a host, in all " +
  "tabs together: close a tab, and try again.";
const UNREACHABLE = "The server cannot be reached.";

const section = /** @type {HTMLElement} */ (document.querySelector("#scenarios"));
const wrong = /** @type {HTMLElement} */ (section.querySelector("#wrong"));

/**
 * Return an element of the section.
 * @param {string} selector
 */
function one(selector) {
  return /** @type {HTMLElement} */ (section.querySelector(selector));
}

/**
 * Ask the server for an action; an error is shown beside the buttons.
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<boolean>} whether it succeeded
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
    const answer = await response.json().catch(() => ({}));
    wrong.textContent = `${capital(answer.error ?? `the server answered ${response.status}`)}.`;
  } catch {
    wrong.textContent = patience.aborted ? NO_ANSWER : UNREACHABLE;
  }
  return false;
}

/** @param {string} text */
function small(text) {
  const element = document.createElement("small");
  element.textContent = text.replace(/(\d) (m?s)\b/g, "$1\u00a0$2"); // a number and its unit
  return element;
}

/** @param {Scenario} scenario */
function button(scenario) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "scenario";
  element.dataset.scenario = scenario.name;
  element.disabled = scenario.why_not !== null; // and the text says why
  // What follows the colon is shown with the outcome.
  const promise = scenario.why_not ?? scenario.promise.text.split(": ")[0];
  const [, whose, what] = /^(.* that|an?) (.*)$/.exec(scenario.title) ?? ["", "", scenario.title];
  const title = document.createElement("strong");
  title.textContent = what;
  element.append(small(capital(whose)), " ", title, " ", small(capital(promise)));
  element.addEventListener("click", () => ask(`scenarios/${scenario.name}`));
  return element;
}

let shown = 0; // calls of the following

/**
 * Show the buttons, or why they are disabled.
 * @returns {Promise<boolean>} whether the server answered
 */
async function show() {
  const mine = (shown += 1);
  section.hidden = false;
  const refusal = one("#refusal");
  try {
    const response = await fetch("scenarios");
    if (!response.ok) throw new Error(String(response.status));
    /** @type {Offer} */
    const offer = await response.json();
    if (mine !== shown) return true; // a later call asks again, perhaps another server
    refusal.textContent = offer.allowed ? "" : `${capital(offer.why ?? "not here")}.`;
    one(".actions").hidden = false;
    one(".scenarios").replaceChildren(...offer.scenarios.map(button), one("#drain"));
    /** @type {HTMLInputElement} */ (one("#crowd")).disabled = !offer.allowed;
    const { why_not, text } = offer.drain;
    /** @type {HTMLButtonElement} */ (one("#drain")).disabled = why_not !== null;
    one("#no-drain").textContent = why_not === null ? "" : `No restart: ${why_not}.`;
    one("#drain-text").textContent = `${capital(text)}. This page reconnects by itself.`;
    return true;
  } catch {
    refusal.textContent = "The list of scenarios could not be loaded.";
    return false;
  }
}

/** Set up the section, and return the readers of the facts `scenarios` and `crowd`. */
export function offerScenarios() {
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
    /** Another process serves the page now, with other settings, promises and clients. */
    run() {
      known = false;
      outcomes.forget();
    },
    /**
     * @param {Row[]} rows
     * @param {() => number} now
     */
    async scenarios(rows, now) {
      outcomes.show(rows, now);
      if (wrong.textContent === UNREACHABLE) wrong.textContent = "";
      if (known) return;
      known = true;
      if (!(await show())) known = false;
    },
    /** @param {Crowd} state */
    crowd(state) {
      crowd.checked = state.wanted > 0;
      const [open, wanted] = [state.open, state.wanted].map((count) => count.toLocaleString("en"));
      one("#connected").textContent = state.wanted
        ? `${open} of ${wanted} connected`
        : (state.error ?? "");
    },
  };
}
