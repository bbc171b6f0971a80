"""What the pages of the documentation have the reader type."""

import re
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
        remark: the comment before it: ``not run: REASON``, or ``test: THIS -> THAT`` where a test
            would take too long.
    """

    language: str
    text: str
    remark: str = ""

    @property
    def not_run(self) -> bool:
        return self.remark.startswith("not run: ")

    def commands(self) -> list[str]:
        """The lines after a prompt, as a test runs them."""
        lines = [x.removeprefix("$ ") for x in self.text.splitlines() if x.startswith("$ ")]
        before, arrow, after = self.remark.removeprefix("test: ").partition(" -> ")
        if not arrow:
            return lines
        assert any(before in line for line in lines), f"{before!r} is in none of {lines}"
        return [line.replace(before, after) for line in lines]


def blocks(page: Path) -> list[Block]:
    """What a page has the reader type, in its order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(x["language"], x["text"], x["remark"] or "") for x in found]
