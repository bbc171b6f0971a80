"""Which columns of a table hold paths, labels and splits: by their names and by the files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from resnets.data.sources.names import SPLITS, has_image_ending, listed, split_of
from resnets.data.sources.walking import entries
from resnets.errors import ContentError

MULTI_LABEL = "multi-label data (several labels an image) is not classified here"
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
SPLIT_COLUMNS = ("split", "subset", "partition", "set")

_PATHS = (*PATH_COLUMNS, "fname", "img", "img_path", "image_id", "image_name", "file_path")
_LABELS = (*LABEL_COLUMNS, "labels", "classes", "species", "breed", "diagnosis", "dx", "tag")
_FLAGS = {  # columns of yes and no: the splits that these mean
    **dict.fromkeys(("is_valid", "is_val", "is_validation"), ("validation", "train")),
    "is_test": ("test", "train"),
    "is_train": ("train", "test"),
}
_YES = frozenset({"true", "1", "1.0", "yes", "y", "t"})
_NO = frozenset({"false", "0", "0.0", "no", "n", "f", ""})
_SAMPLE = 50  # rows by which columns are told
_FOLDERS = 50  # beside a table, in which images are looked for

Cells = Sequence[str]


@dataclass(frozen=True)
class Paths:
    """How the cells of a column name files.

    Attributes:
        folder: of the table.
        below: the folder in it that the paths start from; empty for the folder itself.
        slashes: whether a backslash parts folders.
        endings: whether names lack their endings.
    """

    folder: Path
    below: str = ""
    slashes: bool = False
    endings: bool = False
    known: dict[Path, dict[str, str]] = field(default_factory=dict, compare=False)

    def __call__(self, cell: str) -> str:
        """The path of a file, relative to the table's folder."""
        path = cell.replace("\\", "/") if self.slashes else cell
        path = f"{self.below}/{path}" if self.below else path
        if not self.endings or has_image_ending(path):
            return path
        where, _, name = path.rpartition("/")
        names = self._stems(self.folder / where)
        return f"{where}/{names[name]}" if where and name in names else names.get(name, path)

    def share(self, cells: Sequence[str]) -> float:
        """The share of the cells that name existing files, 0 to 1."""
        return sum(map(self._is_file, cells)) / max(1, len(cells))

    def _is_file(self, cell: str) -> bool:
        try:
            return bool(cell) and (self.folder / self(cell)).is_file()
        except (OSError, ValueError):  # too long for a name, or with a NUL in it
            return False

    def _stems(self, folder: Path) -> Mapping[str, str]:
        """The images in a folder by their names without endings."""
        if folder not in self.known:
            files = entries(folder).files if folder.is_dir() else ()
            images = filter(has_image_ending, reversed(files))  # of two, the first counts
            self.known[folder] = {Path(name).stem: name for name in images}
        return self.known[folder]


@dataclass(frozen=True)
class Columns:
    """What the columns of a table mean, by their numbers.

    Attributes:
        path: holds the paths.
        paths: how these name files.
        label: holds the labels; of several (one-hot), that which is 1 says the class.
        split: holds the split; None if no column does.
        names: of all columns; empty where the table's first line is an image.
    """

    path: int
    paths: Paths
    label: tuple[int, ...]
    split: int | None
    names: Cells = ()

    @property
    def wanted(self) -> str:
        """What a line must hold."""
        return "path,label" if self.split is None else "path,label,split"

    def label_of(self, cells: Cells) -> str:
        """The label of a row; empty if it has none.

        Raises:
            ContentError: it has several.
        """
        if len(self.label) == 1:
            return cells[self.label[0]]
        chosen = [self.names[place] for place in self.label if cells[place].lower() in _YES]
        if len(chosen) > 1:
            raise ContentError(f"labels {listed(chosen)}: {MULTI_LABEL}")
        return chosen[0] if chosen else ""

    def split_of(self, cells: Cells) -> str:
        """The split of a row; "all" if no column says it.

        Raises:
            ContentError: it means no split.
        """
        if self.split is None:
            return "all"
        cell = cells[self.split]
        flag = _FLAGS.get(self.names[self.split].lower()) if self.names else None
        if flag is not None and cell.lower() in _YES | _NO:
            return flag[0] if cell.lower() in _YES else flag[1]
        meant = split_of(cell)
        if meant is None:
            allowed = "true, false" if flag else ", ".join(SPLITS)
            raise ContentError(f"split {cell!r} is none of {allowed}")
        return meant


