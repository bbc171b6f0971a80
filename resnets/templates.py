"""Plain text from a template in a file of its own, such as a script or a configuration."""

from pathlib import Path

from resnets.files.reading import read_text
from resnets.json_text import to_json


def filled_in(template: Path, **values: object) -> str:
    """The text of a Jinja template, in which `| json` quotes a value as JSON and YAML do.

    Nothing is escaped, so this is for no HTML.

    Args:
        template: its file. A line that has only a statement leaves no line.
        values: by name; one that is missing raises jinja2.UndefinedError.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["json"] = to_json
    return environment.from_string(read_text(template)).render(values)
