// The part of the previewed photo that is searched by: drawn with mouse or finger, moved and resized by keyboard, or one
// of those that the service suggests.

import { $, el, fill, press, say } from "./dom.js";
import { count, percent } from "./words.js";

const LEAST_PX = 16; // of the photo, as the service has it
const LEAST_SHOWN_PX = 12; // on the screen, so that it can be got hold of
const CLICK_PX = 4; // a pointer that moves less has not drawn
const STEP = 0.02; // of width or height, by a key
const RIM_PX = 8; // of a suggested part, around those within it
const PAUSE_MS = 500; // after the last key, before it is searched
const FIRST = [0.25, 0.25, 0.5, 0.5]; // by the button, for who does not draw
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

let box = null; // [x, y, w, h] in fractions of the upright photo
let isOffered = false;
let timer = null;
let changed = () => {};
let propose = async () => [];

/** `onChange(box)` is called with what is chosen, null for the whole photo; `proposals()` has parts suggested. */
export function startBox(onChange, proposals) {
  [changed, propose] = [onChange, proposals];
  const img = $("#preview > img");
  img.addEventListener("load", () => fill($("#proposals")));
  for (const event of ["load", "error"]) img.addEventListener(event, layOut);
  new ResizeObserver(layOut).observe(img);
  $("#area").addEventListener("pointerdown", takeHold);
  $("#box").addEventListener("keydown", byKey);
  $("#part-choose").addEventListener("click", () => {
    settle(within(FIRST));
    $("#box").focus();
  });
  $("#part-clear").addEventListener("click", clear);
  $("#part-propose").addEventListener("click", (event) => press(event.currentTarget, suggest));
}

/** Show this box over the preview; `offered`: one may be chosen, as the photo itself is here. */
export function showBox(chosen, offered) {
  clearTimeout(timer);
  isOffered = offered;
  box = chosen;
  layOut();
  draw();
}

/** Lay the area that is drawn on over the photo, of which the image element is only the frame. */
function layOut() {
  const img = $("#preview > img");
  const { naturalWidth, naturalHeight, clientWidth, clientHeight } = img;
  const fits = isOffered && Math.min(naturalWidth, naturalHeight) >= LEAST_PX && clientWidth > 0;
  $("#area").hidden = $("#part").hidden = !fits;
  if (!fits) return;
  const scale = Math.min(clientWidth / naturalWidth, clientHeight / naturalHeight);
  const [width, height] = [scale * naturalWidth, scale * naturalHeight];
  place($("#area"), [img.offsetLeft + (clientWidth - width) / 2, img.offsetTop + (clientHeight - height) / 2, width, height], "px");
}

function place(element, sides, unit) {
  ["left", "top", "width", "height"].forEach((side, i) => element.style.setProperty(side, `${sides[i]}${unit}`));
}

function draw() {
  const shown = $("#box");
  shown.hidden = $("#part-clear").hidden = !box;
  for (const offer of ["#part-choose", "#part-propose", "#proposals"]) $(offer).hidden = Boolean(box);
  if (!box) return;
  place(shown, box.map((side) => 100 * side), "%");
  shown.ariaLabel = `Part of the photo: ${described(box)}`;
}

function described(part) {
  const [x, y, w, h] = part.map(percent);
  return `${x} from the left, ${y} from the top, ${w} wide, ${h} high`;
}

/** Show the parts that the service suggests as buttons over the photo, the smaller ones on top. */
async function suggest() {
  const img = $("#preview > img");
  const photo = img.src;
  const parts = await propose();
  if (photo !== img.src || !parts) return;
  const larger = parts.toSorted((one, other) => other[2] * other[3] - one[2] * one[3]);
  fill($("#proposals"), larger.map((part, i) => proposal(part, larger.slice(0, i).filter((other) => holds(other, part)).length)));
  say(parts.length ? `${count(parts.length, "part")} suggested.` : "No part of it stands out.");
  $("#proposals button")?.focus({ preventScroll: true });
}

/** Whether the middle of one part lies in another. */
function holds([x, y, w, h], [left, upper, width, height]) {
  const [across, down] = [left + width / 2 - x, upper + height / 2 - y];
  return across > 0 && across < w && down > 0 && down < h;
}

