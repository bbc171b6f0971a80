"""``resnets push``: a network on the hub of Hugging Face, with a card that says what it is."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import tyro

from resnets.commands import run
from resnets.escaping import say, say_text
from resnets.pretrained.upload import make_repository, refuse_without_token, repository_of, upload
from resnets.run_files import REPORT


def main(argv: list[str]) -> int:
    """Run ``resnets push`` with ``argv``."""
    return run(push, argv, config=(tyro.conf.FlagCreatePairsOff,))


def push(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_MODEL")],
    repository: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")],
    /,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    licence: str = "",
    report: bool = True,
) -> None:
    """Publish a network on the hub of Hugging Face: model file, ONNX, report and a model card.

    From then on every command takes hf-hub:OWNER/NAME as its MODEL, with calibration, thresholds
    and the digests of the training images. The card tells what the network was trained on, how it
    was measured, its limits, and how to use it. The token is taken from HF_TOKEN.

    Args:
        model: the folder of a run, or a model file.
        repository: on the hub; created if it does not exist.
        private: make the repository private, if it is created.
        revision: branch to publish to; created if it does not exist.
        create_pr: open a pull request instead of changing the branch.
        licence: name of the licence of the weights, as the hub has it, such as apache-2.0; unset:
            that of the published weights that training started from, if any.
        report: publish the report of a run, too. It shows some of your images.
    """
    from resnets import model_path
    from resnets.deployment.exported.reading import refuse_exported

    target, file = repository_of(repository), model_path.find_model(model)
    refuse_exported(file, "push exports it")
    branch = revision if revision and not create_pr else ""
    refuse_without_token()
    # the export takes long: who may not write learns it before
    make_repository(target, private=private, branch=revision, pull_request=create_pr)

    from resnets.deployment.repository import Publication, write_repository

    page = model / REPORT if model.is_dir() and report else None
    page = page if page and page.is_file() else None
    publication = Publication(file, target, page, licence, branch)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for note in write_repository(publication, folder):
            say_text(note, file=sys.stderr)
        address = upload(folder, target, revision=revision, pull_request=create_pr)
    if page is not None:
        say("the report shows some of your images; --no-report leaves it out", file=sys.stderr)
    say(address)
    behind = f"@{revision}" if revision else ""
    say(f"MODEL is hf-hub:{target}{behind} from now on" if not create_pr else "as a pull request")
