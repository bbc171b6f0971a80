"""Printed modules as a tree: the text of `str(module)`, read line by line, never evaluated."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from resnets.errors import ContentError

_CHILD = re.compile(r"\((?P<name>\w+)\): (?P<rest>.*)")
_LEAF = re.compile(r"(?P<kind>\w+)\((?P<arguments>.*)\)")
_OPENING = re.compile(r"(?P<kind>\w+)\(")
_ROOT = re.compile(
    r"(?:^|.*[^\w(])(?P<kind>[A-Z]\w*)\($"
)  # after anything that a log puts before it
_DEEPEST = 32  # levels; no residual network has a third of it
_LONGEST = 1000  # characters of a line that can be a part of a printed module


@dataclass(frozen=True)
class Node:
    """One printed module.

    Attributes:
        name: by which its parent calls it; empty for the outermost.
        kind: its class.
        arguments: what stands between its parentheses, beside its children.
        line: of the text, counted from 1.
        children: in the order in which they are printed.
    """

    name: str
    kind: str
    arguments: str = ""
    line: int = 0
    children: tuple["Node", ...] = ()

    def child(self, name: str) -> "Node | None":
        """The child of that name, if there is one."""
        return next((child for child in self.children if child.name == name), None)

    def walk(self, path: str = "") -> Iterator[tuple[str, "Node"]]:
        """Every node with its dotted path, this one first."""
        yield path, self
        for child in self.children:
            yield from child.walk(f"{path}.{child.name}" if path else child.name)


@dataclass
class _Lines:
    """The lines of a text, read one after the other."""

    lines: list[str]
    position: int = 0  # number of lines read

    def next(self, inside: str) -> str:
        """The next line without the white space around it."""
        if self.position == len(self.lines):
            raise ContentError(f"line {self.position}: the text ends inside {inside}")
        self.position += 1
        return self.lines[self.position - 1].strip()


def parse(text: str) -> Node:
    r"""The first printed module that has children, wherever it starts in the text.

    Args:
        text: what `print(module)` wrote, also in the middle of a log.

    Raises:
        ContentError: if there is none, or it is cut off; the message names the line.

    >>> tree = parse("a log\nNet(\n  (fc): Linear(in_features=2, out_features=1, bias=True)\n)")
    >>> tree.kind, tree.children[0].arguments, tree.children[0].line
    ('Net', 'in_features=2, out_features=1, bias=True', 3)
    """
    lines = [line if len(line) <= _LONGEST else "" for line in text.splitlines()]
    errors: list[tuple[int, ContentError]] = []  # each with the line that it came from
    for position, line in enumerate(lines[:-1]):
        root = _ROOT.fullmatch(line.rstrip())
        first = _CHILD.fullmatch(lines[position + 1].strip())
        if root and first and not _CHILD.fullmatch(line.strip()):
            reader = _Lines(lines, position + 1)
            try:
                return _body(reader, "", root["kind"], position + 1, 0)
            except ContentError as error:
                errors.append((reader.position, error))
    if errors:
        raise max(errors, key=lambda error: error[0])[1]
    raise ContentError(
        "line 1: no printed module in this text (expected a line such as `ResNet(` and its parts)"
    )


def _body(lines: _Lines, name: str, kind: str, start: int, depth: int) -> Node:
    """The rest of a module, from the line after its opening one to its closing parenthesis."""
    if depth > _DEEPEST:
        raise ContentError(f"line {start}: modules nested more than {_DEEPEST} deep")
    children: list[Node] = []
    arguments = ""
    while (line := lines.next(f"{kind}, which opens in line {start}")) != ")":
        match = _CHILD.fullmatch(line)
        if match:
            children.append(_child(lines, match["name"], match["rest"], depth))
        elif not children and not arguments and line:
            arguments = line  # torch prints a module's own arguments above its children
        else:
            shown = line if len(line) <= 60 else line[:57] + "..."
            raise ContentError(f"line {lines.position}: not a part of {kind}: {shown!r}")
    return Node(name, kind, arguments, start, tuple(children))


def _child(lines: _Lines, name: str, rest: str, depth: int) -> Node:
    number = lines.position
    if opening := _OPENING.fullmatch(rest):
        return _body(lines, name, opening["kind"], number, depth + 1)
    if leaf := _LEAF.fullmatch(rest):
        return Node(name, leaf["kind"], leaf["arguments"], number)
    raise ContentError(f"line {number}: not a module: {rest[:60]!r}")
