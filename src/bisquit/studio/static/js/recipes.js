/** Recipes, said and copied: what paints a picture again. */

/** @typedef {import("./api.js").Recipe} Recipe */

/** @type {Record<string, string>} */
const KINDS = { sample: "painted", inpaint: "filled", extend: "extended", vary: "varied", blend: "blended" };
const NEUTRAL = { temperature: 1, top_k: 0, top_p: 1, min_p: 0, guidance: 1, steps: 0, precision: "float32" };

/**
 * Return a recipe's picture in a few words.
 * @param {Recipe} recipe
 */
export function named(recipe) {
  const { asked, kind, number } = recipe;
  const told = asked.class ?? asked.prompt;
  const which = number ? `, number ${number}` : "";
  return `${KINDS[kind]} by ${asked.model}, seed ${asked.seed}${which}${told ? `: ${told}` : ""}`;
}

/**
 * Return what a recipe asks for that is not as ever, as names and values.
 * @param {Recipe} recipe
 * @returns {[string, string][]}
 */
export function facts(recipe) {
  const usual = { ...NEUTRAL, guidance_schedule: "constant" };
  return Object.entries(recipe.asked)
    .filter(([name, value]) => value !== null && /** @type {any} */ (usual)[name] !== value)
    .map(([name, value]) => [name.replaceAll("_", " "), String(value)]);
}

/**
 * Copy a recipe as JSON. Returns what to say of it.
 * @param {Recipe} recipe
 */
export async function copy(recipe) {
  await navigator.clipboard.writeText(JSON.stringify(recipe, null, 2));
  return "The recipe is copied.";
}

/**
 * Return a name for a picture's file.
 * @param {Recipe} recipe
 * @param {string} ending
 */
export function fileName({ kind, asked, number }, ending) {
  return `${[kind === "sample" ? "picture" : kind, asked.model, asked.seed, number].join("-")}.${ending}`;
}
