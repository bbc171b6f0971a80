import json
import subprocess
import sys

import pytest

from resnets.cli import main
from resnets.networks import CATALOG, Architecture


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
    for told in ("3 4 6 3", "224", "25.6", "4.3", "bottleneck, stem deep, shortcut pooled"):
        assert told in line


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["wide", "28_10"], ["wide_resnet28_10"]),
        (["attention", "ECA"], ["ecaresnet50", "ecaresnet50d", "ecaresnet50t"]),
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
