/** The view into tokens: what each is, what it costs, and what each of its bits does. */

import { ask, askJson, models } from "./api.js";
import { hand, onHanded } from "./desk.js";
import { Latest, Voice, debounced, find, make } from "./dom.js";
import { drawHeat } from "./heat.js";
import { Picker } from "./picker.js";
import { fitted, pngOf, readPicture, show } from "./pictures.js";

/** @typedef {import("./api.js").Model} Model */
/** @typedef {import("./pictures.js").Picture} Picture */

const REST_MS = 400;
/** Patches that are shown on each side of the one whose bits are flipped. */
const AROUND = 2;
/** A model without a prior has no size of its own: then it is that of the models that ship. */
const USUAL_SIZE = /** @type {[number, number]} */ ([100, 150]);

const screen = find("#tokens-screen");
const cells = find(".cells", screen);
const over = find(".over", screen);
const flips = find("#tokens-flips");
const chosen = find("#tokens-model");
const reset = find("#tokens-reset");
const toEdit = find("#tokens-edit");

const voice = new Voice("tokens");
const latest = new Latest();
const latestFlips = new Latest();
const picker = new Picker(find("#tokens [data-picker]"), voice, () => voice.watch(encode));
/**
 * What is looked at.
 * @typedef {object} Seen
 * @property {Model} model
 * @property {Picture} picture of the model's size
 * @property {number[][]} first the picture's tokens
 * @property {number[][]} tokens those with bits flipped
 * @property {number[][] | null} costs bits that each of the first costs; null of a model that cannot say
 * @property {Picture | null} back what the tokens give back
 */

/** @type {Seen | null} */
let seen = null;
/** @type {[number, number]} */
let at = [0, 0];
const later = debounced(() => voice.watch(showFlips), REST_MS);

/** Begin the view, when it is first shown. */
export function start() {
  chosen.addEventListener("change", () => voice.watch(encode));
  find("#tokens-tint").addEventListener("change", tint);
  reset.addEventListener("click", () => voice.watch(() => change(structuredClone(seen?.first ?? []))));
  toEdit.addEventListener("click", () => seen?.back && hand("edit", seen.back));
  cells.addEventListener("keydown", onKey);
  for (const kind of ["pointerover", "focusin"]) {
    cells.addEventListener(kind, (/** @type {any} */ event) => {
      const place = event.target.dataset.at;
      if (place) goTo(place.split(",").map(Number), false);
    });
  }
  cells.addEventListener("click", () => voice.watch(showFlips));
  voice.watch(async () => {
    const all = await models();
    chosen.replaceChildren(...all.map(({ name }) => make("option", { value: name, textContent: name })));
    onHanded("tokens", (picture) => picker.take(picture));
  });
}

async function encode() {
  if (!picker.picture) return;
  const signal = latest.begin();
  const model = (await models()).find(({ name }) => name === chosen.value);
  if (!model) return;
  voice.say("Looking …");
  const picture = await fitted(picker.picture, model.size ?? USUAL_SIZE);
  const form = { picture: picture.blob, model: model.name };
  // what the likelihood says of tokens, it says of the very ones that encode gives
  const found = await askJson("/encode", { form, signal });
  const costs = model.paints && model.prior !== "flow" ? (await askJson("/likelihood", { form, signal })).bits : null;
  signal.throwIfAborted();
  seen = { model, picture, first: structuredClone(found.tokens), tokens: found.tokens, costs, back: null };
  buildCells();
  await showBack();
  goTo([0, 0], false);
  voice.say(`${found.tokens.length} × ${found.tokens[0].length} tokens of ${model.bits} bits.`);
}

/** Lay a cell over each patch; those at the right and the lower side may be cut. */
function buildCells() {
  if (!seen) return;
  const { tokens, picture, model } = seen;
  const span = (/** @type {number} */ i, /** @type {number} */ all) =>
    Math.min(model.patch_size, all - i * model.patch_size);
  cells.replaceChildren(
    ...tokens.map((line, row) => {
      const element = make("div", { role: "row" });
      element.style.flex = `${span(row, picture.height)} 1 0`;
      line.forEach((_, column) => {
        const cell = make("div", { role: "gridcell", tabIndex: -1, "data-at": `${row},${column}` });
        cell.style.flexGrow = String(span(column, picture.width));
        element.append(cell);
      });
      return element;
    }),
  );
  describeCells();
}

function describeCells() {
  if (!seen) return;
  const { tokens, costs } = seen;
  for (const cell of cells.querySelectorAll("[role=gridcell]")) {
    const [row, column] = cell.dataset.at.split(",").map(Number);
    const cost = costs ? `, ${costs[row][column].toFixed(1)} bits` : "";
    cell.setAttribute("aria-label", `row ${row}, column ${column}: token ${tokens[row][column]}${cost}`);
  }
}

