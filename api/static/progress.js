// The progress of a long job: told in place, with a button that cancels the job.

import { $, button, el } from "./dom.js";
import { note, noteProblem } from "./messages.js";
import { ask } from "./service.js";
import { duration } from "./words.js";

const ENDS = { canceled: ["was cancelled", ""], failed: ["failed", "bad"], expired: ["was not done in time", "warn"] };

/** Tell the end of a job that did not succeed; `otherwise` where no error says more. */
export function tellFailure(place, job, { name }, otherwise = "") {
  const [how, tone] = ENDS[job.status] ?? [`ended: ${job.status}`, "warn"];
  note(place, { title: `${name[0].toUpperCase()}${name.slice(1)} ${how}`, text: job.error?.detail ?? otherwise, tone });
}

/** Tell how far a job is; `doing` is what it does ("Reindexing"), `name` what it is ("the reindex"). */
export function tellProgress(place, job, { doing, name }) {
  const { stage = "", done = 0, total = 0, eta_s: eta = null } = job.progress ?? {};
  const title = { queued: "Waiting for a worker", running: doing, canceling: "Being cancelled" }[job.status] ?? job.status;
  let text = job.status === "queued" ? "" : stage;
  if (total) text = `${stage}: ${done} of ${total}${eta === null ? "" : `, about ${duration(eta)} left`}`;
  if (job.lost) text = `The service cannot be reached; ${name} goes on without this page.`;
  // Made once and then changed in place, so that the button keeps its focus.
  if (place.dataset.job !== job.id) {
    place.dataset.job = job.id;
    const bar = el("progress", { ariaLabel: `Progress of ${name}` });
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
    if (problem.code !== "job_finished") noteProblem(place, problem);
  }
}
