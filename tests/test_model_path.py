"""What a MODEL names, and what is said where it names none."""

import os

import pytest

from resnets.errors import UsageError
from resnets.model_path import find_weights


@pytest.mark.parametrize(
    ("path", "word"),
    [
        pytest.param(
            "/dev/zero",
            "device",
            marks=pytest.mark.skipif(os.name == "nt", reason="Windows has none"),
        ),
        ("none.safetensors", "no such file"),
        ("resnet20", "architecture"),
    ],
)
def test_what_is_no_model_is_named_as_what_it_is(path: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        find_weights(path)
    assert ("no such file" in str(caught.value)) == (word == "no such file")
