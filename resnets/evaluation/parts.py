"""Predictions in parts: each machine predicts a part of the images, and the parts are joined.

A part is a function of the list of images and of its number alone, so that machines need not know
of each other. Its file appears when it is whole, and records what it was made from.
"""

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from resnets.errors import ContentError, UsageError
from resnets.escaping import shell_line
from resnets.evaluation.prediction_table import ROWS, write_tables
from resnets.files.reading import open_input, regular
from resnets.files.writing import remove_left_over, replacing
from resnets.format import plural
from resnets.integrity import DIGEST, UNSTAMPED, verify_file
from resnets.json_text import to_json

if TYPE_CHECKING:
    import pyarrow as pa

_T = TypeVar("_T")

ROW = "row"  # the column of an image's place in the list, where rows arrive in any order
_RECORD = "resnets.part"  # the key in a file's metadata
_LARGEST = 1 << 40  # bytes of a part
_SIGNATURE = b"PAR1"  # the first bytes of a parquet file
_MOST = 99_999  # parts, whose names sort
_NAME = re.compile(r"part-(\d{5})-of-(\d{5})\.parquet")


@dataclass(frozen=True)
class Part:
    """One of several parts: number 1 to `of`."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """A part from words such as 3/64.

        Raises:
            UsageError: it is none.

        >>> Part.parse("3/64")
        Part(number=3, of=64)
        >>> Part.parse("0/64")
        Traceback (most recent call last):
        resnets.errors.UsageError: part 0/64: the parts of 64 are 1/64 to 64/64 ...
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None:
            raise UsageError(f"part {text}: expected NUMBER/PARTS, such as 3/64")
        number, of = map(int, match.groups())
        if not 1 <= of <= _MOST:
            raise UsageError(f"part {text}: there can be 1 to {_MOST:,} parts")
        if not 1 <= number <= of:
            raise UsageError(
                f"part {text}: the parts of {of} are 1/{of} to {of}/{of} (where a launcher counts "
                "from 0, add 1)"
            )
        return cls(number, of)

    def bounds(self, total: int) -> tuple[int, int]:
        """Where the part begins and ends in a list of `total`; lengths differ by at most 1.

        >>> [Part(number, 3).bounds(10) for number in (1, 2, 3)]
        [(0, 3), (3, 6), (6, 10)]
        """
        return (self.number - 1) * total // self.of, self.number * total // self.of

    def of_list(self, everything: Sequence[_T]) -> Sequence[_T]:
        """The part of a list."""
        start, end = self.bounds(len(everything))
        return everything[start:end]

    def file(self, folder: Path) -> Path:
        """Where its predictions are."""
        return folder / f"part-{self.number:05}-of-{self.of:05}.parquet"


@dataclass(frozen=True)
class Record:
    """What a part was made from. Parts are joined if all but the number is equal.

    Attributes:
        part: its number, from 1.
        parts: how many there are.
        images: in all parts together.
        images_digest: SHA-256 of their names, in order.
        model_digest: SHA-256 of the file of the MODEL.
        settings: of the prediction, those that change a row.
        stored_digest: SHA-256 of what the images in shards hold; None where none are in shards, and
            in files of versions that did not note it.
    """

    part: int
    parts: int
    images: int
    images_digest: str
    model_digest: str
    settings: Mapping[str, Any]
    stored_digest: str | None = None

    def metadata(self) -> dict[str, str]:
        """For the footer of the part's file."""
        return {_RECORD: to_json(asdict(self)), DIGEST: UNSTAMPED}


def record_of(
    part: Part,
    names: Sequence[str],
    model_digest: str,
    settings: Mapping[str, Any],
    stored_digest: str | None = None,
) -> Record:
    """The record of a part of the images with these names."""
    total = hashlib.sha256()
    for name in names:
        encoded = name.encode("utf-8", "surrogatepass")
        total.update(b"%d\n" % len(encoded) + encoded)
    names_digest = total.hexdigest()
    return Record(
        part.number, part.of, len(names), names_digest, model_digest, settings, stored_digest
    )


