/** The view that compresses: bytes and error of a picture, beside those of the browser's WebP, and where bits go. */

import { ask, askJson, models } from "./api.js";
import { Compare } from "./compare.js";
import { onHanded } from "./desk.js";
import { Latest, Voice, debounced, find, make, showRanges } from "./dom.js";
import { drawHeat } from "./heat.js";
import { Picker } from "./picker.js";
import { fitted, link, psnr, readPicture, show } from "./pictures.js";
import { webpOf } from "./webp.js";

/** @typedef {import("./pictures.js").Picture} Picture */
/** @typedef {{name: string, blob: Blob, bytes: number, bitmap: ImageBitmap}} Form a picture in one form */

const REST_MS = 300;
const BROWSERS = "the browser's WebP";
const ABOUT =
  "PSNR is computed in this browser, and the WebP is the browser's: the largest that has no more bytes, or else the " +
  "smallest that it makes.";
/** @type {Record<string, string>} */
const NAMES = { "the picture": "PNG", [BROWSERS]: "WebP" };

const form = find("#compress-form");
const compareAt = find("#compress-compare");
const download = find("#compress-download");
const map = find("#compress-map");

const voice = new Voice("compress");
const latest = new Latest();
const latestMap = new Latest();
const compare = new Compare(compareAt);
const picker = new Picker(find("#compress [data-picker]"), voice, () => takePicture());
const sides = make("select", { "aria-label": "What is compared" });
/** @type {Picture | null} */
let picture = null;
/** @type {Form[]} */
let forms = [];

/** Begin the view, when it is first shown. */
export function start() {
  showRanges(form);
  compareAt.append(sides);
  sides.addEventListener("change", showSides);
  const later = debounced(() => voice.watch(compress), REST_MS);
  form.elements.quality.addEventListener("input", later);
  form.elements.model.addEventListener("change", later);
  form.elements.map.addEventListener("change", () => voice.watch(showMap));
  form.elements.file.addEventListener("change", () => {
    const [file] = form.elements.file.files;
    if (file) voice.watch(() => open(file));
    form.elements.file.value = "";
  });
  form.addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
  voice.watch(async () => {
    const all = (await models()).filter((model) => model.paints && model.size);
    const options = () => all.map(({ name }) => make("option", { value: name, textContent: name }));
    form.elements.model.append(...options());
    form.elements.map.append(...options());
    onHanded("compress", (handed) => picker.take(handed));
  });
}

async function modelOf(/** @type {string} */ name) {
  const all = await models();
  return all.find((model) => model.name === name) ?? all.find((model) => model.size);
}

/** Take what was picked, in the size of the models' pictures, for these alone are compressed. */
function takePicture() {
  voice.watch(async () => {
    const given = /** @type {Picture} */ (picker.picture);
    const model = await modelOf(form.elements.model.value);
    picture = model?.size ? await fitted(given, model.size) : given;
    const size = `${given.width} × ${given.height}`;
    const resized = `The picture was cropped and resized from ${size}: models store pictures of their own size.`;
    find("#compress-note").textContent = picture === given ? ABOUT : `${ABOUT} ${resized}`;
    voice.watch(compress); // which another quality may break off, and not the map
    await showMap();
  });
}

async function compress() {
  if (!picture) return;
  const signal = latest.begin();
  const original = picture;
  const { quality, model } = form.elements;
  voice.say("Compressing …");
  const asked = { picture: original.blob, quality: quality.value, model: model.value || null };
  const file = await (await ask("/compress", { form: asked, signal })).blob();
  const back = await decompressed(file, signal);
  const webp = await webpOf(original.bitmap, file.size, signal);
  const webpBitmap = await createImageBitmap(webp);
  signal.throwIfAborted();
  forms = [
    { name: "the picture", blob: original.blob, bytes: original.blob.size, bitmap: original.bitmap },
    { name: ".bisq", blob: back.blob, bytes: file.size, bitmap: back.bitmap },
    { name: BROWSERS, blob: webp, bytes: webp.size, bitmap: webpBitmap },
  ];
  link(download, file, `${original.name.replace(/\.\w+$/, "")}.bisq`);
  download.hidden = false;
  showForms();
  voice.say(`${file.size} bytes, ${decibels(original.bitmap, back.bitmap)}.`);
}

/**
 * @param {Blob} file
 * @param {AbortSignal} signal
 */
async function decompressed(file, signal) {
  const asked = { file, model: form.elements.model.value || null };
  const answer = await ask("/decompress", { form: asked, signal });
  return readPicture(await answer.blob(), "the compressed picture");
}

/**
 * Open a compressed picture, of which there is no original here.
 * @param {File} file
 */
async function open(file) {
  const signal = latest.begin();
  latestMap.stop();
  voice.say("Decompressing …");
  const back = await decompressed(file, signal);
  picture = null;
  map.hidden = download.hidden = true;
  forms = [{ name: ".bisq", blob: back.blob, bytes: file.size, bitmap: back.bitmap }];
  showForms();
  voice.say(`${file.name}: ${file.size} bytes, ${back.width} × ${back.height}.`);
}

function showForms() {
  const rows = forms.map(({ name, bytes, bitmap }) => {
    const pixels = bitmap.width * bitmap.height;
    const error = picture && name !== "the picture" ? decibels(picture.bitmap, bitmap) : "–";
    const values = [bytes.toLocaleString("en"), ((8 * bytes) / pixels).toFixed(3), error];
    return make(
      "tr",
      {},
      make("th", { scope: "row", textContent: NAMES[name] ?? name }),
      ...values.map((text) => make("td", { textContent: text })),
    );
  });
  find("#compress-figures").replaceChildren(...rows);
  const kept = Math.max(sides.selectedIndex, 0);
  const pairs =
    forms.length > 1
      ? [
          [0, 1],
          [2, 1],
          [0, 2],
        ]
      : [[0, 0]];
  const options = pairs.map(([left, right]) =>
    make("option", { value: `${left},${right}`, textContent: `${forms[left].name} | ${forms[right].name}` }),
  );
  sides.replaceChildren(...options);
  sides.selectedIndex = Math.min(kept, pairs.length - 1);
  compareAt.hidden = false;
  showSides();
}

function showSides() {
  const [left, right] = sides.value.split(",").map(Number);
  compare.show(forms[left], forms[right], forms[left].bitmap);
}

/** Show where a model's bits go. */
async function showMap() {
  if (!picture) return;
  const signal = latestMap.begin();
  const model = await modelOf(form.elements.map.value);
  if (!model) return;
  const found = await askJson("/likelihood", { form: { picture: picture.blob, model: model.name }, signal });
  const shown = model.size ? await fitted(picture, model.size) : picture;
  signal.throwIfAborted();
  map.hidden = false;
  show(find("canvas", map), shown.bitmap);
  drawHeat(find(".over", map), found.bits, shown, model.patch_size, model.bits);
  const all = Math.round(found.total_bits).toLocaleString("en");
  find("figcaption", map).textContent =
    `Where the bits go: the brighter a token, the more it costs ${model.name}, up to ${model.bits} bits or more. ` +
    `All of them cost ${all} bits.`;
}

/**
 * @param {ImageBitmap} one
 * @param {ImageBitmap} other
 */
function decibels(one, other) {
  const found = psnr(one, other);
  return Number.isFinite(found) ? `${found.toFixed(1)} dB` : "the same";
}
