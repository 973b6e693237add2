// The service over HTTP: calls with the key, problems as exceptions, jobs followed to their end. Knows no element.

import { sleep } from "./dom.js";

const KEY = "lookalike-key";
const ENDED = new Set(["succeeded", "failed", "canceled", "expired"]);
const CODES = { expired: "deadline_exceeded", canceled: "job_canceled" };
const POLL_MS = { first: 250, growth: 1.6, most: 5000 };
const LOST_AT_MOST = 10;
const SENT_AT_MOST = 5;
const IN_DOUBT = new Set(["unreachable", "idempotency_pending", "acceptance_unknown"]);
const ANSWER_WITHIN_MS = 30_000; // of what is read; an upload takes as long as it takes

/** What the service, or the way to it, refused. */
export class Problem extends Error {
  constructor({ status = 0, code, detail, request_id: requestId, retryAfter = null, job = null }) {
    super(detail);
    Object.assign(this, { status, code, detail, requestId, retryAfter, job });
  }
}

let askForKey = async () => false;

/** `ask(problem)` is called when a key is needed, and answers whether there is another one now. */
export function askForKeysWith(ask) {
  askForKey = ask;
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** A path below the prefix of the service; links in its answers have the prefix already. */
function address(path) {
  const { prefix } = document.documentElement.dataset;
  return path.startsWith(`${prefix}/`) ? path : prefix + path;
}

/** The id of a photo of the index whose address this is, of its picture or of a search from it; else null. */
export function imageIdOf(text) {
  if (!URL.canParse(text, location.href)) return null;
  const url = new URL(text, location.href);
  if (url.origin !== location.origin) return null;
  const [, query] = /^#\/search\?(.*)$/.exec(url.hash) ?? [];
  if (query && url.pathname === location.pathname) return new URLSearchParams(query).get("image");
  const photos = address("/v1/images/");
  const id = url.pathname.startsWith(photos) ? url.pathname.slice(photos.length) : "";
  try {
    return decodeURIComponent(id) || null;
  } catch {
    return null; // a percent sign that encodes nothing
  }
}

async function send(path, { method = "GET", json, form, headers = {}, signal } = {}) {
  const sent = { Accept: "application/json", ...headers };
  const used = key.get();
  if (used) sent.Authorization = `Bearer ${used}`;
  if (json) sent["Content-Type"] = "application/json";
  const limits = [signal, method === "GET" && AbortSignal.timeout(ANSWER_WITHIN_MS)].filter(Boolean);
  try {
    return [await fetch(address(path), { method, headers: sent, body: json ? JSON.stringify(json) : form, signal: AbortSignal.any(limits), cache: "no-cache" }), used];
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Problem({ code: "unreachable", detail: "" });
  }
}

async function problemOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const told = await response.json().catch(() => ({}));
  return new Problem({
    code: "answer_unreadable",
    detail: `${response.status} ${response.statusText}`.trim(),
    ...told,
    status: response.status,
    retryAfter,
  });
}

/** The answer of one call; a key is asked for when one is needed. Throws a Problem, or `signal`'s reason. */
export async function call(path, options = {}) {
  for (;;) {
    const [response, used] = await send(path, options);
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (problem.status !== 401) throw problem;
    // Another call may have been given a key meanwhile.
    if (used === key.get() && !(await askForKey(problem))) throw problem;
  }
}

/** The JSON of one call. */
export async function ask(path, options) {
  const response = await call(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (options?.signal?.aborted) throw options.signal.reason;
    throw new Problem({ code: "answer_unreadable", detail: "" }); // most likely it was cut off
  }
}

/** Whether it may be over soon: no answer came whole, there is no service behind its proxy, or it has too much to do. */
const isPassing = ({ status = 0 }) => [0, 429, 502, 503, 504].includes(status);

/** Whether what was sent may have been accepted all the same. */
const isInDoubt = ({ code, status }) => IN_DOUBT.has(code) || (code === "answer_unreadable" && [0, 502, 503, 504].includes(status));

/**
 * Submit a job. What may have been accepted is sent again under the same key, which makes no second job; so is what the
 * service says is to be sent again later, where a `pause(problem, signal)` lets a person decide.
 */
export async function submit(path, { headers, signal, pause, ...body }) {
  const sent = { method: "POST", headers: { ...headers, "Idempotency-Key": requestKey() }, signal, ...body };
  for (let lost = 0; ; ) {
    try {
      return await ask(path, sent);
    } catch (problem) {
      const wanted = isInDoubt(problem) ? (lost += 1) < SENT_AT_MOST : pause && problem.retryAfter && problem.status !== 401;
      if (!wanted) throw problem;
      problem.retryAfter ??= 2 ** lost;
      await (pause ? pause(problem, signal) : sleep(1000 * problem.retryAfter, signal));
    }
  }
}

/** What is missing before jobs are done; empty when nothing is. */
export async function readiness() {
  const [response] = await send("/readyz");
  return response.json();
}

/** Whether a job has ended, also in a way that only a newer service knows. */
export const ended = (job) => ENDED.has(job.status) || Boolean(job.finished_at);

/** Why a job that has ended has no result, as a problem. */
export const failureOf = ({ status, error }) => error ?? { code: CODES[status] ?? status, detail: status in CODES ? "" : `The job ended: ${status}` };

/** The job each time it was looked at, until it has ended; `lost` is set while the service cannot be reached. */
export async function* follow(job, signal) {
  let pause = POLL_MS.first;
  let lost = 0;
  yield job;
  while (!ended(job)) {
    await sleep(pause, signal);
    pause = Math.min(POLL_MS.growth * pause, POLL_MS.most);
    try {
      const before = job;
      job = await ask(job.links.self, { signal });
      lost = 0;
      if (job.status !== before.status || job.progress?.done !== before.progress?.done) pause = Math.min(pause, 1000);
      yield job;
    } catch (problem) {
      if (!isPassing(problem) || (lost += 1) > LOST_AT_MOST) throw problem;
      if (problem.retryAfter) pause = 1000 * problem.retryAfter;
      yield { ...job, lost: true };
    }
  }
}

/** A value for Idempotency-Key; `crypto.randomUUID` is there on secure pages only. */
function requestKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const thumbnails = { busy: 0, waiting: [] };

/** Show a photo of the index; through fetch, because an <img> could not carry the key. */
export function showPhoto(img, imageId, size, signal) {
  thumbnails.waiting.push({ img, imageId, size, signal });
  nextPhotos();
}

function nextPhotos() {
  // Fewer than the connections a browser opens, so that a search need not wait for photos.
  while (thumbnails.busy < 4 && thumbnails.waiting.length) {
    thumbnails.busy += 1;
    loadPhoto(thumbnails.waiting.shift()).finally(() => {
      thumbnails.busy -= 1;
      nextPhotos();
    });
  }
}

async function loadPhoto({ img, imageId, size, signal }) {
  const path = `/v1/images/${encodeURIComponent(imageId)}?size=${size}`;
  for (let attempt = 1; !signal.aborted; attempt += 1) {
    try {
      const url = URL.createObjectURL(await (await call(path, { signal })).blob());
      img.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
      img.src = url;
      return;
    } catch (problem) {
      if (signal.aborted) return;
      if (isPassing(problem) && attempt < 4) {
        await sleep(1000 * (problem.retryAfter ?? attempt), signal).catch(() => {});
        continue;
      }
      img.parentElement?.classList.add("gone");
      img.alt = problem.code === "image_not_found" ? "The photo's file is gone" : "The photo cannot be shown";
      return;
    }
  }
}
