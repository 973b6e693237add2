// What the person does with a search's results, told to the service: clicks, "This is it", the right category.

import { $, button, el, say } from "./dom.js";
import { noteProblem } from "./messages.js";
import { call } from "./service.js";

async function give(job, event) {
  await call("/v1/feedback", { method: "POST", json: { job_id: job.id, ...event } });
}

/** Something was looked at; whether that could be told is nobody's concern here. */
export function tellClick(job, imageId) {
  give(job, { event: "click", image_id: imageId }).catch(() => {});
}

/** A button that says that a result is the thing that was looked for. */
export function rightButton(job, imageId, what) {
  const made = button("This is it", async () => {
    if (!(await told(job, { event: "right", image_id: imageId }))) return;
    made.textContent = "Thank you";
    made.setAttribute("aria-pressed", "true");
  }, { ariaLabel: `This is it: ${what}`, ariaPressed: "false" });
  return made;
}

/** A choice of the category that the search should have answered. */
export function categoryChoice(job, categories) {
  const choice = el("select", { ariaLabel: "The right category" }, el("option", { value: "" }, "Choose the right one"),
    categories.map((name) => el("option", {}, name)));
  choice.addEventListener("change", async () => {
    if (choice.value && !(await told(job, { event: "category", category: choice.value }))) choice.value = "";
  });
  return el("details.wrong", {}, el("summary", {}, "Wrong category?"), choice);
}

async function told(job, event) {
  try {
    await give(job, event);
    say("Thank you.");
    return true;
  } catch (problem) {
    noteProblem($("#search-message"), problem);
    return false;
  }
}
