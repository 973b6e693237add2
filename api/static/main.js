// The page's frame: which part is shown, whether the service is ready, the key.

import { $, el, repeat, say } from "./dom.js";
import * as duplicatesPart from "./duplicates.js";
import * as indexPart from "./index.js";
import * as jobsPart from "./jobs.js";
import { askKey } from "./messages.js";
import * as searchPart from "./search.js";
import { askForKeysWith, key, readiness } from "./service.js";
import { unready } from "./words.js";

const PARTS = { search: searchPart, index: indexPart, duplicates: duplicatesPart, jobs: jobsPart };
let shown = null;

function route() {
  if (location.hash && !location.hash.startsWith("#/")) return; // the skip link's
  const [name, query] = partsOf(location.hash);
  const part = name in PARTS ? name : "search";
  for (const other of Object.keys(PARTS)) $("#" + other).hidden = other !== part;
  for (const link of document.querySelectorAll(".bar nav a"))
    if (partsOf(link.hash)[0] === part) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  document.title = `${$(`.bar nav a[aria-current]`).textContent} · Lookalike`;
  const arrived = shown !== null && shown !== part;
  shown = part;
  PARTS[part].enter(new URLSearchParams(query), history.state);
  if (arrived) $("#" + part + " h1").focus();
}

/** Name and query of `#/name?query`, which is no element's id, so that browsers do not scroll. */
function partsOf(hash) {
  const [name, query = ""] = hash.slice(2).split("?");
  return [name, query];
}

let wasReady = null;

async function look() {
  let [word, tone, problems] = ["Unreachable", "bad", ["The service does not answer. Check your connection, and whether it is running."]];
  try {
    const told = await readiness();
    const ready = told.status === "ready";
    [word, tone, problems] = ready ? ["Ready", "good", []] : ["Not ready", "bad", (told.problems ?? []).map(unready)];
  } catch {
    // said above
  }
  const chip = $("#health");
  if (chip.textContent !== word) chip.textContent = word;
  chip.className = `chip ${tone}`;
  const banner = $("#banner");
  const text = problems.join("\n");
  if (banner.dataset.said !== text) {
    banner.dataset.said = text;
    banner.replaceChildren(...problems.map((problem) => el("p", {}, problem)));
  }
  if (wasReady === false && tone === "good") say("The service is ready.");
  wasReady = tone === "good";
}

askForKeysWith(askKey);
$("#key").hidden = !key.get();
$("#key").addEventListener("click", () => askKey(null, true));
document.addEventListener("key-changed", () => PARTS[shown].refresh());
$(".bar nav a").addEventListener("click", (event) => {
  // Back to the search as it was, also when its photo came from this device and is in no address.
  event.preventDefault();
  if (shown === "search") return;
  searchPart.restore();
  route();
});
window.addEventListener("popstate", route);
searchPart.start();
indexPart.start();
duplicatesPart.start();
jobsPart.start();
route();
const lookNow = repeat(look, 5000, () => true);
window.addEventListener("online", lookNow);
window.addEventListener("offline", lookNow);
lookNow();
