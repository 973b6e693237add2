// The search's options: what the form says, and what an address says of them.

import { $ } from "./dom.js";

const DEFAULTS = { k: "12", category: "", distinct: "", min_score: "0" };

const fields = () => $("#options form").elements;

export function optionsChosen() {
  const { k, category, distinct, min_score } = fields();
  return { k: k.value, category: category.value, distinct: distinct.checked ? "listing" : "", min_score: min_score.value };
}

/** Set the form as an address says; what it does not say, or says wrongly, is as at the start. */
export function chooseOptions(asked) {
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const field = fields()[name];
    const given = asked.get(name) ?? usual;
    if (field.type === "checkbox") field.checked = given === "listing";
    else field.value = given;
    if (field.selectedIndex === -1) field.value = usual;
  }
  tellOptions();
}

/** Write the sliders' values beside them. */
export function tellOptions() {
  const { k, min_score } = optionsChosen();
  $("output[for=k]").textContent = k;
  $("output[for=min_score]").textContent = Number(min_score) ? Number(min_score).toFixed(2) : "any";
}

/** The address of a search from a photo of the index, or of this device's without `imageId`, by the options chosen. */
export function hashOf(imageId) {
  const told = new URLSearchParams(imageId ? { image: imageId } : {});
  for (const [name, value] of Object.entries(optionsChosen())) if (value !== DEFAULTS[name]) told.set(name, value);
  return String(told) ? `#/search?${told}` : "#/search";
}

/** The options as the API takes them. */
export function optionsSent({ k, category, distinct, min_score }) {
  const sent = { k: Number(k) };
  if (category) sent.category = category;
  if (distinct) sent.distinct = distinct;
  if (Number(min_score)) sent.min_score = Number(min_score);
  return sent;
}
