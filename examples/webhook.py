"""Tell a chat when training ends, or fails: a message to a webhook of Slack, Mattermost or Discord.

    python examples/webhook.py DATA https://hooks.slack.com/services/...

DATA is what `resnets train` takes. A failed delivery is printed and stops nothing: a callback that
raises would end the run.
"""

import json
import urllib.request

import tyro

import resnets


class Webhook:
    """Posts a line of text when there is something to tell."""

    def __init__(self, url: str, every: int = 10) -> None:
        """Remember where to.

        Args:
            url: takes JSON with a `text` (Slack, Mattermost) or `content` (Discord).
            every: epochs between two messages on the way.
        """
        self.url, self.every = url, every

    def __call__(self, record: object) -> None:
        """Take a record of the run."""
        if isinstance(record, resnets.Epoch) and record.epoch % self.every == 0:
            self.post(f"epoch {record.epoch}: training loss {record.training.loss:.3f}")
        elif isinstance(record, resnets.End):
            scores = [f"{name} {value:.4g}" for name, value in record.metrics.items()]
            why = f" ({record.stopped})" if record.stopped else ""
            self.post(f"training has ended{why}: {', '.join(scores)}")

    def post(self, text: str) -> None:
        """Send a message."""
        body = json.dumps({"text": text, "content": text}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url, body, headers)
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError as error:
            print(f"no message sent ({error}): {text}")


def main(data: str, url: str, epochs: int = 24) -> None:
    """Train, and tell a chat.

    Args:
        data: as for `resnets train`.
        url: of the webhook.
        epochs: to train for.
    """
    hook = Webhook(url)
    try:
        resnets.train(data, epochs=epochs, callbacks=[hook])
    except Exception as error:
        hook.post(f"training failed: {error}")
        raise


if __name__ == "__main__":
    tyro.cli(main)
