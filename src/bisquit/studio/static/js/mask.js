/** What is to be painted anew: covered by a brush or by rectangles, in the picture's own pixels. */

import { blobOf, canvasOf } from "./pictures.js";

const COVER = "#e0452f";
/** Alpha from which a pixel at a stroke's edge is covered. */
const COVERED = 128;

export class Mask {
  /** @type {[number, number] | null} */
  #last = null;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => {isErasing: boolean, size_px: number}} brush asked at each stroke
   */
  constructor(canvas, brush) {
    this.canvas = canvas;
    this.brush = brush;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#last = null;
      this.#stroke(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) this.#stroke(event);
    });
  }

  /**
   * Uncover all of a picture of this size.
   * @param {{width: number, height: number}} size
   */
  clear({ width, height }) {
    Object.assign(this.canvas, { width, height });
  }

  /**
   * Cover a rectangle.
   * @param {number} left
   * @param {number} top
   * @param {number} width
   * @param {number} height
   */
  rectangle(left, top, width, height) {
    const context = this.#context("source-over");
    context.fillRect(left, top, width, height);
  }

  /** Whether nothing is covered. */
  get isEmpty() {
    return !this.#pixels().data.some((value, i) => i % 4 === 3 && value >= COVERED);
  }

  /** Return a PNG, white where it is covered and black elsewhere. */
  async png() {
    const pixels = this.#pixels();
    for (let i = 0; i < pixels.data.length; i += 4) {
      pixels.data.fill(pixels.data[i + 3] >= COVERED ? 255 : 0, i, i + 3);
      pixels.data[i + 3] = 255;
    }
    const bitmap = await createImageBitmap(pixels);
    return blobOf(canvasOf(bitmap, pixels.width, pixels.height), "image/png");
  }

  /** @param {PointerEvent} event */
  #stroke(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    /** @type {[number, number]} */
    const at = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const { isErasing, size_px: size } = this.brush();
    const context = this.#context(isErasing ? "destination-out" : "source-over");
    context.lineWidth = size;
    context.beginPath();
    context.moveTo(...(this.#last ?? at));
    context.lineTo(...at);
    context.stroke();
    this.#last = at;
  }

  /** @param {GlobalCompositeOperation} operation */
  #context(operation) {
    const context = /** @type {CanvasRenderingContext2D} */ (
      this.canvas.getContext("2d", { willReadFrequently: true })
    );
    const both = { globalCompositeOperation: operation, fillStyle: COVER, strokeStyle: COVER };
    return Object.assign(context, both, { lineCap: "round", lineJoin: "round" });
  }

  #pixels() {
    return this.#context("source-over").getImageData(0, 0, this.canvas.width, this.canvas.height);
  }
}
