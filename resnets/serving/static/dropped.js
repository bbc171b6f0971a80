// What is dropped: files, and the images in folders.

/** The files of a drop or paste; of unknown kinds, too, as the server knows them. */
export async function filesOf(transfer) {
  const files = [...(transfer?.files ?? [])];
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return files;
  return (await Promise.all(entries.map((entry) => below(entry, false)))).flat();
}

/** The file of an entry, or the images in and below a folder; what is hidden there is left out. */
async function below(entry, inFolder) {
  if (!entry.isDirectory) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => null);
    return file && (!inFolder || isImage(file)) ? [file] : [];
  }
  const inside = [];
  const reader = entry.createReader();
  for (;;) { // a hundred at a time
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) break;
    inside.push(...some);
  }
  inside.sort((one, other) => (one.name < other.name ? -1 : 1));
  return (await Promise.all(inside.map((each) => below(each, true)))).flat();
}

const isImage = ({ name, type }) => type.startsWith("image/") && !name.startsWith(".");