/** Show what the tokens give back. */
async function showBack() {
  if (!seen) return;
  const { model, tokens, picture } = seen;
  const answer = await ask("/decode", { json: { model: model.name, tokens, size: [picture.height, picture.width] } });
  seen.back = await readPicture(await answer.blob(), `${picture.name} through ${model.name}`);
  screen.hidden = false;
  show(find("canvas", screen), seen.back.bitmap);
  reset.disabled = JSON.stringify(seen.tokens) === JSON.stringify(seen.first);
  toEdit.disabled = false;
  tint();
}

function tint() {
  if (!seen) return;
  over.hidden = !find("#tokens-tint").checked || !seen.costs;
  if (!over.hidden) drawHeat(over, seen.costs ?? [], seen.picture, seen.model.patch_size, seen.model.bits);
}

/**
 * Choose a token, and say what it is; what its bits do comes when it stays chosen.
 * @param {[number, number]} place
 * @param {boolean} isFocused whether to move the focus there
 */
function goTo(place, isFocused) {
  if (!seen) return;
  const before = cells.querySelector(`[data-at="${at}"]`);
  before?.setAttribute("tabindex", "-1");
  before?.setAttribute("aria-selected", "false");
  const moved = String(at) !== String(place);
  at = place;
  const cell = find(`[data-at="${at}"]`, cells);
  cell.tabIndex = 0;
  cell.setAttribute("aria-selected", "true");
  if (isFocused) cell.focus();
  describeToken();
  if (moved || !flips.childElementCount) later();
}

function describeToken() {
  if (!seen) return;
  const [row, column] = at;
  const token = seen.tokens[row][column];
  const cost = seen.costs?.[row][column];
  find("#tokens-token").replaceChildren(
    make("strong", { textContent: `Token ${token}` }),
    make("span", { textContent: `Row ${row}, column ${column}` }),
    make("span", { textContent: `Bits, the highest first: ${token.toString(2).padStart(seen.model.bits, "0")}` }),
    make("span", {
      textContent: cost === undefined ? "" : `It costs ${cost.toFixed(1)} bits in the picture as it came.`,
    }),
  );
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (!seen) return;
  /** @type {Record<string, [number, number]>} */
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const [height, width] = [seen.tokens.length, seen.tokens[0].length];
  if (event.key === "Enter") voice.watch(showFlips);
  else if (event.key === "Home") goTo([at[0], 0], true);
  else if (event.key === "End") goTo([at[0], width - 1], true);
  else if (moves[event.key]) {
    const [down, right] = moves[event.key];
    const clip = (/** @type {number} */ value, /** @type {number} */ count) => Math.min(Math.max(value, 0), count - 1);
    goTo([clip(at[0] + down, height), clip(at[1] + right, width)], true);
  } else return;
  event.preventDefault();
}

/** Show what each bit of the chosen token does to the picture around it. */
async function showFlips() {
  if (!seen) return;
  const signal = latestFlips.begin();
  const { model, tokens, picture } = seen;
  const [row, column] = at;
  const json = { model: model.name, tokens, row, column, size: [picture.height, picture.width] };
  const found = await askJson("/tokens/bits", { json, signal });
  const made = [];
  for (const flip of found.flips) {
    const bitmap = await createImageBitmap(pngOf(flip.png));
    made.push(flipButton(bitmap, flip, row, column));
  }
  signal.throwIfAborted();
  flips.replaceChildren(...made);
}

/**
 * @param {ImageBitmap} bitmap
 * @param {{bit: number, token: number, mean_change: number}} flip
 * @param {number} row
 * @param {number} column
 */
function flipButton(bitmap, flip, row, column) {
  const patch = seen?.model.patch_size ?? 1;
  const side = (2 * AROUND + 1) * patch;
  const canvas = make("canvas", { width: side, height: side, "aria-hidden": "true" });
  const from = (/** @type {number} */ i, /** @type {number} */ all) =>
    Math.max(Math.min((i - AROUND) * patch, all - side), 0);
  canvas.getContext("2d").drawImage(bitmap, -from(column, bitmap.width), -from(row, bitmap.height));
  const text = `Bit ${flip.bit}: token ${flip.token}, mean change ${flip.mean_change.toFixed(3)}`;
  const button = make(
    "button",
    { type: "button", title: "Flip it in the picture" },
    canvas,
    make("span", { textContent: text }),
  );
  button.addEventListener("click", () =>
    voice.watch(async () => {
      const tokens = structuredClone(seen?.tokens ?? []);
      tokens[row][column] = flip.token;
      await change(tokens);
      voice.say(`Flipped bit ${flip.bit} of row ${row}, column ${column}.`);
    }),
  );
  return button;
}

/** @param {number[][]} tokens */
async function change(tokens) {
  if (!seen) return;
  seen.tokens = tokens;
  await showBack();
  describeCells();
  describeToken();
  await showFlips();
}
