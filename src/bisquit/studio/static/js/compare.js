/** Two pictures of one size, one over the other: a slider says where one ends and the other begins. */

import { make } from "./dom.js";
import { link, shape } from "./pictures.js";

/** @typedef {{name: string, blob: Blob}} Side */

export class Compare {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.left = make("img", { className: "pixels", alt: "", draggable: false });
    this.right = make("img", { className: "pixels", alt: "", draggable: false });
    this.place = place;
    this.both = make("div", { className: "compare" }, this.left, this.right);
    this.text = make("span");
    this.range = make("input", { type: "range", min: "0", max: "100", value: "50", step: "1" });
    place.replaceChildren(this.both, make("label", {}, this.text, this.range));
    this.range.addEventListener("input", () => this.#split());
    for (const kind of ["pointerdown", "pointermove"]) {
      this.both.addEventListener(kind, (/** @type {PointerEvent} */ event) => {
        if (!event.buttons) return;
        const box = this.both.getBoundingClientRect();
        this.range.value = String((100 * (event.clientX - box.left)) / box.width);
        this.#split();
      });
    }
  }

  /**
   * Show two pictures.
   * @param {Side} left
   * @param {Side} right
   * @param {{width: number, height: number}} size
   */
  show(left, right, size) {
    shape(this.place, size);
    link(this.left, left.blob);
    link(this.right, right.blob);
    this.left.alt = left.name;
    this.right.alt = right.name;
    this.text.textContent = `Left ${left.name}, right ${right.name}`;
    this.#split();
  }

  #split() {
    this.both.style.setProperty("--split", `${this.range.value}%`);
  }
}
