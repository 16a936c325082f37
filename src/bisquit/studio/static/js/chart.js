/** Curves over steps, drawn as SVG: axes, lines, and a cursor that pointer and keys move. */

import { make } from "./dom.js";

/**
 * @typedef {{step: number, value: number | null}} Point
 * @typedef {{name: string, points: Point[]}} Line
 */

const [WIDTH, HEIGHT] = [480, 240];
const EDGE = { left: 52, right: 10, top: 10, bottom: 24 };
const TICKS = 5;

export class Chart {
  /** @type {Line[]} */
  #lines = [];
  /** @type {number[]} */
  #steps = [];

  /** @param {string} title */
  constructor(title) {
    this.title = title;
    this.svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    this.range = make("input", { type: "range", min: "0", "aria-label": `Step of ${title}` });
    this.output = make("output");
    this.caption = make("figcaption");
    this.element = make("figure", { className: "chart" }, this.caption, this.svg, this.range, this.output);
    this.range.addEventListener("input", () => this.#point());
    this.svg.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      const box = this.svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * WIDTH;
      const distances = this.#steps.map((step) => Math.abs(this.x(step) - x));
      this.range.value = String(distances.indexOf(Math.min(...distances)));
      this.#point();
    });
  }

  /**
   * Show lines, in place of those before; a cursor at the end stays at the end.
   * @param {Line[]} lines
   */
  show(lines) {
    const wasLast = !this.#steps.length || Number(this.range.value) === this.#steps.length - 1;
    this.#lines = lines;
    const points = lines.flatMap((line) => line.points);
    this.#steps = [...new Set(points.map((point) => point.step))].sort((a, b) => a - b);
    const values = points.flatMap((point) => (point.value === null ? [] : [point.value]));
    this.x = scale(extent(this.#steps), [EDGE.left, WIDTH - EDGE.right]);
    this.y = scale(extent(values), [HEIGHT - EDGE.bottom, EDGE.top]);
    this.svg.replaceChildren(
      ...this.#axes(extent(this.#steps), extent(values)),
      ...lines.map((line, i) => this.#path(line, i)),
    );
    this.caption.replaceChildren(this.title, ...lines.map(({ name }, i) => legend(name, i)));
    this.cursor = draw("line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
    this.svg.append(this.cursor);
    this.svg.setAttribute("aria-label", `${this.title}: ${lines.map(said).join("; ")}`);
    this.range.max = String(Math.max(this.#steps.length - 1, 0));
    if (wasLast) this.range.value = this.range.max;
    this.#point();
  }

  /**
   * @param {[number, number]} steps
   * @param {[number, number]} values
   */
  *#axes(steps, values) {
    for (const value of ticks(values)) {
      const y = this.y(value);
      yield draw("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y, y2: y });
      yield draw("text", { x: EDGE.left - 6, y: y + 4, "text-anchor": "end" }, short(value));
    }
    for (const step of ticks(steps)) {
      yield draw("text", { x: this.x(step), y: HEIGHT - 6, "text-anchor": "middle" }, short(step));
    }
  }

  /**
   * @param {Line} line
   * @param {number} i
   */
  #path({ points }, i) {
    let pen = "M";
    const parts = points.map(({ step, value }) => {
      if (value === null) {
        pen = "M"; // what is not finite leaves a gap
        return "";
      }
      const part = `${pen}${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`;
      pen = "L";
      return part;
    });
    return draw("path", { class: `line-${i % 3}`, d: parts.join("") });
  }

  /** Move the cursor to where the range is, and say the values there. */
  #point() {
    const step = this.#steps[Number(this.range.value)];
    if (step === undefined) return;
    const x = String(this.x(step));
    this.cursor?.setAttribute("x1", x);
    this.cursor?.setAttribute("x2", x);
    const values = this.#lines.flatMap(({ name, points }) => {
      const point = points.findLast((one) => one.step <= step); // not every curve has a point at each step
      return point ? [`${name} ${point.value === null ? "not finite" : precise(point.value)}`] : [];
    });
    this.output.textContent = `step ${step}: ${values.join(", ")}`;
    this.range.setAttribute("aria-valuetext", this.output.textContent);
  }

  x = (/** @type {number} */ step) => step;
  y = (/** @type {number} */ value) => value;
  /** @type {SVGElement | null} */
  cursor = null;
}

/**
 * @param {string} name
 * @param {number} i
 */
function legend(name, i) {
  const line = draw("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" });
  line.append(draw("path", { class: `line-${i % 3}`, d: "M0 5H26" }));
  return make("span", { className: "legend" }, line, name);
}

/** @param {Line} line */
function said({ name, points }) {
  const last = points.at(-1);
  return last && last.value !== null ? `${name} is ${precise(last.value)} at step ${last.step}` : name;
}

/**
 * @param {number[]} values
 * @returns {[number, number]}
 */
function extent(values) {
  if (!values.length) return [0, 1];
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}

/**
 * Return the map from one interval to another.
 * @param {[number, number]} from
 * @param {[number, number]} to
 */
function scale([low, high], [first, last]) {
  return (/** @type {number} */ value) => first + ((value - low) / (high - low)) * (last - first);
}

/**
 * Return round numbers within an interval, some TICKS of them: 1, 2 or 5 times a power of ten apart.
 * @param {[number, number]} interval
 */
export function ticks([low, high]) {
  const rough = (high - low) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const apart = /** @type {number} */ ([1, 2, 5, 10].find((times) => times * power >= rough)) * power;
  const first = Math.ceil(low / apart);
  return Array.from({ length: Math.floor(high / apart) - first + 1 }, (_, i) => (first + i) * apart);
}

const short = (/** @type {number} */ value) =>
  value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 4 });
const precise = (/** @type {number} */ value) => value.toLocaleString("en", { maximumSignificantDigits: 5 });

/**
 * @param {string} tag
 * @param {Record<string, any>} attributes
 * @param {...string} text
 * @returns {any}
 */
function draw(tag, attributes, ...text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...text);
  return element;
}
