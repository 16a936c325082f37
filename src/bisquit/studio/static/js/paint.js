/** The view that paints: settings at one side, the picture as it appears at the other. */

import { Problem, ask } from "./api.js";
import { SHOWN, drawChances } from "./chances.js";
import { hand, onHanded, setLast } from "./desk.js";
import { Latest, Voice, find } from "./dom.js";
import { link, pngOf, readPicture, shape } from "./pictures.js";
import { Player } from "./player.js";
import { copy, fileName, named } from "./recipes.js";
import { Settings } from "./settings.js";
import { events } from "./sse.js";

/** @typedef {import("./api.js").Model} Model */
/** @typedef {import("./api.js").Recipe} Recipe */
/** @typedef {import("./pictures.js").Picture} Picture */

const form = find("#paint-form");
const canvas = find("#paint-screen canvas");
const position = find("#paint-position");
const progress = find("#paint-progress");
const after = find("#paint-after");

const voice = new Voice("paint");
const latest = new Latest();
const settings = new Settings(form, false);
const player = new Player(canvas, find("#paint-screen .over"), onMove);
/** @type {Picture | null} */
let picture = null;
/** @type {Recipe | null} */
let recipe = null;
/** @type {AbortSignal | null} the signal of what is being painted */
let current = null;

/** Begin the view, when it is first shown. */
export function start() {
  voice.watch(async () => {
    await settings.load();
    onHanded("paint", (asked) => settings.fill(asked));
  });
  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    voice.watch(paint);
  });
  settings.field("again").addEventListener("click", () => {
    settings.throwDice();
    form.requestSubmit();
  });
  settings.field("cancel").addEventListener("click", () => {
    latest.stop();
    voice.say("Cancelled.");
  });
  position.addEventListener("input", () => player.seek(Number(position.value)));
  find("#paint-tint").addEventListener("change", (/** @type {any} */ event) => {
    player.isTinted = event.target.checked;
    player.seek(player.position);
  });
  after.addEventListener("click", (/** @type {any} */ event) => onAfter(event.target.dataset.do));
}

async function paint() {
  const model = settings.model;
  if (!model) throw new Problem("there is no model that paints");
  const signal = latest.begin();
  current = signal;
  setBusy(true);
  begin(model);
  try {
    const response = await ask("/sample/stream", { json: settings.read(), signal });
    for await (const { name, data } of events(response)) await hear(name, data, signal);
    if (!signal.aborted && !picture) throw new Problem("the studio broke off: is it still running?");
  } finally {
    if (current === signal) setBusy(false);
  }
}

/** @param {Model} model */
function begin(model) {
  picture = recipe = null;
  after.hidden = true;
  player.begin(model);
  shape(canvas.parentElement, canvas);
  canvas.setAttribute("aria-label", "A picture that is being painted");
  progress.value = 0;
  voice.say("Asking …");
}

/**
 * @param {string} name
 * @param {any} data
 * @param {AbortSignal} signal
 */
async function hear(name, data, signal) {
  if (name === "error") throw new Problem(data.error);
  if (name === "queued")
    voice.say(data.ahead ? `Waiting: ${data.ahead} ${data.ahead > 1 ? "come" : "comes"} first.` : "Painting …");
  if (name === "partial") {
    const bitmap = await createImageBitmap(pngOf(data.png));
    signal.throwIfAborted();
    player.add(bitmap, data.tokens, data.chances);
    Object.assign(progress, { max: data.total, value: data.done });
    voice.say(`Painting: ${Math.floor((10 * data.done) / data.total) * 10} %`); // not each time, for it is read aloud
  }
  if (name === "picture") {
    picture = await readPicture(pngOf(data.png), named(data.recipe));
    signal.throwIfAborted();
    finish(picture, data);
  }
}

/**
 * @param {Picture} done
 * @param {import("./api.js").Painted} painted
 */
function finish(done, painted) {
  recipe = painted.recipe;
  setLast(done);
  link(find("[data-do=download]", after), done.blob, fileName(recipe, "png"));
  after.hidden = false;
  canvas.setAttribute("aria-label", `The picture, ${done.name}`);
  voice.say(`Done${painted.id ? ", and kept in the gallery" : ""}: ${done.name}.`);
}

/** @param {boolean} isBusy */
function setBusy(isBusy) {
  settings.field("cancel").disabled = !isBusy;
  form.setAttribute("aria-busy", String(isBusy));
}

function onMove() {
  position.max = String(player.steps.length);
  position.value = String(player.position);
  position.disabled = player.steps.length === 0;
  const newest = player.steps.slice(Math.max(player.position - SHOWN, 0), player.position);
  drawChances(
    find("#paint-chances"),
    newest.map((step) => step.chance),
    settings.model?.bits ?? 1,
  );
}

/** @param {string | undefined} what */
function onAfter(what) {
  if (!picture || !recipe) return;
  const asked = recipe;
  if (what === "recipe") voice.watch(async () => voice.say(await copy(asked)));
  else if (what && what !== "download") hand(what, picture);
}
