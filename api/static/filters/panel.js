// The filter panel: the category picker, and a control for each attribute that can be filtered by.

import { label } from "../attributes.js";
import { isListed } from "../catalogue.js";
import { $, button, el, fill } from "../dom.js";
import { count } from "../words.js";
import { countsOf, fieldControl, tickControl } from "./choices.js";
import { rangeControl } from "./range.js";
import { inForce, readFilter } from "./terms.js";

const OPEN_AT_MOST = 6; // controls; further ones are behind "More filters"
const NAMED_BY_FACETS = 50; // values, at most: others may have listings too

let controls = new Map();
let built = "";

/** Have a control for each of these attributes that has one; controls that are there already stay. */
export function buildPanel({ categories, attributes }) {
  const told = JSON.stringify([categories, attributes]);
  if (told === built) return;
  built = told;
  if (categories.length) offerCategories(categories);
  controls = new Map(attributes.map((attribute) => [attribute.name, controlOf(attribute)]).filter(([, control]) => control));
  // People look for a price first; everything else is in the catalogue's order.
  const isPrice = ({ name }) => attributes.find((one) => one.name === name).type === "price";
  const made = [...controls].map(([name, { element }]) => ({ name, element }));
  const ordered = [...made.filter(isPrice), ...made.filter((one) => !isPrice(one))].map(({ element }) => element);
  const further = ordered.slice(OPEN_AT_MOST);
  fill($("#attributes"), ordered.slice(0, OPEN_AT_MOST),
    further.length ? el("details", {}, el("summary", {}, `More filters (${further.length})`), further) : null);
  showTerms();
  showCounts(null);
}

function controlOf(attribute) {
  const { type, quantiles, values } = attribute;
  if (["price", "number", "time"].includes(type)) return quantiles.length > 1 && quantiles[0] < quantiles.at(-1) ? rangeControl(attribute) : null;
  if (!["keyword", "place", "boolean"].includes(type) || !values.length) return null; // of a text nothing can be asked
  return isListed(attribute) ? tickControl(attribute) : fieldControl(attribute);
}

/** The categories of the model that serves now: another one may have others than the page came with. */
function offerCategories(categories) {
  const picker = $("#within");
  const offered = [...picker.options].slice(1).map((option) => option.value);
  if (JSON.stringify(offered) === JSON.stringify(categories)) return;
  const before = picker.value;
  picker.replaceChildren(picker.options[0], ...categories.map((name) => el("option", {}, name)));
  picker.value = categories.includes(before) ? before : "";
}

/** Be as the filter says, and tell how much of it there is. */
export function showTerms() {
  for (const { show } of controls.values()) show();
  const names = namesInForce();
  const told = count(names.length, "filter");
  $("#n-filters").textContent = names.length || "";
  $("#n-filters").hidden = !names.length;
  $("#in-force").hidden = !names.length;
  $("#in-force span").textContent = `${told} in force: ${names.join(", ")}`;
}

/** What is filtered by, for people. */
export function namesInForce() {
  const { names, nOthers } = inForce();
  return [...($("#within").value ? ["Category"] : []), ...names.map(label), ...Array(nOthers).fill("another condition")];
}

/** Show how many listings each value has among the matches of a search; without facets, in the index. */
export function showCounts(facets) {
  for (const [name, control] of controls) control.count(facets?.[name] ?? null);
  const picker = $("#within");
  const facet = facets?.category;
  const counted = facet ? countsOf(facet, picker.value ? (name) => name === picker.value : null) : () => null;
  for (const option of [...picker.options].slice(1)) {
    const n = counted(option.value);
    const isUnknown = n === null || (n === 0 && facet.values.length >= NAMED_BY_FACETS);
    if (isUnknown) option.removeAttribute("label");
    else option.label = `${option.value} (${n.toLocaleString("en-GB")})`;
  }
}

/** Call `clear` when all filters are to go. */
export function startPanel(clear) {
  $("#in-force").append(button("Clear filters", () => {
    readFilter("");
    $("#within").value = "";
    $("#results-title").focus(); // the button goes
    clear();
  }));
}
