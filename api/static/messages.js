// What is said to the person: notes, problems, questions, the API key.

import { $, button, el, say } from "./dom.js";
import { key } from "./service.js";
import { explain } from "./words.js";

/** A note in `place`, instead of what is there; `tone` is "", "good", "warn" or "bad", of which the latter interrupt. */
export function note(place, { title, text = "", todo = "", tone = "", actions = [], content = [] }) {
  delete place.dataset.loading;
  const focused = place.contains(document.activeElement);
  place.replaceChildren(
    el(`div.note${tone && "." + tone}`, { tabIndex: -1, role: ["bad", "warn"].includes(tone) ? "alert" : null },
      el("strong", {}, title),
      text ? el("p", {}, text) : null,
      todo ? el("p.fine", {}, todo) : null,
      ...content,
      actions.length ? el("div.actions", {}, actions) : null),
  );
  if (focused) place.firstChild.focus(); // whoever was at a button of the note before goes on here
}

/** A problem in words, with what to do about it. */
export function noteProblem(place, problem, actions = []) {
  if (problem instanceof Error && !problem.code) throw problem; // a mistake of ours belongs on the console
  const wantsKey = problem.status === 401 || problem.code === "scope_missing";
  const another = wantsKey ? [button(key.get() ? "Use another key" : "Enter a key", () => askKey(problem, true))] : [];
  note(place, { ...explain(problem), tone: problem.retryAfter ? "warn" : "bad", actions: [...actions, ...another] });
}

/** What keeps a part from being shown: said once, however often it is tried again, until `loaded`. */
export function noteLoading(place, problem) {
  const said = `${problem.code} ${problem.detail}`;
  if (place.dataset.loading === said) return;
  noteProblem(place, problem);
  place.dataset.loading = said;
}

/** Take back what `noteLoading` said; what was said of something else stays. */
export function loaded(place) {
  if (place.dataset.loading) place.replaceChildren();
  delete place.dataset.loading;
}

/** Whether the person agrees. */
export function agreed({ title, text, action }) {
  const dialog = $("#ask-dialog");
  $("#ask-title").textContent = title;
  $("#ask-text").textContent = text;
  $("[value=yes]", dialog).textContent = action;
  return new Promise((resolve) => {
    const answer = (event) => {
      if (event.target.value) dialog.close(event.target.value);
    };
    dialog.returnValue = "";
    dialog.addEventListener("click", answer);
    dialog.addEventListener("close", () => {
      dialog.removeEventListener("click", answer);
      resolve(dialog.returnValue === "yes");
    }, { once: true });
    dialog.showModal();
  });
}

/** Something to read, over the page. */
export function show(title, ...content) {
  const dialog = $("#show-dialog");
  $("#show-title").textContent = title;
  $("#show-content").replaceChildren(...content);
  $("[value=close]", dialog).onclick = () => dialog.close();
  dialog.showModal();
}

let asked = null;
let declined = false;

/** Ask for a key, once for however many calls wait for one. Answers whether there is another now. */
export function askKey(problem, again = false) {
  if (declined && !again) return Promise.resolve(false);
  asked ??= promptForKey(problem).finally(() => {
    asked = null;
  });
  return asked;
}

function promptForKey(problem) {
  const dialog = $("#key-dialog");
  const [form, field] = [$("form", dialog), $("#key-field")];
  const before = key.get();
  const invalid = problem?.code === "api_key_invalid";
  $("#key-why").textContent = invalid ? "The key you gave is not valid, or was revoked." : "";
  $("[value=forget]", dialog).hidden = !before;
  field.value = "";
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      const given = field.value.trim();
      // A header cannot carry anything else; what is pasted with a line break or a quote is no key.
      if (!/^[\x21-\x7e]+$/.test(given)) {
        $("#key-why").textContent = "That cannot be a key: it has characters that keys do not have.";
        return;
      }
      key.set(given);
      dialog.close();
    };
    $("[value=cancel]", dialog).onclick = () => dialog.close();
    $("[value=forget]", dialog).onclick = () => {
      key.forget();
      dialog.close();
    };
    dialog.addEventListener("close", () => {
      field.value = "";
      const changed = key.get() !== before;
      declined = !changed;
      $("#key").hidden = false;
      if (changed) {
        say(key.get() ? "The key is used from now on." : "The key is forgotten.");
        document.dispatchEvent(new Event("key-changed"));
      }
      resolve(changed);
    }, { once: true });
    dialog.showModal();
  });
}
