"""What became of images that a client sent: a failure of some is told in their rows."""

from collections.abc import Iterable, Iterator

from resnets.evaluation.predict import Prediction
from resnets.evaluation.source import Source
from resnets.serving.exchange import NotReachable, ServerFailed

AT_ONCE = 8  # requests of a client
_IN_A_ROW = 2 * AT_ONCE  # failures after which no other image is asked for

Failure = ServerFailed | NotReachable
Outcome = Prediction | Failure


class Outcomes:
    """Predictions in the order of their images, for failures of the server too.

    A failure becomes a prediction with the status "unanswered" once a later image is answered, or
    at the end. Images that cannot be read tell nothing about the server.
    """

    def __init__(self) -> None:
        self._held: list[tuple[Source, Outcome]] = []  # from a failure on, until an answer
        self._failures: list[Failure] = []  # of those
        self._has_predictions = False

    def add(self, source: Source, outcome: Outcome) -> list[Prediction]:
        """The predictions that are settled by the outcome for the next image.

        Raises:
            ServerFailed, NotReachable: the last images failed one after another.
        """
        self._held.append((source, outcome))
        if isinstance(outcome, Prediction):
            self._has_predictions = True
            return self._settled() if outcome.error is None or not self._failures else []
        self._failures.append(outcome)
        if len(self._failures) >= _IN_A_ROW:
            raise outcome
        return []

    def end(self) -> list[Prediction]:
        """The predictions that were held back.

        Raises:
            ServerFailed, NotReachable: there is nothing but failures; it is the first one.
        """
        if self._failures and not self._has_predictions:
            raise self._failures[0]
        return self._settled()

    def _settled(self) -> list[Prediction]:
        """All that was held back."""
        settled = [
            outcome if isinstance(outcome, Prediction) else _unanswered(source, outcome)
            for source, outcome in self._held
        ]
        self._held.clear()
        self._failures.clear()
        return settled


def settled(outcomes: Iterable[tuple[Source, Outcome]]) -> Iterator[Prediction]:
    """The predictions for images and their outcomes, each as soon as it is settled."""
    state = Outcomes()
    for source, outcome in outcomes:
        yield from state.add(source, outcome)
    yield from state.end()


def _unanswered(source: Source, failure: Failure) -> Prediction:
    """The prediction for an image that the server did not answer."""
    return Prediction(source.name, status="unanswered", error=str(failure))
