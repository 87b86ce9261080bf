// The log at the page's end: what was heard, the newest first.

const MOST_LINES = 200;
const log = /** @type {HTMLOListElement} */ (document.querySelector("#log"));

/**
 * Put a line on top of the log, and keep it short.
 * @param {string} stream
 * @param {string} text
 */
export function note(stream, text) {
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
