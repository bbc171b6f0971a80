// The page: tabs, the choice of the model, and how images come in.

import { filesOf } from "./dropped.js";
import { announce, byId, element, meaning, possible, statusBadge } from "./elements.js";
import { addImages, onAnotherFile, setModel } from "./gallery.js";
import { openLabelling, showLabelling } from "./labelling.js";
import { showModel } from "./model.js";
import { setLimits } from "./reasons.js";
import { onKeyNeeded, request, watchConnection } from "./server.js";

const KEPT =
  "Images are sent to this server only. It keeps those that somebody labels, and in memory the latest ones that are worth a label.";
const INSTEAD = "Copy an image itself, not its address or a text, or choose its file.";
const NO_MODEL = "No model is loaded.";
const REFUSED = "The server does not accept this key.";
const INVISIBLE = /[\p{C}\p{Z}]/gu; // what copying from a chat adds to a key, and no key has
const SENDABLE = /^[!-~]+$/; // as a header; all keys of a server are
const NAMED = 20; // classes on the empty page
const REFRESH = 3000; // milliseconds

let facts = { models: [] };
let factsAt = null; // when the server told them; null before it does
let early = 0; // images that wait for the facts
let chosen = null; // name of the model; of the first one without
let refreshing = 0;
let rested = Promise.resolve(); // settles a while after the facts were last asked for anew
let renewing = null; // the promise of facts that will be asked for then
let known; // the promise that settles once the models are known

const chosenModel = () => facts.models.find(({ name }) => name === chosen) ?? facts.models[0];

async function loadModels() {
  facts = await (await request("model")).json();
  factsAt = new Date();
  setLimits(facts.takes);
  offerModels();
  show();
}

/** What the server says from now on: asked for later, where it was asked within three seconds. */
function renew() {
  renewing ??= rested.then(() => {
    renewing = null; // who calls from here on may know of a later change
    rested = new Promise((resolve) => setTimeout(resolve, REFRESH));
    return loadModels();
  });
  return renewing;
}

function show() {
  const model = chosenModel();
  if (!model) {
    for (const id of ["model-name", "model-line"]) byId(id).title = "";
    byId("model-name").textContent = "";
    byId("model-line").textContent = NO_MODEL;
    return;
  }
  byId("model-name").textContent = model.name;
  byId("model-line").textContent = `${model.network} · ${model.classes.length} classes`;
  for (const id of ["model-name", "model-line"]) byId(id).title = byId(id).textContent; // may be cut
  document.title = `${model.name} – resnets`;
  setModel(model, facts);
  byId("class-names").replaceChildren(...model.classes.map(({ name }) => element("option", { value: name })));
  byId("tab-labels").hidden = !facts.collects;
  if (facts.collects) byId("kept").textContent = KEPT;
  explainStatuses(model);
  tellClasses(model);
  if (!byId("labels").hidden) showLabelling(model);
  if (!byId("model").hidden) showModel(model, factsAt);
}

function offerModels() {
  const select = byId("which-model");
  const names = facts.models.map(({ name }) => name);
  const offered = [...select.options].map(({ value }) => value);
  if (names.join("\n") === offered.join("\n")) return;
  select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  select.value = chosenModel()?.name ?? "";
  const several = facts.models.length > 1;
  byId("which").hidden = !several;
  byId("model-name").hidden = several; // the choice shows it
}

function choose(tab) {
  for (const each of document.querySelectorAll("[role=tab]")) {
    const isChosen = each === tab;
    each.setAttribute("aria-selected", String(isChosen));
    each.tabIndex = isChosen ? 0 : -1;
    byId(each.getAttribute("aria-controls")).hidden = !isChosen;
  }
  clearInterval(refreshing);
  if (!chosenModel()) return;
  if (tab.id === "tab-labels") {
    openLabelling(chosenModel());
    renew();
  }
  if (tab.id === "tab-model") {
    showModel(chosenModel(), factsAt);
    loadModels();
    refreshing = setInterval(loadModels, REFRESH);
  }
}

function setUpTabs() {
  const list = document.querySelector("[role=tablist]");
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (!tab) return;
    choose(tab);
    if (tab.id === "tab-labels") byId("labels").focus(); // so that arrows move among the images
  });
  list.addEventListener("keydown", (event) => {
    const tabs = [...list.querySelectorAll("[role=tab]:not([hidden])")];
    const place = tabs.indexOf(document.activeElement);
    const last = tabs.length - 1;
    const next = {
      ArrowRight: place === last ? 0 : place + 1,
      ArrowLeft: place === 0 ? last : place - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    tabs[next].focus();
    choose(tabs[next]);
  });
}

