import re
import subprocess
import sys
from pathlib import Path

from resnets.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_of_modules_is_that_of_the_package() -> None:
    command = [sys.executable, ROOT / "docs" / "tree.py", "--check"]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "python docs/tree.py writes it anew"


def test_every_command_stands_in_the_table_with_what_it_does() -> None:
    rows = re.findall(r"^\| `resnets ([\w-]+)` \| (.*) \|$", README, re.MULTILINE)
    assert dict(rows) == COMMANDS


def test_the_examples_in_python_run() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})


def test_links_lead_to_files() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (ROOT / target).exists(), f"{name}: {target}"
