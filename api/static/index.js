// The index part: what is live, how good it is, its versions, and the way forward and back.

import { $, button, el, keepInStep, repeat, sleep } from "./dom.js";
import { agreed, loaded, note, noteLoading, noteProblem } from "./messages.js";
import { startReindexing, watchReindex } from "./reindex.js";
import { showReport } from "./report.js";
import { ask } from "./service.js";
import { ago, at, count, percent, sentence, shortVersion, size } from "./words.js";

const TAKEN_UP_WITHIN_S = 20;
let live = null; // the name of the live version, by the list of versions
let refreshing = null;

// The measures people ask for first; an installation has them or not.
const MEASURES = [
  ["accuracy", "Category right", "of photos kept away from the model"],
  ["top_3", "Category among the three likeliest", "of photos kept away from the model"],
  ["unseen_precision_at_4", "Same category among the four nearest", "of listings the model never saw"],
  ["unseen_sibling_recall_at_4", "Listing's other photo among the four nearest", "of listings the model never saw"],
  ["precision_at_4", "Same category among the four nearest", "of all photos"],
  ["sibling_recall_at_4", "Listing's other photo among the four nearest", "of all photos"],
];

export function start() {
  $("#rollback").addEventListener("click", rollBack);
  startReindexing(refresh);
  refreshing = repeat(load, 5000, () => !$("#index").hidden);
}

export function enter() {
  refreshing();
  watchReindex();
}

export const refresh = () => enter();

async function load() {
  try {
    const { versions } = await ask("/v1/index/versions");
    showVersions(versions);
  } catch (problem) {
    noteLoading($("#index-message"), problem);
    return;
  }
  try {
    const served = await ask("/v1/index");
    showLive(served);
    showQuality(served);
    showLiveQuality(await ask("/v1/quality?since=7d"));
    loaded($("#index-message"));
  } catch (problem) {
    $("#live").replaceChildren();
    $("#quality").replaceChildren();
    $("#live-quality").replaceChildren();
    noteLoading($("#index-message"), problem);
  }
}

const fact = (name, value, title) => (value === "" || value === null ? [] : [el("dt", {}, name), el("dd", { title }, value)]);

function showLive(served) {
  const { fit, size_px: px } = served.preprocess ?? {};
  const shown = el("dl.facts", {},
    fact("Photos", `${served.count.toLocaleString("en-GB")}${served.changed ? `, ${count(served.changed, "change")} since it was built` : ""}`),
    fact("Version", shortVersion(served.version), served.version),
    fact("Built", ago(served.built_at), at(served.built_at)),
    fact("Catalogue", served.catalogue),
    fact("Network", served.backbone),
    fact("Weights", served.weights),
    fact("Trained by", served.recipe),
    fact("Runs on", [served.runtime, served.precision].filter(Boolean).join(", ")),
    fact("Photos are made", px ? `${fit}, ${px} px` : ""),
    fact("Model", served.model_fingerprint.slice(0, 12), served.model_fingerprint),
    fact("Not sure below", served.abstain_below ? percent(served.abstain_below) : ""));
  const notice = served.notice ? el("p.fine", {}, served.notice) : null;
  replaceIfOther($("#live"), shown, notice);
}

function showQuality({ metrics, metrics_catalogue: measuredOn }) {
  const known = MEASURES.filter(([name]) => typeof metrics[name] === "number");
  const told = new Set(known.map(([name]) => name.replace("unseen_", "")));
  // Of a measure on listings never seen and the same on all, the former is the honest one.
  const first = known.filter(([name]) => name.startsWith("unseen_") || !known.some(([other]) => other === `unseen_${name}`));
  const bars = first.map(([name, label, of]) => {
    const bar = el("li", {}, el("span", {}, label, el("span.fine", {}, ` ${of}`)), el("span.figure", {}, percent(metrics[name])));
    bar.style.setProperty("--share", metrics[name]);
    return bar;
  });
  const all = Object.entries(metrics).flatMap(([name, value]) => fact(name, Number.isInteger(value) || typeof value !== "number" ? String(value) : value.toFixed(4)));
  const open = $("#quality details")?.open ?? false;
  replaceIfOther($("#quality"),
    told.size ? el("ul.bars", {}, bars) : el("p", {}, "Nothing was measured."),
    measuredOn ? el("p.fine", {}, `Measured on ${measuredOn} when the model was built.`) : null,
    all.length ? el("details", { open }, el("summary", {}, "All measures"), el("dl.facts", {}, all)) : null);
}

const milliseconds = (ms) => `${ms.toFixed(1)} ms`;
const inWords = (value, word) => (typeof value === "number" ? word(value) : ""); // nothing of what was not measured
const CHECKS = { recall: "Recall", damage: "Damage", drift: "Drift" };
const STATES = { fine: [".good", "fine"], alarm: [".bad", "alarm"], unknown: ["", "not known yet"] };

