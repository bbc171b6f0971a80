// The batch: images with their answers, filters, and downloads of what is shown.

import { announce, byId, element, isBlank, percent, possible, statusBadge, STATUSES } from "./elements.js";
import { showDetail, showHeatMap } from "./detail.js";
import { saveCSV, saveJSON } from "./downloads.js";
import { explain, predict } from "./server.js";

const UNSEEN = "no preview";
const HIDES = "Shown; a click hides the images of this status";
const SHOWS = "Hidden; a click shows the images of this status";
const TOP = 5; // classes that are listed of an image
const STAY = 150; // milliseconds that an image is shown before its heat map is asked for
const TURNS = 13; // as often a heat map waits for the answers of the others: some two seconds
const narrow = matchMedia("(max-width: 939px)"); // the selected image is above the others

let model = null; // what /model says of it
let server = null; // what /model says of the server
let items = []; // each {name, file, url, answer (null while it waits), label: what a person says, tile, entry}
let selected = null;
let stop = new AbortController(); // ends the requests of a batch that was cleared
let explaining = new AbortController(); // ends the request for the heat map of another image
let renew = async () => {}; // has the facts of the model asked for anew

/** What to do where the server answers by another file of the model than the page knows. */
export function onAnotherFile(listener) {
  renew = listener;
}

/** Let a model answer the images that come next; those that are shown are asked again. */
export function setModel(newModel, newServer) {
  const another = model !== null && model.name !== newModel.name;
  model = newModel;
  server = newServer;
  if (another && items.length) answerAgain();
}

function answerAgain() {
  stop.abort();
  explaining.abort();
  stop = new AbortController();
  for (const item of items) {
    item.answer = null;
    forgetHeatMap(item);
    drawTile(item);
    answer(item, stop.signal);
  }
  if (selected) showDetail(selected, server, actions);
  update();
}

/** Take in files, show them at once, and each answer as it comes.
 *
 * @param files to answer.
 * @param numbered whether a file whose name is taken gets a number: all that is pasted has one name.
 */
export function addImages(files, numbered = false) {
  byId("results").hidden = false;
  const added = files.map((file) => {
    const item = newItem(file, numbered ? freeName(file.name) : file.name);
    items.push(item);
    return item;
  });
  byId("gallery").append(...added.map((item) => item.entry));
  select(added[0]);
  update();
  if (narrow.matches) revealDetail(); // else the answer of a photo is below the screen of a phone
  for (const item of added) answer(item, stop.signal);
}

/** A name that no image has: "image.png", then "image 2.png". */
function freeName(name) {
  const taken = new Set(items.map((item) => item.name));
  const [, stem, ending] = name.match(/^(.*?)(\.[^.]*)?$/s);
  let free = name;
  for (let number = 2; taken.has(free); number += 1) free = `${stem} ${number}${ending ?? ""}`;
  return free;
}

function newItem(file, name) {
  const item = { name, file, url: URL.createObjectURL(file), answer: null, label: null };
  item.tile = element("button", { type: "button", class: "tile" });
  item.tile.addEventListener("click", () => {
    select(item);
    revealDetail();
  });
  item.entry = element("li", {}, item.tile);
  drawTile(item);
  return item;
}

async function answer(item, signal) {
  try {
    const top = Math.min(TOP, model.classes.length);
    item.answeredBy = model;
    take(item, await predict(item.file, { model, top, signal }), signal);
  } catch (error) {
    if (signal.aborted) return; // the batch was cleared
    throw error;
  }
  if (item === selected) explainSelected();
  if (items.length === 1) announce(inWords(item));
}

/** Show an answer, and learn what the server says now if another file of the model gave it. */
function take(item, newAnswer, signal) {
  item.answer = newAnswer;
  drawTile(item);
  if (item === selected) showDetail(item, server, actions);
  update();
  const answeredBy = item.answer.model;
  if (answeredBy && answeredBy.digest !== item.answeredBy.digest) {
    renew().then(() => {
      if (answeredBy.name === model.name) item.answeredBy = model;
      if (item === selected && !signal.aborted) showDetail(item, server, actions);
    });
  }
}

/** Ask for the heat map of the selected image, once: the server computes none for the others.
 *
 * It waits until the image is shown for a moment, so that none is asked for of images that the
 * arrow keys pass, and a while for the answers of the others: a first heat map takes long.
 */
