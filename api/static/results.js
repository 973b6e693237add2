// What a search found: the category and the listings.

import { label, worded } from "./attributes.js";
import { shownAtOnce } from "./catalogue.js";
import { $, button, el, fill, say } from "./dom.js";
import { categoryChoice, rightButton, tellClick } from "./feedback.js";
import { show } from "./messages.js";
import { hashOf } from "./options.js";
import { showPhoto } from "./service.js";
import { count, duration, percent, shortVersion } from "./words.js";

const SKELETONS = 8;
const PARTS = { photo: "Photo", words: "Words" };

/** The page before any search. */
export function showNothing() {
  $("#search").dataset.state = "fresh";
  $("#category").hidden = true;
  $("#grid").replaceChildren();
  $("#told").textContent = "";
}

/** A search is under way; what was found before stays, paler. */
export function showWaiting() {
  const grid = $("#grid");
  const first = $("#search").dataset.state === "fresh" || !grid.children.length;
  const message = $("#search-message");
  // Whoever came by a card, or by a button to try again, finds it gone: what comes next begins at the heading.
  const focused = [grid, message].some((place) => place.contains(document.activeElement));
  message.replaceChildren();
  $("#search").dataset.state = "busy";
  grid.setAttribute("aria-busy", "true");
  if (first) grid.replaceChildren(...Array.from({ length: SKELETONS }, () => el("li.result.skeleton", { ariaHidden: "true" })));
  if (focused) $("#results-title").focus();
}

/** Nothing came of it. */
export function dim() {
  $("#search").dataset.state = "done";
  $("#category").hidden = true;
  $("#grid").replaceChildren();
  $("#grid").removeAttribute("aria-busy");
  $("#told").textContent = "";
}

export function showAnswer(job, given, signal) {
  const { category, neighbours, match, index_version: version, timing_ms: timing } = job.result;
  $("#search").dataset.state = "done";
  showCategory(category, categoryChoice(job, given.has.categories));
  const found = count(neighbours.length, "photo");
  const took = timing ? ` in ${duration(timing.total / 1000)}` : "";
  $("#told").textContent = `${sayMatch(match, given)}${found}${sayQuery(given)}${took}, from index ${shortVersion(version)}`;
  $("#told").title = `${version}${timing ? `; waited ${duration(timing.queued / 1000)}, computed ${duration(timing.compute / 1000)}` : ""}`;
  const grid = $("#grid");
  grid.removeAttribute("aria-busy");
  grid.replaceChildren(...neighbours.map((neighbour) => card(job, neighbour, given, signal)));
  if (!neighbours.length) grid.append(el("li.nothing", {}, whyNothing(given)));
  const narrowed = given.filters.length ? ` ${count(given.filters.length, "filter")} in force.` : "";
  say(`${sayCategory(category)} ${sayMatch(match, given)}${found} found${sayQuery(given)}.${narrowed}`);
}

/** Whether the very same thing is there, where that is certain; of a photo of the index, in another listing. */
function sayMatch(match, { imageId }) {
  if (!match?.certain) return "";
  if (imageId) return match.probability >= 0.5 ? "Another listing has this one. " : "No other listing has this one. ";
  return match.probability >= 0.5 ? "We have this one. " : "Nothing like it is here. ";
}

/** What it was found for, where that is not simply a photo. */
function sayQuery({ box, text, imageId, files }) {
  const photo = box ? "part of the photo" : "";
  if (!text) return photo && ` for ${photo}`;
  return imageId || files.length ? ` for ${photo || "the photo"} and the words` : " for the words";
}

function whyNothing({ category, min_score, filter }) {
  if (filter) return `No photo meets ${Number(min_score) ? "the filters and is that similar" : "the filters"}. Choose fewer, or clear them.`;
  if (Number(min_score) && category) return `No photo of ${category} is that similar. Lower the least similarity, or look in every category.`;
  if (Number(min_score)) return "No photo is that similar. Lower the least similarity.";
  if (category) return `The index has no photo of ${category}.`;
  return "The index is empty. Put photos into it, or start a reindex under Index.";
}

