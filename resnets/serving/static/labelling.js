// Labelling: the images worth a label one after another, by keyboard, and one image by its name.

import { announce, byId, drawnRatio, element, percent, sizeInWords, statusBadge } from "./elements.js";
import { AWAY, whyNotStored, whyNotUndone } from "./reasons.js";
import { isAway, request } from "./server.js";

const KEYS = "1234567890abcdefghijklmnopqrstvwxyz"; // without u, which undoes
const DIGITS = 10; // of these keys
const UNNAMED = "image"; // what the server calls an image without a name

let queue = []; // what waits for a label, most worthy first
let place = 0; // of the image that is shown
// {entry, label, modelName, digest once it is stored, isUndone} in the order of labelling, for undo
let done = [];
let model = null;
let typed = ""; // of a class that has no key, for the image that is shown
let sending = Promise.resolve(); // settles once all that was done until now is stored
let pending = 0; // labels, and undone ones, of which the server knows nothing yet
const NOT_KNOWN = [400, 404]; // by the server, which was started again

/** What a response says, with its status. */
async function outcome(response) {
  const { ok, status } = response;
  return { ...(await response.json().catch(() => ({}))), ok, status };
}

/** Store an image with a label: a file, or without one an image of the queue by its digest.
 *
 * @param onAway is called each time that the server does not answer; it is asked again.
 */
export async function collect({ file, digest, label, modelName, onAway }) {
  const query = new URLSearchParams({ label, model: modelName });
  if (!file) query.set("image", digest);
  const headers = { "Content-Type": "application/octet-stream" };
  return outcome(await request(`collect?${query}`, { method: "POST", headers, body: file ?? null, onAway }));
}

/** Take the label of an image back. */
export const withdraw = async (digest, onAway) =>
  outcome(await request(`collect/${digest}`, { method: "DELETE", onAway }));

/** Show the tab with what waits now. */
export async function openLabelling(newModel) {
  model = newModel;
  const { images } = await (await request("queue")).json();
  const known = new Map(queue.map((each) => [each.digest, each]));
  const labelled = new Set(done.filter(({ digest }) => !digest).map(({ entry }) => entry.digest));
  queue = images
    .filter((each) => each.model === model.name && !labelled.has(each.digest))
    .map((each) => known.get(each.digest) ?? each);
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
  const same = focused ? byId(focused) : null; // a class's button has no id
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
    element("p", { class: "said" }, note || "Images that are sent to the server wait here, the least sure ones first, until somebody says what they are."),
    buttons,
  );
}

