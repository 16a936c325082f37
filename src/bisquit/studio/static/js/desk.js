/** What one view hands to another: pictures, and the settings of one. */

/** @typedef {import("./pictures.js").Picture} Picture */

/** @type {Map<string, any>} */
const waiting = new Map();
/** @type {Map<string, (thing: any) => void>} */
const takers = new Map();
/** @type {Picture | null} */
let last = null;

/**
 * Hand something to a view, and go there.
 * @param {string} view
 * @param {any} thing
 */
export function hand(view, thing) {
  const take = takers.get(view);
  if (take) take(thing);
  else waiting.set(view, thing);
  location.hash = `#/${view}`;
}

/**
 * Take what is handed to a view, now and later.
 * @param {string} view
 * @param {(thing: any) => void} take
 */
export function onHanded(view, take) {
  takers.set(view, take);
  if (waiting.has(view)) take(waiting.get(view));
  waiting.delete(view);
}

/** @param {Picture} picture */
export function setLast(picture) {
  last = picture;
}

/** Return the picture that was painted last; null if there is none yet. */
export const lastPainted = () => last;
