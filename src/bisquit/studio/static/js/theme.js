// Sets the colours before anything is drawn; no module, for those wait until the page has been read.
(() => {
  let kept = null;
  try {
    kept = localStorage.getItem("theme");
  } catch {
    // storage may be forbidden: then it is as the system has it
  }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
