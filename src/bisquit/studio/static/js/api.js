/** The studio's interface over HTTP: see docs/studio.md. */

const PREFIX = "/api/v1";

/** What was refused, in one line. */
export class Problem extends Error {}

/**
 * @typedef {object} Model
 * @property {string} name
 * @property {boolean} paints
 * @property {string | null} prior
 * @property {string[]} classes
 * @property {boolean} reads_words
 * @property {[number, number] | null} size height and width
 * @property {[number, number] | null} grid rows and columns
 * @property {number} bits
 * @property {number} patch_size
 *
 * @typedef {object} Recipe
 * @property {string} kind
 * @property {Record<string, any>} asked
 * @property {number} number
 *
 * @typedef {object} Kept
 * @property {string} id
 * @property {number} created
 * @property {number} height
 * @property {number} width
 * @property {Recipe} recipe
 *
 * @typedef {object} Painted
 * @property {string} png in base64
 * @property {Recipe} recipe
 * @property {string | null} id
 * @property {number[][] | null} tokens
 */

/**
 * Ask the studio. Throws a Problem if it refuses or is not there, AbortError if it was stopped.
 * @param {string} path below /api/v1
 * @param {{method?: string, json?: unknown, form?: Record<string, any>, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>}
 */
export async function ask(path, { method, json, form, signal } = {}) {
  /** @type {RequestInit} */
  const request = { method: method ?? (json || form ? "POST" : "GET"), signal };
  if (json) {
    request.body = JSON.stringify(json);
    request.headers = { "Content-Type": "application/json" };
  } else if (form) {
    request.body = formOf(form);
  }
  let response;
  try {
    response = await fetch(PREFIX + path, request);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("the studio does not answer: is it still running?");
  }
  if (!response.ok) throw new Problem(await reasonOf(response));
  return response;
}

/**
 * Ask the studio, and return the JSON that it answers.
 * @param {string} path
 * @param {Parameters<typeof ask>[1]} [options]
 * @returns {Promise<any>}
 */
export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

/** @type {Promise<Model[]> | null} */
let known = null;

/**
 * Return the models, which are asked for once.
 * @returns {Promise<Model[]>}
 */
export function models() {
  known ??= askJson("/models").then((answer) => answer.models);
  known.catch(() => (known = null)); // the next one asks again
  return known;
}

/** @param {string} id */
export const pictureUrl = (id) => `${PREFIX}/gallery/${encodeURIComponent(id)}/picture`;

/**
 * @param {string} name
 * @param {string} tag
 */
export const runPictureUrl = (name, tag) => `${PREFIX}/runs/picture?${new URLSearchParams({ name, tag })}`;

/** @param {Record<string, any>} fields */
function formOf(fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value instanceof Blob)
      form.append(name, value, `${name}.png`); // the first name is nobody's business
    else if (value !== null && value !== undefined) form.append(name, String(value));
  }
  return form;
}

/** @param {Response} response */
async function reasonOf(response) {
  const answer = await response.json().catch(() => null);
  return typeof answer?.error === "string" ? answer.error : `the studio answered ${response.status}`;
}
