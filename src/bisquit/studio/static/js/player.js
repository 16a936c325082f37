/** A picture as it is painted: patch after patch, as tokens come, and rewound afterwards. */

import { movesLittle } from "./dom.js";
import { colour } from "./heat.js";

/** Tokens that are tinted while they are new. */
const NEWEST = 12;
/** The higher, the more slowly what has come is shown. */
const SLOWNESS = 30;

/**
 * A token in the order of painting; of a prior that paints all at once, better each time, a whole picture.
 * @typedef {object} Step
 * @property {number} frame which of the pictures so far shows it first
 * @property {number | null} row null for a whole picture
 * @property {number | null} column
 * @property {number | null} chance that the model gave it
 */

export class Player {
  /** @type {Step[]} */
  steps = [];
  position = 0;
  isTinted = false;
  /** @type {ImageBitmap[]} */
  #frames = [];
  /** @type {number[][] | null} */
  #tokens = null;
  #patch = 1;
  #bits = 1;
  #isMoving = false;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLCanvasElement} over for tints
   * @param {() => void} onMove called when another position is shown
   */
  constructor(canvas, over, onMove) {
    this.canvas = canvas;
    this.over = over;
    this.onMove = onMove;
  }

  /**
   * Begin another picture.
   * @param {{size: [number, number] | null, patch_size: number, bits: number}} model
   */
  begin(model) {
    this.#frames.forEach((frame) => frame.close());
    this.steps = [];
    this.position = 0;
    this.#frames = [];
    this.#tokens = null;
    this.#patch = model.patch_size;
    this.#bits = model.bits;
    const [height, width] = model.size ?? [100, 150];
    for (const canvas of [this.canvas, this.over]) Object.assign(canvas, { width, height });
    this.onMove();
  }

  /**
   * Take a picture so far.
   * @param {ImageBitmap} bitmap
   * @param {number[][]} tokens -1 where none is yet
   * @param {(number | null)[][] | null} chances
   */
  add(bitmap, tokens, chances) {
    const frame = this.#frames.push(bitmap) - 1;
    const before = this.#tokens;
    const count = this.steps.length;
    tokens.forEach((line, row) =>
      line.forEach((token, column) => {
        if (token < 0 || (before && before[row][column] >= 0)) return;
        this.steps.push({ frame, row, column, chance: chances?.[row][column] ?? null });
      }),
    );
    if (count === this.steps.length) this.steps.push({ frame, row: null, column: null, chance: null });
    this.#tokens = tokens;
    if (movesLittle()) this.seek(this.steps.length);
    else this.#play();
  }

  /**
   * Show the picture after so many steps.
   * @param {number} position
   */
  seek(position) {
    this.position = Math.min(Math.max(position, 0), this.steps.length);
    this.#draw();
    this.onMove();
  }

  #play() {
    if (this.#isMoving) return;
    this.#isMoving = true;
    const move = () => {
      const left = this.steps.length - this.position;
      this.#isMoving = left > 0;
      if (!this.#isMoving) return;
      this.seek(this.position + Math.ceil(left / SLOWNESS));
      requestAnimationFrame(move);
    };
    requestAnimationFrame(move);
  }

  #draw() {
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    context.fillStyle = "#808080";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const shown = this.steps.slice(0, this.position);
    const last = shown.at(-1);
    if (last) {
      const isWhole = last.row === null || this.steps[this.position]?.frame !== last.frame;
      const under = this.#frames[isWhole ? last.frame : last.frame - 1];
      if (under) context.drawImage(under, 0, 0);
      const p = this.#patch;
      for (const step of isWhole ? [] : shown.filter((one) => one.frame === last.frame)) {
        const [x, y] = [Number(step.column) * p, Number(step.row) * p];
        context.drawImage(this.#frames[step.frame], x, y, p, p, x, y, p, p);
      }
    }
    this.#tint(shown);
  }

  /** @param {Step[]} shown */
  #tint(shown) {
    const context = /** @type {CanvasRenderingContext2D} */ (this.over.getContext("2d"));
    context.clearRect(0, 0, this.over.width, this.over.height);
    const isDone = this.position === this.steps.length && !this.#isMoving;
    const tinted = this.isTinted ? shown : isDone ? [] : shown.slice(-NEWEST);
    for (const step of tinted.filter((one) => one.chance !== null && one.row !== null)) {
      context.fillStyle = colour(-Math.log2(Number(step.chance)) / this.#bits);
      context.fillRect(Number(step.column) * this.#patch, Number(step.row) * this.#patch, this.#patch, this.#patch);
    }
  }
}
