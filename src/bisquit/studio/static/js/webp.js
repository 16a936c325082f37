/** The browser's own WebP, for comparison: of about as many bytes as a compressed picture has. */

import { blobOf, canvasOf } from "./pictures.js";

const LOOKS = 8;

/**
 * Return the largest WebP of at most so many bytes, by bisection of the quality; the smallest there is if none is.
 * @param {ImageBitmap} bitmap
 * @param {number} bytes
 * @param {AbortSignal} signal
 */
export async function webpOf(bitmap, bytes, signal) {
  const canvas = canvasOf(bitmap, bitmap.width, bitmap.height);
  let best = await blobOf(canvas, "image/webp", 0);
  let [low, high] = [0, 1];
  for (let look = 0; look < LOOKS && best.size < bytes; look++) {
    const quality = (low + high) / 2;
    const blob = await blobOf(canvas, "image/webp", quality);
    signal.throwIfAborted();
    if (blob.size > bytes) high = quality;
    else [low, best] = [quality, blob.size > best.size ? blob : best];
  }
  return best;
}
