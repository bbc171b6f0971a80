"""From printed text and back. timm 1.0.31 and torchvision 0.29 printed the foreign texts."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnets.errors import ContentError
from resnets.networks import CATALOG, build
from resnets.networks.printed.reading import from_printed, read_printed
from tests.spread import spread

GOLDEN = Path(__file__).parents[1] / "golden"
LARGEST = 60  # blocks; printing and reading the deepest takes seconds, and shows nothing new
ROWS = [name for name, row in CATALOG.items() if sum(row.architecture.depths) <= LARGEST]
TEXT = str(build("resnet20", stochastic_depth=0.1))


def printed(name: str, **changes: object) -> str:
    with torch.device("meta"):
        return str(build(name, **changes))


@pytest.mark.parametrize("name", spread(ROWS))
def test_every_named_network_is_read_back_from_its_text(name: str) -> None:
    text = printed(name)
    architecture = read_printed(text)
    assert architecture == CATALOG[name].architecture
    with torch.device("meta"):
        assert str(build(architecture)) == text


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(CATALOG.keys() - set(ROWS)))
def test_the_deepest_networks_too(name: str) -> None:
    assert read_printed(printed(name)) == CATALOG[name].architecture


@pytest.mark.parametrize(
    "changes",
    [
        {"output_stride": 8},
        {"stochastic_depth": 0.2},
        {"dropout": 0.1},
        {"norm": "group"},
        {"norm": "frozen"},
        {"num_classes": 7, "in_channels": 1},
        {"shortcut": "projection_everywhere"},
        {"shortcut": "none"},
        {"attention": "se", "reduction": 8},
        {"blur": True, "output_stride": 16},
        {"blur": "average", "output_stride": 16},
        {"weight_standardisation": True},
        {"block": "preact_residual", "activated_start": False},
        {"width": 32, "stem_width": 48},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["resnet18", "resnet26d"])
def test_every_choice_is_read_back(name: str, changes: dict[str, object]) -> None:
    text = printed(name, **changes)
    architecture = read_printed(text)
    with torch.device("meta"):
        assert architecture == build(name, **changes).architecture


@pytest.mark.parametrize("name", ["model1", "model2"])
def test_the_two_networks_of_this_project_are_read_back(name: str) -> None:
    text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")
    assert str(from_printed(text)) == text


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_bias_that_newer_torch_prints_makes_no_difference(norm: str) -> None:
    text = printed("resnet20", norm=norm)
    old = re.sub(r"(affine=True.*), bias=True", r"\1", text)
    new = re.sub(r"(affine=True.*)\)", r"\1, bias=True)", old)
    assert new != old
    assert read_printed(old) == read_printed(new)
    assert read_printed(new).norm == norm


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_torchvisions_text_is_the_network_of_that_name(
    name: str, shared: Callable[[str], Path]
) -> None:
    path = shared(f"parity/torchvision-{name}.json.gz")
    text = json.loads(gzip.decompress(path.read_bytes()))["printed"]
    assert read_printed(text) == CATALOG[name].architecture


@pytest.mark.parametrize("name", ["resnet26t", "resnetv2_50"])
def test_timms_text_is_the_network_of_that_name(name: str) -> None:
    text = (GOLDEN / f"timm_{name}.txt").read_text(encoding="utf-8")
    assert read_printed(text) == CATALOG[name].architecture


def test_timms_blur_attention_and_stem_are_read() -> None:
    blurred = read_printed((GOLDEN / "timm_resnetblur18.txt").read_text(encoding="utf-8"))
    assert blurred.blur
    assert blurred.depths == (2, 2, 2, 2)
    rescaled = read_printed((GOLDEN / "timm_rs_small.txt").read_text(encoding="utf-8"))
    assert (rescaled.stem, rescaled.attention) == ("deep_strided", "se")
    assert (rescaled.shortcut, rescaled.reduction) == ("pooled", 16)
    assert rescaled.stochastic_depth == 0.1


@given(
    before=st.lists(
        st.sampled_from(["epoch 1: loss 2.3", "  (odd): text", "", "Model("]), max_size=3
    ),
    after=st.lists(st.text(max_size=20), max_size=3),
    prefix=st.sampled_from(["", "2026-01-01 12:00:00 INFO train: ", "model = "]),
    indent=st.sampled_from(["", "    ", "\t"]),
)
@settings(max_examples=20)
def test_text_is_found_inside_a_longer_log(
    before: list[str], after: list[str], prefix: str, indent: str
) -> None:
    lines = [indent + line for line in TEXT.splitlines()]
    lines[0] = prefix + lines[0].strip()
    log = "\n".join(["start", *before, *lines, *after])
    assert str(from_printed(log)) == TEXT


def test_a_wrapper_around_the_network_is_taken_off() -> None:
    inner = TEXT.replace("\n", "\n  ")
    assert str(from_printed(f"DataParallel(\n  (module): {inner}\n)")) == TEXT


@given(st.data())
@settings(max_examples=40)
def test_a_changed_number_is_refused_at_its_line_or_is_another_network(data: st.DataObject) -> None:
    lines = TEXT.splitlines()
    numbers = [
        (row, match)
        for row, line in enumerate(lines)
        for match in re.finditer(r"(?<=[(=, ])\d+(?=[,)])", line)
    ]
    row, match = data.draw(st.sampled_from(numbers))
    lines[row] = lines[row][: match.start()] + str(int(match[0]) + 7) + lines[row][match.end() :]
    text = "\n".join(lines)
    try:
        network = from_printed(text)
    except ContentError as error:
        message = str(error)
    else:
        message = "" if str(network) == text else "another network"
    assert not message or re.match(r"line \d+: ", message)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "(conv2): Conv2d(64, 64, kernel_size=(3, 3)",
            "(conv2): Conv2d(64, 64, kernel_size=(5, 5)",
            68,
        ),
        ("ZeroPadding(32, 64, stride=2)", "ZeroPadding(32, 64, stride=3)", 71),
        ("(fc): Linear", "(fc): LazyLinear", 94),
    ],
)
def test_the_line_that_makes_no_sense_is_named(old: str, new: str, line: int) -> None:
    text = printed("resnet20").replace(old, new, 1)
    line_number = next(number for number, row in enumerate(text.splitlines(), 1) if new in row)
    with pytest.raises(ContentError, match=f"^line {line_number}: "):
        from_printed(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no printed module"),
        ("just a sentence", "line 1: no printed module"),
        ("Net(\n  (fc): Linear(in_features=2, out_features=1, bias=True)\n)", "line 1: .*layer1"),
        ("ResNet(\n  (layer1): Sequential(\n", "line 2: the text ends inside Sequential"),
        ("VGG(\n  (features): Sequential(\n    (0): ReLU()\n  )\n)", "line 1: VGG has no stages"),
        ("ResNet(\n  (conv): __import__('os').system('true')\n)", "line 1: .* no stages"),
        ("ResNet(\n  (conv): 1 + 1\n)", "line 2: not a module"),
    ],
)
def test_what_is_no_residual_network_is_refused(text: str, message: str) -> None:
    with pytest.raises(ContentError, match=message):
        from_printed(text)


@given(st.text(max_size=300))
@settings(max_examples=100)
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(ContentError, match=r"^line \d+: "):
        from_printed(f"ResNet(\n  {text}")
