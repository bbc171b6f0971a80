"""The documentation builds without a warning, and without the network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resnets.cli import COMMANDS

ROOT = Path(__file__).parents[2]
STRICT = ("-b", "html", "--nitpicky", "--fail-on-warning", "--keep-going", "--quiet")


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Build a copy of the site, as `make docs` does."""
    command = [sys.executable, "-m", "sphinx", *STRICT, source, output]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = build(ROOT / "docs", tmp_path)
    assert done.returncode == 0, done.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (tmp_path / name).is_file(), name
    help_page = (tmp_path / "how-to" / "predict.html").read_text(encoding="utf-8")
    assert "--max-error" in help_page
    reference = (tmp_path / "reference" / "calls.html").read_text(encoding="utf-8")
    assert 'id="resnets.predict"' in reference
    assert "batch_size" in reference


NOWHERE = {  # what is written, and what the warning names
    "[no page](nowhere.md)": "nowhere.md",
    "[no such heading](glossary.md#no-such-heading)": "no-such-heading",
    "{py:func}`resnets.no_such_call`": "resnets.no_such_call",
    "{term}`no such word`": "no such word",
    "[no such file](../results/nowhere.json)": "nowhere.json",
}


@pytest.mark.slow
def test_links_that_lead_nowhere_fail(tmp_path: Path) -> None:
    """In a small site with the same configuration."""
    source = tmp_path / "docs"
    source.mkdir()
    for name in ("conf.py", "glossary.md"):
        shutil.copy(ROOT / "docs" / name, source)
    index = source / "index.md"
    index.write_text("# Index\n\n```{toctree}\nglossary\n```\n", encoding="utf-8")
    sound = build(source, tmp_path / "site")
    assert sound.returncode == 0, sound.stderr
    with index.open("a", encoding="utf-8") as file:
        file.writelines(f"\n{line}\n" for line in NOWHERE)
    done = build(source, tmp_path / "site")
    assert done.returncode != 0
    for line, warning in NOWHERE.items():
        assert warning in done.stderr, line


def test_every_command_has_a_page_with_its_options_and_an_output() -> None:
    for name in COMMANDS:
        text = (ROOT / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")
        assert f"```{{command-help}} {name}\n" in text, name
        stays = "<!-- not run" in text  # a server, which ends only when it is stopped
        assert stays or "<!-- figure: example." in text, name


def test_words_of_the_glossary_are_in_order() -> None:
    """A reader looks a word up in a list that is sorted."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^(\w.*)\n  \S", text, re.MULTILINE)
    assert len(words) > 20
    assert words == sorted(words, key=str.lower)
