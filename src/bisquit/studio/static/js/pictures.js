/** Pictures as files and as pixels. */

import { Problem } from "./api.js";

/**
 * @typedef {object} Picture
 * @property {string} name
 * @property {Blob} blob a PNG
 * @property {ImageBitmap} bitmap
 * @property {number} width
 * @property {number} height
 */

/**
 * Read a picture. What is no PNG is made one of the very pixels that are shown.
 * @param {Blob} blob
 * @param {string} name
 * @returns {Promise<Picture>}
 */
export async function readPicture(blob, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new Problem(`${name} cannot be read: a JPEG, PNG or WebP picture is wanted`);
  }
  const png =
    blob.type === "image/png" ? blob : await blobOf(canvasOf(bitmap, bitmap.width, bitmap.height), "image/png");
  return { name, blob: png, bitmap, width: bitmap.width, height: bitmap.height };
}

/**
 * Return a picture cropped in its middle and resized to a height and width; itself if it has them.
 * @param {Picture} picture
 * @param {[number, number]} size
 * @returns {Promise<Picture>}
 */
export async function fitted(picture, [height, width]) {
  if (picture.height === height && picture.width === width) return picture;
  const scale = Math.min(picture.width / width, picture.height / height);
  const [cropWidth, cropHeight] = [width * scale, height * scale];
  const canvas = new OffscreenCanvas(width, height);
  const context = contextOf(canvas);
  context.imageSmoothingQuality = "high";
  const [left, top] = [(picture.width - cropWidth) / 2, (picture.height - cropHeight) / 2];
  context.drawImage(picture.bitmap, left, top, cropWidth, cropHeight, 0, 0, width, height);
  return readPicture(await blobOf(canvas, "image/png"), picture.name);
}

/**
 * Return the bytes of a PNG in base64.
 * @param {string} base64
 */
export function pngOf(base64) {
  return new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))], { type: "image/png" });
}

/**
 * Return the peak signal-to-noise ratio of two pictures of one size, in dB; Infinity if they are the same.
 * @param {ImageBitmap} one
 * @param {ImageBitmap} other
 */
export function psnr(one, other) {
  const [a, b] = [pixelsOf(one), pixelsOf(other)];
  let sum = 0;
  for (let i = 0; i < a.length; i++) if (i % 4 !== 3) sum += (a[i] - b[i]) ** 2;
  return 10 * Math.log10(255 ** 2 / (sum / (a.length * 0.75)));
}

/**
 * Return a canvas of its own with a picture on it.
 * @param {CanvasImageSource} image
 * @param {number} width
 * @param {number} height
 */
export function canvasOf(image, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  contextOf(canvas).drawImage(image, 0, 0);
  return canvas;
}

/**
 * Return a canvas's bytes as a browser encodes them. Throws a Problem if it cannot make such files.
 * @param {OffscreenCanvas} canvas
 * @param {string} type
 * @param {number} [quality] 0 to 1
 */
export async function blobOf(canvas, type, quality) {
  const blob = await canvas.convertToBlob({ type, quality });
  if (blob.type !== type) throw new Problem(`this browser makes no ${type}`);
  return blob;
}

/**
 * Show a picture on a canvas that becomes as large as it.
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap} bitmap
 */
export function show(canvas, bitmap) {
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(bitmap, 0, 0);
  shape(canvas.parentElement, bitmap);
}

/**
 * Tell an element the shape of what it shows, so that it is never taller than the view.
 * @param {HTMLElement | null} element
 * @param {{width: number, height: number}} size
 */
export function shape(element, size) {
  element?.style.setProperty("--shape", String(size.width / size.height));
}

/** @type {WeakMap<Element, string>} */
const urls = new WeakMap();

/**
 * Have an element lead to bytes: an image shows them, a link offers them under a name. Those before are let go.
 * @param {any} element
 * @param {Blob} blob
 * @param {string} [name]
 */
export function link(element, blob, name) {
  const before = urls.get(element);
  const url = URL.createObjectURL(blob);
  urls.set(element, url);
  if (element instanceof HTMLImageElement) element.src = url;
  else Object.assign(element, { href: url, download: name ?? "" });
  if (before) URL.revokeObjectURL(before);
}

/** @param {ImageBitmap} bitmap */
function pixelsOf(bitmap) {
  const canvas = canvasOf(bitmap, bitmap.width, bitmap.height);
  return contextOf(canvas).getImageData(0, 0, bitmap.width, bitmap.height).data;
}

/** @param {OffscreenCanvas} canvas */
function contextOf(canvas) {
  const options = { willReadFrequently: true, alpha: false };
  return /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", options));
}
