// Making of elements. Text is always set as text, never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties (or attributes, where it has no such property) and children. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

/** The statuses of an image: what they mean, see `meaning`, and the shape that shows each of them. */
export const STATUSES = {
  ok: {
    means: (threshold, target) => `The probability reaches the threshold${threshold}, fitted for a target error rate${target}.`,
    shape: [["circle", { cx: 8, cy: 8, r: 7.5 }], ["path", { class: "sign", d: "m4.6 8.3 2.3 2.3 4.5-4.8" }]],
  },
  unsure: {
    means: (threshold, target) =>
      threshold
        ? `The probability is below the threshold${threshold}: somebody should look at the image.`
        : `No threshold meets the target error rate${target}: somebody should look at each image.`,
    shape: [["path", { d: "M8 .8 15.8 15H.2Z" }], ["path", { class: "sign", d: "M8 6v4M8 12.6v.1" }]],
  },
  unfamiliar: {
    means: () => "The image is unlike those that the network was trained on: the class may mean nothing.",
    shape: [["path", { d: "M4.6 .8h6.8L15.2 8l-3.8 7.2H4.6L.8 8Z" }], ["path", { class: "sign", d: "M6.2 6.4a1.9 1.9 0 1 1 2.6 1.7c-.6.3-.8.6-.8 1.2M8 11.6v.1" }]],
  },
  "not calibrated": {
    means: () => "The model file has no threshold, so nothing is promised.",
    shape: [["circle", { class: "hollow", cx: 8, cy: 8, r: 6.5 }]],
  },
  unreadable: {
    means: () => "The file is no image that can be read.",
    shape: [["rect", { width: 16, height: 16, rx: 3 }], ["path", { class: "sign", d: "m5 5 6 6m0-6-6 6" }]],
  },
  unanswered: {
    means: () => "The server did not answer this image.",
    shape: [["rect", { width: 16, height: 16, rx: 3 }], ["path", { class: "sign", d: "M4.5 8h7" }]],
  },
};

/** What a status means of images that a model has answered. */
export function meaning(status, model) {
  const threshold = model?.threshold ?? null;
  const target = model?.max_error ?? null;
  const ofThreshold = threshold === null ? "" : ` of ${percent(threshold).replace(" ", "\u00a0")}`;
  const doubt = model?.promised === false ? " (not promised for new images)" : "";
  const ofTarget = target === null ? "" : ` of ${Number((100 * target).toPrecision(10))}\u00a0%${doubt}`;
  return STATUSES[status]?.means(ofThreshold, ofTarget) ?? "";
}

/** Why an image has its status, as the page tells it: of this image, or of its status. */
export const reasonOf = (answer, model) => answer.reason ?? meaning(answer.status, model);

/** The statuses that a model can give an image, or that it has before a model sees it. */
export function possible(model) {
  const calibrated = model.threshold === null ? ["unsure"] : ["ok", "unsure"];
  return [...(model.max_error === null ? ["not calibrated"] : calibrated), ...(model.unfamiliar ? ["unfamiliar"] : []), "unreadable"];
}

/** A status as its shape and its name; of "waiting" the name alone. */
export function statusBadge(status) {
  const badge = element("span", { class: `status ${status.replaceAll(" ", "-")}` });
  if (STATUSES[status]) {
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", "0 0 16 16");
    picture.setAttribute("aria-hidden", "true");
    for (const [tag, attributes] of STATUSES[status].shape) {
      const part = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
      picture.append(part);
    }
    badge.append(picture);
  }
  badge.append(status);
  return badge;
}

/** A share as percent, as the command line shows it: never 0 % or 100 % where it is neither. */
export function percent(share, digits = 1) {
  if (share === null || share === undefined) return "–";
  const text = (100 * share).toFixed(digits);
  const least = 10 ** -digits;
  if (share > 0 && Number(text) === 0) return `< ${least.toFixed(digits)} %`;
  if (share < 1 && Number(text) === 100) return `> ${(100 - least).toFixed(digits)} %`;
  return `${text} %`;
}

/** A bar for a share, with a mark at another one if given. The text beside it tells the number. */
export function bar(share, mark = null) {
  const filled = element("i");
  filled.style.width = `${100 * (share ?? 0)}%`;
  const node = element("div", { class: "bar", "aria-hidden": "true" }, filled);
  if (mark !== null) {
    const line = element("b");
    line.style.left = `calc(${100 * mark}% - 1px)`;
    node.append(line);
  }
  return node;
}

const THINNEST = 30; // times as long as wide; a thinner picture would be less than a line of pixels

/** The ratio of a loaded picture's sides as it is drawn: never so thin that nothing is seen. */
export function drawnRatio({ naturalWidth: width, naturalHeight: height }) {
  return Math.min(Math.max(width / height, 1 / THINNEST), THINNEST);
}

/** The size of a loaded picture in words, and whether it is drawn thicker than it is. */
export function sizeInWords(picture) {
  const { naturalWidth: width, naturalHeight: height } = picture;
  const size = `${width.toLocaleString("en")} × ${height.toLocaleString("en")} pixels`;
  return drawnRatio(picture) === width / height ? size : `${size}, drawn thicker than it is`;
}

const SAMPLE = 16; // pixels a side
const LARGE = 2 ** 24; // pixels, which take long to draw

/** Whether a loaded picture shows nothing: browsers draw nothing for some damaged files. */
export function isBlank(picture) {
  if (picture.naturalWidth * picture.naturalHeight > LARGE) return false;
  const canvas = element("canvas", { width: SAMPLE, height: SAMPLE });
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, SAMPLE, SAMPLE);
  const { data } = context.getImageData(0, 0, SAMPLE, SAMPLE);
  return data.every((value, place) => place % 4 !== 3 || value === 0);
}

/** Say something to screen readers. */
export function announce(text) {
  byId("announcer").textContent = text;
}
