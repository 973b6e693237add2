// The jobs part: what waits, who works, and the jobs one by one.

import { $, button, el, keepInStep, repeat, say } from "./dom.js";
import { loaded, noteLoading, noteProblem, show } from "./messages.js";
import { ask } from "./service.js";
import { ago, at, count, duration, explain, shortVersion } from "./words.js";

const PAGE = 25;
const WORDS = { queued: "waiting", canceling: "being cancelled", canceled: "cancelled" };
const TONES = { succeeded: "good", failed: "bad", running: "busy", canceling: "warn", expired: "warn" };
const LONG = new Set(["reindex", "duplicates"]);
const KINDS = { shard: "part of a reindex", put_image: "photo put", delete_image: "photo deleted", duplicates: "duplicates" };
let cursor = null; // where the page that is shown begins; null: at the newest
let next = null;
let latest = 0; // number of the list asked for last
let refreshing = null;

export function start() {
  $("#filter").addEventListener("submit", (event) => event.preventDefault());
  $("#filter").addEventListener("change", () => turnTo(null));
  $("#newest").addEventListener("click", () => turnTo(null));
  $("#older").addEventListener("click", () => turnTo(next));
  refreshing = repeat(load, 2000, () => !$("#jobs").hidden);
}

export function enter() {
  refreshing();
}

export const refresh = () => enter();

async function turnTo(from) {
  cursor = from;
  await loadList().catch((problem) => noteProblem($("#jobs-message"), problem));
  $("#list-title").scrollIntoView({ block: "nearest" });
}

async function load() {
  try {
    const [told] = await Promise.all([ask("/v1/workers"), loadList()]);
    showQueue(told);
    keepInStep($("#workers"), told.workers.map(shownOf), (worker) => worker.name, workerRow);
    if (!told.workers.length) $("#workers").append(el("li.nothing", {}, "No worker has reported within 15 seconds. Jobs are kept until one does."));
    loaded($("#jobs-message"));
  } catch (problem) {
    noteLoading($("#jobs-message"), problem);
  }
}

async function loadList() {
  const asked = new URLSearchParams([...new FormData($("#filter"))].filter(([, value]) => value));
  asked.set("limit", PAGE);
  if (cursor) asked.set("cursor", cursor);
  const turn = (latest += 1);
  const page = await ask(`/v1/jobs?${asked}`);
  // A list does not tell progress, and of long jobs one wants to see it.
  const jobs = await Promise.all(page.jobs.map((job) => (LONG.has(job.kind) && job.status === "running" ? ask(job.links.self).catch(() => job) : job)));
  if (turn !== latest) return; // another filter or page was asked for meanwhile
  next = page.next_cursor;
  $("#newest").disabled = !cursor;
  $("#older").disabled = !next;
  keepInStep($("#list"), jobs.map((job) => ({ ...job, age: ago(job.created_at) })), (job) => job.id, jobRow);
  if (!jobs.length) $("#list").append(el("li.nothing", {}, next ? "None among these; there are older ones." : "There is none."));
}

function showQueue({ queue, workers }) {
  const { interactive = 0, bulk = 0, ...others } = queue.queued;
  const rest = Object.values(others).reduce((sum, n) => sum + n, 0);
  const ready = workers.filter((worker) => worker.state === "ready").length;
  const tiles = [
    ["Waiting", interactive + bulk + rest, [interactive && `${interactive} interactive`, bulk && `${bulk} bulk`, rest && `${rest} of a reindex or alone`].filter(Boolean).join(", ")],
    ["Running", queue.running, ""],
    ["Oldest waits", queue.oldest_wait_s ? duration(queue.oldest_wait_s) : "–", ""],
    ["Workers ready", ready, ready < workers.length ? `of ${workers.length}` : ""],
  ];
  keepInStep($("#queue"), tiles, ([name]) => name, ([name, value, more]) =>
    el("div.tile", {}, el("dt", {}, name), el("dd", {}, String(value), more ? el("span.fine", {}, ` ${more}`) : null)));
}

/** What is shown of a worker; its heartbeat changes every time, its row need not. */
function shownOf(worker) {
  const { stages = {}, outcomes = {} } = worker.stats ?? {};
  const jobs = (stages.compute?.counts ?? []).reduce((sum, n) => sum + n, 0);
  const speed = typeof worker.photos_per_s === "number" ? `${Number(worker.photos_per_s.toFixed(1))} photos a second`
    : jobs ? `${duration(stages.compute.sum_s / jobs)} a job` : null;
  const index = worker.index;
  return {
    name: worker.name,
    state: worker.state,
    problem: worker.problem,
    facts: [
      index ? `index ${shortVersion(index.version)}` : "no index",
      [worker.device, index?.runtime, index?.precision].filter(Boolean).join(" "),
      speed,
      `${count(worker.held, "job")} in hand`,
      `${outcomes.succeeded ?? 0} done`,
    ].filter(Boolean).join(" · "),
  };
}

function workerRow({ name, state, problem, facts }) {
  return el("li", {},
    el("div.main", {},
      el("strong", {}, name), " ", el(`span.badge.${state === "ready" ? "good" : "bad"}`, {}, state === "ready" ? "ready" : "not ready"),
      el("p.fine", {}, facts),
      problem ? el("p.problem", {}, problem) : null));
}

function jobRow(job) {
  const took = job.started_at && job.finished_at ? ` · took ${duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)}` : "";
  const tried = job.attempt > 1 ? ` · attempt ${job.attempt}` : "";
  const { stage, done, total } = job.progress ?? {};
  const progress = stage && job.status === "running" ? ` · ${stage}${total ? ` ${done} of ${total}` : ""}` : "";
  const error = job.error ? explain(job.error) : null;
  const kind = KINDS[job.kind] ?? job.kind;
  return el("li", {},
    el("div.main", {},
      el("strong", {}, kind), " ",
      el(`span.badge${TONES[job.status] ? "." + TONES[job.status] : ""}`, {}, WORDS[job.status] ?? job.status), " ",
      el("code", { title: job.id }, job.id.slice(0, 8)),
      el("p.fine", { title: at(job.created_at) }, `${job.age}${took}${tried}${progress}${job.priority === "bulk" ? " · bulk" : ""}`),
      error ? el("p.problem", {}, [error.title, error.text].filter(Boolean).join(": ")) : null),
    el("div.actions", {},
      button("Details", () => details(job), { ariaLabel: `Details of ${kind} ${job.id.slice(0, 8)}` }),
      job.links.cancel ? button("Cancel", () => act(job, "cancel", "Cancelled."), { ariaLabel: `Cancel ${kind} ${job.id.slice(0, 8)}` }) : null,
      job.links.retry ? button("Retry", () => act(job, "retry", "Submitted again."), { ariaLabel: `Retry ${kind} ${job.id.slice(0, 8)}` }) : null));
}

async function details(job) {
  try {
    show(`Job ${job.id}`, el("pre", {}, JSON.stringify(await ask(job.links.self), null, 2)));
  } catch (problem) {
    noteProblem($("#jobs-message"), problem);
  }
}

async function act(job, action, done) {
  try {
    await ask(job.links[action], { method: "POST" });
    $("#jobs-message").replaceChildren();
    say(done);
  } catch (problem) {
    noteProblem($("#jobs-message"), problem);
  }
  refreshing();
}
