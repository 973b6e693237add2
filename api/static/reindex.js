// Reindexing: ask for one, watch it, tell what came of it.

import { $, button, el, say } from "./dom.js";
import { note, noteProblem } from "./messages.js";
import { showReport } from "./report.js";
import { ask, ended, follow, requestKey } from "./service.js";
import { ago, count, duration, sentence, shortVersion } from "./words.js";

const COUNTS = [
  ["new", "new"], ["changed", "changed"], ["relabelled", "of another listing or category"], ["removed", "removed"],
  ["unchanged", "unchanged"], ["failed", "left out"],
];
let watched = null; // the id of the job that is followed
let whenDone = () => {};

export function startReindexing(done) {
  whenDone = done;
  $("#reindex").addEventListener("submit", (event) => {
    event.preventDefault();
    submit(event.submitter);
  });
}

async function submit(pressed) {
  const given = new FormData($("#reindex"));
  const json = { mode: given.get("mode"), promote: given.get("promote"), dry_run: given.has("dry_run") };
  pressed.disabled = true;
  try {
    watch(await ask("/v1/jobs/reindex", { method: "POST", json, headers: { "Idempotency-Key": requestKey() } }));
  } catch (problem) {
    if (problem.code !== "reindex_running") noteProblem($("#reindex-message"), problem);
    else watch(await ask(problem.job));
  } finally {
    pressed.disabled = false;
  }
}

/** Follow the reindex that runs, whoever started it; else say how the last one ended. */
export async function watchReindex() {
  if (watched) return;
  try {
    const { jobs } = await ask("/v1/jobs?kind=reindex&limit=1");
    if (!jobs.length || watched) return;
    if (ended(jobs[0])) tellEnd(await ask(jobs[0].links.self));
    else watch(jobs[0]);
  } catch {
    // The last one may have expired since it was listed; and what is wrong with the service is said beside.
  }
}

async function watch(job) {
  if (watched === job.id) return;
  watched = job.id;
  const place = $("#reindex-message");
  try {
    for await (job of follow(job)) if (!ended(job)) tellProgress(place, job);
    tellEnd(job);
    say($("strong", place).textContent);
  } catch (problem) {
    noteProblem(place, problem, [button("Look again", () => watchReindex())]);
  } finally {
    watched = null;
    whenDone();
  }
}

function tellProgress(place, job) {
  const { stage = "", done = 0, total = 0, eta_s: eta = null } = job.progress ?? {};
  const title = job.status === "queued" ? "Waiting for a worker" : job.status === "canceling" ? "Being cancelled" : "Reindexing";
  let text = job.status === "queued" ? "" : stage;
  if (total) text = `${stage}: ${done} of ${total}${eta === null ? "" : `, about ${duration(eta)} left`}`;
  if (job.lost) text = "The service cannot be reached; the reindex goes on without this page.";
  // Made once and then changed in place, so that the button keeps its focus.
  if (place.dataset.job !== job.id) {
    place.dataset.job = job.id;
    const bar = el("progress", { ariaLabel: "Progress of the reindex" });
    note(place, { title, text: "…", content: [bar], actions: [button("Cancel", () => cancel(place, job))] });
  }
  $("strong", place).textContent = title;
  $("p", place).textContent = text;
  const bar = $("progress", place);
  if (total) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
}

async function cancel(place, job) {
  try {
    await ask(job.links.cancel, { method: "POST" });
    $("strong", place).textContent = "Being cancelled";
  } catch (problem) {
    if (problem.code !== "job_finished") noteProblem($("#index-message"), problem);
  }
}

function tellEnd(job) {
  const place = $("#reindex-message");
  delete place.dataset.job;
  if (job.status !== "succeeded") {
    const title = job.status === "canceled" ? "The reindex was cancelled" : "The reindex failed";
    note(place, { title, text: job.error?.detail ?? "The live index is as it was.", tone: job.status === "failed" ? "bad" : "" });
    return;
  }
  const { counts, index_version: version, promoted, decision, dry_run: dry } = job.result;
  const title = dry ? "This would be done" : promoted ? `Version ${shortVersion(version)} went live` : version ? `Version ${shortVersion(version)} was built and is not live` : "The index is up to date";
  const told = COUNTS.filter(([name]) => counts[name]).map(([name, label]) => `${count(counts[name], "photo")} ${label}`);
  const links = version ? [button("Report", () => showReport(version))] : [];
  note(place, {
    title,
    text: [told.join(", "), dry || !version ? "" : decision].map(sentence).join(" "),
    todo: `Ended ${ago(job.finished_at)}.`,
    tone: promoted ? "good" : "",
    actions: links,
  });
}
