import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resnets.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_of_modules_is_that_of_the_package() -> None:
    command = [sys.executable, ROOT / "docs" / "tree.py", "--check"]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "python docs/tree.py writes it anew"


def test_every_command_stands_in_the_table_with_what_it_does_and_its_page() -> None:
    rows = re.findall(r"^\| (.*) \| \[`resnets ([\w-]+)`\]\((.*)\) \|$", README, re.MULTILINE)
    assert {name: does for does, name, _ in rows} == COMMANDS
    assert {name: page for _, name, page in rows} == {x: f"docs/how-to/{x}.md" for x in COMMANDS}


@pytest.mark.parametrize("question", ["train on my photos", "from Python", "different from timm"])
def test_what_people_ask_first_is_a_heading_on_the_first_page(question: str) -> None:
    lines = README.splitlines()
    assert len(lines) < 200
    assert [line for line in lines[:80] if line.startswith("#") and question in line]


def test_the_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_noise: Callable[..., None]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    draw_noise(tmp_path / "photos" / "noise.jpg")
    exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target
