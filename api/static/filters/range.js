// The control of a range of numbers, prices or times: a slider with two thumbs, and a field for each end.

import { currencySign, label, money, worded } from "../attributes.js";
import { el } from "../dom.js";
import { scaleOf } from "./scale.js";
import { setTerm, termOf } from "./terms.js";

const ENDS = ["gte", "lte"];
const WORDS = { gte: "From", lte: "To" };
const END_OF_DAY = "T23:59:59.999999Z";

const dateOf = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 10);

/** {element, show, count} of a number, price or time. */
export function rangeControl(attribute) {
  const { name, type, currencies = [], quantiles } = attribute;
  const scale = scaleOf(attribute);
  const isTime = type === "time";
  const limits = { gte: quantiles[0], lte: quantiles.at(-1) };
  const currency = currencies.length > 1 ? el("select", { ariaLabel: `Currency of ${label(name)}` }, currencies.map((code) => el("option", {}, code))) : null;
  const thumbs = {};
  const fields = {};
  for (const end of ENDS) {
    const outermost = end === "gte" ? 0 : scale.last;
    const title = `${label(name)}, ${end === "gte" ? "lowest" : "highest"}`;
    thumbs[end] = el("input", { type: "range", min: 0, max: scale.last, value: outermost, ariaLabel: title });
    fields[end] = el("input", isTime ? { type: "date", min: dateOf(limits.gte), max: dateOf(limits.lte) }
      : { type: "number", step: "any", inputMode: "decimal", placeholder: String(Number(limits[end].toPrecision(12))) });
    thumbs[end].addEventListener("input", () => slide(end));
    fields[end].addEventListener("change", choose);
  }
  currency?.addEventListener("change", choose);
  const track = el("div.thumbs", {}, ENDS.map((end) => thumbs[end]));
  const signs = currencies.length === 1 ? el("span.fine", {}, ` in ${currencySign(currencies[0])}`) : null;
  const element = el("fieldset.range", {},
    el("legend", {}, label(name), signs),
    track,
    el("div.ends", {}, ENDS.map((end) => el("label", {}, WORDS[end], fields[end])), currency));

  /** A thumb was moved: one may reach the other, and not pass it. */
  function slide(end) {
    const [low, high] = [Number(thumbs.gte.value), Number(thumbs.lte.value)];
    if (low > high) thumbs[end].value = end === "gte" ? high : low;
    const position = Number(thumbs[end].value);
    const isFree = position === (end === "gte" ? 0 : scale.last);
    fields[end].value = isFree ? "" : isTime ? dateOf(scale.valueAt(position)) : scale.valueAt(position);
    choose();
  }

  /** The fields say what is chosen. */
  function choose() {
    const [gte, lte] = ENDS.map((end) => (fields[end].value === "" ? null : isTime ? fields[end].value : Number(fields[end].value)));
    const term = {};
    if (gte !== null) term.gte = gte;
    if (lte !== null) term.lte = isTime ? lte + END_OF_DAY : lte;
    const code = currency?.value ?? null;
    setTerm(name, gte === null && lte === null ? null : { ...term, ...(code && { currency: code }) });
    show();
  }

  /** Be as the term says. */
  function show() {
    const term = termOf(name) ?? {};
    if (currency && currencies.includes(term.currency)) currency.value = term.currency;
    for (const end of ENDS) {
      const bound = isTime && typeof term[end] === "string" ? term[end].slice(0, 10) : term[end];
      const value = isTime ? Date.parse(bound) / 1000 : Number(bound ?? NaN);
      const isFree = !Number.isFinite(value);
      const text = isFree ? "" : String(bound);
      if (fields[end].value !== text) fields[end].value = text; // it may be being typed
      // A thumb that is where it was put stays: several positions may have one value.
      const at = isFree ? (end === "gte" ? 0 : scale.last) : scale.positionOf(value);
      if (isFree || scale.valueAt(Number(thumbs[end].value)) !== value) thumbs[end].value = at;
      thumbs[end].ariaValueText = isFree ? "any" : inWords(value);
      track.style.setProperty(end === "gte" ? "--low" : "--high", Number(thumbs[end].value) / scale.last);
    }
  }

  function inWords(value) {
    if (type === "price") return money(value, currency?.value ?? currencies[0]);
    return worded(type, isTime ? dateOf(value) : value);
  }

  return { element, show, count: () => {} };
}
