// Elements: make, fill, keep in step with a list, speak. Knows nothing of the service.

export const $ = (selector, within = document) => within.querySelector(selector);

/** An element; `tag` may carry classes ("span.badge"), and null children are left out. */
export function el(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  return fill(made, ...children);
}

/** Have these as the only children; null ones are left out. */
export function fill(place, ...children) {
  place.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  return place;
}

/** Do what a button is for. Until that has ended it cannot be pressed again, and keeps the focus, which `disabled` would take. */
export async function press(pressed, action) {
  if (pressed.ariaDisabled) return;
  pressed.ariaDisabled = "true";
  try {
    await action();
  } finally {
    pressed.ariaDisabled = null;
  }
}

/** A button that cannot be pressed again while what it does is under way. */
export function button(label, action, { quiet = true, ...properties } = {}) {
  const made = el(quiet ? "button.quiet.small" : "button.small", { type: "button", ...properties }, label);
  made.addEventListener("click", () => press(made, action));
  return made;
}

/** Show items as children of `list`, touching only those that changed, so that neither focus nor place is lost. */
export function keepInStep(list, items, keyOf, render) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let after = null;
  for (const item of items) {
    const key = String(keyOf(item));
    const said = JSON.stringify(item);
    let child = old.get(key);
    old.delete(key);
    if (!child || child.dataset.said !== said) {
      const made = render(item);
      made.dataset.key = key;
      made.dataset.said = said;
      const focused = child?.contains(document.activeElement) ? document.activeElement.textContent : null;
      if (child) child.replaceWith(made);
      else if (after) after.after(made);
      else list.prepend(made);
      const buttons = focused ? [...made.querySelectorAll("button, a")] : [];
      (buttons.find((one) => one.textContent === focused) ?? buttons[0])?.focus();
      child = made;
    } else if (after ? after.nextSibling !== child : list.firstChild !== child) {
      if (after) after.after(child);
      else list.prepend(child);
    }
    after = child;
  }
  for (const child of old.values()) child.remove();
}

/** Have screen readers say it. */
export function say(text) {
  $("#spoken").textContent = text;
}

export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Call `action` now and `pauseMs` after each end of it, for as long as `wanted()` and the page is looked at. */
export function repeat(action, pauseMs, wanted) {
  let timer = null;
  let running = false;
  let again = false;
  async function round() {
    clearTimeout(timer);
    again = running; // what is under way may have been asked before the change that this is called for
    if (running || document.hidden || !wanted()) return;
    running = true;
    try {
      await action();
    } finally {
      running = false;
      timer = setTimeout(round, again ? 0 : pauseMs);
    }
  }
  document.addEventListener("visibilitychange", round);
  return round;
}
