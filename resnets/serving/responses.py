"""Responses of the routes."""

from typing import Any

from starlette.responses import Response

from resnets.json_text import to_json


class JSON(Response):
    """A response of JSON that never holds NaN."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body, a line that a terminal's next one does not go on."""
        return f"{to_json(content)}\n".encode()


def readiness(unready: str | None) -> JSON:
    """The response to a probe.

    Args:
        unready: why no request is taken; None where requests are.
    """
    if unready is None:
        return JSON({"ready": True})
    return JSON({"ready": False, "error": unready}, 503)
