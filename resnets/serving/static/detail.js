// The selected image: large, with where the network looked, the top five, and the status.

import { bar, byId, drawnRatio, element, isBlank, percent, reasonOf, sizeInWords, statusBadge } from "./elements.js";
import { collect, kept, withdraw } from "./labelling.js";
import { AWAY, whyNotStored, whyNotUndone } from "./reasons.js";

const UNSEEN = "This browser cannot show the image.";
const ROWS = 5; // places kept for classes, so that nothing moves when they come
let shown = null; // the item
let opacity = 0.8; // of the explanation, as the user left it

/** Show an image and what is known of it so far; who types a label goes on typing.
 *
 * @param actions what to do with the item: `label` (item, label or null), and `explain` to ask for
 *   its heat map again.
 */
export function showDetail(item, server, actions) {
  const { id, selectionStart } = document.activeElement;
  const focused = item === shown && byId("detail").contains(document.activeElement);
  shown = item;
  draw(item, server, actions);
  if (!focused) return;
  const same = byId(id)?.matches(":enabled:not(.gone)") ? byId(id) : byId("label");
  same?.focus({ preventScroll: true });
  if (id === "label" && same === byId("label")) same?.setSelectionRange(selectionStart, selectionStart);
}

/** Show the heat map of the image, or what is known of it, where the image is shown; all else stays. */
export function showHeatMap(item, actions) {
  const line = byId("heat-map-line");
  if (item !== shown || !line) return;
  const focused = line.contains(document.activeElement);
  line.replaceWith(heatMapLine(item, actions));
  if (focused) byId("gallery").querySelector("[aria-current]")?.focus({ preventScroll: true });
  const picture = byId("detail").querySelector(".frame.loaded > img");
  if (picture && item.explanation) picture.after(overlay(item, picture));
}

function draw(item, server, actions) {
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
      element("div", {}, says(title, item)),
    );
    return;
  }
  const label = server.collects ? [wrong(item, actions.label)] : [];
  byId("detail").replaceChildren(
    element("div", {}, stage(item), heatMapLine(item, actions), name),
    element("div", {}, says(title, item), bars(item), ...label),
  );
}

/** "Wrong? Say what it is": stores the image with its label, and takes it back.
 *
 * What is typed, and the note, stay with the image: this is drawn anew with each answer.
 */
function wrong(item, onLabel) {
  const input = element("input", { type: "text", required: true, autocomplete: "off", id: "label" });
  input.setAttribute("list", "class-names");
  input.value = item.typed ?? item.label ?? "";
  input.addEventListener("input", () => (item.typed = input.value));
  const save = element("button", { class: "button", id: "save" }, "Save");
  const undo = element("button", { type: "button", class: "button", id: "undo" }, "Undo");
  const waits = !item.answer;
  const note = element("p", { role: "status", id: "label-note" }, waits ? "Once the image is answered." : (item.note ?? ""));
  input.disabled = save.disabled = waits;
  const choose = () => { // only what is stored as it stands there can be undone
    const isStored = Boolean(item.label) && input.value.trim() === item.label;
    save.classList.toggle("gone", isStored);
    undo.classList.toggle("gone", !isStored);
  };
  choose();
  input.addEventListener("input", choose);
  const buttons = element("span", { class: "either" }, save, undo);
  const form = element("form", { class: "wrong" }, element("label", {}, "Wrong? Say what it is", input), buttons, note);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) store(item, input.value.trim(), onLabel);
  });
  undo.addEventListener("click", () => takeBack(item, onLabel));
  return form;
}

function say(item, note) {
  item.note = note;
  if (item === shown && byId("label-note")) byId("label-note").textContent = note;
}

async function store(item, label, onLabel) {
  if (item.busy) return;
  item.busy = true;
  say(item, "Storing …");
  const onAway = () => say(item, AWAY);
  const answer = await kept(collect({ file: item.file, label, modelName: item.answeredBy.name, onAway }));
  item.busy = false;
  if (!answer.ok) return say(item, whyNotStored(answer));
  item.stored = answer.digest;
  delete item.typed;
  item.note = `Stored as ${label}.`;
  onLabel(item, label);
}

async function takeBack(item, onLabel) {
  if (item.busy) return;
  item.busy = true;
  const answer = await kept(withdraw(item.stored, () => say(item, AWAY)));
  item.busy = false;
  if (!answer.ok) return say(item, whyNotUndone(answer));
  item.note = `No longer stored as ${item.label}.`;
  item.typed = item.label; // to be changed, where it was a slip
  onLabel(item, null);
}

function stage(item) {
  const picture = element("img", { src: item.url, alt: item.name });
  const frame = element("div", { class: "frame" }, picture);
  const node = element("div", { class: "stage" }, frame);
  picture.addEventListener("error", () => frame.replaceWith(UNSEEN));
  picture.addEventListener("load", () => {
    if (item.answer?.error && isBlank(picture)) return frame.replaceWith(UNSEEN);
    frame.style.setProperty("--ratio", drawnRatio(picture));
    node.title = sizeInWords(picture);
    frame.classList.add("loaded");
    if (item.explanation) picture.after(overlay(item, picture));
  });
  return node;
}

/** The explanation over the part of the image that the network sees. */
function overlay({ explanation, answeredBy }, { naturalWidth: width, naturalHeight: height }) {
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

/** The slider of the heat map; before there is one, and where there is none, words in its place. */
function heatMapLine(item, actions) {
  const none = item.answeredBy?.unexplained;
  if (none) return element("p", { class: "hint", id: "heat-map-line" }, `No Grad-CAM: ${none}`);
  const title = "Where it looked (Grad-CAM)";
  return element(
    "div",
    { class: "opacity", id: "heat-map-line" },
    item.explanation ? element("label", { htmlFor: "opacity" }, title) : title,
    element("span", {}, ...(item.explanation ? slider() : [...withoutHeatMap(item, actions)])),
  );
}

function slider() {
  const shownOpacity = element("output", {}, `${Math.round(100 * opacity)} %`);
  const input = element("input", {
    type: "range", min: 0, max: 100, value: Math.round(100 * opacity), id: "opacity",
  });
  input.addEventListener("input", () => {
    opacity = Number(input.value) / 100;
    shownOpacity.textContent = `${input.value} %`;
    const picture = document.querySelector(".overlay");
    if (picture) picture.style.opacity = opacity;
  });
  return [input, shownOpacity];
}

function* withoutHeatMap(item, actions) {
  if (!item.unexplained) return yield item.isServerBusy ? "coming, the server is busy …" : "coming …";
  yield item.unexplained;
  const again = element("button", { type: "button", class: "button small" }, "Try again");
  again.addEventListener("click", () => actions.explain());
  yield again;
}

/** The title and the status: they keep a place together, so that no gap is between them. */
function says(title, { answer, answeredBy }) {
  const parts = answer
    ? [statusBadge(answer.status), element("p", {}, reasonOf(answer, answeredBy))]
    : [statusBadge("waiting")];
  return element("div", { class: "says" }, title, ...parts);
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
