import json
import subprocess
import sys

import pytest

from resnets.cli import main
from resnets.networks import CATALOG, Architecture, build


def test_every_name_of_the_catalog_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    table = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table] == ["name", *CATALOG]


def test_a_line_tells_blocks_published_figures_and_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "resnet50d"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split("  ")[0] == "resnet50d"
    for text in ("3 4 6 3", "224", "25.6", "4.3", "bottleneck, stem deep, shortcut pooled"):
        assert text in line


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["wide", "28_10"], ["wide_resnet28_10"]),
        (["attention", "ECA"], [name for name in CATALOG if name.startswith("ecaresnet")]),
        (["1904.11486"], ["resnetblur50"]),
        (["shortcut", "none"], ["plain20", "plain32", "plain44", "plain56"]),
    ],
)
def test_words_choose_by_name_choices_and_paper(
    words: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", *words, "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == names


def test_json_is_enough_to_build_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert Architecture.from_dict(row["architecture"]) == CATALOG[row["name"]].architecture


def test_words_that_no_network_has_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "transformer"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("resnets list: no network has transformer; nearest: ")


def test_the_list_comes_without_torch() -> None:
    code = (
        "import sys; from resnets.cli import main; main(['list']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_published_weights_are_listed_with_their_id_and_licence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "--pretrained", "--network", "resnet18", "resnet34"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.split("\n\n")[0].splitlines()]
    rows = {line[0]: line for line in lines[1:]}
    assert "timm/resnet18.a1_in1k" in rows
    assert not any("cc-by-nc-4.0" in row for row in rows.values())
    assert main(["list", "a1_in1k", "--pretrained", "--license", "any", "--json"]) == 0
    by_id = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert all("a1_in1k" in name for name in by_id)
    assert by_id["timm/resnet50.a1_in1k"]["interpolation"] == "bicubic"


def test_the_networks_of_the_package_are_among_the_published(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "--pretrained", "--network", "resnet20", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["classes"], row["size"]) == ("resnet20_cifar10", 10, 32)
    built = build("resnet20")
    assert row["parameters"] == sum(each.numel() for each in built.parameters())


@pytest.mark.parametrize(
    "words",
    [
        ["--pretrained", "--network", "resnet19"],
        ["--pretrained", "nothing"],
        ["--pretrained", "--licence", "mine"],
        ["--network", "resnet50"],
    ],
)
def test_weights_that_nobody_published_are_wrong_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
