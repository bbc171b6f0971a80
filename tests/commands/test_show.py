import json
from pathlib import Path

import pytest
import torch

from resnets.cli import main
from resnets.networks import CATALOG, build

GOLDEN = Path(__file__).parents[1] / "networks" / "golden"


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["show", *words]) == 0
    return capsys.readouterr().out


def test_the_parts_stand_beside_the_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(["resnet50_v1"], capsys).splitlines()
    assert lines[0].startswith("resnet50_v1: 16 bottleneck blocks, 3 channels in, 1,000 classes")
    rows = [line.split() for line in lines[2:10]]
    assert rows[0] == ["part", "blocks", "output", "parameters", "multiply-adds", "field", "memory"]
    assert [row[0] for row in rows[1:]] == [
        "stem",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "head",
        "total",
    ]
    assert rows[4][:6] == ["layer3", "6", "1024x14x14", "7,098,368", "1,387.3", "M"]
    assert "25,557,032" in lines[9]
    assert "arXiv:1512.03385, table 1): 3.8 billion multiply-adds for 224 x 224." in lines[11]


def test_json_has_the_same_figures_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(shown(["resnet18", "--json"], capsys))
    assert (facts["parameters"], facts["multiply_adds"]) == (11_689_512, 1_814_073_344)
    assert facts["parameters"] == sum(part["parameters"] for part in facts["parts"])
    assert facts["activation_bytes"] == sum(part["activation_bytes"] for part in facts["parts"])
    assert facts["architecture"] == CATALOG["resnet18"].architecture.to_dict()
    assert facts["parts"][4]["receptive_field"] == 435


def test_the_size_of_the_images_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """Convolutions on twice the side cost four times as much; the classifier does not."""
    usual, doubled = (
        json.loads(shown(["resnet20", "--size", size, "--json"], capsys)) for size in ("32", "64")
    )
    head = usual["parts"][-1]["multiply_adds"]
    assert doubled["multiply_adds"] - head == 4 * (usual["multiply_adds"] - head)


def test_print_prints_what_python_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(["resnet14", "--print"], capsys) == (GOLDEN / "model1.txt").read_text(
        encoding="utf-8"
    )
    with torch.device("meta"):
        assert shown(["seresnet50", "--print"], capsys) == f"{build('seresnet50')}\n"


def test_printed_text_in_a_file_is_a_network_too(capsys: pytest.CaptureFixture[str]) -> None:
    text = str(GOLDEN / "model1.txt")
    measured = json.loads(shown([text, "--json"], capsys))
    assert measured["parameters"] == 195_738
    assert measured["architecture"] == CATALOG["resnet14"].architecture.to_dict()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet5O"], "no network 'resnet5O'; nearest: "),
        (["resnet18", "--size", "16"], "images are 16 x 16 pixels"),
        (["resnet18", "--size", "0"], "size is 0"),
    ],
)
def test_what_cannot_be_shown_is_wrong_usage_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"resnets show: {message}")
    assert printed.err.count("\n") == 1


def test_networks_without_published_figures_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "): no figures." in shown(["resnet14"], capsys)
