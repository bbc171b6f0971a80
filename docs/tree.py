"""Write the tree of modules, with the first line of each docstring, into CONTRIBUTING.md.

``python docs/tree.py`` updates it; with ``--check`` it only says whether it is up to date.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- tree of modules: python docs/tree.py -->\n", "<!-- end of tree -->\n"
PLACED = ("__init__.py", "__main__.py", "model_file.py", "model_path.py", "api.py", "cli.py")
FLOORS = (
    "files",
    "pickles",
    "images",
    "networks",
    "data",
    "training",
    "evaluation",
    "runs",
    "deployment",
    "commands",
)


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring, or nothing."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "")


def row(depth: int, name: str, what: str) -> str:
    """One line of the tree."""
    return f"{'  ' * depth}{name}".ljust(26) + f"  {what}".rstrip()


def rows(depth: int, folder: Path) -> list[str]:
    """A folder and what is in it: its modules, then its sub-packages."""
    lines = [row(depth, f"{folder.name}/", first_line(folder / "__init__.py"))]
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    lines += [row(depth + 1, path.name, first_line(path)) for path in modules]
    for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
        lines += rows(depth + 1, package)
    return lines


def tree() -> str:
    """The package's modules, floor by floor from the top."""
    package = ROOT / "resnets"
    lines = ["resnets/"]
    alone = sorted(path for path in package.glob("*.py") if path.name not in PLACED)
    lines += [row(1, path.name, first_line(path)) for path in alone]
    for floor in FLOORS:
        if floor == "evaluation":
            lines.append(row(1, "shipped/", first_line(package / "shipped" / "__init__.py")))
            lines.append(row(1, "model_file.py", first_line(package / "model_file.py")))
            lines += rows(1, package / "pretrained")
            lines.append(row(1, "model_path.py", first_line(package / "model_path.py")))
        if floor == "commands":
            lines.append(row(1, "api.py", first_line(package / "api.py")))
        lines += rows(1, package / floor)
    lines += [row(1, "cli.py", first_line(package / "cli.py"))]
    return "\n".join(lines)


def main() -> int:
    """Update the page, or compare it."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    wanted = f"{before}{START}```\n{tree()}\n```\n{END}{after}"
    if "--check" in sys.argv:
        return 0 if text == wanted else 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
