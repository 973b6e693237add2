// The search's options: what the forms say, and what an address says of them.

import { $ } from "./dom.js";
import { filterText, readFilter } from "./filters/terms.js";

const DEFAULTS = { k: "12", category: "", distinct: "", min_score: "0", prefer: "" };

const field = (name) => $("#options form").elements[name] ?? $("#filters form").elements[name];

export function optionsChosen() {
  const [k, category, distinct, min_score, prefer] = Object.keys(DEFAULTS).map(field);
  return {
    k: k.value, category: category.value, distinct: distinct.checked ? "listing" : "", min_score: min_score.value, prefer: prefer.value, filter: filterText(),
  };
}

/** Set the forms as an address says; what it does not say, or says wrongly, is as at the start. */
export function chooseOptions(asked) {
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const set = field(name);
    const given = asked.get(name) ?? usual;
    if (set.type === "checkbox") set.checked = given === "listing";
    else for (const value of [usual, given]) set.value = value; // radio buttons ignore a value that none of them has
    if (set.selectedIndex === -1) set.value = usual;
  }
  readFilter(asked.get("filter"));
  tellOptions();
}

/** Write the sliders' values beside them. */
export function tellOptions() {
  const { k, min_score } = optionsChosen();
  $("output[for=k]").textContent = k;
  $("output[for=min_score]").textContent = Number(min_score) ? Number(min_score).toFixed(2) : "any";
}

/** The address of a search from a photo of the index, or of this device's without `imageId`, and by words, with the options chosen. */
export function hashOf({ imageId, text, text_weight }) {
  const told = new URLSearchParams();
  for (const [name, value] of Object.entries({ image: imageId, text, text_weight: text && text_weight })) if (value) told.set(name, value);
  for (const [name, value] of Object.entries(optionsChosen())) if (value !== (DEFAULTS[name] ?? "")) told.set(name, value);
  return String(told) ? `#/search?${told}` : "#/search";
}

/** The options as the API takes them in JSON. */
export function optionsSent({ k, category, distinct, min_score, prefer, filter }) {
  const sent = { k: Number(k) };
  if (category) sent.category = category;
  if (distinct) sent.distinct = distinct;
  if (Number(min_score)) sent.min_score = Number(min_score);
  if (prefer) sent.prefer = prefer;
  if (filter) sent.filter = JSON.parse(filter);
  return sent;
}
