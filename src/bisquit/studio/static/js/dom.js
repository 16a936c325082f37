/** The page's elements: found, made, and told what goes on. Text is only ever set as text. */

/**
 * Return the element that a selector finds; that it is there is the page's business.
 * @param {string} selector
 * @param {ParentNode} [within]
 * @returns {any}
 */
export function find(selector, within = document) {
  const found = within.querySelector(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return found;
}

/**
 * Make an element with properties, and children that are elements or text.
 * @param {string} tag
 * @param {Record<string, any>} [properties] those with a hyphen, and role, are set as attributes
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, properties = {}, ...children) {
  /** @type {any} */
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Where a view says what goes on, and what went wrong. */
export class Voice {
  /** @param {string} name the view's: its elements are NAME-status and NAME-problem */
  constructor(name) {
    this.status = find(`#${name}-status`);
    this.problem = find(`#${name}-problem`);
  }

  /** @param {string} text */
  say(text) {
    this.problem.hidden = true;
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  /**
   * Do something that may fail: its error is shown in one line, and what was stopped on purpose is none.
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T | undefined>}
   */
  async watch(work) {
    try {
      return await work();
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return undefined;
      this.status.textContent = "";
      this.problem.textContent = error instanceof Error ? error.message : String(error);
      this.problem.hidden = false;
      return undefined;
    }
  }
}

/**
 * Have every range of a form show its value in the output beside it.
 * @param {HTMLElement} form
 */
export function showRanges(form) {
  for (const input of form.querySelectorAll("label > output ~ input[type=range]")) {
    /** @type {HTMLInputElement} */ (input).addEventListener("input", () => showRange(input));
    showRange(input);
  }
}

/** @param {any} input */
export function showRange(input) {
  find("output", input.parentElement).textContent = input.value;
}

/**
 * Return a function that calls another once it has not been called for a while.
 * @param {() => void} work
 * @param {number} rest_ms
 */
export function debounced(work, rest_ms) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, rest_ms);
  };
}

/** One thing at a time: whatever begins stops what went before. */
export class Latest {
  #controller = new AbortController();

  /** @returns {AbortSignal} */
  begin() {
    this.stop();
    this.#controller = new AbortController();
    return this.#controller.signal;
  }

  stop() {
    this.#controller.abort();
  }
}

export const movesLittle = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