def find_columns(folder: Path, lines: Sequence[Cells], first: str) -> Columns:
    """Tell the columns of a table apart.

    The first line names the columns if it has a name that is known, or if other lines name files
    and it names none. Else the columns are path, label and split, in this order.

    Args:
        folder: of the table, from which paths start.
        lines: the cells of all lines that have any.
        first: what to call the first line in an error.

    Raises:
        ContentError: the columns of paths or of labels cannot be told.
    """
    names = [cell.lower() for cell in lines[0]]
    body = [*islice(lines, 1, _SAMPLE + 1)]
    path = _known(names, _PATHS)
    label = _known(names, _LABELS)
    if path is not None and (label is not None or body):
        paths, _ = _best_paths(folder, [row[path] for row in body if len(row) > path])
    else:
        path, paths = _path_column(folder, lines)
        if path is None:
            _refuse_unless_bare(lines, first, folder)
            return Columns(0, paths, (1,), 2 if len(lines[0]) > 2 else None)
    split = _known(names, SPLIT_COLUMNS)
    split = _known(names, tuple(_FLAGS)) if split is None else split
    others = [place for place in range(len(names)) if place not in (path, split)]
    labels = (label,) if label is not None else _label_columns(others, body)
    if not labels:
        raise ContentError(
            f"{first}: no column of labels; call it {', '.join(LABEL_COLUMNS)}, or have no other "
            "column besides the path, or have one column of 0 and 1 for each class"
        )
    return Columns(path, paths, labels, split, tuple(lines[0]))


def _known(names: Sequence[str], known: Sequence[str]) -> int | None:
    """Where the first of the known names is."""
    return next((names.index(name) for name in known if name in names), None)


def _path_column(folder: Path, lines: Sequence[Cells]) -> tuple[int | None, Paths]:
    """The column whose cells name files, though the first line names none; else None."""
    sample = lines[1 : _SAMPLE + 1]
    best: tuple[float, int | None, Paths] = (0.5, None, Paths(folder))
    for place in range(len(lines[0])):
        paths, share = _best_paths(folder, [row[place] for row in sample if len(row) > place])
        if share > best[0] and not paths.share([lines[0][place]]):
            best = (share, place, paths)
    if best[1] is None:  # the first line may be an image, too
        return None, _best_paths(folder, [row[0] for row in lines[:_SAMPLE]])[0]
    return best[1:]


def _best_paths(folder: Path, cells: Sequence[str]) -> tuple[Paths, float]:
    """How cells name most files, and the share of those that do."""
    plain = Paths(folder)
    best, most = plain, plain.share(cells)
    if most < 1:
        for paths in _ways(folder, any("\\" in cell for cell in cells)):
            share = paths.share(cells)
            if share > most:
                best, most = paths, share
            if most == 1:
                break
    return best, most


def _ways(folder: Path, backslashes: bool) -> Iterator[Paths]:
    """The ways in which cells may name files, the plainest first."""
    below = ["", *entries(folder).folders[:_FOLDERS]]
    for start in below:
        for slashes in (False, True) if backslashes else (False,):
            for endings in (False, True):
                yield Paths(folder, start, slashes, endings)


def _refuse_unless_bare(lines: Sequence[Cells], first: str, folder: Path) -> None:
    """Refuse a table without named columns whose first cells do not look like paths of images.

    Raises:
        ContentError: it says what was looked for.
    """
    if len(lines[0]) < 2 or any(has_image_ending(row[0]) for row in lines[:_SAMPLE]):
        return
    if any((folder / row[0]).is_file() for row in lines[:_SAMPLE]):
        return
    raise ContentError(
        f"{first}: no column holds paths of images; looked for names of files in {folder} and in "
        "the folders in it, with and without endings such as .jpg, and for a first line that names "
        f"the columns, such as {PATH_COLUMNS[0]},{LABEL_COLUMNS[0]}"
    )


def _label_columns(places: Sequence[int], body: Sequence[Cells]) -> tuple[int, ...]:
    """The columns of labels by what they hold: the only one, or all that hold 0 and 1 alone."""
    if len(places) == 1:
        return (places[0],)

    def holds(row: Cells, place: int) -> bool:
        return len(row) > place and row[place].lower() in _YES | _NO

    flags = tuple(place for place in places if body and all(holds(row, place) for row in body))
    return flags if len(flags) > 1 else ()


def several_labels(labels: Sequence[str]) -> str:
    """The first label that is plainly several in one; empty if there is none.

    It is a list in brackets, or its parts between separators are labels of other images.
    """
    distinct = dict.fromkeys(labels)
    for label in distinct:
        if label.startswith(("[", "(", "{")) and label.endswith(("]", ")", "}")):
            return label
    for separator in "|;, ":
        parts_of = {label: _parts(label, separator) for label in distinct}
        several = [label for label, parts in parts_of.items() if len(parts) > 1]
        lone = {label for label, parts in parts_of.items() if len(parts) == 1}
        for label in several:
            if set(parts_of[label]) <= lone:
                return label
        parts = {part for label in several for part in parts_of[label]}
        # words come again in names of classes, such as red cube and red ball
        if separator != " " and len(several) > 1 and len(parts) <= len(several):
            return several[0]
    return ""


def _parts(label: str, separator: str) -> list[str]:
    """What stands between separators."""
    return [part.strip() for part in label.split(separator) if part.strip()]
