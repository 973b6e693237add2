// The duplicates part: have duplicates looked for, see groups side by side, say which are none.

import { $, button, el, fill, press, say } from "./dom.js";
import { note, noteProblem } from "./messages.js";
import { hashOf } from "./options.js";
import { tellFailure, tellProgress } from "./progress.js";
import { ask, ended, follow, showPhoto, submit } from "./service.js";
import { ago, count, shortVersion } from "./words.js";

const LABELS = { same_bytes: ["Same file", ".bad"], same_picture: ["Same picture", ".warn"], same_thing: ["Same thing?", ".busy"] };
const SHOWN = 12; // photos of a group, beside one another
const DECIDED = 50; // photos of a group, that one verdict may be on
const ABOUT = { doing: "Looking for duplicates", name: "the search for duplicates" };
let watched = null; // the id of the job that is followed
let told = null; // the id of the job whose groups are shown
let next = null;
let showing = new AbortController();

export function start() {
  $("#find").addEventListener("submit", (event) => {
    event.preventDefault();
    press(event.submitter, find);
  });
  $("#more-groups").addEventListener("click", (event) => press(event.currentTarget, more));
}

export async function enter() {
  offerVersions();
  if (watched) return;
  try {
    const { jobs } = await ask("/v1/jobs?kind=duplicates&limit=1");
    if (!jobs.length || watched || jobs[0].id === told) return;
    watch(jobs[0]);
  } catch (problem) {
    noteProblem($("#duplicates-message"), problem);
  }
}

export const refresh = () => enter();

/** The versions that a search may be confined to what is newer than. */
async function offerVersions() {
  const { versions } = await ask("/v1/index/versions").catch(() => ({ versions: [] }));
  const chosen = $("#since").value;
  const older = versions.filter(({ live, problem }) => !live && !problem);
  fill($("#since"), el("option", { value: "" }, "the whole index"), older.map(({ version, built_at: built }) => el("option", { value: version }, `what is newer than version ${shortVersion(version)}, ${ago(built)}`)));
  $("#since").value = chosen;
  if ($("#since").selectedIndex < 0) $("#since").value = "";
}

async function find() {
  const since = $("#since").value;
  try {
    watch(await submit("/v1/jobs/duplicates", { json: since ? { since } : {} }));
  } catch (problem) {
    noteProblem($("#duplicates-message"), problem);
  }
}

async function watch(job) {
  if (watched === job.id) return;
  watched = job.id;
  const place = $("#duplicates-message");
  try {
    if (ended(job)) job = await ask(job.links.self); // lists have no results
    for await (job of follow(job)) {
      if (watched !== job.id) return;
      if (!ended(job)) tellProgress(place, job, ABOUT);
    }
    tellEnd(place, job);
  } catch (problem) {
    noteProblem(place, problem, [button("Look again", enter)]);
  } finally {
    if (watched === job.id) watched = null;
  }
}

function tellEnd(place, job) {
  delete place.dataset.job;
  if (job.status !== "succeeded") {
    tellFailure(place, job, ABOUT);
    return;
  }
  const { groups, n_groups: n, n_photos: photos, n_refuted: refuted, n_unreadable: unreadable, since, next_cursor: cursor } = job.result;
  const asides = [since && `Only what is newer than version ${shortVersion(since)}.`, refuted && `${count(refuted, "pair")} left out, because somebody said so.`,
    unreadable && `The files of ${count(unreadable, "photo")} could not be read.`];
  note(place, { title: n ? `${count(n, "group")} of duplicates` : "No duplicates", text: `${count(photos, "photo")} compared. ${asides.filter(Boolean).join(" ")}`, todo: `Ended ${ago(job.finished_at)}.`, tone: n ? "" : "good" });
  say($("strong", place).textContent);
  showing.abort();
  showing = new AbortController();
  told = job.id;
  $("#groups").replaceChildren(...groups.map(shown));
  offerMore(cursor);
}

function offerMore(cursor) {
  next = cursor;
  $("#more-groups").hidden = !next;
}

async function more() {
  try {
    const page = await ask(`/v1/jobs/${told}/duplicates?cursor=${next}`);
    $("#groups").append(...page.groups.map(shown));
    offerMore(page.next_cursor);
  } catch (problem) {
    noteProblem($("#duplicates-message"), problem);
  }
}

function shown(group) {
  const { label, n_images: n, images } = group;
  const [word, tone] = LABELS[label] ?? [label, ""];
  const rest = n - Math.min(n, SHOWN);
  const item = el("li.card", {},
    el("header.beside", {},
      el("h2", {}, el(`span.badge${tone}`, {}, word), ` ${count(n, "photo")} of ${count(new Set(images.map((image) => image.listing_id)).size, "listing")}${n > images.length ? " and more" : ""}`),
      button("Not a duplicate", () => refute(item, group), { ariaLabel: `Not a duplicate: ${images[0].image_id} and the others` })),
    el("ol.grid", {}, images.slice(0, SHOWN).map(photo), rest ? el("li.nothing", {}, `and ${count(rest, "photo")} more`) : null),
    el("p.fine", {}, evidence(group)));
  return item;
}

function photo({ image_id: imageId, listing_id: listingId }) {
  const img = el("img", { alt: "", width: 320, height: 320 });
  showPhoto(img, imageId, 320, showing.signal);
  return el("li.result", {},
    el("a", { href: hashOf({ imageId }), title: "Search from this photo" },
      el("span.photo", {}, img),
      el("span.words", {}, el("strong", {}, `Listing ${listingId}`), el("span.id", {}, imageId))));
}

/** What the least sure pair of a group rests on. */
function evidence({ pairs }) {
  const { score, correlation = null, hash_distance: bits = null, mirrored, verdict } = pairs.at(-1);
  const said = [`similarity ${score.toFixed(2)}`, correlation !== null && `pictures agree to ${correlation.toFixed(2)}`, bits !== null && `hashes differ in ${bits} of 128 bits`, mirrored && "mirrored", verdict && "confirmed by somebody"];
  return `At least: ${said.filter(Boolean).join(", ")}.`;
}

async function refute(item, { images }) {
  const imageIds = images.slice(0, DECIDED).map((image) => image.image_id);
  const decide = (verdict) => ask("/v1/duplicates/verdicts", { method: "POST", json: { image_ids: imageIds, verdict } });
  try {
    await decide("not_duplicate");
  } catch (problem) {
    noteProblem($("#duplicates-message"), problem);
    return;
  }
  const undo = button("Undo", async () => {
    try {
      await decide(null);
      took.replaceWith(item);
      $("button", item).focus();
    } catch (problem) {
      noteProblem($("#duplicates-message"), problem);
    }
  });
  const took = el("li.card", {}, el("header.beside", {}, el("p", {}, "Remembered: these are no duplicates."), undo));
  item.replaceWith(took);
  undo.focus();
  say("Remembered: these are no duplicates.");
}
