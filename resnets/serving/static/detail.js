// The selected image: large, with where the network looked, the top five, and the status.

import { bar, byId, element, meaning, percent, statusBadge } from "./elements.js";
import { collect } from "./labelling.js";

const ROWS = 5; // places kept for classes, so that nothing moves when they come
let opacity = 0.8; // of the explanation, as the user left it

/** Show an image and what is known of it so far. */
export function showDetail(item, server, onLabel) {
  const { answer } = item;
  byId("detail").setAttribute("aria-busy", String(!answer));
  const title = element(
    "div",
    { class: "title" },
    element("h2", {}, answer ? (answer.prediction ?? "No prediction") : "Waiting for the answer"),
    element("p", {}, answer?.prediction ? percent(answer.probability) : ""),
  );
  const name = element("p", { class: "hint file", title: item.name }, item.name);
  if (answer?.error) { // no class, so nothing that could be wrong about it
    byId("detail").replaceChildren(
      element("div", {}, stage(item), name),
      element("div", {}, title, status(item)),
    );
    return;
  }
  const label = server.collects ? [wrong(item, onLabel)] : [];
  byId("detail").replaceChildren(
    element("div", {}, stage(item), slider(item), name),
    element("div", {}, title, status(item), bars(item), ...label),
  );
}

/** "Wrong? Say what it is": stores the image with its label. */
function wrong(item, onLabel) {
  const input = element("input", { type: "text", required: true, autocomplete: "off" });
  input.setAttribute("list", "class-names");
  input.value = item.label ?? "";
  const note = element("p", { role: "status" }, item.label ? `Stored as ${item.label}.` : "");
  const form = element(
    "form",
    { class: "wrong" },
    element("label", {}, "Wrong? Say what it is", input),
    element("button", { class: "button" }, "Save"),
    note,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const label = input.value.trim();
    if (!label || !item.answer || item.answer.error) return;
    note.textContent = "Storing …";
    const stored = await collect({ file: item.file, label, modelName: item.answeredBy.name });
    note.textContent = stored.ok ? `Stored as ${label}.` : (stored.error ?? "The label was not stored.");
    if (stored.ok) onLabel(item, label);
  });
  return form;
}

function stage(item) {
  const picture = element("img", { src: item.url, alt: item.name });
  const frame = element("div", { class: "frame" }, picture);
  const node = element("div", { class: "stage" }, frame);
  picture.addEventListener("error", () => frame.replaceWith("This browser cannot show the image."));
  picture.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = picture;
    frame.style.setProperty("--ratio", width / height);
    frame.classList.add("loaded");
    if (item.explanation) frame.append(overlay(item, width, height));
  });
  return node;
}

/** The explanation over the part of the image that the network sees. */
function overlay({ explanation, answeredBy }, width, height) {
  const { mode, share } = answeredBy.view;
  const side = { center: Math.min(width, height), border: Math.max(width, height) }[mode];
  const [across, down] = [(side ?? width) * share / width, (side ?? height) * share / height];
  const picture = element("img", { src: explanation, alt: "", class: "overlay" });
  Object.assign(picture.style, {
    width: `${100 * across}%`,
    height: `${100 * down}%`,
    left: `${50 * (1 - across)}%`,
    top: `${50 * (1 - down)}%`,
    opacity,
  });
  return picture;
}

function slider(item) {
  const shownOpacity = element("output", {}, `${Math.round(100 * opacity)} %`);
  const input = element("input", {
    type: "range", min: 0, max: 100, value: Math.round(100 * opacity), id: "opacity",
  });
  input.disabled = !item.explanation;
  input.addEventListener("input", () => {
    opacity = Number(input.value) / 100;
    shownOpacity.textContent = `${input.value} %`;
    const shown = document.querySelector(".overlay");
    if (shown) shown.style.opacity = opacity;
  });
  if (item.answer && !item.explanation) {
    const why = item.answer.unexplained ? `: ${item.answer.unexplained}` : " for this image";
    return element("p", { class: "hint" }, `No Grad-CAM${why}`);
  }
  return element(
    "div",
    { class: "opacity" },
    element("label", { htmlFor: "opacity" }, "Where it looked (Grad-CAM)"),
    input,
    shownOpacity,
  );
}

function status({ answer, answeredBy }) {
  if (!answer) return element("div", { class: "says" }, statusBadge("waiting"));
  const means = answer.error ?? meaning(answer.status, answeredBy);
  return element("div", { class: "says" }, statusBadge(answer.status), element("p", {}, means));
}

function bars({ answer, answeredBy }) {
  const rows = Math.min(ROWS, answeredBy?.classes.length ?? ROWS);
  const list = element("ol", { class: "bars", "aria-label": "The most probable classes" });
  for (let rank = 0; rank < rows; rank += 1) {
    const row = answer?.top[rank];
    const mark = rank === 0 && row ? (answeredBy.threshold ?? null) : null;
    list.append(
      element(
        "li",
        {},
        element("span", { title: row?.class ?? "" }, row?.class ?? "\u00a0"),
        element("span", { class: "share" }, row ? percent(row.probability) : ""),
        bar(row?.probability ?? 0, mark),
      ),
    );
  }
  return list;
}
