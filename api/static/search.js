// The search part: photos or words come in, their search goes out, and is shown as it goes.

import { showBox, startBox } from "./box.js";
import { asksOf, catalogue } from "./catalogue.js";
import { $, button, say, sleep } from "./dom.js";
import { takeDrops } from "./dropped.js";
import { buildPanel, namesInForce, showCounts, showTerms, startPanel } from "./filters/panel.js";
import { note, noteProblem } from "./messages.js";
import { chooseOptions, hashOf, optionsChosen, optionsSent, tellOptions } from "./options.js";
import { dim, showAnswer, showNothing, showWaiting } from "./results.js";
import { showPreview } from "./preview.js";
import { Problem, call, ended, failureOf, follow, submit } from "./service.js";
import { offerText, showText, startText, textChosen } from "./text.js";
import { count, duration, size } from "./words.js";

const WAIT_S = 2;
const LATE_MS = 3000; // without any answer, before that is said
const FORM_BYTES = 4096; // what a form adds to its photo
const PHOTOS_KEPT = 60;

const photos = new Map(); // photos of this device by number; the history remembers the number
let photosSeen = Date.now(); // the history outlives the page, and its numbers are to name no photo of a later one
let query = null; // {imageId, shown, box, text, text_weight}: a photo of the index; or numbers of photos of this device, or a part of one; words
let current = ""; // what is shown, as a text, so that coming back to it sends nothing
let address = { hash: "#/search", state: null };
let refusal = null; // what was said last of something that is not searched from
let run = null;

export function start() {
  const upload = (input) => () => {
    const files = [...input.files];
    if (files.length) take(files, input.id === "more" ? query.shown : []);
    input.value = ""; // the same photo may be chosen again
  };
  for (const input of [$("#file"), $("#camera"), $("#more")]) input.addEventListener("change", upload(input));
  $("#clear").addEventListener("click", () => go({}, { text: "" }));
  const again = () => go(query ?? {}, { replace: true });
  for (const panel of [$("#filters"), $("#options")]) {
    const form = $("form", panel);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", tellOptions);
    form.addEventListener("change", again);
    // Beside the results there is room for it, above them there is none.
    panel.open = matchMedia("(min-width: 60rem)").matches;
  }
  startPanel(again);
  startText({ search: () => go(query ?? {}, { replace: textChosen().text === (query?.text ?? "") }), again });
  // The first box is a step that one can go back from; to move it is none.
  startBox((box) => query?.shown.length && go({ ...query, box }, { replace: Boolean(query.box && box) }), proposeParts);
  takeWhatIsDropped();
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (event.target === $("#text") && event.clipboardData?.types.includes("text/plain")) return; // some programs copy text as a picture, too
    if (files.length && !$("#search").hidden && !$("dialog[open]")) {
      event.preventDefault();
      take(files);
    }
  });
}

function takeWhatIsDropped() {
  takeDrops({
    wanted: () => !$("#search").hidden && !$("dialog[open]"),
    over: (is) => $("#drop").classList.toggle("over", is),
    take: async (dropped) => {
      const before = (address = { ...address });
      const isOutdated = () => address !== before || $("#search").hidden; // a picture of another tab takes its time
      try {
        const { files, imageId } = await dropped;
        if (isOutdated()) return;
        if (imageId) go({ imageId });
        else take(files);
      } catch (problem) {
        if (!isOutdated()) refuse(problem);
      }
    },
  });
}

/** Say why something is not searched from; the answer of a search that still runs leaves that to be read. */
function refuse(problem) {
  noteProblem($("#search-message"), problem);
  refusal = $("#search-message").firstChild;
}

/** Search from files of this device, together with those that are `shown` already. */
function take(files, shown = []) {
  const { maxUploadBytes, maxQueryPhotos } = document.documentElement.dataset;
  const sent = [...shown.map((photo) => photos.get(photo)), ...files];
  const bytes = sent.reduce((sum, file) => sum + file.size, 0);
  const empty = files.find((file) => !file.size);
  const other = files.find((file) => file.type && !file.type.startsWith("image/"));
  const they = sent.length > 1 ? "Together they have" : "It has";
  let refused = null;
  if (bytes > maxUploadBytes - FORM_BYTES) refused = { code: "upload_too_large", detail: `${they} ${size(bytes)}, and at most ${size(Number(maxUploadBytes))} are taken.` };
  else if (sent.length > maxQueryPhotos) refused = { code: "too_many_photos", detail: `There are ${sent.length}, and at most ${maxQueryPhotos} are searched together.` };
  else if (empty) refused = { code: "photo_undecodable", detail: sent.length > 1 ? `The file ${empty.name} is empty.` : "The file is empty." };
  else if (other) refused = { code: "unsupported_format", detail: `The file ${other.name} is not a photo.` };
  if (refused) {
    refuse(refused);
    return;
  }
  go({ shown: [...shown, ...files.map(keep)] });
}

