/** The newest tokens as bars: how many bits each took, which is how little the model expected it. */

import { colour } from "./heat.js";

/** The studio rounds chances to six digits. */
const LEAST = 1e-6;
/** Bars that fit. */
export const SHOWN = 60;

/**
 * Draw the chances of tokens, the newest at the right, and say them in words.
 * @param {HTMLCanvasElement} canvas
 * @param {(number | null)[]} chances
 * @param {number} most bits a token has
 */
export function drawChances(canvas, chances, most) {
  const known = /** @type {number[]} */ (chances.filter((chance) => chance !== null))
    .slice(-SHOWN)
    .map((chance) => Math.max(chance, LEAST));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.clearRect(0, 0, canvas.width, canvas.height);
  const width = canvas.width / SHOWN;
  known.forEach((chance, i) => {
    const share = Math.min(-Math.log2(chance) / most, 1);
    const height = Math.max(share * canvas.height, 2);
    context.fillStyle = colour(share, 1);
    context.fillRect(i * width, canvas.height - height, width - 1, height);
  });
  canvas.setAttribute("aria-label", chances.length ? inWords(known) : "No tokens yet");
}

/** @param {number[]} chances */
function inWords(chances) {
  if (!chances.length) return "No chances: this model cannot say them";
  const bits = chances.reduce((sum, chance) => sum - Math.log2(chance), 0) / chances.length;
  return `The newest ${chances.length} tokens took ${bits.toFixed(1)} bits each`;
}
