// Why something did not work, for the page's users. What the server says is worded for programs.

let takes = { file: "", formats: [] }; // what /model says of the images that the server takes

export function setLimits(limits) {
  takes = limits;
}

export const GONE = "The file cannot be read any more: it was moved or changed. Choose it again.";
const REPORT = "If it happens again, tell whoever runs the server.";

/** What users cannot mend themselves, with the server's own words for whoever runs it. */
function failure(what, { status, error }) {
  const words = typeof error === "string" && error ? ` The server says: ${error.replace(/\.?$/, ".")}` : "";
  return `${what} (status ${status}).${words} ${REPORT}`;
}

/** Why an image has no answer.
 *
 * @param status of HTTP.
 * @param error that the server sent; null: none.
 * @param decoded whether the server got the whole file, and looked into it.
 */
export function whyNoAnswer({ status, error }, decoded) {
  const formats = takes.formats.join(", ").replace(/, ([^,]*)$/, " and $1");
  const reasons = {
    400: "The file is empty.",
    413: decoded
      ? "The image has more pixels than this server takes. Choose a smaller copy of it."
      : `The file is too large: this server takes files of up to ${takes.file}. Choose a smaller copy of it.`,
    415: `This is no image of a kind that the page takes. Save it as one of these: ${formats}.`,
    422: "The file is damaged, or has no pixels that can be shown. Choose another copy of it.",
  };
  return reasons[status] ?? failure("The server did not answer this image", { status, error });
}

/** Why there is no heat map: where it did not take too long, the server says why. */
export function whyNoHeatMap({ status, error }) {
  const reasons = { 504: "it took too long" };
  return reasons[status] ?? error;
}

export const AWAY = "Not stored yet: the server does not answer. It is sent as soon as the server is back.";
const NOT_KNOWN = "The server was started again, and no longer has this image. Send it again on the tab Images.";
const FULL = "The server cannot store it: its folder for labels is full or cannot be written to. Tell whoever runs the server.";
const LARGE = "The image is too large to be stored on this server.";
const NOT_UNDONE = "Only a label that was given since the server started can be undone.";

/** Why a label was not stored; of the label itself the server says what is wrong. */
export function whyNotStored({ status, error }) {
  const reasons = { 404: NOT_KNOWN, 422: error, 507: FULL, 413: LARGE };
  return reasons[status] ?? failure("The label was not stored", { status, error });
}

/** Why a label was not taken back. */
export function whyNotUndone({ status, error }) {
  return status === 404 ? NOT_UNDONE : failure("The label is still stored", { status, error });
}
