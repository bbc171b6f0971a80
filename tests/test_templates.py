"""Templates, whose values come out as a shell and a parser of JSON read them."""

import json
from pathlib import Path

import jinja2
import pytest

from resnets.templates import filled_in


def test_values_are_filled_in_without_escaping_and_quoted_where_the_template_says(
    tmp_path: Path,
) -> None:
    template = tmp_path / "template"
    template.write_text(
        "{% for word in words %}\n${{ word }}\n{% endfor %}\n{{ words | json }}\n", encoding="utf-8"
    )
    words = ['a & "b"', "<c>"]
    *lines, last = filled_in(template, words=words).splitlines()
    assert lines == ['$a & "b"', "$<c>"]
    assert json.loads(last) == words
    with pytest.raises(jinja2.UndefinedError, match="words"):
        filled_in(template)
