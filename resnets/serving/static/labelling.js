// Labelling: the images worth a label one after another, by keyboard, and one image by its name.

import { announce, byId, element, percent, statusBadge } from "./elements.js";
import { whyNotStored, whyNotUndone } from "./reasons.js";
import { request } from "./server.js";

const KEYS = "1234567890abcdefghijklmnopqrstvwxyz"; // without u, which undoes
const DIGITS = 10; // of these keys

let queue = []; // what waits for a label, most worthy first
let place = 0; // of the image that is shown
let done = []; // {entry, digest, label} in the order of labelling, for undo
let model = null;
let typed = ""; // of a class that has no key, for the image that is shown

/** What a response says, with its status. */
async function outcome(response) {
  const { ok, status } = response;
  return { ...(await response.json().catch(() => ({}))), ok, status };
}

/** Store an image with a label: a file, or without one an image of the queue by its digest. */
export async function collect({ file, digest, label, modelName }) {
  const query = new URLSearchParams({ label, model: modelName });
  if (!file) query.set("image", digest);
  const headers = { "Content-Type": "application/octet-stream" };
  return outcome(await request(`collect?${query}`, { method: "POST", headers, body: file ?? null }));
}

/** Take the label of an image back. */
export const withdraw = async (digest) => outcome(await request(`collect/${digest}`, { method: "DELETE" }));

/** Show the tab with what waits now. */
export async function openLabelling(newModel) {
  model = newModel;
  const { images } = await (await request("queue")).json();
  queue = images.filter((each) => each.model === model.name);
  place = 0;
  typed = "";
  draw();
}

/** Take note of what is known of the model now: it may have other classes. */
export function showLabelling(newModel) {
  if (newModel.name !== model?.name) openLabelling(newModel);
  else if (newModel.digest !== model.digest) {
    model = newModel;
    draw();
  }
}

function draw(note = "") {
  const entry = queue[place];
  const panel = byId("labels");
  const focused = panel.contains(document.activeElement) ? document.activeElement.id : null;
  panel.replaceChildren(
    element("h1", { class: "vh" }, "Label images"),
    entry ? workplace(entry, note) : nothing(note),
  );
  if (focused === null) return;
  const same = focused && byId(focused);
  (same?.matches(":enabled:not(.gone)") ? same : panel).focus({ preventScroll: true });
}

function nothing(note) {
  const again = element("button", { type: "button", class: "button" }, "Look again");
  again.addEventListener("click", () => openLabelling(model));
  const buttons = element("div", { class: "line" }, again);
  if (done.length) buttons.append(undoButton());
  return element(
    "div",
    { class: "card labelling" },
    element("h2", {}, "No image waits for a label"),
    element("p", {}, note || "Images that are sent to the server wait here, the least sure ones first, until somebody says what they are."),
    buttons,
  );
}

function workplace(entry, note) {
  const picture = element("img", { alt: `Image ${place + 1} of ${queue.length}` });
  contentOf(entry).then((content) => (picture.src = entry.url ??= URL.createObjectURL(content)));
  picture.addEventListener("error", () => picture.replaceWith("This browser cannot show the image."));
  const counter = `${place + 1} of ${queue.length}${done.length ? `, ${done.length} labelled` : ""}`;
  return element(
    "div",
    { class: "labelling" },
    element(
      "section",
      { class: "card detail-of-label", "aria-label": "The image" },
      element("div", { class: "stage" }, picture),
      element("p", { class: "hint" }, counter),
    ),
    element(
      "section",
      { class: "card choices", "aria-label": "Its class" },
      element("h2", {}, "What is it?"),
      element(
        "p",
        { class: "guess-line" },
        `Predicted: ${entry.prediction}, ${percent(entry.probability)} `,
        statusBadge(entry.status),
      ),
      keys(entry),
      otherClass(),
      element("p", { class: "hint note" }, note),
      element(
        "div",
        { class: "line" },
        moveButton("←", -1, "previous"),
        moveButton("→", 1, "next"),
        undoButton(),
      ),
      element("p", { class: "hint" }, `${keysInWords()}, Enter the predicted one, arrows move, u undoes.`),
    ),
  );
}