/** Remember a file of this device; returns its number. */
function keep(file) {
  const photo = (photosSeen += 1);
  photos.set(photo, file);
  photos.delete(photo - PHOTOS_KEPT);
  return photo;
}

/** Search without the i-th of several photos. */
function remove(i) {
  go({ shown: query.shown.toSpliced(i, 1) });
  ($("#together button") ?? $("#more")).focus();
}

/** Go to a search from photos, by the words in the bar unless `text` says others: make it an address, and show it. */
function go({ shown = [], imageId, box }, { replace = false, text = textChosen().text } = {}) {
  const hash = hashOf({ imageId, text, text_weight: textChosen().text_weight });
  history[replace ? "replaceState" : "pushState"](shown.length ? { shown, box } : null, "", hash);
  enter(new URLSearchParams(hash.split("?")[1] ?? ""), history.state);
}

/** Make the search that is shown the page's address again. */
export function restore() {
  history.pushState(address.state, "", address.hash);
}

/** Show the search of this address. */
export function enter(asked, state) {
  address = { hash: location.hash || "#/search", state };
  chooseOptions(asked);
  showTerms();
  const imageId = asked.get("image");
  const wanted = imageId ? [] : (state?.shown ?? []);
  const shown = wanted.filter((photo) => photos.has(photo));
  const box = (shown.length === 1 && state.box) || null;
  showBox(box, shown.length === 1);
  const hasPhoto = Boolean(imageId || shown.length);
  showText(asked, hasPhoto);
  const words = textChosen();
  const asks = JSON.stringify([imageId, wanted, box, words, optionsChosen()]);
  if (asks === current) return;
  current = asks;
  const before = JSON.stringify([query?.imageId ?? null, query?.shown ?? []]);
  query = hasPhoto || words.text ? { imageId, shown, box, ...words } : null;
  // Other options do not make another photo.
  if (before !== JSON.stringify([imageId, shown])) {
    showPreview({ imageId, files: shown.map((photo) => photos.get(photo)), remove });
    $("#more").disabled = !shown.length;
  }
  search();
  if (shown.length < wanted.length) refuse({ code: "photo_forgotten", detail: "" });
}

export function refresh() {
  if (query) search();
}

/** Search as is chosen; `retried`: once more, as the index has changed meanwhile. */
async function search({ retried = false } = {}) {
  run?.abort();
  refusal = null;
  if (!query) {
    showNothing();
    clearMessage();
    return;
  }
  run = new AbortController();
  const { signal } = run;
  const given = { ...optionsChosen(), ...query, files: query.shown.map((photo) => photos.get(photo)) };
  showWaiting();
  const late = setTimeout(tellProgress, LATE_MS, null);
  let job = null;
  try {
    await takeUp(given, signal);
    say("Searching.");
    job = await submit("/v1/jobs/search", { headers: { Prefer: `wait=${WAIT_S}` }, signal, pause: (problem) => pause(problem, given, signal), ...bodyOf(given) });
    clearTimeout(late);
    for await (job of follow(job, signal)) if (!ended(job)) tellProgress(job);
    if (job.status !== "succeeded") throw failureOf(job);
    if (!refusal?.isConnected) clearMessage();
    if (job.result.index_version !== given.has.version) await takeUp(given, signal, { again: true });
    showAnswer(job, { ...given, filters: namesInForce() }, signal);
    showCounts(job.result.facets);
  } catch (problem) {
    if (signal.aborted) {
      if (job && !ended(job)) call(job.links.cancel, { method: "POST" }).catch(() => {}); // nobody waits for it any more
      return;
    }
    const isOutdated = problem.code === "invalid_request" && !retried && (await hasChanged(given.has));
    if (signal.aborted) return;
    if (isOutdated) {
      search({ retried: true });
      return;
    }
    dim();
    current = "";
    noteProblem($("#search-message"), problem, [button("Try again", () => search(), { quiet: false })]);
  } finally {
    clearTimeout(late);
  }
}