function workplace(entry, note) {
  const picture = element("img", { alt: `Image ${place + 1} of ${queue.length}` });
  contentOf(entry).then((content) => (picture.src = entry.url ??= URL.createObjectURL(content)));
  if (queue[place + 1]) contentOf(queue[place + 1]); // who types fast sees it at once
  const about = element("p", { class: "hint file", title: nameOf(entry) }, nameOf(entry));
  picture.addEventListener("load", () => {
    picture.style.setProperty("--ratio", drawnRatio(picture));
    about.textContent = about.title = [nameOf(entry), sizeInWords(picture)].filter(Boolean).join(" · ");
  });
  picture.addEventListener("error", () => picture.replaceWith("This browser cannot show the image."));
  const counter = `${place + 1} of ${queue.length}${done.length ? `, ${done.length} labelled` : ""}`;
  return element(
    "div",
    { class: "labelling" },
    element(
      "section",
      { class: "card detail-of-label", "aria-label": "The image" },
      element("div", { class: "stage" }, picture),
      about,
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
      element("p", { class: "hint note said" }, note || (entry.note ?? "")),
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

/** The name of an image's file; empty where the server was sent none. */
const nameOf = ({ image }) => (image === UNNAMED ? "" : image);

const keysInWords = () => (model.classes.length > DIGITS ? "Digits and letters choose a class" : "Digits choose a class");

/** An image of the queue, fetched once: the server lets go of it when it has a label. */
function contentOf(entry) {
  entry.content ??= request(`queue/${entry.digest}`, { onAway: tellAway }).then((response) => (response.ok ? response.blob() : new Blob()));
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
    element("button", { class: "button", id: "label-save" }, "Save"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    giveTyped(input.value.trim());
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

/** The outcome of some work that is lost with the page: who closes it meanwhile is asked. */
export async function kept(work) {
  pending += 1;
  try {
    return await work;
  } finally {
    pending -= 1;
  }
}

/** Have something sent once all that was done before is sent; a fault of that keeps nothing back. */
function inTurn(work) {
  sending = kept(sending.catch((error) => console.error(error)).then(work));
}

/** Label the image that is shown, and show the next one at once; the label is stored meanwhile. */
function give(label) {
  const entry = queue[place];
  if (!entry || !label || entry.isSending) return;
  const job = { entry, label, modelName: model.name, digest: null, isUndone: false };
  done.push(job);
  forget(entry);
  inTurn(() => store(job));
  draw(isAway() ? AWAY : `Storing as ${label} …`);
}

async function store(job) {
  if (job.isUndone) return;
  const answer = await send(job);
  if (answer.ok) {
    job.digest = answer.digest;
    return say(`Stored as ${job.label}.`);
  }
  if (job.isUndone) return;
  done = done.filter((each) => each !== job);
  job.entry.note = `Not stored as ${job.label}: ${whyNotStored(answer)}`;
  // after the image that is shown: a key that is meant for that one must not label this one
  queue.splice(queue.length ? place + 1 : 0, 0, job.entry);
  tell(queue.length > 1 ? `${job.entry.note} The image comes next.` : job.entry.note);
}

/** Label the image that is shown with a class that was typed, which stays until that is stored. */
function giveTyped(label) {
  const entry = queue[place];
  if (!entry || !label || entry.isSending) return;
  entry.isSending = true;
  const job = { entry, label, modelName: model.name, digest: null, isUndone: false };
  say(isAway() ? AWAY : `Storing as ${label} …`);
  inTurn(async () => {
    const answer = await send(job);
    entry.isSending = false;
    if (!answer.ok) return tell(whyNotStored(answer));
    done.push({ ...job, digest: answer.digest });
    const isShown = entry === queue[place];
    forget(entry);
    return isShown ? tell(`Stored as ${label}.`) : say(`Stored as ${label}.`);
  });
}

/** Store a label; a server that has let go of the image is sent its file. */
async function send({ entry, label, modelName }) {
  const content = await contentOf(entry); // for undo, too
  const query = { digest: entry.digest, label, modelName, onAway: tellAway };
  const first = await collect({ ...query, file: entry.isWithdrawn ? content : null });
  const isLost = NOT_KNOWN.includes(first.status) && !entry.isWithdrawn && content.size > 0;
  return isLost ? collect({ ...query, file: content }) : first;
}

/** Take an image out of those that wait for a label. */
function forget(entry) {
  const before = queue.indexOf(entry);
  if (before < 0) return;
  if (before === place) typed = "";
  queue.splice(before, 1);
  if (before < place) place -= 1;
  place = Math.min(place, Math.max(0, queue.length - 1));
  entry.note = "";
}

/** Show the image that was labelled last again, and take its label back. */
function undo() {
  const job = done.pop();
  if (!job) return;
  const { entry, label } = job;
  job.isUndone = true;
  typed = "";
  queue.splice(place, 0, entry);
  inTurn(async () => {
    const answer = job.digest ? await withdraw(job.digest, tellAway) : { ok: true };
    if (answer.ok) {
      entry.isWithdrawn = job.digest !== null;
      return say(`No longer stored as ${label}.`);
    }
    job.isUndone = false;
    done.push(job);
    forget(entry);
    return tell(whyNotUndone(answer));
  });
  draw(isAway() ? AWAY : "");
}

function tellAway() {
  if (pending) say(AWAY);
}

/** Show a note, to screen readers, too; the image and what is typed stay as they are. */
function say(note) {
  announce(note);
  const line = byId("labels").querySelector(".said");
  if (line) line.textContent = note;
}

/** Show a note, and what waits for a label now. */
function tell(note) {
  announce(note);
  draw(note);
}

addEventListener("beforeunload", (event) => {
  if (pending) event.preventDefault(); // labels would be lost
});

document.addEventListener("keydown", (event) => {
  const elsewhere = byId("labels").hidden || event.ctrlKey || event.metaKey || event.altKey;
  if (elsewhere || event.target.matches("input, select")) return;
  if (event.repeat && !event.key.startsWith("Arrow")) return; // a key that is held is one label
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
