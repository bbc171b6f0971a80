"""``resnets explain``: heat maps of where in an image a network sees the class."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from PIL import Image

from resnets.commands import run
from resnets.commands.flags import Cache
from resnets.commands.image_words import image_sources
from resnets.commands.progress import with_progress
from resnets.commands.tables import print_table
from resnets.errors import require
from resnets.escaping import say, without_name
from resnets.evaluation.report.folder import (
    file_names,
    new_folder,
    refuse_content,
    save,
    save_sheets,
)
from resnets.format import percent, plural
from resnets.images.stderr import silent_decoders
from resnets.json_text import to_json

if TYPE_CHECKING:
    from resnets.evaluation.explain import Explanation
    from resnets.evaluation.report.sheets import Tile

_LISTED = 3  # of the most probable classes on the contact sheet
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
    cache: Cache = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Show where in images a network sees the class that it predicts.

    Writes each image with a heat map over it, red where the image supports the class most, and a
    contact sheet of all images with the predictions. Images that cannot be read are
    listed; the others are explained all the same, and the exit code is then 1.

    Args:
        model: a model file, the folder of a run, published weights by id, such as
            timm/resnet50.a1_in1k, or a network of the package by name.
        images: files, folders, patterns such as 'photos/*.jpg', the folder or address of shards,
            or - for one image's bytes on standard input.
        output: a new or empty folder for the pictures.
        method: grad-cam, over the last stage; or occlusion, which covers one part of the image
            after another and takes some hundred times as long.
        target: the class to look for in every image; by default the most probable of each.
        batch_size: images computed at once.
        device: auto (a GPU if there is one), cpu, cuda, mps or xpu.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
        as_json: print a JSON array.
    """
    from resnets.deployment.engines.swapped import refuse_swapped

    refuse_swapped([model], images)
    refuse_content(output)
    sources = image_sources(images, cache=cache)
    require("captum", "explain")
    from resnets.deployment.engines import open_network
    from resnets.evaluation import explain as explanation

    loaded = open_network(model, "explain needs its gradients", device=device)
    explanations = explanation.explain(
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
        for explained, name in zip(
            with_progress(explanations, len(sources), stream), names, strict=True
        ):
            rows.append(_write_overlay(explained, folder / name))
            tiles.append(_tile(explained))
    is_any = any(row["overlay"] for row in rows)  # a sheet of grey boxes shows nothing
    sheets = save_sheets(tiles, folder, _SHEET, f"{method}: {model}") if is_any else []
    _show(rows, sheets, as_json)
    return 1 if any(row["error"] for row in rows) else 0


def _write_overlay(explained: "Explanation", path: Path) -> dict[str, Any]:
    """Write the overlay of an image; return its row of the table."""
    row = explained.prediction.row() | {"target": explained.target, "overlay": None}
    if explained.picture is not None:
        save(Image.fromarray(explained.overlay()), path)
        row["overlay"] = str(path)
    return row


def _tile(explained: "Explanation") -> "Tile":
    """An image and its heat map, with the prediction; or that it cannot be read."""
    from resnets.evaluation.predict import is_accepted
    from resnets.evaluation.report.sheets import TILE, Line, Tile, blank, thumbnail

    prediction, name = explained.prediction, Line(Path(explained.prediction.image).name, "faint")
    if explained.picture is None:
        return Tile((blank(TILE),), (name, Line("cannot be read", "wrong", bold=True)))
    pictures = tuple(
        thumbnail(picture, TILE) for picture in (explained.picture, explained.overlay())
    )
    lines = [
        name,
        *(
            Line(label, bold=rank == 0 and is_accepted(prediction.status), share=share)
            for rank, (label, share) in enumerate(prediction.top)
        ),
    ]
    lines.append(Line(f"status: {prediction.status}"))
    if explained.target != prediction.prediction:
        lines.append(Line(f"heat map for {explained.target}"))
    return Tile(pictures, tuple(lines))


def _show(rows: list[dict[str, Any]], sheets: list[Path], as_json: bool) -> None:
    """Print the prediction of each image and where the pictures are."""
    if as_json:
        print(to_json(rows, indent=2))
        return
    cells = [
        (
            row["image"],
            row["prediction"] or "–",
            percent(row["probability"]),
            row["status"],
            row["overlay"] or without_name(row["error"], row["image"]),
        )
        for row in rows
    ]
    print_table(("image", "prediction", "probability", "status", "picture"), cells)
    for sheet in sheets:
        say(f"all of them: {sheet}")
    failed = sum(row["error"] is not None for row in rows)
    if failed:
        say(f"{failed} of {plural(len(rows), 'image')} cannot be read", file=sys.stderr)