def is_done(record: Record, folder: Path) -> bool:
    """Whether the file of a part is in a folder, and as it was written; a damaged one is not.

    Another part of the folder, if there is one, is looked at, too.

    Raises:
        UsageError: the folder has parts of another model, list of images, settings or number.
        ContentError: a file there is no part, but something else.
    """
    own = Part(record.part, record.parts).file(folder)
    done = own.exists() and not _is_cut_off(own) and not _is_changed(own)
    others = (path for path in _files(folder) if path != own and not _is_cut_off(path))
    other = own if done else next(others, None)
    if other is not None:
        why = _difference(_read_record(other), replace(record, part=_by_name(other).number))
        if why:
            raise UsageError(f"{other}: {why}; name another folder, or delete the older parts")
    return done


def _is_cut_off(path: Path) -> bool:
    """Whether a file is the beginning of a parquet file, as a copy that was broken off.

    Raises:
        ContentError: it is a file of another kind, which must not be replaced.
    """
    import pyarrow as pa

    try:
        _open(path).close()
    except pa.ArrowInvalid:
        with open_input(path, _LARGEST) as file:
            start = file.read(len(_SIGNATURE))
        if not _SIGNATURE.startswith(start):
            raise ContentError(
                f"{path}: not written by `predict --part`; name another folder"
            ) from None
        return True
    return False


def _is_changed(path: Path) -> bool:
    """Whether the content of a part's file is another one, as far as the file carries a digest."""
    digest = (_open(path).metadata.metadata or {}).get(DIGEST.encode())
    try:
        verify_file(path, None if digest is None else digest.decode("latin-1"))
    except ContentError:
        return True
    return False