async function explainSelected() {
  explaining.abort();
  explaining = new AbortController();
  const [item, { signal }] = [selected, explaining];
  if (!item?.answer?.prediction || item.explanation || item.answeredBy.unexplained) return;
  item.unexplained = null;
  item.isServerBusy = false;
  showHeatMap(item, actions);
  let turns = 0;
  do await new Promise((resolve) => setTimeout(resolve, STAY));
  while (!signal.aborted && (turns += 1) < TURNS && items.some((each) => !each.answer));
  if (signal.aborted) return;
  const onBusy = () => {
    item.isServerBusy = true;
    showHeatMap(item, actions);
  };
  const top = Math.min(TOP, item.answeredBy.classes.length);
  try {
    takeHeatMap(item, await explain(item.file, { model: item.answeredBy, top, signal, onBusy }), signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function takeHeatMap(item, { explanation, unexplained, final, ...newAnswer }, signal) {
  if (signal.aborted) return;
  if (explanation) item.explanation = pictureOf(explanation);
  else if (final) item.answeredBy.unexplained = unexplained;
  else item.unexplained = unexplained;
  const isOfAnother = explanation && newAnswer.model.digest !== item.answer.model.digest;
  if (isOfAnother) take(item, newAnswer, signal); // the heat map is for this prediction
  else showHeatMap(item, actions);
}

function forgetHeatMap(item) {
  if (item.explanation) URL.revokeObjectURL(item.explanation);
  item.explanation = item.unexplained = null;
}

/** A URL of a PNG in base64. */
function pictureOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
}

function inWords({ name, answer }) {
  if (answer.error) return `${name}: ${answer.status}. ${answer.reason}`;
  return `${name}: ${answer.prediction}, ${percent(answer.probability)}, ${answer.status}`;
}

function preview(url) {
  const picture = element("img", { src: url, alt: "", decoding: "async", loading: "lazy" });
  const frame = element("span", {}, picture);
  picture.addEventListener("error", () => frame.replaceChildren(UNSEEN));
  return frame;
}

/** Say that there is no preview where the server cannot read an image and the browser shows nothing. */
async function refuseBlank(frame) {
  const picture = frame.querySelector("img");
  const isShown = await picture?.decode().then(() => true, () => false);
  if (isShown && isBlank(picture)) frame.replaceChildren(UNSEEN);
}

function drawTile(item) {
  const { answer } = item;
  const named = answer?.prediction ?? "";
  item.picture ??= preview(item.url);
  if (answer?.error) refuseBlank(item.picture);
  const thumb = element("span", { class: "thumb" }, item.picture);
  if (answer?.prediction) thumb.append(element("span", { class: "share-of-class" }, percent(answer.probability, 0)));
  if (item.label) thumb.append(element("span", { class: "label-of-person", title: item.label }, `Label: ${item.label}`));
  item.tile.replaceChildren(
    thumb,
    element(
      "span",
      { class: "tile-text" },
      element("span", { class: "tile-class", title: named }, named || (answer ? "–" : "\u00a0")),
      statusBadge(answer?.status ?? "waiting"),
      element("span", { class: "hint", title: item.name }, item.name),
    ),
  );
}

/** Show the label that a person gave an image, or took back: null. */
function setLabel(item, label) {
  item.label = label;
  drawTile(item);
  if (item === selected) showDetail(item, server, actions);
  update();
}

const actions = { label: setLabel, explain: explainSelected };

function select(item) {
  selected?.tile.removeAttribute("aria-current");
  selected = item;
  item.tile.setAttribute("aria-current", "true");
  setTabStop();
  showDetail(item, server, actions);
  explainSelected();
}

function revealDetail() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const block = narrow.matches ? "start" : "nearest";
  byId("detail").scrollIntoView({ block, behavior: calm ? "auto" : "smooth" });
}

function passes({ answer, label }) {
  if (!answer) return true; // it waits
  const status = byId("status-filter").querySelector(`[value="${answer.status}"]`);
  if (status && !status.checked) return false;
  const wanted = byId("class-filter").value;
  if (wanted && answer.prediction !== wanted && label !== wanted) return false;
  const [least, most] = confidenceBounds().map((bound) => bound / 100);
  const all = least <= 0 && most >= 1; // what has no probability passes only then
  return all || (answer.probability !== null && answer.probability >= least && answer.probability <= most);
}

/** The bounds of the confidence filter in percent; one that is empty, or beyond 0 to 100, is the end. */
const confidenceBounds = () =>
  [["least", 0], ["most", 100]].map(([id, end]) => Math.min(100, Math.max(0, Number(byId(id).value || end))));

/** Say what is wrong with the bounds of the confidence filter. */
function checkBounds() {
  const [least, most] = confidenceBounds();
  const beyond = ["least", "most"].some((id) => byId(id).validity.rangeUnderflow || byId(id).validity.rangeOverflow);
  const note = least > most ? "The lower bound is above the upper one." : beyond ? "From 0 to 100 percent." : "";
  byId("range-note").textContent = note;
  for (const id of ["least", "most"]) byId(id).setAttribute("aria-invalid", String(note !== ""));
}

const shown = () => items.filter(passes);

function update() {
  const settled = items.filter((item) => item.answer);
  const answered = settled.filter((item) => item.answer.prediction);
  const failures = settled.length - answered.length;
  const failed = failures ? `, ${failures} failed` : "";
  for (const item of items) item.entry.hidden = !passes(item);
  const count = shown().length;
  byId("none-shown").hidden = count > 0 || !items.length;
  byId("detail").classList.toggle("gone", count === 0);
  const isHidden = selected?.entry.hidden && !byId("detail").contains(document.activeElement);
  if (isHidden && count) select(shown()[0]);
  setTabStop();
  const filtered = count < items.length ? `, ${count} shown` : "";
  const progress = `${answered.length} of ${items.length} answered${failed}`;
  byId("progress-text").textContent = `${progress}${filtered}`;
  byId("progress").setAttribute("aria-valuetext", progress);
  byId("progress").max = Math.max(1, items.length);
  byId("progress").value = answered.length;
  for (const label of byId("status-filter").querySelectorAll("label")) {
    const box = label.querySelector("input");
    const { value } = box;
    label.title = box.title = box.checked ? HIDES : SHOWS;
    const number = settled.filter((item) => item.answer.status === value).length;
    label.querySelector(".count").textContent = number;
    label.hidden = !number && !possible(model).includes(value);
  }
  offerClasses(settled);
  if (items.length > 1 && settled.length === items.length) {
    const all = failures ? `${answered.length} of ${items.length}` : `All ${items.length}`;
    announce(`${all} images are answered${failed}${filtered}.`);
  }
}

function offerClasses(settled) {
  const select = byId("class-filter");
  const known = new Set([...select.options].map((option) => option.value));
  const names = new Set(settled.flatMap((item) => [item.answer.prediction, item.label]).filter(Boolean));
  const more = [...names].filter((name) => !known.has(name)).sort();
  select.append(...more.map((name) => element("option", { value: name }, name)));
}

function clear() {
  stop.abort();
  explaining.abort();
  stop = new AbortController();
  for (const item of items) {
    URL.revokeObjectURL(item.url);
    forgetHeatMap(item);
  }
  items = [];
  selected = null;
  byId("gallery").replaceChildren();
  byId("class-filter").replaceChildren(element("option", { value: "" }, "all"));
  byId("filters").reset();
  checkBounds();
  byId("results").hidden = true;
  byId("welcome").hidden = false;
  byId("choose").focus();
}

/** Of many images one is reached by Tab: the selected one, or the first where that is not shown. */
function setTabStop() {
  const stop = selected && !selected.entry.hidden ? selected : shown()[0];
  for (const item of items) item.tile.tabIndex = item === stop ? 0 : -1;
}

/** Arrow keys move through the gallery, along rows and columns. */
function move(event) {
  const tiles = items.filter((item) => !item.entry.hidden).map((item) => item.tile);
  const place = tiles.indexOf(document.activeElement);
  const columns = getComputedStyle(byId("gallery")).gridTemplateColumns.split(" ").length;
  const ends = { Home: -place, End: tiles.length - 1 - place };
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, ...ends };
  const step = steps[event.key];
  if (place < 0 || !step || !tiles[place + step]) return;
  event.preventDefault();
  tiles[place + step].focus();
  select(items.find((item) => item.tile === tiles[place + step]));
}

for (const status of Object.keys(STATUSES)) {
  const box = element("input", { type: "checkbox", class: "vh", value: status, checked: true });
  box.defaultChecked = true;
  byId("status-filter").append(
    element("label", {}, box, statusBadge(status), element("span", { class: "count" }, "0")),
  );
}
byId("filters").addEventListener("input", () => {
  checkBounds();
  update();
});
byId("filters").addEventListener("change", ({ target }) => {
  if (target.type === "number" && target.value) target.value = Math.min(100, Math.max(0, Number(target.value)));
  checkBounds();
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("gallery").addEventListener("keydown", move);
byId("csv").addEventListener("click", () => saveCSV(shown()));
byId("json").addEventListener("click", () => saveJSON(shown()));
byId("clear").addEventListener("click", clear);
