/** Pictures of the gallery, a page at a time. */

import { askJson, pictureUrl } from "./api.js";
import { make } from "./dom.js";
import { named } from "./recipes.js";

/** @typedef {import("./api.js").Kept} Kept */

const ON_A_PAGE = 24;

/**
 * Return a page of the gallery, the latest picture first.
 * @param {string | null} before where the page before ended; null for the first one
 * @returns {Promise<{pictures: Kept[], next: string | null, total: number}>}
 */
export function page(before) {
  return askJson(`/gallery?${new URLSearchParams({ limit: String(ON_A_PAGE), ...(before && { before }) })}`);
}

/**
 * Return an item of a shelf: a button with the picture and what it is.
 * @param {Kept} kept
 * @param {(kept: Kept) => void} onChoose
 */
export function item(kept, onChoose) {
  const picture = make("img", { className: "pixels", src: pictureUrl(kept.id), alt: "", loading: "lazy" });
  const button = make("button", { type: "button" }, picture, make("span", {}, named(kept.recipe)));
  button.addEventListener("click", () => onChoose(kept));
  return make("li", {}, button);
}
