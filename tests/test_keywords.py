"""What goes wrong in a call from Python is told in the names of its keywords."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import resnets
from resnets.errors import ContentError, UsageError
from resnets.keywords import _in_keywords
from resnets.runs.job import CHANGES


@pytest.mark.parametrize(
    ("name", "value"),
    [("recipe", "none.toml"), ("device", "cuda:99"), ("group_by", "folder:9"), ("start", "/none")],
)
def test_a_training_that_is_refused_names_the_keyword(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"`{name}`") as caught:
        resnets.train("digits", output=False, progress=False, **{name: value})  # type: ignore[arg-type]
    assert "--" not in re.sub("`resnets .*?`", "", str(caught.value))  # but for commands


def test_what_to_pass_for_broken_images_is_python(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"")
    with pytest.raises(ContentError, match="`skip_unreadable=True`"):
        resnets.train(tmp_path, output=False, progress=False)


def test_evaluating_a_split_that_is_missing_names_the_keyword() -> None:
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    data: dict[str, Any] = {"train": (pixels, ["cat", "dog"] * 2)}
    with pytest.raises(UsageError, match="`split` all"):
        resnets.evaluate("resnet20_cifar10", data, split="test")


@given(text=st.text("ab-` \n", max_size=30))
def test_text_without_flags_of_the_call_stays(text: str) -> None:
    assert _in_keywords(text, {"c": None}) == text


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_change_is_found_by_its_flag(name: str) -> None:
    flag = "--from" if name == "start" else f"--{name.replace('_', '-')}"
    assert _in_keywords(f"give {flag} 1", CHANGES).startswith(f"give `{name}")


def test_commands_to_type_stay() -> None:
    text = "`resnets train --seed 1`; or resnets train --seed 1, or --seed 1"
    assert _in_keywords(text, CHANGES) == text.removesuffix("--seed 1") + "`seed` 1"
