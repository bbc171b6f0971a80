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
