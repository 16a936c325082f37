/** Server-sent events out of a response to any method; a browser's EventSource knows GET alone. */

/**
 * Yield a response's events, their data read as JSON. WHATWG HTML, section 9.2.6, without ids and retries.
 * @param {Response} response
 * @returns {AsyncGenerator<{name: string, data: any}>}
 */
export async function* events(response) {
  let name = "message";
  /** @type {string[]} */
  let data = [];
  for await (const line of lines(response)) {
    if (line === "") {
      if (data.length) yield { name, data: JSON.parse(data.join("\n")) };
      name = "message";
      data = [];
      continue;
    }
    const [, field, value] = /** @type {RegExpExecArray} */ (/^([^:]*)(?:: ?(.*))?$/s.exec(line));
    if (field === "event") name = value ?? "";
    if (field === "data") data.push(value ?? "");
  }
}

/**
 * Yield a response's lines, however it comes in pieces; what the last line break leaves is none.
 * @param {Response} response
 */
async function* lines(response) {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r\n|\n|\r(?!$)/); // the \n of a last \r may be still to come
      rest = /** @type {string} */ (parts.pop());
      yield* parts;
    }
  } finally {
    await reader.cancel().catch(() => {}); // whoever stops reading lets the studio know
  }
}