/** A part that lies within others is shown smaller than it is, so that there is a rim of those to get hold of. */
function proposal(part, depth) {
  const made = el("button.proposal", { type: "button", ariaLabel: `Search by this part: ${described(part)}` });
  ["left", "top"].forEach((side, i) => made.style.setProperty(side, `calc(${100 * part[i]}% + ${depth * RIM_PX}px)`));
  ["width", "height"].forEach((side, i) => made.style.setProperty(side, `max(${LEAST_SHOWN_PX}px, ${100 * part[i + 2]}% - ${2 * depth * RIM_PX}px)`));
  made.addEventListener("click", () => {
    settle(within(part));
    $("#box").focus({ preventScroll: true });
  });
  return made;
}

function settle(chosen) {
  clearTimeout(timer);
  box = chosen;
  draw();
  changed(box);
}

function clear() {
  settle(null);
  $("#part-choose").focus();
}

/** Follow the pointer from where it went down: on the box it moves that, on its corner it resizes it, elsewhere it draws. */
function takeHold(down) {
  if (down.button || !down.isPrimary || down.target.closest(".proposal")) return;
  down.preventDefault();
  const [area, before, from] = [$("#area"), box, pointOf(down)];
  const resizes = Boolean(down.target.closest(".corner"));
  const moves = !resizes && Boolean(down.target.closest("#box"));
  const held = new AbortController();
  const options = { signal: held.signal };
  let isFar = false;
  area.setPointerCapture(down.pointerId);
  area.addEventListener("pointermove", (event) => {
    isFar ||= Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) >= CLICK_PX;
    if (!isFar) return;
    const to = pointOf(event);
    const way = [to[0] - from[0], to[1] - from[1]];
    box = moves ? moved(before, way) : resizes ? resized(before, way) : between(from, to);
    draw();
  }, options);
  area.addEventListener("pointercancel", () => {
    held.abort();
    showBox(before, isOffered);
  }, options);
  area.addEventListener("pointerup", () => {
    held.abort();
    if (box) $("#box").focus({ preventScroll: true });
    if (isFar) settle(box);
  }, options);
}

/** Where the pointer is, in fractions of the photo. */
function pointOf(event) {
  const { left, top, width, height } = $("#area").getBoundingClientRect();
  return [(event.clientX - left) / width, (event.clientY - top) / height].map((at) => clamp(at, 0, 1));
}

function byKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Delete" || event.key === "Backspace") {
    event.preventDefault();
    clear();
    return;
  }
  const way = KEYS[event.key]?.map((step) => step * STEP);
  if (!way) return;
  event.preventDefault(); // the page scrolls otherwise
  box = event.shiftKey ? resized(box, way) : moved(box, way);
  draw();
  clearTimeout(timer);
  timer = setTimeout(() => changed(box), PAUSE_MS);
}

function between([x0, y0], [x1, y1]) {
  return within([Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0)]);
}

function moved([x, y, w, h], [right, down]) {
  return within([x + right, y + down, w, h]);
}

/** With the left and upper edge where they are. */
function resized([x, y, w, h], [right, down]) {
  return within([x, y, Math.min(w + right, 1 - x), Math.min(h + down, 1 - y)]);
}

/** The box inside the photo that is nearest to this one and large enough, in millionths. */
function within([x, y, w, h]) {
  const img = $("#preview > img");
  const { clientWidth, clientHeight } = $("#area");
  const least = (pixels, shown) => Math.min(1, Math.max((LEAST_PX + 1) / pixels, LEAST_SHOWN_PX / shown));
  const side = (at, length, smallest) => {
    const long = clamp(length, smallest, 1);
    const start = Number(clamp(at, 0, 1 - long).toFixed(6));
    return [start, Number(Math.min(long, 1 - start).toFixed(6))];
  };
  const [left, width] = side(x, w, least(img.naturalWidth, clientWidth));
  const [upper, height] = side(y, h, least(img.naturalHeight, clientHeight));
  return [left, upper, width, height];
}

function clamp(number, low, high) {
  return Math.min(Math.max(number, low), high);
}
