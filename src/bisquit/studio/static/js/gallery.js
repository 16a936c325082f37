/** The gallery: pictures that were kept, a page at a time; one is opened, painted again, sent on or deleted. */

import { ask } from "./api.js";
import { hand, onHanded } from "./desk.js";
import { Voice, find, make } from "./dom.js";
import { fromGallery } from "./picker.js";
import { link, shape } from "./pictures.js";
import { copy, facts, fileName, named } from "./recipes.js";
import { item, page } from "./shelf.js";

/** @typedef {import("./api.js").Kept} Kept */

const shelf = find("#gallery-shelf");
const newer = find("#gallery-newer");
const older = find("#gallery-older");
const dialog = find("#gallery-open");
const image = find("#gallery-picture");
const deletion = find("[data-do=delete]", dialog);

const voice = new Voice("gallery");
const inDialog = new Voice("gallery-open");
/** Where the pages before this one ended, null for the first; the last is this page's. @type {(string | null)[]} */
const ends = [null];
/** @type {string | null} */
let next = null;
/** @type {Kept | null} */
let kept = null;

/** Begin the view, when it is first shown. */
export function start() {
  onHanded("gallery", () => {});
  newer.addEventListener("click", () => {
    ends.pop();
    shown();
  });
  older.addEventListener("click", () => {
    ends.push(next);
    shown();
  });
  dialog.addEventListener("click", (/** @type {any} */ event) => {
    const what = event.target.dataset.do;
    if (what && what !== "download" && kept) inDialog.watch(() => act(what, /** @type {Kept} */ (kept)));
  });
}

/** Read the page anew, each time that the view is shown. */
export function shown() {
  voice.watch(async () => {
    const found = await page(ends.at(-1) ?? null);
    shelf.replaceChildren(...found.pictures.map((one) => item(one, open)));
    next = found.next;
    newer.disabled = ends.length === 1;
    older.disabled = !next;
    voice.say(
      found.total
        ? `${found.total.toLocaleString("en")} pictures, page ${ends.length}.`
        : "Nothing is kept yet: paint something.",
    );
  });
}

/** @param {Kept} one */
function open(one) {
  kept = one;
  inDialog.say("");
  deletion.textContent = "Delete";
  image.alt = named(one.recipe);
  find("#gallery-open-title").textContent = named(one.recipe);
  const known = [
    ["kept", new Date(1000 * one.created).toLocaleString()],
    ["size", `${one.width} × ${one.height}`],
    ...facts(one.recipe),
  ];
  find("#gallery-facts").replaceChildren(
    ...known.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]),
  );
  shape(image.parentElement, one);
  dialog.showModal();
  inDialog.watch(async () => {
    const { blob } = await fromGallery(one);
    link(image, blob);
    link(find("[data-do=download]", dialog), blob, fileName(one.recipe, "png"));
  });
}

/**
 * @param {string} what
 * @param {Kept} one
 */
async function act(what, one) {
  switch (what) {
    case "close":
      return dialog.close();
    case "again":
      return again(one);
    case "recipe":
      return inDialog.say(await copy(one.recipe));
    case "delete":
      return remove(one);
    case "settings":
      dialog.close();
      return hand("paint", one.recipe.asked);
    default: {
      const picture = await fromGallery(one);
      dialog.close();
      return hand(what, picture);
    }
  }
}

/** @param {Kept} one */
async function again(one) {
  inDialog.say("Painting it again …");
  const answer = await ask(`/gallery/${one.id}/again`, { method: "POST" });
  const isSame = answer.headers.get("Bisquit-Same") === "true";
  link(image, await answer.blob());
  inDialog.say(
    isSame ? "Painted again: the same, byte for byte." : "Painted again, and not the same: this is the new one.",
  );
}

/**
 * Delete a picture, once it was asked for twice.
 * @param {Kept} one
 */
async function remove(one) {
  if (deletion.textContent === "Delete") {
    deletion.textContent = "Delete for good";
    return inDialog.say("A deleted picture does not come back. Press again to delete it.");
  }
  await ask(`/gallery/${one.id}`, { method: "DELETE" });
  dialog.close();
  if (shelf.childElementCount === 1 && ends.length > 1) ends.pop(); // it was alone on its page
  shown();
}
