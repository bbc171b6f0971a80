"""``resnets doctor``: what is wrong with a data set."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

from resnets.commands import run
from resnets.commands.flags import Cache
from resnets.commands.notices import passed_over_lines
from resnets.commands.progress import progress_bar
from resnets.commands.tables import Cell, print_table
from resnets.escaping import escaped, say
from resnets.format import plural
from resnets.json_text import to_json

if TYPE_CHECKING:
    from resnets.evaluation.doctor import Diagnosis, Finding

_SHOWN = 3  # images of a finding
_CLASSES = 20  # rows of the table of classes
_COLOURS = {"error": "red", "warning": "yellow", "note": "blue"}


def main(argv: Sequence[str]) -> int:
    """Run ``resnets doctor`` with ``argv``."""
    return run(doctor, argv, config=(tyro.conf.FlagCreatePairsOff,))


def doctor(
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    /,
    images: int = _SHOWN,
    group_by: Annotated[str | None, tyro.conf.arg(metavar="HOW")] = None,
    class_level: int | None = None,
    train_folder: str | None = None,
    validation_folder: str | None = None,
    test_folder: str | None = None,
    verbose: bool = False,
    cache: Cache = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Look at every image and label of a data set before training on it.

    Names images that cannot be read, unusual ones, and duplicates in one split or in two; and
    classes that are missing, small or uneven. Exit code 1 if there are errors: training on the
    data, or an accuracy measured on it, would mislead.

    Args:
        data: whatever `resnets train` takes.
        images: how many images of each finding to name; --json names all.
        group_by: which images belong together and must be in one split, such as those of a patient:
            folder:LEVEL, pattern:REGEX or column:NAME, as for `resnets train`.
        class_level: which folders are the classes, as for `resnets train`.
        train_folder: folder of the training images, as for `resnets train`.
        validation_folder: folder of the validation images.
        test_folder: folder of the test images.
        verbose: name every file that is passed over.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
        as_json: print all findings as JSON.
    """
    from resnets.data.sources.layout import layout_of_flags
    from resnets.data.sources.opening import read_source, with_cache
    from resnets.errors import ContentError, UsageError
    from resnets.evaluation.doctor.diagnosis import diagnose, unreadable_source

    if images < 0:
        raise UsageError(f"--images {images}: a number of images, 0 or more")
    passed_over: tuple[tuple[str, str], ...] = ()
    split_folders = {"train": train_folder, "validation": validation_folder, "test": test_folder}
    layout = layout_of_flags(class_level, split_folders, group_by)
    try:
        content = read_source(with_cache(data, cache), layout)
    except ContentError as error:
        diagnosis = unreadable_source(str(error))
    else:
        passed_over = content.passed_over if verbose else ()
        with progress_bar(sum(map(len, content.images.values()))) as progress:
            diagnosis = diagnose(content, progress, group_by)
    if as_json:
        print(to_json({"data": data} | diagnosis.to_dict(), indent=2))
    else:
        _print_diagnosis(data, diagnosis, images)
    for line in passed_over_lines(passed_over, verbose=True):
        say(line, file=sys.stderr)
    return int(diagnosis.misleading)


def _print_diagnosis(data: str, diagnosis: "Diagnosis", shown: int) -> None:
    """Print a diagnosis as text."""
    from rich.console import Console
    from rich.text import Text

    if diagnosis.classes:
        _print_classes(diagnosis)
        print()
    console = Console() if sys.stdout.isatty() else None
    for finding in diagnosis.findings:
        for line in _lines(finding, shown):
            if console:
                text = Text(escaped(line))
                text.highlight_regex(r"^(error|warning|note)", _COLOURS[finding.level])
                console.print(text)
            else:
                say(line)
    say(f"{data}: {_verdict(diagnosis)}")


def _print_classes(diagnosis: "Diagnosis") -> None:
    """Print how many images each class has; of many classes the largest and the smallest."""
    splits = [*diagnosis.classes]
    totals = [sum(diagnosis.classes[split].values()) for split in splits]
    names = [*diagnosis.classes[splits[0]]]
    names.sort(key=lambda name: -diagnosis.classes[splits[0]][name])
    rows: list[list[Cell]] = [
        [name, *(diagnosis.classes[split][name] for split in splits)] for name in names
    ]
    if len(rows) > _CLASSES:
        left_out: list[Cell] = [f"({len(rows) - _CLASSES} more)", *[""] * len(splits)]
        rows[_CLASSES // 2 : -_CLASSES // 2] = [left_out]
    last: list[Cell] = ["total", *totals]
    heads = ["images" if split == "all" else split for split in splits]
    print_table(["class", *heads], [*rows, last])


def _lines(finding: "Finding", shown: int) -> Iterator[str]:
    """A finding, and below it the first images that it is about."""
    yield f"{finding.level}: {finding.text}"
    for name in finding.images[:shown]:
        yield f"    {name}"
    if len(finding.images) > shown > 0:
        yield f"    and {len(finding.images) - shown:,} more"


def _verdict(diagnosis: "Diagnosis") -> str:
    """One sentence at the end."""
    number = dict.fromkeys(_COLOURS, 0)
    for finding in diagnosis.findings:
        number[finding.level] += 1
    counts = ", ".join(plural(count, level) for level, count in number.items() if count)
    if diagnosis.misleading:
        return f"correct the errors before training ({counts})"
    return f"no errors ({counts or 'no warnings or notes'})"
