// Reindexing: ask for one, watch it, tell what came of it.

import { $, button, press, say } from "./dom.js";
import { note, noteProblem } from "./messages.js";
import { tellFailure, tellProgress } from "./progress.js";
import { showReport } from "./report.js";
import { ask, ended, follow, submit } from "./service.js";
import { ago, count, sentence, shortVersion } from "./words.js";

const COUNTS = [
  ["new", "new"], ["changed", "changed"], ["relabelled", "of another listing or category"], ["removed", "removed"],
  ["unchanged", "unchanged"], ["failed", "left out"],
];
const ABOUT = { doing: "Reindexing", name: "the reindex" };
let watched = null; // the id of the job that is followed
let whenDone = () => {};

export function startReindexing(done) {
  whenDone = done;
  $("#reindex").addEventListener("submit", (event) => {
    event.preventDefault();
    press(event.submitter, reindex);
  });
}

async function reindex() {
  const given = new FormData($("#reindex"));
  const json = { mode: given.get("mode"), promote: given.get("promote"), dry_run: given.has("dry_run") };
  try {
    watch(await submit("/v1/jobs/reindex", { json }));
  } catch (problem) {
    if (problem.code !== "reindex_running") noteProblem($("#reindex-message"), problem);
    else watchReindex();
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
    for await (job of follow(job)) if (!ended(job)) tellProgress(place, job, ABOUT);
    tellEnd(job);
    say($("strong", place).textContent);
  } catch (problem) {
    noteProblem(place, problem, [button("Look again", () => watchReindex())]);
  } finally {
    watched = null;
    whenDone();
  }
}

function tellEnd(job) {
  const place = $("#reindex-message");
  delete place.dataset.job;
  if (job.status !== "succeeded") {
    tellFailure(place, job, ABOUT, "The live index is as it was.");
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