/** Take back what is said; whoever was at a button of it goes on at what is found. */
function clearMessage() {
  const place = $("#search-message");
  if (place.contains(document.activeElement)) $("#results-title").focus();
  place.replaceChildren();
}

/** Have the search and the panel go by what the index has. */
async function takeUp(given, signal, options) {
  given.has = await catalogue(options);
  signal.throwIfAborted();
  buildPanel(given.has);
  offerText(given.has);
}

/** Whether the index has something else now. */
async function hasChanged(has) {
  return JSON.stringify(await catalogue({ again: true })) !== JSON.stringify(has);
}

/** Say what keeps the service from taking a search, and wait until it is to be sent again. */
async function pause(problem, { files }, signal) {
  if (problem.code === "unreachable") await requireReadable(files);
  await countDown(problem, signal);
}

/** Parts of the photo that is searched by which may each show a thing; null where that cannot be told. */
async function proposeParts() {
  const [photo] = query.shown;
  const form = new FormData();
  form.append("propose_boxes", "true");
  form.append("image", photos.get(photo), "photo");
  try {
    let job = await submit("/v1/jobs/embed", { headers: { Prefer: `wait=${WAIT_S}` }, form });
    for await (job of follow(job));
    if (job.status !== "succeeded") throw failureOf(job);
    return job.result.boxes?.map(({ box }) => box) ?? [];
  } catch (problem) {
    if (query?.shown[0] === photo) noteProblem($("#search-message"), problem);
    return null;
  }
}

/** Browsers tell a file that cannot be sent from a service that does not answer only when the file is read. */
async function requireReadable(files) {
  for (const file of files) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      throw new Problem({ code: "photo_unreadable", detail: `The file ${file.name} was moved, changed or deleted, or may not be read.` });
    }
  }
}

function bodyOf({ files, imageId, box, text, text_weight, has, ...options }) {
  const sent = { ...optionsSent(options), ...asksOf(has) };
  if (text) sent.text = text;
  if (text && text_weight && (imageId || files.length)) sent.text_weight = Number(text_weight);
  if (imageId) sent.image_id = imageId;
  if (!files.length) return { json: sent };
  const form = new FormData();
  for (const [name, value] of Object.entries(sent)) form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  if (box) form.append("box", box.join(","));
  for (const file of files) form.append("image", file, "photo"); // its name stays here
  return { form };
}

async function countDown(problem, signal) {
  const place = $("#search-message");
  const early = new AbortController();
  const stop = () => early.abort();
  signal.addEventListener("abort", stop, { once: true });
  noteProblem(place, problem, [button("Try now", stop), button("Cancel", giveUp)]);
  const told = $("strong", place).textContent;
  for (let left = problem.retryAfter; left > 0 && !early.signal.aborted; left -= 1) {
    $("strong", place).textContent = `${told}; trying again in ${left} s`;
    await sleep(1000, early.signal).catch(() => {});
  }
  signal.throwIfAborted();
  clearMessage();
}

function giveUp() {
  run.abort();
  current = "";
  dim();
  note($("#search-message"), { title: "Cancelled", actions: [button("Search again", () => search(), { quiet: false })] });
  say("Cancelled.");
}

/** Tell how far a search is; of one that nobody has answered yet, unless more is said of it already. */
function tellProgress(job) {
  const place = $("#search-message");
  if (refusal?.isConnected || (!job && $(".note", place))) return;
  let text = "A worker has your search.";
  if (!job) text = "The service has not answered yet.";
  else if (job.lost) text = "The service cannot be reached; your search goes on there, and is asked for again.";
  else if (job.status === "queued") {
    const { ahead = 0, eta_s: eta = null } = job.queue ?? {};
    text = ahead ? `${count(ahead, "job")} before yours` : "Yours is next";
    text += eta === null ? "." : `, in about ${duration(eta)}.`;
  } else if (job.status !== "running") text = `Your search is ${job.status}.`;
  const shown = $(".note p", place);
  if (!shown) note(place, { title: "Waiting", text, actions: [button("Cancel", giveUp)] });
  else if (shown.textContent !== text) shown.textContent = text;
}