function showLiveQuality({ checks, figures, days }) {
  const { n_searches: n, recall_at_10: recall, best_score: score, not_sure: unsure, stages } = figures;
  const [most] = Object.entries(figures.categories);
  const facts = n ? [
    fact("Ten nearest found", inWords(recall, percent)),
    fact("Best score", inWords(score, (it) => it.toFixed(2)), "of the nearest photo, in the mean"),
    fact("Not sure", inWords(unsure, percent)),
    fact("Most frequent", most ? `${most[0]}, ${percent(most[1])}` : ""),
    fact("Embedded in", inWords(stages.model?.mean_ms, milliseconds)),
    fact("Searched in", inWords(stages.search?.mean_ms, milliseconds))] : [];
  const told = checks.map(({ name, state, detail }) => {
    const [tone, word] = STATES[state] ?? ["", state];
    return fact(CHECKS[name] ?? name, el(`span.badge${tone}`, {}, word), detail);
  });
  const alarms = checks.filter(({ state }) => state === "alarm").map(({ detail }) => el("p.fine", {}, sentence(detail)));
  replaceIfOther($("#live-quality"),
    el("h3", {}, "Of late"),
    el("p.fine", {}, n ? `${count(n, "search", "searches")} of the last seven days, on ${count(days.length, "day")}, compared with exact search.`
      : "No search of the last seven days was compared with exact search."),
    el("dl.facts", {}, ...facts, ...told), ...alarms);
}

/** So that what somebody is reading, or has opened, is not replaced by the same. */
function replaceIfOther(place, ...content) {
  const made = el("div", {}, content);
  if (place.dataset.said === made.innerHTML) return;
  place.dataset.said = made.innerHTML;
  place.replaceChildren(...made.childNodes);
}

function showVersions(versions) {
  live = versions.find((version) => version.live)?.version ?? null;
  $("#rollback").hidden = versions.filter((version) => version.promoted_at).length < 2;
  keepInStep($("#versions"), versions, (version) => version.version, versionRow);
  if (!versions.length) $("#versions").append(el("li.nothing", {}, "There is none yet. A reindex makes one."));
}

function versionRow(version) {
  const failed = version.report?.gates_failed ?? [];
  const quality = version.report?.quality?.precision_at_4;
  const state = version.live ? el("span.badge.good", {}, "live")
    : version.problem ? el("span.badge.bad", {}, "damaged")
    : failed.length ? el("span.badge.warn", {}, "failed a gate")
    : el("span.badge", {}, version.promoted_at ? "was live" : "never live");
  const facts = version.problem ?? [
    count(version.count, "photo"), size(version.bytes),
    typeof quality === "number" ? `${percent(quality)} same category among four` : null,
    failed.length ? `failed: ${failed.join(", ")}` : null,
  ].filter(Boolean).join(" · ");
  return el("li", {},
    el("div.main", {},
      el("strong", { title: version.version }, version.built_at ? at(version.built_at) : shortVersion(version.version)), " ",
      el("code", { title: version.version }, shortVersion(version.version)), " ", state,
      el("p.fine", {}, facts)),
    el("div.actions", {},
      button("Report", () => showReport(version.version), { ariaLabel: `Report of version ${shortVersion(version.version)}` }),
      version.links.promote && !version.problem ? button("Make live", () => promote(version), { ariaLabel: `Make version ${shortVersion(version.version)} live` }) : null));
}

async function promote(version) {
  const name = shortVersion(version.version);
  const agreedTo = await agreed({
    title: `Make version ${name} live?`,
    text: `It has ${count(version.count, "photo")}. Searches go by it within two seconds; the version that is live now stays, and you can go back.`,
    action: "Make it live",
  });
  if (agreedTo) await move(() => ask(version.links.promote, { method: "POST" }));
}

async function rollBack() {
  const named = live;
  const agreedTo = await agreed({
    title: "Go back to the version before?",
    text: `Version ${shortVersion(named ?? "")} is live now. Searches go by the one before it within two seconds; photos put or deleted since stay so.`,
    action: "Go back",
  });
  if (agreedTo) await move(() => ask(`/v1/index/rollback?live=${encodeURIComponent(named)}`, { method: "POST" }));
}

/** Promote something, and wait until the workers answer by it. */
async function move(change) {
  const place = $("#index-message");
  try {
    const { version } = await change();
    const name = shortVersion(version);
    note(place, { title: `Version ${name} is being made live`, text: "The workers are taking it up." });
    for (let left = 2 * TAKEN_UP_WITHIN_S; left > 0; left -= 1) {
      if ((await ask("/v1/index").catch(() => ({}))).version === version) {
        note(place, { title: `Version ${name} is live`, tone: "good" });
        return;
      }
      await sleep(500);
    }
    note(place, { title: `Version ${name} is promoted, and no worker has taken it up yet`, text: "Look under Jobs what the workers say.", tone: "bad" });
  } catch (problem) {
    noteProblem(place, problem);
  } finally {
    refreshing();
  }
}
