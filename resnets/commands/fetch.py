"""``resnets fetch``: published weights, into the cache or into a folder to take along."""

from pathlib import Path
from typing import Annotated

import tyro

from resnets import shipped
from resnets.commands import run
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.files.outputs import writable, writable_folder
from resnets.files.reading import read_input
from resnets.files.writing import write_atomically
from resnets.model_path import meant
from resnets.pretrained.reference import is_reference, read_reference
from resnets.pretrained.table import find_recommended

_LARGEST = 1 << 36  # bytes


def main(argv: list[str]) -> int:
    """Run ``resnets fetch`` with ``argv``."""
    return run(fetch, argv, config=(tyro.conf.FlagCreatePairsOff,))


def fetch(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ID")],
    /,
    to: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    accept_licence: bool = False,
    overwrite: bool = False,
) -> None:
    """Download published weights, so that every command takes them by their id, also offline.

    They are kept where the library that publishes them keeps its files. If they are in the cache
    already, their newest version is fetched, and a damaged copy is replaced.

    Args:
        name: an id that `resnets list --pretrained` shows, such as timm/resnet50.a1_in1k; another
            network of the hub as hf-hub:OWNER/NAME; both with @REVISION behind it, for a commit,
            branch or tag; or the name of a network, for the weights that are recommended for it.
        to: write a model file into this folder, which you can copy to a machine that is offline and
            give as MODEL there.
        accept_licence: accept a licence that allows only non-commercial use, for this id, from now
            on.
        overwrite: replace the model file in FOLDER.
    """
    from resnets.model_file import read_description
    from resnets.pretrained.opening import open_published
    from resnets.run_files import MODEL

    row = find_recommended(name)
    name = row.id if row else name
    is_shipped = row is None and name in shipped.names()
    if not is_shipped and not is_reference(name):
        raise UsageError(
            f"{name}: no id of published weights, such as timm/resnet50.a1_in1k, hf-hub:OWNER/NAME "
            "or torchvision/resnet50.IMAGENET1K_V2 (`resnets list --pretrained` shows them)"
            + meant(name)
        )
    target = to / MODEL if to else None
    if to and target:
        writable_folder(to)
        if target.exists() and not overwrite:
            raise UsageError(f"{target} exists; give another --to, or --overwrite")
        if to.is_dir():
            writable(target)
    if is_shipped:
        say(f"{name} comes with the package: nothing to fetch, every command takes it by this name")
        file = shipped.shipped(name)
    else:
        file = open_published(read_reference(name), again=True, accept_licence=accept_licence)
    if to and target:
        to.mkdir(parents=True, exist_ok=True)
        write_atomically(target, read_input(file, _LARGEST))
    origin = read_description(file).origin
    say(to or file)
    for key in ("id", "licence", "commit", "sha256", "url"):
        if key in origin:
            say(f"  {key:8}{origin[key]}")
