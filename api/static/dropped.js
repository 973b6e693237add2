// What is dragged onto the page: files, pictures of this and other pages, links. A drop never leaves the page.

import { $ } from "./dom.js";
import { Problem, imageIdOf } from "./service.js";

const PICTURE_TYPES = ["Files", "text/uri-list", "text/html"];
const FETCHED_WITHIN_MS = 15_000;

/**
 * Take drops anywhere on the page; the browser itself would show what is dropped instead of the page.
 * `wanted()` says whether something can be dropped now, `take` gets a promise of what was, as {files} or {imageId}.
 */
export function takeDrops({ wanted, over, take }) {
  let depth = 0;
  let own = false; // dragged from this page, perhaps by accident
  const types = (event) => [...(event.dataTransfer?.types ?? [])];
  const isPicture = (event) => wanted() && types(event).some((type) => PICTURE_TYPES.includes(type));
  // Text may be moved into a field that text is typed into.
  const isText = (event) => Boolean(event.target.closest?.("input[type=text], input[type=password], textarea")) && !types(event).some((type) => type === "Files" || type === "text/uri-list");
  const reset = () => over(Boolean((depth = 0)));
  document.addEventListener("dragstart", () => (own = true));
  document.addEventListener("dragend", () => {
    own = false;
    reset();
  });
  document.addEventListener("pointermove", () => (own = false)); // there is none while something is dragged
  document.addEventListener("dragenter", (event) => {
    if (!isText(event)) event.preventDefault();
    if (isPicture(event)) over((depth += 1) > 0);
  });
  document.addEventListener("dragleave", (event) => isPicture(event) && over((depth -= 1) > 0));
  document.addEventListener("dragover", (event) => {
    if (isText(event)) return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = isPicture(event) ? "copy" : "none";
  });
  document.addEventListener("drop", (event) => {
    reset();
    if (isText(event)) return;
    event.preventDefault();
    if (!isPicture(event)) return;
    const dropped = read(event.dataTransfer);
    if (own && !dropped.imageId) return;
    take(dropped.url ? fetched(dropped) : Promise.resolve(dropped));
  });
}

/** What was dropped: {files}, {imageId} or {url, isPicture}. Only readable while the event is handled. */
function read(data) {
  const pictures = new DOMParser().parseFromString(data.getData("text/html"), "text/html");
  const picture = $("img[src]", pictures)?.getAttribute("src");
  const link = data.getData("text/uri-list").split(/\r?\n/).find((line) => line && !line.startsWith("#"));
  for (const text of [link, picture]) {
    const imageId = text && imageIdOf(text);
    if (imageId) return { imageId };
  }
  if (data.files.length) return { files: [...data.files] };
  return { url: picture ?? link ?? "", isPicture: Boolean(picture) };
}

/** The picture at an address, where this page may load it. */
async function fetched({ url, isPicture }) {
  if (url.startsWith("data:")) return { files: [fileOf(url)] };
  const address = URL.canParse(url) ? new URL(url) : null;
  if (address?.origin !== location.origin || !address.protocol.startsWith("http")) {
    throw new Problem({ code: isPicture ? "picture_elsewhere" : "link_dropped", detail: "" });
  }
  let response;
  try {
    // Without the key: what else is at this origin may be another service.
    response = await fetch(address, { signal: AbortSignal.timeout(FETCHED_WITHIN_MS) });
    if (!response.ok) throw new Error(String(response.status));
    const content = await response.blob();
    return { files: [new File([content], address.pathname.split("/").pop() || "picture", { type: content.type })] };
  } catch {
    throw new Problem({ code: "picture_elsewhere", detail: response && !response.ok ? `Its address answers ${response.status}.` : "" });
  }
}

/** The file in a data: address, which the page's policy lets nobody fetch. */
function fileOf(url) {
  const [head, content] = [url.slice(5, url.indexOf(",")), url.slice(url.indexOf(",") + 1)];
  try {
    const text = head.endsWith(";base64") ? atob(decodeURIComponent(content)) : decodeURIComponent(content);
    return new File([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], "picture", { type: head.split(";")[0] });
  } catch {
    throw new Problem({ code: "photo_undecodable", detail: "" });
  }
}
