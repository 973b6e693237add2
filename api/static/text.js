// The words of a search: the bar they are typed into, and how much they count beside a photo.

import { $ } from "./dom.js";
import { percent } from "./words.js";

let usual = 0.5; // what words count by default, once the index has said it
let chosen = ""; // what was chosen instead

const field = () => $("#text");
const slider = () => $("#text_weight");

/** `search()` is called for what the bar says, `again()` when only the weight has changed. */
export function startText({ search, again }) {
  const form = $("#by-words");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  field().addEventListener("keydown", (event) => {
    // While a word is being composed, Enter ends that; with Shift it begins a line.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    search();
  });
  slider().addEventListener("input", () => {
    chosen = Number(slider().value) === usual ? "" : slider().value;
    tell();
  });
  slider().addEventListener("change", again);
}

/** {text, text_weight} as the bar says; without a weight the words count as they do by default. */
export const textChosen = () => ({ text: field().value.trim(), text_weight: chosen });

/** Be as an address says; what it says wrongly of the weight is as at the start. */
export function showText(asked, hasPhoto) {
  const [text, weight] = [asked.get("text") ?? "", Number(asked.get("text_weight") ?? NaN)];
  if (field().value.trim() !== text.trim()) field().value = text;
  chosen = weight >= 0 && weight <= 1 ? String(weight) : "";
  $("#balance").hidden = !(text.trim() && hasPhoto);
  tell();
}

/** Have the bar where the model knows words, or where some were asked for; `words` is null while that is not known. */
export function offerText({ words, text_weight }) {
  usual = text_weight ?? usual;
  if (words) $("#by-words").hidden = !words.length && !field().value;
  tell();
}

function tell() {
  const weight = chosen === "" ? usual : Number(chosen);
  slider().value = weight;
  slider().ariaValueText = $("output[for=text_weight]").textContent = percent(weight) + (chosen === "" ? " (default)" : "");
}
