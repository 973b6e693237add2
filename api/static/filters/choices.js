// The controls of an attribute that has one of some values: a list to tick where they are few, a field where they are many.

import { label, worded } from "../attributes.js";
import { el } from "../dom.js";
import { setTerm, termOf } from "./terms.js";

const FIRST = 6; // values that are seen at once

const chosenOf = (name) => termOf(name)?.any ?? [];

function choose(name, values) {
  setTerm(name, values.length ? { any: values } : null);
}

/** How many more, or of those chosen how many, listings have each value; null: that is not known. */
export function countsOf(facet, isChosen) {
  const counts = new Map(facet.values.map(({ value, count }) => [value, count]));
  // What is not chosen of this attribute is no match now, and would be one if it were chosen.
  return (value) => (isChosen && !isChosen(value) ? null : counts.get(value) ?? 0);
}

/** {element, show, count} of a keyword, place or boolean with few values: ticks, the most frequent first. */
export function tickControl({ name, type, values }) {
  const boxes = new Map();
  const list = el("div.ticks");
  const more = el("button.quiet.small", { type: "button" }, `${values.length - FIRST} more`);
  let all = values.length <= FIRST + 1; // one more takes no more room than the button
  more.hidden = all;
  more.addEventListener("click", () => {
    all = more.hidden = true;
    show();
    [...boxes.values()][FIRST].box.focus();
  });
  for (const { value } of values) add(value);

  function add(value) {
    const box = el("input", { type: "checkbox" });
    const figure = el("span.figure");
    const tick = el("label.tick", {}, box, el("span", {}, worded(type, value)), figure);
    box.addEventListener("change", () => {
      const kept = chosenOf(name).filter((one) => one !== value);
      choose(name, box.checked ? [...kept, value] : kept);
    });
    boxes.set(value, { box, figure, tick });
    list.append(tick);
  }

  function show() {
    const chosen = chosenOf(name);
    for (const value of chosen) if (!boxes.has(value)) add(value);
    [...boxes].forEach(([value, { box, tick }], position) => {
      box.checked = chosen.includes(value);
      tick.hidden = !all && position >= FIRST && !box.checked;
    });
  }

  /** Counts among the matches of a search; without a facet those of the index. */
  function count(facet) {
    const chosen = chosenOf(name);
    const counted = countsOf(facet ?? { values }, facet && chosen.length ? (value) => chosen.includes(value) : null);
    for (const [value, { figure, tick }] of boxes) {
      const n = counted(value);
      figure.textContent = n === null ? "" : n.toLocaleString("en-GB");
      tick.classList.toggle("none", n === 0);
    }
  }

  return { element: el("fieldset", {}, el("legend", {}, label(name)), list, more), show, count };
}

/** {element, show, count} of a keyword or place with many values: a field, and what was entered so far. */
export function fieldControl({ name, type, values }) {
  const id = `values-of-${name}`;
  const field = el("input", { type: "text", list: id, autocomplete: "off", ariaLabel: `Add to ${label(name)}`, placeholder: type === "place" ? "A place, or a part of its name" : "A value" });
  const entered = el("ul.chips");
  field.addEventListener("change", () => {
    const text = field.value.trim().replace(/\s+/g, " ");
    field.value = "";
    const known = values.find(({ value }) => value.toLowerCase() === text.toLowerCase())?.value ?? text;
    if (known && !chosenOf(name).includes(known)) choose(name, [...chosenOf(name), known]);
    show();
  });

  function show() {
    entered.replaceChildren(...chosenOf(name).map((value) => {
      const chip = el("button.quiet.small", { type: "button", ariaLabel: `Remove ${value}` }, String(value), el("span", { ariaHidden: "true" }, " ×"));
      chip.addEventListener("click", () => {
        choose(name, chosenOf(name).filter((one) => one !== value));
        show();
        field.focus();
        entered.dispatchEvent(new Event("change", { bubbles: true }));
      });
      return el("li", {}, chip);
    }));
  }

  const element = el("fieldset", {}, el("legend", {}, label(name)), entered, field, el("datalist", { id }, values.map(({ value }) => el("option", { value }))));
  return { element, show, count: () => {} };
}
