"""``resnets explain``: heat maps of where in an image a network sees the class."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from resnets.commands import run
from resnets.commands.flags import Cache
from resnets.commands.image_words import image_sources
from resnets.commands.notices import tell_assumed
from resnets.commands.progress import with_progress
from resnets.commands.tables import print_table
from resnets.errors import require
from resnets.escaping import say, without_name
from resnets.format import percent, plural
from resnets.images.stderr import silent_decoders
from resnets.json_text import to_json

if TYPE_CHECKING:
    from resnets.evaluation.explain import Explanation

_LISTED = 3  # of the most probable classes on the contact sheet


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
        output: a new or empty folder for the pictures; or, for one image, a new file that ends in
            .png.
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
    sources = image_sources(images, cache=cache)
    require("captum", "explain")
    from resnets.deployment.engines import open_network
    from resnets.evaluation import explain as explanation
    from resnets.evaluation import overlay_files

    overlay_files.refuse_output(output, sources)
    loaded = open_network(model, "explain needs its gradients", device=device)
    explanations = explanation.explain(
        loaded,
        sources,
        method=method,
        target=target,
        top=min(_LISTED, len(loaded.description.class_names)),
        batch_size=batch_size,
    )
    tell_assumed(loaded.description)
    writer = overlay_files.OverlayWriter(output)
    with silent_decoders() as stream:
        shown = with_progress(explanations, len(sources), stream)
        rows = [_row(writer.write(explained)) for explained in shown]
    sheets = writer.write_sheets(f"{method}: {model}")
    _show(rows, sheets, as_json)
    return 1 if any(row["error"] for row in rows) else 0


def _row(explained: "Explanation") -> dict[str, Any]:
    """The row of an image in the table."""
    overlay = None if explained.path is None else str(explained.path)
    return explained.prediction.row() | {"target": explained.target, "overlay": overlay}


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