def usual_number(total: int) -> int:
    """How many parts a list has where nobody says: of as many images as a row group has.

    >>> [usual_number(total) for total in (1, 4096, 4097, 10_000_000)]
    [1, 1, 2, 2442]
    """
    return min(_MOST, -(-total // ROWS))


def missing_parts(record: Record, folder: Path) -> list[Part]:
    """The parts whose files are not in a folder.

    Args:
        record: of any of the parts.
        folder: of their files; it may not exist.

    Raises:
        UsageError: the folder has parts of another model, list of images, settings or number.
        ContentError: a file there is damaged.
    """
    return [
        Part(number, record.parts)
        for number in _numbers(record)
        if not is_done(replace(record, part=number), folder)
    ]


def write_parts(
    tables: "Iterable[pa.Table]", record: Record, folder: Path, schema: "pa.Schema"
) -> "Iterator[pa.Table]":
    """Write the files of parts from rows that arrive in any order: each once it is complete.

    Args:
        tables: of consecutive rows of one part, with the column `ROW`.
        record: of any of the parts.
        folder: of their files.
        schema: of the rows.

    Yields:
        The tables, as they were.

    Raises:
        ContentError: the rows of a part end before it is complete, or are there twice.
    """
    ends = [Part(number, record.parts).bounds(record.images)[1] for number in _numbers(record)]
    waiting: dict[int, list[pa.Table]] = {}
    for table in tables:
        number = bisect_right(ends, table[ROW][0].as_py()) + 1
        rows = waiting.setdefault(number, [])
        rows.append(table)
        part = Part(number, record.parts)
        start, end = part.bounds(record.images)
        if sum(map(len, rows)) >= end - start:
            whole = _in_order(waiting.pop(number), range(start, end))
            with replacing(part.file(folder)) as file:
                metadata = replace(record, part=number).metadata()
                list(write_tables([whole], file, schema, metadata))
        yield table
    if waiting:
        raise ContentError(
            f"{folder}: part {min(waiting)} of {record.parts} ends early; run the command again"
        )


def _numbers(record: Record) -> range:
    """The numbers of all parts."""
    return range(1, record.parts + 1)


def _in_order(tables: "Sequence[pa.Table]", expected: range) -> "pa.Table":
    """The rows of a part in the order of the images, without the column `ROW`.

    Raises:
        ContentError: some are missing, or there twice.
    """
    import pyarrow as pa

    whole = pa.concat_tables(sorted(tables, key=lambda table: table[ROW][0].as_py()))
    if whole[ROW].to_pylist() != list(expected):
        raise ContentError(
            f"images {expected.start + 1} to {expected.stop} were not predicted once each; run "
            "the command again"
        )
    return whole.drop_columns(ROW)


def merge(folder: Path, output: Path) -> tuple[int, int]:
    """Join all parts of a folder into one parquet file, in the order of the images.

    Args:
        folder: of the parts.
        output: the file; an older one is replaced.

    Returns:
        The number of rows, and of those whose image cannot be read.

    Raises:
        UsageError: there are no parts, or they do not belong together.
        ContentError: parts are missing or damaged.
    """
    files = _checked(folder)
    for path in files:
        remove_left_over(path)
    rows = unreadable = 0
    with replacing(output) as file:
        for table in write_tables(_row_groups(files), file, _schema(files[0])):
            rows += table.num_rows
            unreadable += table.num_rows - table["error"].null_count
    return rows, unreadable


def part_files(folder: Path) -> list[Path]:
    """The files of parts in a folder, by number.

    Raises:
        UsageError: there is none.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; it is what `predict --part --output` wrote")
    if not (files := _files(folder)):
        raise UsageError(
            f"{folder}: no parts in it; `resnets predict ... --part 1/N "
            f"{shell_line('--output', folder)}` writes the first of N"
        )
    return files


def _files(folder: Path) -> list[Path]:
    """The files of parts in a folder, by number; it may not exist."""
    return sorted(path for path in folder.glob("part-*.parquet") if _NAME.fullmatch(path.name))


def _by_name(path: Path) -> Part:
    """The part of a file of `_files`, by its name."""
    _, number, _, of = path.stem.split("-")
    return Part(int(number), int(of))


def _refuse_misnamed(record: Record, path: Path) -> None:
    """Refuse a file that holds another part than its name says, as a copy does.

    Raises:
        UsageError: it does.
    """
    if _by_name(path) != Part(record.part, record.parts):
        raise UsageError(
            f"{path}: holds part {record.part} of {record.parts}, not that of its name; delete it"
        )


def _checked(folder: Path) -> list[Path]:
    """The files of all parts, which belong together and are all there."""
    files = part_files(folder)
    records = _records(files)
    for path, record in records.items():
        _refuse_misnamed(record, path)
    stored = next(filter(None, (record.stored_digest for record in records.values())), None)
    first = replace(records[files[0]], stored_digest=stored)
    differences = {
        path: why
        for path, record in records.items()
        if (why := _difference(record, replace(first, part=record.part)))
    }
    if differences:
        path, why = next(iter(differences.items()))
        more = f", and {len(differences) - 1:,} more" if len(differences) > 1 else ""
        raise UsageError(
            f"{path}: {why}, unlike {files[0].name}{more}: only parts of one list by one model are "
            "joined; delete those that are not wanted, and predict these parts again"
        )
    for path, record in records.items():
        _check_rows(path, record)
    missing = sorted(set(_numbers(first)) - {each.part for each in records.values()})
    if missing:
        raise ContentError(
            f"{folder}: missing of {plural(first.parts, 'part')}: {_ranges(missing)}; "
            f"{_command_for(missing, first.parts, folder)}"
        )
    return files


def _records(files: Sequence[Path]) -> dict[Path, Record]:
    """The records of parts' files, each read whole.

    Raises:
        ContentError: some are damaged, or no parts; it names all of them.
    """
    records, faults = {}, {}
    for path in files:
        try:
            records[path] = _read_record(path, whole=True)
        except ContentError as error:
            faults[path] = error
    if not faults:
        return records
    first, *others = faults
    if not others:
        raise faults[first]
    more = ", ".join(path.name for path in others)
    raise ContentError(f"{faults[first]}. Nor can these be read: {more}")


def _command_for(missing: Sequence[int], parts: int, folder: Path) -> str:
    """The command that predicts missing parts, for a shell.

    >>> _command_for([3, 5, 6, 7], 9, Path("all"))
    '`for n in 3 $(seq 5 7); do resnets predict ... --part $n/9 --output all; done` writes them'
    """
    one = len(missing) == 1
    number = str(missing[0]) if one else "$n"
    predict = f"resnets predict ... --part {number}/{parts} {shell_line('--output', folder)}"
    if one:
        return f"`{predict}` writes it"
    runs = [
        str(start) if start == end else f"$(seq {start} {end})" for start, end in _runs(missing)
    ]
    return f"`for n in {' '.join(runs)}; do {predict}; done` writes them"


def _difference(actual: Record, expected: Record) -> str | None:
    """By what a part does not belong to the others; None: it does."""
    differences = {
        "parts": f"it is one of {actual.parts} parts, not of {expected.parts}",
        "model_digest": "it was predicted by another model",
        "images": f"its list has {actual.images:,} images, not {expected.images:,}",
        "images_digest": "its list has other images",
        "stored_digest": "its images have other content: their shards were written anew",
        "settings": f"it was predicted {_other_settings(actual.settings, expected.settings)}",
        "part": f"it holds part {actual.part}",
    }
    if actual.stored_digest is None or expected.stored_digest is None:
        del differences["stored_digest"]  # not known
    return next(
        (
            why
            for name, why in differences.items()
            if getattr(actual, name) != getattr(expected, name)
        ),
        None,
    )


def _other_settings(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In which flags settings differ.

    >>> _other_settings({"top": 1, "tta": False, "max_error": None}, {"top": 2, "tta": True})
    'with --top 1 and without --tta, not with --top 2 and with --tta'
    """

    def flags(settings: Mapping[str, Any]) -> str:
        return " and ".join(_as_flag(name, settings.get(name)) for name in differing)

    names = [*actual, *(name for name in expected if name not in actual)]
    differing = [name for name in names if actual.get(name) != expected.get(name)]
    return f"{flags(actual)}, not {flags(expected)}"


def _as_flag(name: str, value: Any) -> str:
    """How a setting is asked for."""
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"without {flag}"
    return f"with {flag}" if value is True else f"with {flag} {value}"


def _read_record(path: Path, whole: bool = False) -> Record:
    """The record of a part's file.

    Args:
        path: of the file.
        whole: look for damage anywhere in it, which reads all of it; else in its footer.

    Raises:
        ContentError: it is damaged, or no part.
    """
    import pyarrow as pa

    try:
        if whole and _is_changed(path):
            raise pa.ArrowInvalid("its content does not match the digest in it")
        metadata = _open(path).schema_arrow.metadata or {}
        return Record(**json.loads(metadata[_RECORD.encode()]))
    except pa.ArrowInvalid as error:  # a ValueError, too
        part = _by_name(path)
        again = _command_for([part.number], part.of, path.parent)
        raise ContentError(f"{path}: damaged ({error}); {again} again") from None
    except (KeyError, TypeError, ValueError):
        raise ContentError(
            f"{path}: not written by `predict --part`; move it elsewhere, and predict that part"
        ) from None


def _check_rows(path: Path, record: Record) -> None:
    """Refuse a file with more or fewer rows than its part has images."""
    start, end = Part(record.part, record.parts).bounds(record.images)
    rows = _open(path).metadata.num_rows
    if rows != end - start:
        raise ContentError(f"{path}: {plural(rows, 'row')}, but its part has {end - start}")


def _schema(path: Path) -> "pa.Schema":
    """The columns of a part."""
    return _open(path).schema_arrow.remove_metadata()


def _row_groups(files: Iterable[Path]) -> "Iterator[pa.Table]":
    """The rows of all files, a group at a time."""
    import pyarrow as pa

    for path in files:
        content = _open(path)
        for group in range(content.num_row_groups):
            try:
                yield content.read_row_group(group)
            except (pa.ArrowException, OSError) as error:
                raise ContentError(
                    f"{path}: damaged ({error}); delete it and predict the part again"
                ) from None


def _open(path: Path) -> Any:
    """A parquet file.

    Raises:
        ArrowInvalid: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(regular(path, _LARGEST))
    except OSError as error:
        if error.errno is not None:
            raise
        raise pa.ArrowInvalid(str(error)) from None  # which pyarrow says of other damage


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in words.

    >>> _ranges([3, 5, 6, 7, 9])
    '3, 5 to 7, 9'
    """
    return ", ".join(
        str(start) if start == end else f"{start} to {end}" for start, end in _runs(numbers)
    )


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of consecutive numbers, which ascend.

    >>> _runs([3, 5, 6, 7, 9])
    [(3, 3), (5, 7), (9, 9)]
    """
    runs: list[tuple[int, int]] = []
    start = numbers[0]
    for number, after in zip(numbers, [*numbers[1:], None], strict=True):
        if after != number + 1:
            runs.append((start, number))
            start = after or 0
    return runs
