// Requests to the server: what is busy or away is asked again, so that no image is lost.

import { GONE, whyNoAnswer, whyNoHeatMap } from "./reasons.js";

const AT_ONCE = 4; // requests
const PAUSES = [1, 2, 4, 8]; // seconds between tries while the server is away
const LONGEST_PAUSE = 30; // seconds, whatever Retry-After says
const BUSY = [429, 503];
const EMPTY = 400; // the page itself asks nothing else that is wrong
const ABOUT_THE_IMAGE = [EMPTY, 413, 415, 422];
const NOT_EXPLAINED = 501;
const UNAUTHORIZED = 401;

let running = 0;
const waiting = [];

/** Called with whether the server is away, when that changes. */
let onAway = () => {};
let away = false;

/** Whether the server did not answer the latest request. */
export const isAway = () => away;

export function watchConnection(listener) {
  onAway = listener;
}

function setAway(value) {
  if (value !== away) onAway((away = value));
}

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)));
  });

function retryAfter(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  return Math.min(Math.max(Number.isFinite(seconds) ? seconds : 1, 0.2), LONGEST_PAUSE);
}

let key = null; // that the server asks for, kept while the page is open
let askForKey = () => Promise.resolve(null); // called with whether a key was refused
let asking = null; // the promise of a key

/** Let the page ask its user for a key. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

async function askOnce(refused) {
  if (key !== refused) return; // another request has a new one already
  asking ??= askForKey(refused !== null);
  key = await asking;
  asking = null;
}

/** The response to a request, asked again while the server is away, busy or in want of a key.
 *
 * @param onBusy is called each time that the server says it is busy.
 * @param onAway is called each time that it does not answer.
 */
export async function request(url, { onBusy, onAway: onGone, ...options } = {}) {
  for (let attempt = 0; ; attempt += 1) {
    let response;
    const used = key;
    const headers = { ...options.headers, ...(used ? { Authorization: `Bearer ${used}` } : {}) };
    try {
      response = await fetch(url, { ...options, headers });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      setAway(true);
      onGone?.();
      await pause(PAUSES[Math.min(attempt, PAUSES.length - 1)], options.signal);
      continue;
    }
    setAway(false);
    if (response.status === UNAUTHORIZED) {
      await askOnce(used);
      continue;
    }
    if (!BUSY.includes(response.status)) return response;
    onBusy?.();
    await pause(retryAfter(response), options.signal);
  }
}

/** The answer for an image by a model of /model; at most four are asked for at once.
 *
 * An answer has the fields of a prediction of /predict; where there is none, the status
 * "unreadable" or "unanswered" with an error. It rejects only when the signal says so.
 */
export async function predict(file, { model, top, signal }) {
  await turn(signal);
  try {
    let content;
    try {
      content = await file.arrayBuffer();
    } catch {
      return failed("unreadable", "the file cannot be read any more", GONE);
    }
    return await answerOf(await ask(content, file.name, { model: model.name, top }, { signal }));
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}

/** The answer for an image as `predict` gives it, with its heat map: the PNG in base64.
 *
 * It takes no place among the four that are asked for at once: one image at a time is shown.
 * Where there is no heat map, `unexplained` says why, and `final` whether the model has none at
 * all. It rejects only when the signal says so.
 */
export async function explain(file, { model, top, signal, onBusy }) {
  let content;
  try {
    content = await file.arrayBuffer();
  } catch {
    return { unexplained: GONE };
  }
  const response = await ask(content, file.name, { model: model.name, top, repeated: 1, explain: 1 }, { signal, onBusy });
  const { status } = response;
  const answer = await answerOf(response);
  if (answer.explanation) return answer;
  return { unexplained: whyNoHeatMap({ status, error: answer.error }), final: status === NOT_EXPLAINED };
}

function ask(content, name, parameters, options) {
  const sound = name.replaceAll(/[\ud800-\udfff]/gu, "\ufffd"); // halves of characters have no bytes
  const headers = {
    "Content-Type": "application/octet-stream",
    "Content-Disposition": `attachment; filename*=UTF-8''${encodeURIComponent(sound)}`,
  };
  const query = new URLSearchParams(parameters);
  return request(`predict?${query}`, { method: "POST", body: content, headers, ...options });
}

async function answerOf(response) {
  const body = await response.json().catch(() => ({}));
  const { status } = response;
  const [prediction] = body.predictions ?? [];
  if (prediction) {
    const reason = prediction.error ? whyNoAnswer({ status, error: prediction.error }, true) : null;
    return { ...prediction, model: body.model, reason };
  }
  const kind = ABOUT_THE_IMAGE.includes(status) ? "unreadable" : "unanswered";
  const reason = whyNoAnswer({ status, error: body.error }, false);
  return failed(kind, body.error ?? `the server answered ${status}`, reason);
}

/** An answer without a prediction: `error` is for files and programs, `reason` for the page. */
function failed(status, error, reason) {
  return { status, error, reason, prediction: null, probability: null, top: [] };
}

async function turn(signal) {
  if (running >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  running += 1;
  if (signal.aborted) {
    running -= 1;
    waiting.shift()?.();
    throw signal.reason;
  }
}
