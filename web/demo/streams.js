// The two streams: an EventSource each, counts of which handler is called, and a log of the calls.

const SIX =
  "still connecting: over HTTP/1.1 a browser opens at most six connections to a host, in all tabs";

const MOST_LINES = 200;
const log = /** @type {HTMLOListElement} */ (document.querySelector("#log"));

/**
 * Add a line on top of the log, and limit its length.
 * @param {string} stream
 * @param {string} text
 */
function note(stream, text) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  const now = new Date();
  time.dateTime = now.toISOString();
  const milliseconds = String(now.getMilliseconds()).padStart(3, "0");
  time.textContent = `${now.toTimeString().slice(0, 8)}.${milliseconds}`;
  const name = document.createElement("span");
  name.textContent = `/${stream}`;
  const what = document.createElement("span");
  what.textContent = text;
  line.append(time, name, what);
  log.prepend(line);
  while (log.children.length > MOST_LINES) log.lastElementChild?.remove();
}

/**
 * Count a call of a handler in the table.
 * @param {string} stream
 * @param {"open" | "ping" | "message" | "error"} handler
 */
function count(stream, handler) {
  const cell = document.querySelector(`[data-count="${stream} ${handler}"]`);
  if (!(cell instanceof HTMLElement)) return;
  cell.textContent = String(Number(cell.textContent) + 1);
  cell.classList.remove("flash");
  void cell.offsetWidth; // start the animation again
  cell.classList.add("flash");
}

/**
 * Connect one card to its EventSource.
 * @param {HTMLElement} card
 */
export function wire(card) {
  const stream = card.id;
  const [connect, disconnect] = card.querySelectorAll("button");
  const stateText = /** @type {HTMLElement} */ (card.querySelector(".state-text"));
  const lastId = /** @type {HTMLElement} */ (card.querySelector(".last-id"));
  const lastData = /** @type {HTMLElement} */ (card.querySelector(".last-data"));
  /** @type {EventSource | null} */
  let source = null;
  let giveUp = () => {}; // stops waiting for the first response

  function showState() {
    const states = ["connecting", "open", "closed"];
    const state = states[source ? source.readyState : EventSource.CLOSED];
    if (card.dataset.state === state) return;
    const again = state === "connecting" && card.dataset.state === "open";
    card.dataset.state = state;
    stateText.textContent = again ? "reconnecting" : state;
    const wasFocused = document.activeElement;
    connect.disabled = state !== "closed";
    disconnect.disabled = state === "closed";
    // A focused button that becomes disabled hands the focus to the other one.
    if (wasFocused === connect && connect.disabled) disconnect.focus();
    if (wasFocused === disconnect && disconnect.disabled) connect.focus();
  }

  /**
   * @param {MessageEvent} event
   * @param {string} handler
   */
  function show(event, handler) {
    lastId.textContent = event.lastEventId || "–";
    lastData.textContent = event.data;
    note(stream, `${handler}: ${event.data}`);
  }

  function open() {
    let since = performance.now();
    let what = "it was asked for";
    source = new EventSource(/** @type {string} */ (card.dataset.url));
    source.onopen = () => {
      count(stream, "open");
      note(stream, `onopen, ${Math.round(performance.now() - since)} ms after ${what}`);
      showState();
    };
    source.addEventListener("ping", (event) => {
      count(stream, "ping");
      show(event, 'listener "ping"');
    });
    source.onmessage = (event) => {
      count(stream, "message");
      show(event, "onmessage");
    };
    source.onerror = () => {
      count(stream, "error");
      if (card.dataset.state === "open") [since, what] = [performance.now(), "it broke"];
      const closed = source?.readyState === EventSource.CLOSED;
      note(stream, closed ? "onerror: closed permanently" : "onerror: the browser will reconnect");
      showState();
    };
    showState();
    const patience = setTimeout(() => note(stream, SIX), 3000);
    for (const answer of ["open", "error"]) {
      source.addEventListener(answer, () => clearTimeout(patience));
    }
    giveUp = () => clearTimeout(patience);
  }

  function close() {
    giveUp();
    source?.close();
    source = null;
    showState();
  }

  connect.addEventListener("click", open);
  disconnect.addEventListener("click", () => {
    close();
    note(stream, "disconnected by you");
  });
  card.addEventListener("keydown", (event) => {
    // A key that is held down would connect and disconnect in turn.
    if (event.repeat && event.key === "Enter") event.preventDefault();
  });

  // The browser may keep a page in its back/forward cache, and its connections with it: close them,
  // and open them again if the page is shown again.
  let wasOpen = false;
  addEventListener("pagehide", () => {
    wasOpen = source !== null;
    close();
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted && wasOpen) open();
  });

  showState();
  open();
}

/** Make the button copy the three lines. */
export function offerCopy() {
  const copy = /** @type {HTMLButtonElement} */ (document.querySelector("#copy"));
  const code = /** @type {HTMLElement} */ (document.querySelector("#code"));
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      copy.textContent = "Copied";
    } catch {
      // Without permission, or over plain HTTP from another machine: select the lines instead.
      getSelection()?.selectAllChildren(code);
      copy.textContent = "Selected: press Ctrl-C";
    }
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
}
