/** The view that changes pictures: a hole is filled, sides are extended, parts varied, two pictures joined. */

import { Problem, askJson } from "./api.js";
import { Compare } from "./compare.js";
import { hand, onHanded, setLast } from "./desk.js";
import { Latest, Voice, find, make, showRanges } from "./dom.js";
import { Mask } from "./mask.js";
import { Picker } from "./picker.js";
import { fitted, link, pngOf, readPicture, show } from "./pictures.js";
import { copy, fileName, named } from "./recipes.js";
import { Settings } from "./settings.js";

/** @typedef {import("./api.js").Painted} Painted */
/** @typedef {import("./pictures.js").Picture} Picture */

const form = find("#edit-form");
const screen = find("#edit-screen");
const results = find("#edit-results");
const fit = find("#edit-fit");

const voice = new Voice("edit");
const latest = new Latest();
const settings = new Settings(form, true);
const mask = new Mask(find(".over", screen), () => ({
  isErasing: settings.field("brush").value === "erase",
  size_px: Number(settings.field("brush_px").value),
}));
const first = new Picker(find("#edit [data-picker=first]"), voice, onPicture);
const second = new Picker(find("#edit [data-picker=second]"), voice, () => {});

/** Begin the view, when it is first shown. */
export function start() {
  showRanges(form);
  onKind(); // a browser may keep what was chosen before a reload
  voice.watch(async () => {
    await settings.load();
    onHanded("edit", (picture) => first.take(picture));
    offerFit();
  });
  for (const radio of settings.field("kind")) radio.addEventListener("change", onKind);
  settings.field("model").addEventListener("change", offerFit);
  settings.field("clear").addEventListener("click", () => mask.clear(mask.canvas));
  settings.field("rectangle").addEventListener("click", onRectangle);
  fit.addEventListener("click", () =>
    voice.watch(async () => {
      if (first.picture && settings.model.size) first.take(await fitted(first.picture, settings.model.size));
    }),
  );
  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    voice.watch(edit);
  });
  settings.field("cancel").addEventListener("click", () => {
    latest.stop();
    voice.say("Cancelled.");
  });
}

/** @param {Picture} picture */
function onPicture(picture) {
  screen.hidden = false;
  show(find("canvas", screen), picture.bitmap);
  mask.clear(picture);
  results.replaceChildren();
  offerFit();
  voice.say("");
}

function onKind() {
  const kind = settings.field("kind").value;
  for (const part of form.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== kind;
  mask.canvas.hidden = kind !== "inpaint";
}

function onRectangle() {
  const [left, top, width, height] = ["left_px", "top_px", "width_px", "height_px"].map((name) =>
    Number(settings.field(name).value),
  );
  mask.rectangle(left, top, width, height);
  voice.say(`Covered ${width} × ${height} pixels at ${left}, ${top}.`);
}

function offerFit() {
  const [picture, size] = [first.picture, settings.model?.size];
  fit.hidden = !picture || !size || (picture.height === size[0] && picture.width === size[1]);
}

async function edit() {
  const kind = settings.field("kind").value;
  const request = await requestOf(kind);
  const signal = latest.begin();
  settings.field("cancel").disabled = false;
  form.setAttribute("aria-busy", "true");
  voice.say("Painting …");
  try {
    const { pictures } = await askJson(`/edit/${kind}`, { form: request, signal });
    await showResults(pictures);
    voice.say(`Done: ${pictures.length} ${pictures.length > 1 ? "pictures" : "picture"}.`);
  } finally {
    settings.field("cancel").disabled = true;
    form.setAttribute("aria-busy", "false");
  }
}

/**
 * Return what is asked for. Throws a Problem if something is missing.
 * @param {string} kind
 */
async function requestOf(kind) {
  if (!first.picture) throw new Problem("choose a picture first");
  const numbers = (/** @type {string[]} */ names) =>
    Object.fromEntries(names.map((name) => [name, Number(settings.field(name).value)]));
  const asked = { ...settings.read(), ...numbers(["n"]), answer: "json" };
  const picture = first.picture.blob;
  switch (kind) {
    case "inpaint":
      if (mask.isEmpty)
        throw new Problem("nothing is covered: paint over what is to be painted anew, or cover a rectangle");
      return { ...asked, picture, mask: await mask.png() };
    case "extend":
      return { ...asked, ...numbers(["left", "right", "top", "bottom"]), picture };
    case "vary":
      return { ...asked, ...numbers(["share"]), picture };
    default:
      if (!second.picture) throw new Problem("choose the second picture, too");
      return { ...asked, ...numbers(["band"]), first: picture, second: second.picture.blob };
  }
}

/** @param {Painted[]} pictures */
async function showResults(pictures) {
  const before = /** @type {Picture} */ (first.picture);
  const read = await Promise.all(pictures.map((one) => readPicture(pngOf(one.png), named(one.recipe))));
  results.replaceChildren(...read.map((picture, i) => figure(before, picture, pictures[i])));
  setLast(read[0]);
  results.scrollIntoView({ block: "nearest" });
}

/**
 * @param {Picture} before
 * @param {Picture} picture
 * @param {Painted} painted
 */
function figure(before, picture, painted) {
  const place = make("div");
  if (before.width === picture.width && before.height === picture.height) {
    new Compare(place).show({ name: "before", blob: before.blob }, { name: "after", blob: picture.blob }, picture);
  } else {
    const image = make("img", { className: "pixels", alt: picture.name });
    link(image, picture.blob);
    place.append(image);
  }
  const button = (/** @type {string} */ text, /** @type {() => void} */ onClick) => {
    const made = make("button", { type: "button", textContent: text });
    made.addEventListener("click", onClick);
    return made;
  };
  const download = make("a", { className: "button", textContent: "Download PNG" });
  link(download, picture.blob, fileName(painted.recipe, "png"));
  const buttons = make(
    "div",
    { className: "row" },
    button("Go on from it", () => first.take(picture)),
    button("Compress", () => hand("compress", picture)),
    button("Copy recipe", () => voice.watch(async () => voice.say(await copy(painted.recipe)))),
    download,
  );
  return make("figure", {}, place, make("figcaption", { textContent: picture.name }), buttons);
}
