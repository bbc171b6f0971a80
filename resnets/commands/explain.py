"""``resnets explain``: where in images a network sees what it says."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from PIL import Image

from resnets.commands import run
from resnets.commands.predict import named, watched
from resnets.commands.stderr import silent_decoders
from resnets.commands.tables import print_table
from resnets.errors import require
from resnets.escaping import say
from resnets.evaluation.report.folder import (
    file_names,
    new_folder,
    refuse_content,
    save,
    save_sheets,
)
from resnets.format import percent
from resnets.json_text import to_json

if TYPE_CHECKING:
    from resnets.evaluation.explain import Explanation
    from resnets.evaluation.report.sheets import Tile

_LISTED = 3  # of the likeliest classes on the contact sheet
_SHEET = "contact-sheet"


def main(argv: list[str]) -> int:
    """Run ``resnets explain`` with ``argv``."""
    return run(explain, argv, config=(tyro.conf.FlagCreatePairsOff,))


def explain(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE ...")],
    /,
    output: Path = Path("explained"),
    method: Literal["grad-cam", "occlusion"] = "grad-cam",
    target: str | None = None,
    batch_size: int = 16,
    device: str = "auto",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Show where in images a network sees what it says.

    Writes each image with a heat map over it, red where the image speaks most for the class, and a
    contact sheet of all images with the predictions. Images that cannot be read are
    listed; the others are explained all the same, and the exit code is then 1.

    Args:
        model: a model file, the folder of a run, or a network of the package by name.
        images: files, folders, patterns such as 'photos/*.jpg', or - for one image's bytes on
            standard input.
        output: a new or empty folder for the pictures.
        method: grad-cam, over the last stage; or occlusion, which covers a part of the image after
            the other and takes some hundred times as long.
        target: the class to look for in every image; by default the likeliest of each.
        batch_size: images computed at once.
        device: auto (a GPU if there is one), cpu or cuda.
        as_json: print a JSON array.
    """
    refuse_content(output)
    sources = named(images)
    require("captum", "explain")
    from resnets.deployment.engines import open_network
    from resnets.evaluation import explain as explanation

    loaded = open_network(model, "explain follows gradients through it", device=device)
    found = explanation.explain(
        loaded,
        sources,
        method=method,
        target=target,
        top=min(_LISTED, len(loaded.description.class_names)),
        batch_size=batch_size,
    )
    folder = new_folder(output)
    _, *names = file_names([_SHEET, *(source.name for source in sources)])
    tiles, rows = [], []
    with silent_decoders() as stream:
        for each, name in zip(watched(found, len(sources), stream), names, strict=True):
            rows.append(_written(each, folder / name))
            tiles.append(_tile(each))
    sheets = save_sheets(tiles, folder, _SHEET, f"{method}: {model}")
    _show(rows, sheets, as_json)
    return 1 if any(row["error"] for row in rows) else 0


def _written(found: "Explanation", path: Path) -> dict[str, Any]:
    """Write the picture of an image and tell of it in a row."""
    row = found.prediction.row() | {"target": found.target, "overlay": None}
    if found.picture is not None:
        save(Image.fromarray(found.overlay()), path)
        row["overlay"] = str(path)
    return row


def _tile(found: "Explanation") -> "Tile":
    """An image and its heat map, with what the network says; or why it cannot be read."""
    from resnets.evaluation.report.sheets import TILE, Line, Tile, blank, thumbnail

    said, name = found.prediction, Line(Path(found.prediction.image).name, "faint")
    if found.picture is None:
        return Tile((blank(TILE),), (name, Line("cannot be read", "wrong", bold=True)))
    pictures = tuple(thumbnail(each, TILE) for each in (found.picture, found.overlay()))
    lines = [
        name,
        *(
            Line(label, bold=rank == 0 and said.status == "ok", share=share)
            for rank, (label, share) in enumerate(said.top)
        ),
    ]
    if said.status != "ok":
        lines.append(Line(f"status: {said.status}"))
    if found.target != said.prediction:
        lines.append(Line(f"heat: what speaks for {found.target}"))
    return Tile(pictures, tuple(lines))


def _show(rows: list[dict[str, Any]], sheets: list[Path], as_json: bool) -> None:
    """Print what each image shows and where the pictures are."""
    if as_json:
        print(to_json(rows, indent=2))
        return
    cells = [
        (
            row["image"],
            row["prediction"] or "–",
            percent(row["probability"]),
            row["status"],
            row["overlay"] or row["error"],
        )
        for row in rows
    ]
    print_table(("image", "prediction", "probability", "status", "picture"), cells)
    for sheet in sheets:
        say(f"all of them: {sheet}")
    failed = sum(row["error"] is not None for row in rows)
    if failed:
        say(f"{failed} of {len(rows)} images cannot be read", file=sys.stderr)
