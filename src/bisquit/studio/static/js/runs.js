/** Training runs as they go: a list, curves, and the latest pictures, asked for again while they are looked at. */

import { askJson, runPictureUrl } from "./api.js";
import { Chart } from "./chart.js";
import { Latest, Voice, find, make } from "./dom.js";

const POLL_MS = 4000;

const list = find("#runs-list");
const charts = find("#runs-charts");
const pictures = find("#runs-pictures");

const voice = new Voice("runs");
const latest = new Latest();
/** @type {Map<string, Chart>} */
const drawn = new Map();
/** @type {string | null} */
let chosen = null;
/** When the chosen run last changed, as it is shown; null if it is not shown yet. @type {number | null} */
let shownChange = null;
let isShown = false;
let timer = 0;

/** Begin the view, when it is first shown. */
export function start() {
  document.addEventListener("visibilitychange", look);
}

export function shown() {
  isShown = true;
  look();
}

export function hidden() {
  isShown = false;
  latest.stop();
  clearTimeout(timer);
}

/** Look now, and every few seconds from now on while somebody sees it. */
function look() {
  clearTimeout(timer);
  if (!isShown || document.hidden) return;
  const signal = latest.begin();
  voice
    .watch(() => refresh(signal))
    .then(() => {
      if (!signal.aborted) timer = setTimeout(look, POLL_MS);
    });
}

/** @param {AbortSignal} signal */
async function refresh(signal) {
  /** @type {{runs: {name: string, stage: string, preset: string | null, finished: boolean, changed: number}[]}} */
  const { runs } = await askJson("/runs", { signal });
  voice.say(runs.length ? "" : "No runs: start the studio with --runs and the folder below which they are.");
  if (!runs.some((run) => run.name === chosen)) choose(runs[0]?.name ?? null);
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.run : undefined;
  list.replaceChildren(...runs.map(item));
  if (focused !== undefined) list.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
  const run = runs.find((one) => one.name === chosen);
  if (run && run.changed !== shownChange) {
    await showRun(run.name, signal);
    shownChange = run.changed;
  }
}

/** @param {string | null} name */
function choose(name) {
  chosen = name;
  shownChange = null;
  drawn.clear();
  charts.replaceChildren();
  pictures.replaceChildren();
  find("#runs-name").textContent = name ?? "";
}

/** @param {{name: string, stage: string, preset: string | null, finished: boolean}} run */
function item({ name, stage, preset, finished }) {
  const about = [stage, preset ?? "no preset", finished ? "finished" : "not finished"].join(", ");
  const button = make("button", { type: "button", "data-run": name, "aria-current": String(name === chosen) });
  button.append(make("strong", { textContent: name }), make("span", { className: "note", textContent: about }));
  button.addEventListener("click", () => {
    choose(name);
    look();
  });
  return make("li", {}, button);
}

/**
 * @param {string} name
 * @param {AbortSignal} signal
 */
async function showRun(name, signal) {
  const run = await askJson(`/runs/curves?${new URLSearchParams({ name })}`, { signal });
  for (const [title, lines] of together(run.curves)) {
    const chart = drawn.get(title) ?? new Chart(title);
    if (!drawn.has(title)) charts.append(chart.element);
    drawn.set(title, chart);
    chart.show(lines);
  }
  const figures = run.pictures.map((/** @type {string} */ tag) => {
    const source = `${runPictureUrl(name, tag)}&at=${run.changed}`;
    const image = make("img", { className: "pixels", src: source, alt: `${tag} of ${name}` });
    return make("figure", {}, image, make("figcaption", { textContent: tag }));
  });
  pictures.replaceChildren(...figures);
}

/**
 * Return curves that are of one kind together: of train/loss and valid/loss, loss with both.
 * @param {Record<string, import("./chart.js").Point[]>} curves
 */
function together(curves) {
  /** @type {Map<string, import("./chart.js").Line[]>} */
  const found = new Map();
  for (const [tag, points] of Object.entries(curves)) {
    const parts = tag.split("/");
    const title = parts.length > 1 ? parts.slice(1).join("/") : tag;
    found.set(title, [...(found.get(title) ?? []), { name: parts.length > 1 ? parts[0] : tag, points }]);
  }
  return found;
}
