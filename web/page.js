// The page of the demonstration: two event sources, and what of each reaches which handler.

const MOST_LOG_LINES = 200;
const log = /** @type {HTMLOListElement} */ (document.querySelector("#log"));

/**
 * Put a line on top of the log, and keep it short.
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
  while (log.children.length > MOST_LOG_LINES) log.lastElementChild?.remove();
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
 * Wire one card to its event source.
 * @param {HTMLElement} card
 */
function wire(card) {
  const stream = card.id;
  const [connect, disconnect] = card.querySelectorAll("button");
  const stateText = /** @type {HTMLElement} */ (card.querySelector(".state-text"));
  const lastId = /** @type {HTMLElement} */ (card.querySelector(".last-id"));
  const lastData = /** @type {HTMLElement} */ (card.querySelector(".last-data"));
  /** @type {EventSource | null} */
  let source = null;

  function showState() {
    const states = ["connecting", "open", "closed"];
    const state = states[source ? source.readyState : EventSource.CLOSED];
    if (card.dataset.state === state) return;
    card.dataset.state = state;
    stateText.textContent = state;
    const wasFocused = document.activeElement;
    connect.disabled = state !== "closed";
    disconnect.disabled = state === "closed";
    // A button that is disabled under the keyboard hands the focus to the other one.
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

  connect.addEventListener("click", () => {
    const opened = performance.now();
    source = new EventSource(/** @type {string} */ (card.dataset.url));
    source.onopen = () => {
      const after = Math.round(performance.now() - opened);
      card.dataset.openedAfter ??= String(after);
      count(stream, "open");
      note(stream, "onopen");
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
      const closed = source?.readyState === EventSource.CLOSED;
      note(stream, closed ? "onerror: closed for good" : "onerror: the browser will reconnect");
      showState();
    };
    showState();
  });

  disconnect.addEventListener("click", () => {
    source?.close();
    source = null;
    note(stream, "disconnected by you");
    showState();
  });

  showState();
  connect.click();
}

for (const card of document.querySelectorAll(".stream")) {
  if (card instanceof HTMLElement) wire(card);
}

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
