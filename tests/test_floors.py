"""Data flows downwards: a module imports only from its own floor or a floor above it."""

import ast
from collections.abc import Collection
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "resnets"
FLOORS = (
    "errors",
    "addresses",
    "format",
    "doors",
    "run_files",
    "escaping",
    "json_text",
    "files",
    "locks",
    "interrupting",
    "outages",
    "templates",
    "fields",
    "machine",
    "torchrun",
    "matrices",
    "notebook",
    "keywords",
    "integrity",
    "packing",
    "other_formats",
    "headers",
    "pickles",
    "images",
    "networks",
    "data",
    "training",
    "shipped",
    "golden",
    "model_file",
    "pretrained",
    "model_path",
    "evaluation",
    "runs",
    "deployment",
    "serving",
    "api",
    "commands",
    "cli",
)
MODULES = sorted(
    path.relative_to(PACKAGE)
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in ("__init__.py", "__main__.py")
)


def floor(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The floors that a file's import statements name, wherever they stand in it."""
    floors = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "resnets":
                names = [f"resnets.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        floors |= {name.split(".")[1] for name in names if name.startswith("resnets.")}
    return floors


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_from_its_own_floor_or_above(module: Path) -> None:
    own = FLOORS.index(floor(module.parts))
    below = {name for name in imported(PACKAGE / module) if FLOORS.index(name) > own}
    assert not below, f"{module} imports from below: {below}"


def test_no_import_is_relative() -> None:
    """Relative imports would pass the test above unseen."""
    relative = [
        module
        for module in MODULES
        for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def module_name(path: Path) -> str:
    """resnets/data/__init__.py -> resnets.data"""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_modules(path: Path, modules: Collection[str]) -> set[str]:
    """The modules of the package that a file's import statements name, wherever they stand."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inside & set(modules) or {node.module}
    return names & set(modules) - {module_name(path)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    graph = {name: imported_modules(path, paths) for name, path in paths.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
