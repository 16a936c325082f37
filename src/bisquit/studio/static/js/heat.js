/** Bits as colours: little is dark and thin, much is bright and thick. */

const STOPS = [
  [74, 62, 156],
  [128, 36, 122],
  [228, 88, 78],
  [252, 232, 150],
];

/**
 * Return the colour of a share of the most bits there are.
 * @param {number} share 0 to 1
 * @param {number} [alpha]
 */
export function colour(share, alpha = 0.25 + 0.55 * Math.min(share, 1)) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const i = Math.min(Math.floor(at), STOPS.length - 2);
  const [r, g, b] = STOPS[i].map((from, j) => Math.round(from + (at - i) * (STOPS[i + 1][j] - from)));
  return `rgb(${r} ${g} ${b} / ${alpha})`;
}

/**
 * Lay each patch's bits over a picture as a colour.
 * @param {HTMLCanvasElement} canvas which becomes as large as the picture
 * @param {number[][]} bits
 * @param {{width: number, height: number}} size the picture's
 * @param {number} patch pixels on a side
 * @param {number} most bits that are shown brightest
 */
export function drawHeat(canvas, bits, size, patch, most) {
  canvas.width = size.width;
  canvas.height = size.height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  bits.forEach((row, i) =>
    row.forEach((value, j) => {
      context.fillStyle = colour(value / most);
      context.fillRect(j * patch, i * patch, patch, patch);
    }),
  );
}
