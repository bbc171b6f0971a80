"""What the pages of the documentation have the reader type."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"(?:^<!-- (?P<remark>[^\n]*?) -->\n)?^```(?P<language>console|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of commands or Python.

    Attributes:
        language: "console" or "python".
        text: what is in it.
        remark: the comment before it: ``not run: REASON``, ``soak: REASON`` where only the soak
            test runs it, or ``test: THIS -> THAT`` where a test would take too long.
    """

    language: str
    text: str
    remark: str = ""

    @property
    def not_run(self) -> bool:
        return self.remark.startswith("not run: ")

    @property
    def only_soak(self) -> bool:
        return self.remark.startswith("soak: ")

    def code(self) -> str:
        """The text as a test runs it."""
        before, arrow, after = self.remark.removeprefix("test: ").partition(" -> ")
        assert not arrow or before in self.text, f"{before!r} is not in {self.text}"
        return self.text.replace(before, after) if arrow else self.text

    def commands(self) -> list[str]:
        """The lines after a prompt, as a test runs them."""
        return [x.removeprefix("$ ") for x in self.code().splitlines() if x.startswith("$ ")]


def blocks(page: Path, replaced: Mapping[str, str] = {}) -> list[Block]:
    """What a page has the reader type, in its order, with some texts replaced in all of it."""
    text = page.read_text(encoding="utf-8")
    for old, new in replaced.items():
        text = text.replace(old, new)
    matches = BLOCK.finditer(text)
    return [Block(x["language"], x["text"], x["remark"] or "") for x in matches]
