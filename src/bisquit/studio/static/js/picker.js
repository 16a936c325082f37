/** Where a picture comes from: a file, a drop, the gallery, or what was painted last. */

import { ask } from "./api.js";
import { find } from "./dom.js";
import { lastPainted } from "./desk.js";
import { readPicture } from "./pictures.js";
import { named } from "./recipes.js";
import { item, page } from "./shelf.js";

/** @typedef {import("./pictures.js").Picture} Picture */

export class Picker {
  /** @type {Picture | null} */
  picture = null;

  /**
   * Fill an element with the ways to choose a picture.
   * @param {HTMLElement} place
   * @param {import("./dom.js").Voice} voice
   * @param {(picture: Picture) => void} onPicture
   */
  constructor(place, voice, onPicture) {
    this.onPicture = onPicture;
    place.setAttribute("role", "group");
    place.append(find("#picker-template").content.cloneNode(true));
    this.name = find("[data-name]", place);
    const read = (/** @type {File | undefined} */ file) =>
      voice.watch(async () => {
        if (file) this.take(await readPicture(file, file.name));
      });
    const input = find("input", place);
    input.addEventListener("change", () => {
      read(input.files[0]);
      input.value = ""; // so that the same file can be chosen again
    });
    find("[data-do=gallery]", place).addEventListener("click", () =>
      voice.watch(async () => {
        const picture = await chooseFromGallery();
        if (picture) this.take(picture);
      }),
    );
    find("[data-do=last]", place).addEventListener("click", () => {
      const last = lastPainted();
      if (last) this.take(last);
      else voice.say("Nothing has been painted yet.");
    });
    dropInto(find(".drop", place), read);
  }

  /** @param {Picture} picture */
  take(picture) {
    this.picture = picture;
    this.name.textContent = `${picture.name}, ${picture.width} × ${picture.height}`;
    this.onPicture(picture);
  }
}

/**
 * @param {HTMLElement} place
 * @param {(file: File | undefined) => void} onFile
 */
function dropInto(place, onFile) {
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    place.classList.add("over");
  });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    onFile(event.dataTransfer?.files[0]);
  });
}

/**
 * Have a picture of the gallery chosen.
 * @returns {Promise<Picture | null>} null if none was
 */
async function chooseFromGallery() {
  const dialog = find("#chooser");
  const shelf = find("#chooser-shelf");
  const older = find("#chooser-older");
  shelf.replaceChildren();
  /** @type {import("./api.js").Kept | null} */
  let chosen = null;
  /** @type {string | null} */
  let next = null;
  const more = async () => {
    const found = await page(next);
    const choose = (/** @type {import("./api.js").Kept} */ kept) => {
      chosen = kept;
      dialog.close();
    };
    shelf.append(...found.pictures.map((kept) => item(kept, choose)));
    if (!found.total) shelf.append("The gallery is empty: paint something.");
    next = found.next;
    older.hidden = !next;
  };
  await more();
  const problem = find("#chooser-problem");
  problem.hidden = true;
  older.onclick = () =>
    more().catch((error) => {
      problem.textContent = error.message;
      problem.hidden = false;
    });
  find("#chooser-close").onclick = () => dialog.close();
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return chosen && fromGallery(chosen);
}

/**
 * Return a picture of the gallery.
 * @param {import("./api.js").Kept} kept
 */
export async function fromGallery(kept) {
  const answer = await ask(`/gallery/${kept.id}/picture`);
  return readPicture(await answer.blob(), named(kept.recipe));
}
