// Answers as files. Cells that a spreadsheet would compute get an apostrophe, as in `predict --csv`.

import { element, reasonOf } from "./elements.js";

const FORMULA = /^[=+\-@\t\r]/;
const CONTROL = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/gu;

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = (FORMULA.test(value) ? `'${value}` : value).replace(
    CONTROL,
    (character) => `\\x${character.codePointAt(0).toString(16).padStart(2, "0")}`,
  );
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function row({ name, answer, answeredBy, label }) {
  const flat = { image: name, prediction: answer.prediction, probability: answer.probability, status: answer.status };
  answer.top.forEach((each, rank) => {
    flat[`top${rank + 1}`] = each.class;
    flat[`probability${rank + 1}`] = each.probability;
  });
  return { ...flat, label, reason: reasonOf(answer, answeredBy), error: answer.error };
}

function save(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const answered = (items) => items.filter((item) => item.answer);

export function saveCSV(items) {
  const rows = answered(items).map(row);
  const ranks = Math.max(0, ...answered(items).map((item) => item.answer.top.length));
  const tops = Array.from({ length: ranks }, (_, rank) => [`top${rank + 1}`, `probability${rank + 1}`]).flat();
  const columns = ["image", "prediction", "probability", "status", ...tops, "label", "reason", "error"];
  const lines = [columns, ...rows.map((values) => columns.map((name) => cell(values[name])))];
  save(lines.map((line) => `${line.join(",")}\n`).join(""), "predictions.csv", "text/csv");
}

export function saveJSON(items) {
  const rows = answered(items).map(({ name, answer, answeredBy, label }) => {
    const { explanation, ...values } = answer;
    return { ...values, reason: reasonOf(answer, answeredBy), image: name, label };
  });
  save(`${JSON.stringify(rows, null, 2)}\n`, "predictions.json", "application/json");
}