function sayCategory({ certain, name, probability, certain_path: part }) {
  if (certain) return `${name}, ${percent(probability)}.`;
  return part ? `${part.name}, ${percent(part.probability)}; perhaps ${name}.` : `Not sure; perhaps ${name}.`;
}

function showCategory(category, choice) {
  const { certain, name, top, certain_path: part, parts = [] } = category;
  const place = $("#category");
  place.hidden = false;
  fill(place,
    el("p.fine", {}, "Category"),
    el("h2", {}, certain ? name : part ? part.name : "Not sure"),
    certain ? null : el("p.fine", {}, part
      ? `Sure of this much, ${percent(part.probability)}. The likeliest categories are:`
      : "None is probable enough to rely on. The likeliest are:"),
    el("ul.bars", {}, top.map((one) => {
      const bar = el("li", {}, el("span", {}, one.name), el("span.figure", {}, percent(one.probability)));
      bar.style.setProperty("--share", one.probability);
      return bar;
    })),
    parts.length ? el("ul.parts.fine", { ariaLabel: "What photo and words each say" }, parts.map(partOf)) : null,
    choice,
  );
}

/** What the photo or the words say of the category, and how much of the answer is owed to them. */
function partOf({ part, name, probability, share }) {
  return el("li", {},
    el("span", {}, `${PARTS[part] ?? part}: `, el("strong", {}, name), ", ", el("span.figure", {}, percent(probability))),
    el("span.figure", { title: "How much of the answer is owed to it" }, `counts ${percent(share)}`));
}

function card(job, neighbour, { imageId: from, has, text }, signal) {
  const { rank, image_id: imageId, listing_id: listingId, category, score, attributes = {} } = neighbour;
  const itself = imageId === from;
  const img = el("img", { alt: "", width: 320, height: 320 });
  const { title, price, place } = shownAtOnce(has);
  const valueOf = (attribute) => (attribute?.name in attributes ? worded(attribute.type, attributes[attribute.name]) : null);
  const [headline, cost, where] = [title, price, place].map(valueOf);
  const beneath = [where, headline ? category : `Listing ${listingId}`].filter(Boolean);
  const details = () => {
    tellClick(job, imageId);
    showDetails(neighbour, headline, has);
  };
  const made = el("li.result", {},
    el("a", { href: hashOf({ imageId }), title: "Search from this photo" },
      el("span.photo", {}, img, el("span.score", { title: text ? "Similarity" : "Cosine similarity" }, score.toFixed(2)), itself ? el("span.itself", {}, "this photo") : null),
      el("span.words", {},
        el("strong", {}, headline ?? category),
        cost ? el("span.price", {}, el("span.unseen", {}, ", "), cost) : null,
        el("span.unseen", {}, `, rank ${rank}, similarity ${score.toFixed(2)}; search from this photo. `),
        beneath.map((line) => el("span.id", { title: `Listing ${listingId}, photo ${imageId}` }, line)))),
    el("span.actions", {},
      Object.keys(attributes).length ? button("Details", details, { ariaLabel: `Details of ${headline ?? `listing ${listingId}`}` }) : null,
      itself ? null : rightButton(job, imageId, `${headline ?? `listing ${listingId}`}, rank ${rank}`)));
  made.querySelector("a").addEventListener("click", () => tellClick(job, imageId));
  made.style.setProperty("--rank", Math.min(rank, 16));
  made.style.setProperty("--share", Math.max(0, score));
  showPhoto(img, imageId, 320, signal);
  return made;
}

/** Everything that is known of a listing, in the catalogue's order, below its title; texts as they are. */
function showDetails({ listing_id: listingId, image_id: imageId, category, attributes }, headline, has) {
  const { title } = shownAtOnce(has);
  const facts = has.attributes.filter(({ name }) => name in attributes && name !== title?.name).map(({ name, type }) => [label(name), worded(type, attributes[name])]);
  const told = [...facts, ["Category", category], ["Listing", listingId], ["Photo", imageId]];
  show(headline ?? `Listing ${listingId}`, el("dl.facts.details", {}, told.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}
