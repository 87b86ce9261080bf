// Three small graphs of the last two minutes: streams, events per second, lateness.

/**
 * @typedef {object} Figures
 * @property {number} tasks
 * @property {number} late milliseconds
 * @property {number} [streams]
 * @property {number} [events] per second
 * @property {boolean} [draining]
 */

/** @typedef {{at: number, value: number}} Sample */

// Milliseconds that are shown, and without a figure after which the line has a gap.
const SPAN = 120_000;
const GAP = 5_000;

// In units of the drawing, which is stretched to the available space.
const WIDTH = 240;
const HEIGHT = 60;

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return the end of the axis: the next round number at or above a value.
 * @param {number} value
 */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return ([1, 2, 5, 10].find((times) => times * power >= value) ?? 10) * power;
}

/** One quantity: its last value as text, and its line. */
class Graph {
  /** @type {Sample[]} */
  #samples = [];
  #line = document.createElementNS(SVG, "path");
  #area = document.createElementNS(SVG, "path");

  /** @param {HTMLElement} figure */
  constructor(figure) {
    this.value = /** @type {HTMLElement} */ (figure.querySelector(".value"));
    this.most = /** @type {HTMLElement} */ (figure.querySelector(".most"));
    this.top = /** @type {HTMLElement} */ (figure.querySelector(".top"));
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.setAttribute("aria-hidden", "true"); // the text says it
    this.#line.setAttribute("class", "line");
    this.#area.setAttribute("class", "area");
    drawing.append(this.#area, this.#line);
    /** @type {HTMLElement} */ (figure.querySelector(".plot")).append(drawing);
  }

  /**
   * @param {number} at milliseconds
   * @param {number} value
   */
  add(at, value) {
    this.#samples.push({ at, value });
    this.#samples = this.#samples.filter((sample) => sample.at > at - SPAN);
    const most = Math.max(...this.#samples.map((sample) => sample.value));
    const top = roundUp(most);
    this.value.textContent = value.toLocaleString("en");
    this.most.textContent = most.toLocaleString("en");
    this.top.textContent = top.toLocaleString("en");
    this.#draw(at, top);
  }

  /**
   * @param {number} now
   * @param {number} top
   */
  #draw(now, top) {
    let line = "";
    let area = "";
    let before = -Infinity;
    let last = 0;
    for (const { at, value } of this.#samples) {
      const x = Math.round((1 - (now - at) / SPAN) * WIDTH * 10) / 10;
      const y = Math.round((1 - value / top) * (HEIGHT - 2) * 10) / 10 + 1;
      if (at - before > GAP) {
        area += `${area && `V${HEIGHT}H${last}Z`}M${x} ${HEIGHT}V${y}`;
        line += `M${x} ${y}`;
      } else {
        area += `L${x} ${y}`;
        line += `L${x} ${y}`;
      }
      [before, last] = [at, x];
    }
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", `${area}V${HEIGHT}Z`);
  }
}

/** Return the reader of the fact `figures`, which draws them. */
export function drawGraphs() {
  /** @param {string} name */
  const graph = (name) =>
    new Graph(/** @type {HTMLElement} */ (document.querySelector(`[data-graph="${name}"]`)));
  const graphs = { streams: graph("streams"), events: graph("events"), late: graph("late") };
  const tasks = /** @type {HTMLElement} */ (document.querySelector("#tasks"));
  const draining = /** @type {HTMLElement} */ (document.querySelector("#draining"));
  return (/** @type {Figures} */ figures) => {
    const at = performance.now();
    tasks.textContent = `${figures.tasks.toLocaleString("en")} tasks`;
    draining.hidden = !figures.draining;
    graphs.late.add(at, figures.late);
    if (figures.streams !== undefined) graphs.streams.add(at, figures.streams);
    if (figures.events !== undefined) graphs.events.add(at, figures.events);
  };
}
