"""``resnets fetch``: published weights, into the cache or into a folder to take along."""

from pathlib import Path
from typing import Annotated

import tyro

from resnets import shipped
from resnets.commands import run
from resnets.escaping import say
from resnets.model_path import fetch_weights
from resnets.pretrained.table import find_recommended
from resnets.run_files import MODEL


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

    is_shipped = name in shipped.names() and not find_recommended(name)
    place = fetch_weights(name, to, accept_licence=accept_licence, overwrite=overwrite)
    origin = read_description(place / MODEL if to else place).origin
    if is_shipped and to:
        say(f"{name} comes with the package, so nothing was downloaded; a copy of it:")
    elif is_shipped:
        say(f"{name} comes with the package: nothing to fetch, every command takes it by this name")
    say(place)
    for key in ("id", "licence", "commit", "sha256", "url"):
        if key in origin:
            say(f"  {key:8}{origin[key]}")
