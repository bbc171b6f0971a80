"""The comparison of recipes at equal time, at its smallest."""

import json
import runpy
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.in_process import call, call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accuracy_vs_time.py"


def in_this_process(command: list[str], *, check: bool) -> None:
    """A run without a process of its own, which would only import torch once more."""
    done = call(*command[command.index("resnets") + 1 :])
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
def test_both_recipes_train_as_long_and_are_scored_on_the_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steady_speed: None
) -> None:
    words = ["digits", "--network", "resnet14", "--budgets", "2s", "--seeds", "1", "--threads", "1"]
    words += ["--output", tmp_path / "runs", "--json-file", tmp_path / "found.json"]
    monkeypatch.setattr(subprocess, "run", in_this_process)
    run = call_script(SCRIPT, *words)
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert {run["recipe"] for run in results["runs"]} == {"quick", "reference"}
    assert {"processor", "cores", "memory_gib"} <= results["machine"].keys()
    configs = {}
    for one in results["runs"]:
        folder = tmp_path / "runs" / f"{one['recipe']}-2s-seed0"
        end = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        assert (one["budget"], one["test"]) == (2.0, end["test"]["top1"])
        assert one["test"]["total"] == 179
        configs[one["recipe"]] = tomllib.loads(
            (folder / "config.toml").read_text(encoding="utf-8")
        )["recipe"]
        assert configs[one["recipe"]]["validation"] == 0
        full = one["steps"] * configs[one["recipe"]]["batch_size"]
        assert full - one["steps"] * 8 <= one["images"] <= full  # batches are of about one size
    reference = configs["reference"]
    assert (reference["optimizer"], reference["learning_rate"]) == ("sgd", 0.1)
    assert (reference["schedule"], reference["milestones"]) == ("step", [0.5, 0.75])
    assert run.stdout.count("(n = 1;") == 2
    picture = (tmp_path / "found.svg").read_text(encoding="utf-8")
    words_in_it = {"".join(node.itertext()) for node in ElementTree.fromstring(picture).iter()}
    assert {"quick", "reference", "minutes that training took"} <= words_in_it
    race = runpy.run_path(str(SCRIPT))["Race"]("digits", "resnet14", tmp_path / "runs")
    log = tmp_path / "runs" / "quick-2s-seed0" / "log.jsonl"
    before = log.read_bytes()
    assert race.run("quick", "2s", 0) in results["runs"]  # what has finished is kept
    assert log.read_bytes() == before
