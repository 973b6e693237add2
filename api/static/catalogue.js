// What the live index has: categories, the listings' attributes, and whether it knows words. Asked for once, and again when another index is live.

import { ask } from "./service.js";

const UNKNOWN = { version: null, categories: [], attributes: [], words: null };
// Attributes whose values are few enough to be listed are counted among the matches; the others are typed.
const LISTED_AT_MOST = 24;
const TITLES = ["title", "titel", "titre", "titolo", "título", "name"];

let known = null;
let asking = null;

/** {version, categories, attributes, words, text_weight}; empty ones where they cannot be had now, as searches do without. */
export function catalogue({ again = false } = {}) {
  if (known && !again) return Promise.resolve(known);
  asking ??= ask("/v1/index").then(
    ({ version, categories = [], attributes = [], words = [], text_weight = null }) => (known = { version, categories, attributes, words, text_weight }),
    (problem) => {
      if (!problem.code) throw problem; // a mistake of ours
      return known ?? UNKNOWN;
    },
  ).finally(() => (asking = null));
  return asking;
}

export const isListed = ({ type, values, n_values: n }) => type === "boolean" || (["keyword", "place"].includes(type) && n <= LISTED_AT_MOST && values.length >= n);

/** What a search asks for beside the photos; counts only where there is something to count besides categories. */
export function asksOf({ attributes }) {
  const facets = attributes.length ? ["category", ...attributes.filter(isListed).map(({ name }) => name)] : [];
  return { include: "*", ...(facets.length && { facets: facets.join(",") }) };
}

/** The attributes that a result shows at once: {title, price, place}; undefined where there is none. */
export function shownAtOnce({ attributes }) {
  const first = (type) => attributes.find((attribute) => attribute.type === type);
  const title = TITLES.map((name) => attributes.find((one) => one.name === name)).find(Boolean) ?? first("text");
  return { title, price: first("price"), place: first("place") };
}
