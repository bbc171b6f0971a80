"""A name without underscore is used by another module or is public; packages list their own.

Variables are called by what they hold.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = ("benchmarks", "docs", "examples", "results")  # programs that use the package
PRINTED = "print(network) shows the name of this class"
ALLOWED = {
    "resnets.cli.COMMANDS": "the table of commands, in which each new one gets a row",
    "resnets.images.png.SMALL": "benchmarks/small_png.py measures with other limits",
    "resnets.networks.blocks.NoShortcut": PRINTED,
    "resnets.networks.blocks.PreActBlock": PRINTED,
    "resnets.networks.blocks.PreActBottleneck": PRINTED,
    "resnets.networks.blocks.ZeroPadding": PRINTED,
    "resnets.networks.layers.EfficientAttention": PRINTED,
    "resnets.networks.layers.SqueezeExcitation": PRINTED,
}
PARTICIPLES = {"found", "given", "named", "opened", "placed", "said", "told"}
KEPT = {
    "resnets/evaluation/familiarity.py:found": "a field whose name model files store as a key",
}
Definition = tuple[str, ast.stmt]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, Path]:
    """The package's files by module, such as resnets.data.splits."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((ROOT / "resnets").rglob("*.py"))
    }


def definitions(tree: ast.Module) -> Iterator[Definition]:
    """The names that statements at the top level of a module define, with these."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from ((name.id, node) for name in ast.walk(target) if is_name(name))


def is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


@cache
def uses(path: Path) -> frozenset[str]:
    """What a file imports, and the attributes that it reads of imported modules, in full."""
    imported, read = set(), set()  # pairs: own name and full name, owner and attribute
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            for each in node.names:
                imported.add((each.asname or each.name, f"{node.module}.{each.name}"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            read.add((node.value.id, node.attr))
    own_modules = [(own, full) for own, full in imported if full in modules()]
    attributes = {f"{full}.{name}" for own, full in own_modules for at, name in read if at == own}
    return frozenset(attributes | {full for _, full in imported})


def listed(path: Path) -> list[str] | None:
    """What a file's `__all__` lists; None if it has none."""
    for name, node in definitions(tree_of(path)):
        if name == "__all__" and isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def public_names() -> set[str]:
    """What packages list in `__all__`: there, and in the modules that they take it from."""
    public = set()
    for module, path in modules().items():
        names = listed(path) or [] if path.name == "__init__.py" else []
        public |= {f"{module}.{name}" for name in names}
        public |= {use for use in uses(path) if use.rpartition(".")[2] in names}
    return public


def is_type(value: ast.expr) -> bool:
    """Whether a value has the form of `Callable[[Name], Name]` or `Name | None`."""
    is_union = isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
    return is_union or isinstance(value, ast.Subscript)


def types_of(node: ast.AST) -> Iterator[str]:
    """The names in the signature of a function, in the fields, methods and bases of a class, or
    in an alias of types."""
    parts: list[ast.expr | None] = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        parts = [node.returns, *(argument.annotation for argument in arguments)]
    elif isinstance(node, ast.ClassDef):
        parts = [*node.bases]
        for part in node.body:
            yield from types_of(part)
    elif isinstance(node, ast.AnnAssign):
        parts = [node.annotation]
        if ast.unparse(node.annotation) == "TypeAlias":
            parts = [node.value]
    elif isinstance(node, ast.Assign) and is_type(node.value):
        parts = [node.value]
    for piece in (piece for part in filter(None, parts) for piece in ast.walk(part)):
        if isinstance(piece, ast.Name):
            yield piece.id
        elif isinstance(piece, ast.Constant) and isinstance(piece.value, str):
            yield from re.findall(r"\w+", piece.value)  # a type in quotes


def exempt(module: str, path: Path) -> set[str]:
    """Names of a module that need no other user: types that the others show, and what is found by
    its name: the parts of a command."""
    others = [node for name, node in definitions(tree_of(path)) if not name.startswith("_")]
    shown = {name for node in others for name in types_of(node)}
    is_command = module.startswith("resnets.commands.")
    return shown | ({"main", "Arguments", module.rpartition(".")[2]} if is_command else set())


def test_a_name_without_underscore_is_used_by_another_module_or_public() -> None:
    scripts = [path for folder in SCRIPTS for path in (ROOT / folder).rglob("*.py")]
    users = Counter(use for path in [*modules().values(), *scripts] for use in uses(path))
    public = public_names()
    surplus = {
        f"{module}.{name}"
        for module, path in modules().items()
        for name, _ in definitions(tree_of(path))
        if not name.startswith("_")
        and f"{module}.{name}" not in public
        and not users[f"{module}.{name}"]
        and name not in exempt(module, path)
    }
    assert not surplus - ALLOWED.keys(), "no other module uses these: let them begin with _"
    assert not ALLOWED.keys() - surplus, "these need no exception"


def test_each_package_lists_its_public_names() -> None:
    packages = [path for path in modules().values() if path.name == "__init__.py"]
    assert not [str(path) for path in packages if listed(path) is None]


def is_fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)


def variables(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The lines and names of all variables, fields, parameters and fixtures of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            yield node.lineno, node.name or "_"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_fixture(node):
            yield node.lineno, node.name


def test_variables_are_called_by_what_they_hold() -> None:
    kept, wrong = set(), []
    for folder in ("resnets", "tests", *SCRIPTS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            for line, name in variables(tree_of(path)):
                if f"{file}:{name}" in KEPT:
                    kept.add(f"{file}:{name}")
                elif name in PARTICIPLES:
                    wrong.append(f"{file}:{line}:{name}")
    assert not wrong, "call these by what they hold:\n" + "\n".join(wrong)
    assert not KEPT.keys() - kept, "these need no exception"