/** Say that images cannot be predicted now. */
function refuse() {
  byId("drop-note").textContent = `${NO_MODEL} Send the images again once one is.`;
  announce(NO_MODEL);
}

/** Say how many images wait until the models are known. */
function tellWaiting(count) {
  const images = count === 1 ? "1 image waits" : `${count.toLocaleString("en")} images wait`;
  byId("drop-note").textContent = count ? `${images} for the server.` : "";
  if (count) announce(byId("drop-note").textContent);
}

/** Take in what was chosen, or what was pasted or dropped: `means` is the word for how. */
async function receive(files, means = "") {
  const note = !files.length && means ? `There is no image in what you ${means}. ${INSTEAD}` : "";
  byId("drop-note").textContent = note;
  if (note) announce(note);
  if (!files.length) return;
  if (!factsAt) tellWaiting((early += files.length));
  await known;
  if (early) tellWaiting((early = 0));
  if (!chosenModel()) {
    await renew(); // perhaps one was loaded since
    if (!chosenModel()) return refuse();
  }
  choose(byId("tab-images"));
  byId("welcome").hidden = true;
  addImages(files, means === "pasted");
}

function setUpInputs() {
  for (const input of [byId("choose"), byId("photograph")]) {
    input.addEventListener("change", () => {
      receive([...input.files]);
      input.value = "";
    });
  }
  document.addEventListener("paste", async (event) => {
    const files = await filesOf(event.clipboardData);
    if (files.length || !event.target.matches?.("input")) receive(files, "pasted");
  });
  let depth = 0; // of nested elements that the pointer has entered
  const mark = (change) => byId("drop").classList.toggle("over", (depth = Math.max(0, depth + change)) > 0);
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(-depth);
    receive(await filesOf(event.dataTransfer), "dropped");
  });
}

/** Drawings that the demo offers: each alone, or all of them. */
function offerExamples(names) {
  const fileOf = async (name) => {
    const content = await (await request(`examples/${name}`)).blob();
    return new File([content], name, { type: content.type });
  };
  const take = async (chosenNames) => receive(await Promise.all(chosenNames.map(fileOf)));
  const buttons = names.map((name) => {
    const picture = element("img", { src: `examples/${name}`, alt: name.replace(/\.\w+$/, "") });
    const button = element("button", { type: "button" }, picture);
    button.addEventListener("click", () => take([name]));
    return button;
  });
  const all = element("button", { type: "button", class: "all" }, "All of them");
  all.addEventListener("click", () => take(names));
  byId("example-list").append(...[...buttons, all].map((button) => element("li", {}, button)));
  byId("examples").hidden = !names.length;
}

/** The first classes, and a way to the others. */
function tellClasses({ classes }) {
  const names = classes.slice(0, NAMED).map(({ name }) => name).join(", ");
  const more = classes.length - NAMED;
  const others = element("button", { type: "button", class: "link" }, `${more.toLocaleString("en")} more`);
  others.addEventListener("click", () => {
    choose(byId("tab-model"));
    byId("tab-model").focus();
  });
  byId("knows").replaceChildren(
    ...(more > 0 ? [`${names} and `, others] : [names]),
    ". Each image is given one of these, whatever it shows.",
  );
}

function explainStatuses(model) {
  byId("legend").replaceChildren(
    ...possible(model).map((name) => element("li", {}, statusBadge(name), element("p", {}, meaning(name, model)))),
  );
}

/** Ask for a key, again where one was refused; the dialog stays until there is one. */
function askForKey(refused) {
  const dialog = byId("key-dialog");
  const line = byId("model-line").textContent;
  byId("model-line").textContent = "The server asks for a key.";
  byId("key").value = "";
  byId("key-note").textContent = refused ? REFUSED : "";
  dialog.onclose = () => dialog.showModal(); // without a key nothing here works
  dialog.showModal();
  return new Promise((resolve) => {
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      const key = byId("key").value.replaceAll(INVISIBLE, "");
      if (!SENDABLE.test(key)) {
        byId("key-note").textContent = REFUSED;
        return;
      }
      dialog.onclose = null;
      dialog.close();
      byId("model-line").textContent = line;
      resolve(key);
    };
  });
}

watchConnection((away) => {
  byId("away").hidden = !away;
  if (!byId("model").hidden && chosenModel()) showModel(chosenModel(), factsAt);
  if (away) return;
  announce("The server answers again.");
  renew(); // perhaps with other models
});
onAnotherFile(renew);
byId("which-model").addEventListener("change", ({ target }) => {
  chosen = target.value;
  show();
});
onKeyNeeded(askForKey);
setUpTabs();
known = loadModels();
setUpInputs(); // images that come before the models are known wait for them
await known;
offerExamples(facts.examples);
document.documentElement.dataset.ready = "true";
