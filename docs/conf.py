"""How Sphinx builds this folder: ``make docs``.

Nothing is fetched while it builds, and every warning is an error: a link that leads nowhere, a
name that the reference does not have, a page that no other page leads to.
"""

import contextlib
import io
import os
import posixpath
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).parent
ROOT = DOCS.parent
REPOSITORY = os.environ.get("DOCS_REPOSITORY", "")  # https://HOST/OWNER/NAME/blob/main, if known
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
OUTSIDE = {  # pages whose text is a file outside this folder
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "results": "results/README.md",
}

sys.path.insert(0, str(ROOT))
os.environ["COLUMNS"] = "100"  # of the helps, however wide the terminal is

project = "resnets"
author = "the authors of resnets"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]

html_theme = "furo"
html_title = "resnets"
html_show_copyright = False
html_copy_source = False
smartquotes_action = "D"  # quotes stay as they are typed
highlight_language = "none"  # of blocks that name no language: what a command printed

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/docs executes the notebooks; what they show is committed

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_rtype = False
napoleon_use_ivar = True

nitpicky = True
default_role = "py:obj"  # a docstring's `name` is a link where the reference has that name,
nitpick_ignore_regex = [
    ("py:obj", r".*"),  # and code where it is an argument, say
    ("py:class", r"(?!resnets\.).*"),  # types of other projects, and aliases in signatures
]


class CommandHelp(SphinxDirective):
    """What ``resnets COMMAND --help`` prints, asked while the page is built."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The help as a block of text."""
        from resnets.cli import main

        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*self.arguments, "--help-all"])
        text = printed.getvalue().strip()
        return [nodes.literal_block(text, text, language="none")]


def linked(text: str, file: str, page: str) -> str:
    """A page's text with links that work on the site.

    Links lead to files of the repository, as they do where the page is read there. Those to pages
    become links to pages; those to other files lead to `REPOSITORY`, or are plain text without it.

    Args:
        text: the page, in Markdown.
        file: where it is in the repository; its links are relative to that.
        page: its name on the site.
    """
    pages = {path: f"docs/{name}.md" for name, path in OUTSIDE.items()}

    def replaced(match: re.Match[str]) -> str:
        image, words, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
        path = pages.get(path, path)
        if not (ROOT / path).exists():
            logging.getLogger(__name__).warning("no such file: %s", target, location=page)
        if image or path.startswith("docs/"):
            start = posixpath.dirname(f"docs/{page}")
            return f"{image}[{words}]({posixpath.relpath(path, start)}{anchor})"
        return f"[{words}]({REPOSITORY}/{path}{anchor})" if REPOSITORY else words

    return LINK.sub(replaced, text)


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Take pages from where they are, with links that work on the site."""
    file = OUTSIDE.get(page)
    if file is not None:
        source[0] = (ROOT / file).read_text(encoding="utf-8")
    path = Path(app.env.doc2path(page))
    if path.suffix == ".md":
        source[0] = linked(source[0], file or path.relative_to(ROOT).as_posix(), page)


def mark(_app: object, what: str, _name: str, _value: object, _: object, lines: list[str]) -> None:
    """Mark up a docstring before Napoleon reads it; its lines are changed in place."""
    plain = r"(?<![\w`-])(?:--[a-z][a-z-]*|\"\w+/\*\.\w+\"(?=;))"  # flags and patterns of paths
    text = re.sub(plain, r"``\g<0>``", "\n".join(lines))
    text = re.sub(r"^(\S.*[^:\n])\n\n(?=    \S)", r"\1\n\n::\n\n", text, flags=re.MULTILINE)  # code
    if what in ("attribute", "property"):  # else Napoleon takes words before a colon for a type
        text = f"..\n\n{text}"
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive ``command-help``, and the pages from outside."""
    app.add_directive("command-help", CommandHelp)
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", mark, priority=0)
    return {"parallel_read_safe": True}
