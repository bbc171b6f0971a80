// The page: tabs, the choice of the model, and how images come in.

import { filesOf } from "./dropped.js";
import { announce, byId, element, possible, statusBadge, STATUSES } from "./elements.js";
import { addImages, setModel } from "./gallery.js";
import { openLabelling } from "./labelling.js";
import { showModel } from "./model.js";
import { onKeyNeeded, request, watchConnection } from "./server.js";

const KEPT =
  "Images are sent to this server only. It keeps those that somebody labels, and in memory the latest ones that are worth a label.";
const REFRESH = 3000; // milliseconds, while the model's tab is open

let facts = { models: [] };
let chosen = 0; // place of the model
let refreshing = 0;
let known; // the promise that settles once the models are known

async function loadModels() {
  facts = await (await request("model")).json();
  show();
}

function show() {
  const model = facts.models[chosen];
  byId("model-name").textContent = model.name;
  byId("model-line").textContent = `${model.network} · ${model.classes.length} classes`;
  document.title = `${model.name} – resnets`;
  setModel(model, facts);
  byId("class-names").replaceChildren(...model.classes.map(({ name }) => element("option", { value: name })));
  byId("tab-labels").hidden = !facts.collects;
  if (facts.collects) byId("kept").textContent = KEPT;
  explainStatuses(model);
  if (!byId("model").hidden) showModel(model);
}

function offerModels() {
  const select = byId("which-model");
  select.append(...facts.models.map((model, place) => element("option", { value: place }, model.name)));
  select.addEventListener("change", () => {
    chosen = Number(select.value);
    show();
  });
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
  if (tab.id === "tab-labels") openLabelling(facts.models[chosen]);
  if (tab.id === "tab-model" && facts.models.length) {
    showModel(facts.models[chosen]);
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

async function receive(files) {
  if (!files.length) return;
  await known;
  choose(byId("tab-images"));
  byId("welcome").hidden = true;
  addImages(files);
}

function setUpInputs() {
  for (const input of [byId("choose"), byId("photograph")]) {
    input.addEventListener("change", () => {
      receive([...input.files]);
      input.value = "";
    });
  }
  document.addEventListener("paste", async (event) => receive(await filesOf(event.clipboardData)));
  let depth = 0; // of nested elements that the pointer has entered
  const mark = (change) => byId("drop").classList.toggle("over", (depth = Math.max(0, depth + change)) > 0);
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(-depth);
    receive(await filesOf(event.dataTransfer));
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

function explainStatuses(model) {
  byId("legend").replaceChildren(
    ...possible(model).map((name) => element("li", {}, statusBadge(name), element("p", {}, STATUSES[name].means))),
  );
}

/** Ask for a key, again where one was refused; the dialog stays until there is one. */
function askForKey(refused) {
  const dialog = byId("key-dialog");
  byId("key").value = "";
  byId("key-note").textContent = refused ? "The server does not accept this key." : "";
  dialog.onclose = () => dialog.showModal(); // without a key nothing here works
  dialog.showModal();
  return new Promise((resolve) => {
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.onclose = null;
      dialog.close();
      resolve(byId("key").value.trim());
    };
  });
}

watchConnection((away) => {
  byId("away").hidden = !away;
  if (!away) announce("The server answers again.");
});
onKeyNeeded(askForKey);
setUpTabs();
known = loadModels();
setUpInputs(); // images that come before the models are known wait for them
await known;
offerModels();
offerExamples(facts.examples);
document.documentElement.dataset.ready = "true";
