// What the service tells, in words: numbers, times, and errors with what to do about them.

const number = new Intl.NumberFormat("en-GB");
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const relative = new Intl.RelativeTimeFormat("en-GB", { numeric: "auto" });

export const count = (n, noun, many = noun + "s") => `${number.format(n)} ${n === 1 ? noun : many}`;

export function percent(share) {
  if (share > 0 && share < 0.005) return "< 1 %";
  return `${(100 * share).toFixed(share > 0.995 && share < 0.9995 ? 1 : 0)} %`;
}

/** With a capital and a full stop. */
export const sentence = (text) => text && text[0].toUpperCase() + text.slice(1).replace(/([^.!?])$/, "$1.");

export const at = (time) => moment.format(new Date(time));

export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit += 1) bytes /= 1000;
  return `${bytes < 10 && unit ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.max(1, Math.round(1000 * seconds))} ms`;
  if (seconds < 90) return `${seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Number((seconds / 3600).toFixed(1))} h`;
}

export function ago(time) {
  const seconds = (new Date(time) - Date.now()) / 1000;
  if (seconds > -60) return "just now";
  for (const [unit, length] of [["day", 86_400], ["hour", 3600], ["minute", 60]])
    if (-seconds >= length) return relative.format(Math.round(seconds / length), unit);
}

/** A version's name is its time and a random part; the latter is enough to tell those of one minute apart. */
export const shortVersion = (version) => version.split("-").pop();

// What a person can do, by the code of the problem. What is wrong, the problem's own `detail` says.
const TITLES = {
  unreachable: ["The service does not answer", "Check your connection, and whether the service is running; then try again."],
  answer_unreadable: ["The answer makes no sense", "Something between you and the service may have answered in its place."],
  unsupported_format: ["That is not a photo this service reads", "Save it as JPEG or PNG and try that."],
  photo_undecodable: ["The photo is damaged", "Open it on your device and save it again, or choose another."],
  photo_too_large: ["The photo has too many pixels", "Make it smaller, a few thousand pixels on the longer side are plenty."],
  upload_too_large: ["The file is too large", "Save the photo smaller or with more compression, or choose fewer."],
  too_many_photos: ["Too many photos", "Choose those that show the thing best."],
  photo_forgotten: ["The photo has to be chosen again", "A photo of this device is kept only as long as the page stays open."],
  photo_unreadable: ["The photo cannot be read any more", "Choose it again."],
  picture_elsewhere: ["This page may not load that picture", "Copy the picture itself and paste it here, or save it and choose the file."],
  link_dropped: ["That is a link, not a photo", "Drag the picture itself, copy and paste it, or save it and choose the file."],
  invalid_request: ["The service cannot take that", "Where it is about a filter, the index may have changed since: clear the filters and try again."],
  image_missing: ["No photo arrived", "Choose the photo again."],
  image_not_found: ["That photo is not in the index any more", "Start from another photo."],
  request_timeout: ["Sending took too long", "Try again on a better connection, or with a smaller photo."],
  queue_full: ["Too many jobs are waiting", ""],
  queue_share_full: ["Too many of your jobs are waiting", ""],
  rate_limited: ["Too many requests", ""],
  acceptance_unknown: ["The job queue broke off", "Whether the job was accepted is not known; see under Jobs."],
  idempotency_pending: ["The service is still taking it", ""],
  queue_unavailable: ["The job queue cannot be reached", "Nothing was accepted, and nothing that was accepted is lost."],
  feedback_full: ["Your feedback was not stored", "Too much of it waits to be archived."],
  changes_full: ["The index needs a reindex first", "Start one under Index."],
  api_key_required: ["This service asks for an API key", ""],
  api_key_invalid: ["That API key is not valid", "It may have been revoked. Ask whoever runs the service for another."],
  scope_missing: ["Your API key may not do this", "Ask whoever runs the service for a key with that scope."],
  reindex_running: ["A reindex is running already", ""],
  promotion_refused: ["That version cannot go live", ""],
  version_not_found: ["That version is gone", "Only the last few are kept."],
  index_missing: ["There is no index yet", "Start a reindex under Index, or run: lookalike prepare"],
  index_damaged: ["The index is damaged", "Go back to an earlier version under Index, or run: lookalike index build"],
  bundle_missing: ["There is no model yet", "Run: lookalike prepare"],
  fingerprint_mismatch: ["The index was built by another model", "Start a reindex under Index."],
  embeddings_differ: ["A worker's processor computes another model", "Build the model again: see Operations in the documentation."],
  catalogue_unusable: ["The catalogue cannot be used", ""],
  job_gone: ["The result has expired", "Search again."],
  job_not_found: ["That job is not known any more", "Search again."],
  photo_expired: ["The photo waited too long and was dropped", "Search again."],
  job_finished: ["Too late: the job has ended", ""],
  job_not_retryable: ["That job cannot be run again", ""],
  deadline_exceeded: ["There was not enough time", "Try again."],
  job_canceled: ["Cancelled", ""],
  worker_lost: ["The job's worker died, several times", "If other photos work, this one is the reason."],
  host_not_trusted: ["The service does not answer under this name", ""],
};

/** {title, text, todo} of a problem, or of a job's error. */
export function explain(problem) {
  const [title, todo] = TITLES[problem.code] ?? ["That did not work", problem.requestId ? `If it stays so, report it with the number ${problem.requestId}.` : ""];
  return { title, text: sentence(problem.detail ?? ""), todo };
}

// What /readyz says is missing.
export function unready(problem) {
  if (problem.startsWith("redis")) return "The job queue does not answer, so nothing can be accepted. What was accepted is kept.";
  if (problem.startsWith("no worker has reported")) return "No worker is running. Jobs are accepted and wait; start one: make run, or python -m worker";
  if (problem.startsWith("no worker has a loaded")) return "No worker has a model and an index loaded yet. Jobs are accepted and wait.";
  return problem;
}
