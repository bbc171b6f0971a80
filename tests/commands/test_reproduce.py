"""`resnets reproduce`, by trials on digits."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from resnets.commands.reproduce import main
from resnets.errors import UsageError
from tests.in_process import call

TRIAL = ["he2015-table6", "--data", "digits", "--rows", "20", "--seeds", "2", "--steps", "3"]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a short trial of one row, two seeds."""
    folder = tmp_path_factory.mktemp("trial") / "runs"
    assert main([*TRIAL, "--output", str(folder)]) == 0
    return folder


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """What the command prints as JSON, alone on its standard output."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def end(run: Path) -> Any:
    return json.loads((run / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])


@pytest.mark.slow
def test_the_figures_are_those_of_the_runs_logs(
    trial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = shown([*TRIAL, "--output", str(trial)], capsys)["rows"]
    scores = [end(Path(run["folder"]))["test"]["top1"] for run in first["runs"]]
    errors = [100 - 100 * score["count"] / score["total"] for score in scores]
    assert (first["network"], first["published"], first["n"]) == ("resnet20", 8.75, 2)
    assert first["mean"] == pytest.approx(statistics.mean(errors))
    assert first["deviation"] == pytest.approx(statistics.stdev(errors))
    assert [row["n"] for row in others] == [0, 0, 0, 0]
    assert {run["state"] for row in others for run in row["runs"]} == {"not run"}


@pytest.mark.slow
def test_nobody_takes_a_trial_on_other_data_for_the_papers(
    trial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRIAL, "--output", str(trial)]) == 0
    output = capsys.readouterr().out
    assert "here (steps 3)" in output
    assert "A TRIAL of 3 steps where the paper has 64,000 steps" in output
    assert "digits has other classes than the paper's data" in output
    assert "179 test images instead of 10,000" in output
    row = next(line for line in output.splitlines() if line.startswith("resnet32"))
    assert "not run" in row
    assert "resnets reproduce he2015-table6 --rows 32 --seeds 2 --data digits --steps 3" in row


@pytest.mark.slow
def test_finished_seeds_are_not_run_again_and_another_number_of_steps_is_another_run(
    trial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in trial.glob("*/log.jsonl")}
    assert len(before) == 2
    shown([*TRIAL, "--output", str(trial)], capsys)
    assert {path: path.read_bytes() for path in trial.glob("*/log.jsonl")} == before
    longer = shown([*TRIAL[:-1], "4", "--dry-run", "--output", str(trial)], capsys)
    assert [row["n"] for row in longer["rows"]] == [0] * 5


@pytest.mark.slow
def test_runs_of_other_data_or_another_recipe_are_refused(trial: Path, tmp_path: Path) -> None:
    words = [*TRIAL, "--output", str(trial)]
    with pytest.raises(UsageError, match="was trained on digits, not elsewhere"):
        main([word if word != "digits" else "elsewhere" for word in words])
    shutil.copytree(trial, tmp_path / "runs")
    for config in (tmp_path / "runs").glob("*/config.toml"):
        config.write_text(
            config.read_text(encoding="utf-8").replace(
                "learning_rate = 0.1", "learning_rate = 0.2"
            ),
            encoding="utf-8",
        )
    with pytest.raises(UsageError, match=r"with learning_rate 0.2, not 0.1; choose another"):
        main([*TRIAL, "--output", str(tmp_path / "runs")])


@pytest.mark.soak
def test_the_figure_goes_on_after_a_signal_and_draws_what_it_followed(tmp_path: Path) -> None:
    few = load_digits()  # of which an epoch is two steps
    for number, (image, label) in enumerate(zip(few.images[:320], few.target, strict=False)):
        path = tmp_path / "few" / f"{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
    words = ["he2015-figure6", "--data", "few", "--rows", "20", "--steps", "3"]
    command = [sys.executable, "-m", "resnets", "reproduce", *words, "--json"]
    folder = tmp_path / "runs" / "he2015-figure6"
    options = {"cwd": tmp_path, "text": True, "env": {**os.environ, "PYTHONWARNINGS": "error"}}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 1/2"):
                process.send_signal(signal.SIGTERM)
                break
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    states = [run["state"] for row in json.loads(output)["rows"] for run in row["runs"]]
    assert states[0].startswith("stopped at step ")
    assert states[4] == "not run"
    done = call("reproduce", *words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {row["network"]: row for row in result["rows"]}
    assert {name for name, row in rows.items() if row["n"]} == {"plain20", "resnet20"}
    log = folder / "plain20-seed0-steps3" / "log.jsonl"
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [r["kind"] for r in records] == ["start", "epoch", "resume", "epoch", "end"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    tested = records[-1]["test"]["top1"]["total"]
    assert [epoch["test"]["images"] for epoch in epochs] == [tested, tested]
    assert epochs[-1]["test"]["correct"] == records[-1]["test"]["top1"]["count"]
    assert not any("validation" in epoch for epoch in epochs)
    assert any("nothing is chosen by them" in remark for remark in result["remarks"])
    assert [Path(file).suffix for file in result["files"]] == [".svg", ".png"]
    assert (folder / "he2015-figure6-steps3.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_dry_run_trains_nothing_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("he2015-table6", 5), ("he2015-figure6", 8)):
        result = shown([name, "--dry-run"], capsys)
        assert [row["mean"] for row in result["rows"]] == [None] * rows
        assert result["trial"] == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["he2015-table7"], "there are he2015-table6, he2015-figure6"),
        (["he2015-table6", "--rows", "21"], "no row 21"),
        (["he2015-table6", "--seeds", "0"], "--seeds 0: it must be at least 1"),
        (["he2015-table6", "--steps", "-5"], "--steps -5: it must be at least 1"),
        (["he2015-table6", "--device", "tpu"], "auto, cpu, cuda"),
        (["he2015-table6", "--data", "nowhere"], "no such file or folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_wrong_usage(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        main(words)
    assert not list(tmp_path.rglob("config.toml"))


def test_the_command_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = call("reproduce", "he2015-table6", "--rows", "9", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "there are 20, 32, 44, 56, 110" in done.stderr
