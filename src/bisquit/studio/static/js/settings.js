/** The settings of all that is painted: a form's part, what it asks for, and what the chosen model cannot hear. */

import { models } from "./api.js";
import { find, make, showRange, showRanges } from "./dom.js";

/** @typedef {import("./api.js").Model} Model */

const HIGHEST_DICE = 2 ** 32;
const NUMBERS = ["seed", "guidance", "temperature", "top_p", "top_k", "min_p", "steps", "candidates"];
const CHOICES = ["guidance_schedule", "precision"];
const IN_STEPS = ["masked", "flow"];
const DEFAULT_MODEL = "best";

export class Settings {
  /** @type {Model[]} */
  #models = [];

  /**
   * Put the settings into a form.
   * @param {HTMLFormElement} form
   * @param {boolean} isEdit whether pictures are changed, for which candidates are painted
   */
  constructor(form, isEdit) {
    this.form = form;
    this.isEdit = isEdit;
    find("[data-settings]", form).append(find("#settings-template").content.cloneNode(true));
    showRanges(form);
    this.field("model").addEventListener("change", () => this.#adapt());
    this.field("dice").addEventListener("click", () => this.throwDice());
  }

  /** Ask which models there are, and offer those that paint. */
  async load() {
    this.#models = (await models()).filter((model) => model.paints);
    const names = this.#models.map((model) => model.name);
    this.field("model").replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
    this.field("model").value = names.includes(DEFAULT_MODEL) ? DEFAULT_MODEL : names[0];
    this.#adapt();
  }

  /** @returns {Model} */
  get model() {
    return /** @type {Model} */ (this.#models.find((model) => model.name === this.field("model").value));
  }

  throwDice() {
    this.field("seed").value = String(Math.floor(Math.random() * HIGHEST_DICE));
  }

  /**
   * Return what the form asks for, as the interface names it; what the model does not hear is left out.
   * @returns {Record<string, any>}
   */
  read() {
    /** @type {Record<string, any>} */
    const asked = { model: this.field("model").value, keep: this.field("keep").checked };
    for (const name of NUMBERS) if (this.#isHeard(name)) asked[name] = Number(this.field(name).value);
    for (const name of CHOICES) if (this.#isHeard(name)) asked[name] = this.field(name).value;
    for (const name of ["class", "prompt"]) {
      if (this.#isHeard(name) && this.field(name).value) asked[name] = this.field(name).value;
    }
    return asked;
  }

  /**
   * Set the form to what a recipe asks for; models that are not here any more stay as they were.
   * @param {Record<string, any>} asked
   */
  fill(asked) {
    if (this.#models.some((model) => model.name === asked.model)) this.field("model").value = asked.model;
    this.#adapt();
    for (const name of [...NUMBERS, ...CHOICES, "class", "prompt"]) {
      const field = this.field(name);
      if (name in asked) field.value = asked[name] ?? "";
      if (field.type === "range") showRange(field);
    }
  }

  /**
   * @param {string} name
   * @returns {any}
   */
  field(name) {
    return this.form.elements.namedItem(name);
  }

  /** @param {string} name */
  #isHeard(name) {
    return !this.field(name).closest("[data-field]")?.hidden;
  }

  /** Hide what the chosen model cannot do. */
  #adapt() {
    const { classes, reads_words: readsWords, prior } = this.model;
    const options = ["", ...classes].map((name) => make("option", { value: name, textContent: name || "Any" }));
    this.field("class").replaceChildren(...options);
    const isTold = classes.length > 0 || readsWords;
    const isInSteps = IN_STEPS.includes(prior ?? "");
    /** @type {Record<string, boolean>} */
    const heard = {
      class: classes.length > 0,
      prompt: readsWords,
      guidance: isTold,
      guidance_schedule: isTold,
      steps: isInSteps,
      precision: prior !== "pyramid" && !isInSteps,
      candidates: this.isEdit,
      top_k: prior !== "flow",
      top_p: prior !== "flow",
      min_p: prior !== "flow",
    };
    for (const [name, isHeard] of Object.entries(heard)) this.field(name).closest("[data-field]").hidden = !isHeard;
  }
}
