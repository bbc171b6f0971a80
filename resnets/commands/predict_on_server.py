"""``resnets predict --server``: a running ``resnets serve`` predicts."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.commands.image_words import paths_of
from resnets.commands.prediction_output import Form, collect, sort_copies, write_output
from resnets.commands.progress import say_meanwhile
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.files.outputs import writable
from resnets.format import plural

if TYPE_CHECKING:
    from resnets.evaluation.predict import Prediction
    from resnets.serving.client import Client

_KEY = "RESNETS_API_KEY"  # name of the variable that holds a server's key


def predict_on_server(
    url: str, words: Sequence[str], form: Form, verbose: bool, cache: str | None
) -> int:
    """Have a server predict images; the exit code."""
    from resnets.serving.client import Client

    with Client(url, key=os.environ.get(_KEY, ""), notify=say_meanwhile) as client:
        served = client.models()
        model, images = _model_and_images(served, words)
        names = client.class_names(model)
        if not 1 <= form.top <= len(names):
            raise UsageError(f"--top {form.top}: the network has {plural(len(names), 'class')}")
        sources = form.sources(images, verbose, cache)
        if form.parquet is not None:
            writable(form.parquet, paths_of(sources))
        features = form.features
        pending = client.predict_sources(sources, top=form.top, model=model, features=features)
        answers = _Answers(pending)
        predictions, failure = collect(answers, len(sources), form), answers.failure
        columns = _number_of_features(client, model, predictions) if features else 0
    if form.sort is not None:
        predictions = sort_copies(predictions, sources[: len(predictions)], form.sort, names)
    computed = f"computed by {model or served[0]} on {url}"
    code = write_output(predictions, form, "", computed, features=columns)
    unanswered = sum(prediction.status == "unanswered" for prediction in predictions)
    if failure is not None:
        before = f"{len(predictions) - unanswered:,} of {plural(len(sources), 'image')}"
        raise type(failure)(
            f"{failure}; {before} were answered before; what is missing begins with "
            f"{sources[len(predictions)].name}: predict from there on once the server is back"
        )
    if unanswered:
        say(
            f"{unanswered:,} of {plural(len(predictions), 'image')} were not answered by {url}",
            file=sys.stderr,
        )
    return code


def _number_of_features(client: "Client", model: str, predictions: "Sequence[Prediction]") -> int:
    """F of a model; the server is asked where no image could be read."""
    known = (len(each.features) for each in predictions if each.features is not None)
    return next(known, 0) or client.number_of_features(model)


class _Answers:
    """The predictions of a server until it fails.

    Attributes:
        failure: how it failed; None while it has not.
    """

    def __init__(self, pending: "Iterable[Prediction]") -> None:
        self.pending = pending
        self.failure: Exception | None = None

    def __iter__(self) -> "Iterator[Prediction]":
        """One after the other: what came before a failure stays.

        Raises:
            ServerFailed, NotReachable: there is no prediction.
        """
        from resnets.serving.exchange import NotReachable, ServerFailed

        answered = 0
        try:
            for prediction in self.pending:
                yield prediction
                answered += 1
        except (ServerFailed, NotReachable) as failure:
            if not answered:
                raise
            self.failure = failure


def _model_and_images(served: Sequence[str], words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The name of one of a server's models, and what stands for images.

    Where a first word is MODEL as it would be without a server, the server has it by that name.

    Raises:
        UsageError: the first word is neither; or a model of the server and a folder or file here.
    """
    from resnets.deployment.engines.swapped import is_model
    from resnets.serving.served_model import name_of

    if words and is_model(words[0]):
        return words[0] if words[0] in served else name_of(Path(words[0])), words[1:]
    if words and words[0] in served:
        if not Path(words[0]).exists():
            return words[0], words[1:]
        if len(words) > 1:
            raise UsageError(
                f"{words[0]}: a model of the server, and here a file or folder of this name; "
                f"write ./{words[0]} for that, or run this in another folder"
            )
    first = words[0] if len(words) > 1 else ""
    if first and not Path(first).exists() and not set(first) & set("*?[:"):
        raise UsageError(
            f"{first}: no such image or folder, and no model of the server, which has "
            f"{', '.join(served)}"
        )
    return "", words
