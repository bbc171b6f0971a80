// The model's tab: what it is, how good, on what it was trained, and how it does now.

import { bar, byId, element, percent } from "./elements.js";
import { isAway } from "./server.js";

const NOT_CALIBRATED = "The model file has no calibration, so the status is “not calibrated”.";

let drawn = ""; // digest of the model whose lasting facts are on the page

/** Show a model, with the time of its facts; called again, only what changes is drawn anew. */
export function showModel(model, at) {
  if (drawn !== `${model.name} ${model.digest}`) {
    byId("model").replaceChildren(
      element("h1", { class: "vh" }, `The model ${model.name}`),
      element("div", { class: "facts" }, ...lastingCards(model), classCard(model)),
    );
    drawn = `${model.name} ${model.digest}`;
  }
  showNow(model);
  const time = at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  byId("as-of").hidden = !isAway();
  byId("as-of").textContent = isAway() ? `As of ${time}: the server does not answer now.` : "";
}

const card = (title, ...content) =>
  element("section", { class: "card" }, element("h2", {}, title), ...content);
const paragraphs = (texts) => texts.map((text) => element("p", {}, unbroken(text)));

/** A text whose lines do not end between a number and its percent sign. */
const unbroken = (text) => text.replaceAll(/(\d) %/g, "$1\u00a0%");

function lastingCards(model) {
  const calibration = model.calibration.length ? model.calibration : [NOT_CALIBRATED];
  return [
    card("Accuracy", ...accuracy(model)),
    card(
      "Now",
      element("p", { class: "hint", id: "as-of" }),
      element("p", { class: "hint", id: "process" }),
      element("h3", {}, "Latency in the last minute"),
      element("div", { class: "figures", id: "latency" }),
      element("h3", {}, "Drift of the latest images"),
      element("p", { id: "drift" }),
    ),
    card(
      "Network",
      element("p", {}, `${model.network}, for images of ${model.images}`),
      element("p", { class: "hint" }, `Computed by ${model.engine}`),
      element("p", { class: "hint" }, `SHA-256 ${model.digest || "unknown"}`),
    ),
    card("Calibration", ...paragraphs(calibration)),
    card("Unfamiliar images", ...paragraphs([model.unfamiliar, model.unprotected].filter(Boolean))),
    card(
      "Trained on",
      ...paragraphs(model.trained_on),
      element("h3", {}, "Weights it started from, and their licence"),
      ...paragraphs(model.licences),
    ),
  ];
}

function accuracy(model) {
  if (!model.accuracy.length) return [element("p", {}, "The model file has no measured accuracy.")];
  return model.accuracy.toReversed().map((row) =>
    element(
      "div",
      {},
      element("p", { class: "figure" }, percent(row.value, 2)),
      element(
        "p",
        { class: "hint" },
        unbroken(`${[row.split, "images", row.remark].filter(Boolean).join(" ")}: ${row.count.toLocaleString("en")} of ${row.total.toLocaleString("en")} right, ` +
          `95 % interval ${(100 * row.interval[0]).toFixed(2)} to ${(100 * row.interval[1]).toFixed(2)}`),
      ),
    ),
  );
}

function showNow({ latency, drift, process }) {
  const figure = (name, text) =>
    element("div", {}, element("p", { class: "figure" }, text), element("p", { class: "hint" }, name));
  byId("latency").replaceChildren(
    figure("median", duration(latency.p50)),
    figure("99th percentile", duration(latency.p99)),
    figure(latency.requests === 1 ? "request" : "requests", latency.requests.toLocaleString("en")),
  );
  byId("process").hidden = !process;
  byId("process").textContent = process ? `Of the process that answered, one of ${process.of}; /metrics tells of all.` : "";
  byId("drift").textContent = unbroken(drift.text);
}

function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  return `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}

function classCard(model) {
  const known = model.classes.some((each) => each.recall);
  const note = known ? "Share of the images of each class that are predicted as it." : "Their accuracy is not in the model file.";
  const rows = model.classes.map(({ name, recall }) =>
    element(
      "li",
      {},
      element("span", {}, name),
      element("span", { class: "hint" }, recall ? `${percent(recall.value, 0)} of ${recall.total.toLocaleString("en")}` : ""),
      ...(recall ? [bar(recall.value)] : []),
    ),
  );
  const list = element("ul", { class: "classes", tabIndex: 0, "aria-label": "Classes" }, ...rows);
  const node = card(`${model.classes.length.toLocaleString("en")} classes`, element("p", { class: "hint" }, note), list);
  node.classList.add("wide");
  return node;
}
