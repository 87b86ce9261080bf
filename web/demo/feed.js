// The stream of the tree: open while the page is visible, with its state.

/** @typedef {import("./picture.js").Snapshot} Snapshot */
/** @typedef {import("./picture.js").Change} Change */
/** @typedef {"connecting" | "open" | "reconnecting" | "paused" | "hidden" | "closed" | "waiting"} State */

// Milliseconds without an answer after which the page explains why.
const PATIENCE = 3000;

/**
 * Receives what the stream says.
 * @typedef {object} Listener
 * @property {(state: State) => void} state
 * @property {(address: string) => void} you
 * @property {(snapshot: Snapshot, run: string) => void} snapshot
 * @property {(change: Change) => void} change
 */

/** At most one EventSource, and none while the page is hidden: a browser opens six per host. */
export class Feed {
  /** @type {EventSource | null} */
  #source = null;
  #paused = false;
  #patience = 0;

  /**
   * @param {string} url
   * @param {Listener} listener
   */
  constructor(url, listener) {
    this.url = url;
    this.listener = listener;
    document.addEventListener("visibilitychange", () => this.#seen());
    // The browser may keep a page in its back/forward cache.
    addEventListener("pagehide", () => this.#close("hidden"));
    addEventListener("pageshow", (event) => event.persisted && this.#seen());
    this.#seen();
  }

  /** Pause or resume; open a new stream if the old one was closed permanently. */
  toggle() {
    this.#paused = this.#source !== null && this.#source.readyState !== EventSource.CLOSED;
    this.#seen();
  }

  #seen() {
    if (document.visibilityState === "hidden") this.#close("hidden");
    else if (this.#paused) this.#close("paused");
    else if (!this.#source || this.#source.readyState === EventSource.CLOSED) this.#open();
  }

  /** @param {State} state */
  #close(state) {
    clearTimeout(this.#patience);
    this.#source?.close();
    this.#source = null;
    this.listener.state(state);
  }

  #open() {
    const { listener } = this;
    const source = (this.#source = new EventSource(this.url));
    let opened = false;
    listener.state("connecting");
    this.#patience = setTimeout(() => listener.state("waiting"), PATIENCE);
    source.onopen = () => {
      opened = true;
      clearTimeout(this.#patience);
      listener.state("open");
    };
    source.onerror = () => {
      clearTimeout(this.#patience);
      const closed = source.readyState === EventSource.CLOSED;
      listener.state(closed ? "closed" : opened ? "reconnecting" : "connecting");
    };
    source.addEventListener("you", (event) => listener.you(event.data));
    source.addEventListener("snapshot", (event) => {
      // The id begins with a prefix of its own for each server process.
      const run = event.lastEventId.slice(0, event.lastEventId.lastIndexOf("-"));
      listener.snapshot(JSON.parse(event.data), run);
    });
    source.addEventListener("change", (event) => listener.change(JSON.parse(event.data)));
  }
}
