/** The studio's page: one view at a time, by the part of the address behind #/. */

import * as compress from "./compress.js";
import { find } from "./dom.js";
import * as edit from "./edit.js";
import * as gallery from "./gallery.js";
import * as paint from "./paint.js";
import * as runs from "./runs.js";
import * as tokens from "./tokens.js";

/** @typedef {{start: () => void, shown?: () => void, hidden?: () => void}} View */

/** @type {Record<string, View>} */
const VIEWS = { paint, edit, compress, tokens, gallery, runs };
const FIRST = "paint";

/** @type {Set<string>} */
const started = new Set();
/** @type {string | null} */
let current = null;

function go() {
  const asked = location.hash.slice(2);
  const name = Object.hasOwn(VIEWS, asked) ? asked : FIRST;
  if (name === current) return;
  if (current) VIEWS[current].hidden?.();
  const isFirst = current === null;
  current = name;
  for (const section of document.querySelectorAll("main > section"))
    section.toggleAttribute("hidden", section.id !== name);
  for (const anchor of document.querySelectorAll("nav a[href^='#/']")) {
    if (anchor.getAttribute("href") === `#/${name}`) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  document.title = `${find(`#${name} h1`).textContent} – bisquit studio`;
  if (!started.has(name)) VIEWS[name].start();
  started.add(name);
  VIEWS[name].shown?.();
  if (!isFirst) find("#main").focus();
}

/** Have the colours chosen, and the choice kept. */
function chooseColours() {
  const root = document.documentElement;
  const theme = find("#theme");
  theme.value = root.dataset.theme ?? "system";
  theme.addEventListener("change", () => {
    if (theme.value === "system") delete root.dataset.theme;
    else root.dataset.theme = theme.value;
    try {
      localStorage.setItem("theme", theme.value);
    } catch {
      // storage may be forbidden: then the choice holds for this visit
    }
  });
}

// a picture that is dropped beside its place would replace the page
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
addEventListener("hashchange", go);
chooseColours();
go();
