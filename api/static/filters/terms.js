// The filter in force: what is chosen of each attribute, and the same in the JSON form of the API.

const isObject = (given) => typeof given === "object" && given !== null && !Array.isArray(given);

let chosen = new Map(); // by attribute: {any: [value, …]}, or {gte, lte, currency} of which some are there
let others = {}; // what else an address asks for; it is sent, though no control shows it

/** What is chosen of an attribute; null: nothing. */
export const termOf = (name) => chosen.get(name) ?? null;

/** Choose something of an attribute; null: nothing. */
export function setTerm(name, term) {
  if (term) chosen.set(name, term);
  else chosen.delete(name);
}

/** Take what an address says; what is no JSON object says nothing. */
export function readFilter(text) {
  chosen = new Map();
  others = {};
  let given = null;
  try {
    given = JSON.parse(text || "{}");
  } catch {
    return;
  }
  if (!isObject(given)) return;
  const { must = [], ...rest } = given;
  const unread = [];
  for (const condition of [must].flat()) {
    const term = isObject(condition) ? termIn(condition) : null;
    if (term && !chosen.has(condition.key)) chosen.set(condition.key, term);
    else unread.push(condition);
  }
  others = unread.length ? { must: unread, ...rest } : rest;
}

/** The term that a condition is, in the form in which `filterText` writes it; else null. */
function termIn({ key, match, range, ...rest }) {
  if (typeof key !== "string" || Object.keys(rest).length || Boolean(match) === Boolean(range)) return null;
  const parts = match ?? range;
  const only = (...names) => isObject(parts) && Object.keys(parts).every((name) => names.includes(name));
  if (match) return only("any") && Array.isArray(parts.any) && parts.any.length ? { any: parts.any } : null;
  return only("gte", "lte", "currency") ? { ...parts } : null;
}

/** The filter as JSON; empty: there is none. */
export function filterText() {
  const terms = [...chosen].map(([key, term]) => ({ key, [term.any ? "match" : "range"]: term }));
  const filter = { ...others };
  if (terms.length || others.must) filter.must = [...terms, ...(others.must ?? [])];
  return Object.keys(filter).length ? JSON.stringify(filter) : "";
}

/** The attributes of which something is chosen, and how many other conditions there are. */
export function inForce() {
  const { must = [], ...rest } = others;
  return { names: [...chosen.keys()], nOthers: must.length + Object.keys(rest).length };
}
