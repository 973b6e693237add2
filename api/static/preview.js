// The preview: what is searched from. Of several photos each is shown and can be taken out.

import { $, button, el } from "./dom.js";
import { showPhoto } from "./service.js";
import { count, size } from "./words.js";

let shown = null;

/** Show a photo of the index, or files of this device; `remove(i)` is called for the i-th file of several. */
export function showPreview({ imageId = null, files = [], remove = () => {} }) {
  const frame = $("#preview");
  const img = $(":scope > img", frame);
  const told = $("figcaption", frame);
  const several = files.length > 1;
  shown?.abort();
  shown = new AbortController();
  frame.hidden = !imageId && !files.length;
  frame.classList.remove("gone");
  img.hidden = several;
  img.removeAttribute("src");
  img.onerror = () => {
    frame.classList.add("gone"); // TIFF, in most browsers
    told.textContent += "; this browser cannot show it";
  };
  $("#together").hidden = !several;
  $("#together").replaceChildren(...(several ? files.map((file, i) => item(file, i, remove)) : []));
  if (imageId) {
    told.textContent = "a photo of the index";
    showPhoto(img, imageId, 640, shown.signal);
  } else if (several) {
    told.textContent = `${count(files.length, "photo")}, ${size(files.reduce((sum, file) => sum + file.size, 0))}, searched together`;
  } else if (files.length) {
    told.textContent = files[0].name ? `${files[0].name}, ${size(files[0].size)}` : "";
    img.src = address(files[0]);
  }
}

function item(file, i, remove) {
  const taken = button("×", () => remove(i));
  taken.ariaLabel = taken.title = `Remove ${file.name || `photo ${i + 1}`}`;
  return el("li", {}, el("img", { src: address(file), alt: file.name || `photo ${i + 1}`, draggable: "false" }), taken);
}

function address(file) {
  const url = URL.createObjectURL(file);
  shown.signal.addEventListener("abort", () => URL.revokeObjectURL(url));
  return url;
}
