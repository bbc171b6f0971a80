"""Small tables for notebooks, which show a value by its `_repr_html_`."""

import html
from collections.abc import Iterable, Sequence

_CELL = "text-align:left;padding:2px 12px 2px 0;vertical-align:top"


def html_table(
    rows: Iterable[Sequence[object]], columns: Sequence[str] = (), title: str = ""
) -> str:
    """A table in HTML that needs nothing from elsewhere; all text in it is escaped.

    >>> html_table([("a<b", 1)], title="Counts")  # doctest: +ELLIPSIS
    '<table><caption ...>Counts</caption><tbody><tr><td ...>a&lt;b</td><td ...>1</td>...'
    """
    caption = f'<caption style="{_CELL}">{_text(title)}</caption>' if title else ""
    head = f"<thead>{_row(columns, 'th')}</thead>" if columns else ""
    body = "".join(_row(row, "td") for row in rows)
    return f"<table>{caption}{head}<tbody>{body}</tbody></table>"


def _row(cells: Iterable[object], tag: str) -> str:
    return "<tr>" + "".join(f'<{tag} style="{_CELL}">{_text(c)}</{tag}>' for c in cells) + "</tr>"


def _text(value: object) -> str:
    return html.escape("" if value is None else str(value))