const keysInWords = () => (model.classes.length > DIGITS ? "Digits and letters choose a class" : "Digits choose a class");

/** An image of the queue, fetched once: the server lets go of it when it has a label. */
function contentOf(entry) {
  entry.content ??= request(`queue/${entry.digest}`).then((response) => (response.ok ? response.blob() : new Blob()));
  return entry.content;
}

function keys(entry) {
  const buttons = model.classes.slice(0, KEYS.length).map(({ name }, number) => {
    const key = element("kbd", { "aria-hidden": "true" }, KEYS[number]);
    const button = element("button", { type: "button" }, key, element("span", {}, name));
    button.setAttribute("aria-keyshortcuts", KEYS[number]);
    if (name === entry.prediction) button.classList.add("guess");
    button.addEventListener("click", () => give(name));
    return button;
  });
  return element("div", { class: "keys" }, ...buttons);
}

/** A form for a class that has no key, or is new. */
function otherClass() {
  const input = element("input", { type: "text", required: true, autocomplete: "off", id: "label-other", value: typed });
  input.setAttribute("list", "class-names");
  input.addEventListener("input", () => (typed = input.value));
  const form = element(
    "form",
    { class: "wrong" },
    element("label", {}, "Another class, or a new one", input),
    element("button", { class: "button" }, "Save"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    give(input.value.trim());
  });
  return form;
}

function moveButton(text, step, name) {
  const label = `Show the ${name} image`;
  const button = element("button", { type: "button", class: "button", id: `label-${name}`, "aria-label": label }, text);
  button.disabled = !queue[place + step];
  button.addEventListener("click", () => move(step));
  return button;
}

function undoButton() {
  const button = element("button", { type: "button", class: "button", id: "label-undo" }, "Undo");
  button.classList.toggle("gone", !done.length);
  button.addEventListener("click", undo);
  return button;
}

function move(step) {
  if (!queue[place + step]) return;
  place += step;
  typed = "";
  draw();
}

let busy = false; // while a label is on its way: keys wait for no second one

async function give(label) {
  const entry = queue[place];
  if (!entry || !label || busy) return;
  busy = true;
  const file = entry.withdrawn ? await entry.content : null;
  const answer = await collect({ file, digest: entry.digest, label, modelName: model.name });
  busy = false;
  if (!answer.ok) return tell(whyNotStored(answer));
  typed = "";
  done.push({ entry, digest: answer.digest, label });
  queue.splice(place, 1);
  place = Math.min(place, Math.max(0, queue.length - 1));
  tell(`Stored as ${label}.`);
}

async function undo() {
  if (!done.length || busy) return;
  const { entry, digest, label } = done.at(-1);
  busy = true;
  const answer = await withdraw(digest);
  busy = false;
  if (!answer.ok) return tell(whyNotUndone(answer));
  done.pop();
  typed = "";
  entry.withdrawn = true;
  queue.splice(place, 0, entry);
  tell(`No longer stored as ${label}.`);
}

/** Show a note, to screen readers, too. */
function tell(note) {
  announce(note);
  draw(note);
}

document.addEventListener("keydown", (event) => {
  const elsewhere = byId("labels").hidden || event.ctrlKey || event.metaKey || event.altKey;
  if (elsewhere || event.target.matches("input, select")) return;
  const onTab = event.target.matches("[role=tab]");
  if (event.key.length > 1 && event.key !== "Enter" && onTab) return; // arrows change the tab
  const number = KEYS.indexOf(event.key);
  const predicted = event.key === "Enter" && (onTab || !event.target.matches("button"));
  if (event.key === "u") undo();
  else if (event.key === "ArrowRight") move(1);
  else if (event.key === "ArrowLeft") move(-1);
  else if (predicted) give(queue[place]?.prediction);
  else if (number >= 0 && model?.classes[number]) give(model.classes[number].name);
  else if (/^[0-9a-z]$/i.test(event.key) && queue[place]) tell(`No class has the key ${event.key}.`);
  else return;
  event.preventDefault();
});
