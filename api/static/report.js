// The verification report of a version.

import { $, el } from "./dom.js";
import { noteProblem, show } from "./messages.js";
import { Problem, call } from "./service.js";
import { shortVersion } from "./words.js";

/** Show the service's own page of it over this one: a link could not carry the key. */
export async function showReport(version) {
  try {
    const page = await (await call(`/v1/index/versions/${version}/report`, { headers: { Accept: "text/html" } })).text();
    const report = new DOMParser().parseFromString(page, "text/html").querySelector("main");
    if (!report) throw new Problem({ code: "answer_unreadable", detail: "" });
    report.querySelector("h1")?.remove();
    show(`Report of version ${shortVersion(version)}`, el("div.report", {}, ...document.adoptNode(report).childNodes));
  } catch (problem) {
    noteProblem($("#index-message"), problem);
  }
}
