"""`resnets train` and `resnets find-lr`, from their words to their files."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from resnets import evaluate, explain, load, model_file, predict
from resnets.commands import evaluate as evaluate_command
from resnets.commands import find_lr
from resnets.commands.train import Arguments, _parse, _take_resume, main, recipe_of
from resnets.data.sources.opening import open_data
from resnets.errors import ContentError, MissingExtra, UsageError
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.proportion import Proportion
from resnets.images import decode
from resnets.networks import ResNet
from resnets.runs.starting_point import read_starting_point
from resnets.training.named_recipes import RECIPES
from tests.spread import spread

QUICK = ["digits", "--network", "resnet14", "--image-size", "8", "--batch-size", "256"]
QUICK += ["--epochs", "2", "--learning-rate", "0.05"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    assert main([*QUICK, "--no-report", "--output", str(folder)]) == 0
    return folder


def records(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.soak
def test_the_first_thing_that_people_try_reaches_95_percent_in_a_fifth_of_its_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words of `make demo`, which trains for 24 epochs."""
    words = ["digits", "--network", "resnet14", "--epochs", "5"]
    assert main([*words, "--output", str(tmp_path / "demo")]) == 0
    output = capsys.readouterr().out
    description = model_file.read_description(tmp_path / "demo" / "model.safetensors")
    test = description.metrics["test"]["top1"]
    assert test["count"] / test["total"] >= 0.95
    assert f"test accuracy {Proportion(test['count'], test['total'])}" in output
    assert "Flips are off" in output
    assert "Bound by" in output


def test_a_run_is_a_folder_that_tells_all(finished: Path) -> None:
    config = tomllib.loads((finished / "config.toml").read_text(encoding="utf-8"))
    assert config["data"] == "digits"
    assert config["recipe"]["image_size"] == 8
    assert config["recipe"]["augmentation"]["flip"] == "none"
    lines = records(finished)
    assert [line["kind"] for line in lines] == ["start", "epoch", "epoch", "end"]
    assert torch.__version__.startswith(lines[0]["versions"]["torch"])  # which may end in +cu130
    assert list((finished / "tensorboard").iterdir())
    assert list((finished / "checkpoints").iterdir())


def test_the_model_file_knows_which_images_are_familiar(finished: Path) -> None:
    description = model_file.read_description(finished / "model.safetensors")
    known = familiarity_of(description.familiarity, 64)
    assert known is not None
    assert known.directions.shape == (10, 64)
    assert known.lost == Proportion(8, 161)  # one in twenty
    assert known.detected is None
    statuses = {each.status for each in predict(finished, open_data("digits").train.stacked())}
    assert "unfamiliar" in statuses


@pytest.mark.soak
def test_other_images_measure_what_it_is_worth_and_are_kept_in_the_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, others = tmp_path / "run", tmp_path / "others"
    others.mkdir()
    for number, row in enumerate(np.random.default_rng(0).integers(0, 256, (40, 9, 9, 3))):
        Image.fromarray(row.astype(np.uint8)).save(others / f"{number}.png")
    words = [*QUICK, "--epochs", "1", "--no-report", "--output", str(run), "--other", str(others)]
    assert main(words) == 0
    assert tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))["other"] == str(others)
    known = familiarity_of(model_file.read_description(run / "model.safetensors").familiarity)
    assert known is not None
    assert known.detected is not None
    assert known.detected.total == 20
    output = capsys.readouterr().out
    assert known.in_words() in output
    assert "No network is protected" in output
    assert "\\n" not in output  # each sentence is a line, not a line break escaped
    assert evaluate_command.main([str(run), "digits", "--other", str(others)]) == 0
    printed = capsys.readouterr().out
    assert "\\n" not in printed
    assert re.search(r"^  status unfamiliar .*\d+/40", printed, re.MULTILINE)
    assert evaluate_command.main([str(run), "digits", "--other", str(others), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["other"]
    assert [counts[each]["total"] for each in ("ok", "unsure", "unfamiliar")] == [40] * 3
    assert sum(counts[each]["count"] for each in ("ok", "unsure", "unfamiliar")) == 40
    assert counts["unfamiliar"]["count"] >= known.detected.count


@pytest.mark.soak
def test_other_images_that_the_network_sees_in_training_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, others, copies = (tmp_path / name for name in ("run", "others", "copies"))
    for folder in (others, copies):
        folder.mkdir()
    for number, row in enumerate(np.random.default_rng(0).integers(0, 256, (40, 9, 9, 3))):
        Image.fromarray(row.astype(np.uint8)).save(others / f"{number}.png")
    for number, digit in enumerate(open_data("digits").train.stacked()[:30]):
        for folder in (others, copies):
            Image.fromarray(digit.squeeze()).save(folder / f"digit{number}.png")
    words = [*QUICK, "--epochs", "1", "--no-report", "--output"]
    assert main([*words, str(run), "--other", str(others)]) == 0
    known = familiarity_of(model_file.read_description(run / "model.safetensors").familiarity)
    assert known is not None
    assert known.detected is not None
    assert known.detected.total == 20  # half of the images that are left
    assert re.search("30 more .*left out", capsys.readouterr().out)
    assert evaluate_command.main([str(run), "digits", "--other", str(others), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["other"]
    assert (counts["ok"]["total"], counts["left_out"]) == (40, 30)
    assert evaluate_command.main([str(run), "digits", "--other", str(others)]) == 0
    assert re.search("30 more .*left out", capsys.readouterr().out)
    with pytest.raises(UsageError, match="none of the 30 images is new"):
        evaluate_command.main([str(run), "digits", "--other", str(copies)])
    for source in (str(copies), "digits"):
        with pytest.raises(UsageError, match=r"none of the [\d,]+ images is new"):
            main([*words, str(tmp_path / "none"), "--other", source])
        assert not (tmp_path / "none").exists()


def test_others_that_are_not_there_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    words = [*QUICK, "--output", str(tmp_path / "run"), "--other", str(tmp_path / "none")]
    with pytest.raises(UsageError, match="none: no such"):
        main(words)
    assert not (tmp_path / "run").exists()


def test_the_model_file_has_the_scores_that_the_log_has(finished: Path) -> None:
    model = model_file.load(finished / "model.safetensors")
    description, end = model.description, records(finished)[-1]
    assert description.metrics["test"] == end["test"]
    assert description.metrics["test"]["top1"]["total"] == 179
    assert description.metrics["validation"]["top1"]["total"] == 161
    assert description.data["fingerprint"] == records(finished)[0]["fingerprint"]
    assert description.data["source"] == "digits"
    assert description.class_names == tuple("0123456789")
    assert description.recipe["epochs"] == 2


def test_a_finished_run_that_is_resumed_only_scores_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = records(folder)[-1]
    assert main(["--resume", str(folder)]) == 0
    lines = records(folder)
    assert [line["kind"] for line in lines] == ["start", "epoch", "epoch", "resume", "end"]
    assert lines[-1] == before
    assert "epoch 2/2" not in capsys.readouterr().out


def test_a_damaged_newest_state_is_told_and_the_run_goes_on_from_the_one_before(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert main(["--resume", str(folder)]) == 0
    output = capsys.readouterr().out
    assert f"{newest.name}: damaged" in output
    assert "epoch 2/2" in output
    ours, theirs = (model_file.load(path / "model.safetensors") for path in (folder, finished))
    for name, value in theirs.network.state_dict().items():
        assert torch.equal(ours.network.state_dict()[name], value), name


def test_an_existing_run_needs_resume_or_overwrite(finished: Path) -> None:
    with pytest.raises(UsageError, match=r"--resume .*--overwrite"):
        main([*QUICK, "--output", str(finished)])


def test_overwrite_keeps_the_old_run_until_the_new_one_can_begin(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    with pytest.raises(UsageError, match="no network"):
        main(["digits", "--network", "resnet15", "--output", str(folder), "--overwrite"])
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize("from_what", spread(["run", "model file", "training state"]))
def test_training_goes_on_from_what_a_run_left(
    finished: Path, tmp_path: Path, from_what: str
) -> None:
    """With a rate of zero and norms frozen, what comes out is what went in."""
    state = sorted((finished / "checkpoints").iterdir())[-1]
    source = {"run": finished, "model file": finished / "model.safetensors"}.get(from_what, state)
    words = ["digits", "--from", str(source), "--freeze", "3", "--learning-rate", "0"]
    assert main([*words, "--epochs", "1", "--output", str(tmp_path / "next")]) == 0
    ours, theirs = (model_file.load(p / "model.safetensors") for p in (tmp_path / "next", finished))
    for name, value in theirs.network.state_dict().items():
        assert torch.equal(ours.network.state_dict()[name], value), name
    assert ours.description.preprocessing == theirs.description.preprocessing
    assert ours.description.recipe["network"] == "resnet14"


def test_other_classes_get_a_fresh_head_and_frozen_stages_stay(
    finished: Path, tmp_path: Path
) -> None:
    from PIL import Image

    for name in ("dark", "light"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            shade = number + (200 if name == "light" else 0)
            image = Image.new("RGB", (8 + number % 3, 8), (shade, number, 255 - shade))
            image.save(tmp_path / "data" / name / f"{number}.png")
    words = [str(tmp_path / "data"), "--from", str(finished), "--freeze", "2", "--epochs", "2"]
    assert main([*words, "--batch-size", "8", "--output", str(tmp_path / "run")]) == 0
    before, after = (read_starting_point(path, 2).network for path in (finished, tmp_path / "run"))
    assert after.architecture.num_classes == 2
    old, new = before.state_dict(), after.state_dict()
    same = {name for name in old if torch.equal(old[name], new[name])}
    stages = {name.split(".")[0] for name in same}
    assert {"conv", "bn", "layer1", "layer2"} <= stages
    assert not any(name.startswith(("layer3.0.conv", "fc")) for name in same)


def test_a_foreign_checkpoint_is_a_start_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ResNet("residual", (2, 2, 2))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "theirs.pth")
    start = read_starting_point(tmp_path / "theirs.pth", 10)
    assert start.class_names is None
    for name, value in network.state_dict().items():
        assert torch.equal(start.network.state_dict()[name], value), name


def test_a_budget_sets_the_length_of_the_run_and_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steady_speed: None
) -> None:
    """By the speed that it says: how long it then takes is up to what else the machine does."""
    assert main([*QUICK, "--no-report", "--budget", "2s", "--output", str(tmp_path / "run")]) == 0
    pattern = r"--budget 2s: .*?(\d+) steps, .* \(([\d,.]+) ms a step, ([\d.]+) s a validation"
    match = re.search(pattern, capsys.readouterr().out)
    assert match is not None
    steps, seconds, validation = (
        int(match[1]),
        float(match[2].replace(",", "")) / 1000,
        float(match[3]),
    )
    assert steps * seconds + steps / 5 * validation <= 2.1  # 5 updates an epoch
    assert steps >= 1
    lines = records(tmp_path / "run")
    assert lines[0]["steps"] == steps
    plans = [line["steps"] for line in lines if line["kind"] == "plan"]
    assert lines[-1]["step"] == [steps, *plans][-1]


def test_the_config_of_a_run_with_a_budget_repeats_it_without_one(
    tmp_path: Path, steady_speed: None
) -> None:
    """Whatever was decided on the way is in it: the same updates, at the same rates."""
    budget, again = tmp_path / "budget", tmp_path / "again"
    main([*QUICK, "--no-report", "--budget", "2s", "--output", str(budget)])
    config = tomllib.loads((budget / "config.toml").read_text(encoding="utf-8"))
    words = ["--recipe", str(budget / "config.toml"), "--no-report", "--output", str(again)]
    assert main([config["data"], *words]) == 0
    weights = [load_file(run / "model.safetensors") for run in (budget, again)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_a_loss_that_runs_away_names_the_step_and_leaves_the_states_before(tmp_path: Path) -> None:
    words = [*QUICK, "--learning-rate", "1e30", "--checkpoint-every", "1"]
    with pytest.raises(ContentError, match=r"step \d+: .*try a lower --learning-rate"):
        main([*words, "--output", str(tmp_path / "run")])
    for path in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        for value in torch.load(path, weights_only=True)["trainer"]["network"].values():
            assert value.isfinite().all()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no data"),
        (["--resume"], "--resume needs the folder"),
        (["--resume", "nowhere"], "no run to resume"),
        (["digits", "--recipe", "fast"], "no such recipe"),
        (["digits", "--recipe", "none.toml"], "no such file"),
        (["digits", "--from", "none.safetensors"], "no such file"),
        (["digits", "--device", "tpu"], "auto, cpu, cuda"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_usage_errors_that_say_what_to_do(
    words: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=reason):
        main(words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("service", ["wandb", "mlflow"])
def test_a_service_that_is_not_installed_is_missed_before_the_run_begins(
    service: str, tmp_path: Path
) -> None:
    if find_spec(service):
        pytest.skip(f"{service} is installed")
    with pytest.raises(MissingExtra, match=service):
        main([*QUICK, "--log-to", service, "--output", str(tmp_path / "run")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--resume=a", "x"], ["x", "--resume", "a"]])
def test_resume_takes_a_folder_in_either_spelling(words: list[str]) -> None:
    assert _take_resume(words) == (Path("a"), ["x"])


def test_a_recipe_comes_by_name_or_from_a_file_and_flags_change_it(
    finished: Path, tmp_path: Path
) -> None:
    assert recipe_of(["--recipe", "paper"]) == RECIPES["paper"]
    (tmp_path / "mine.toml").write_text(RECIPES["strong"].to_toml(), encoding="utf-8")
    assert recipe_of(["--recipe", str(tmp_path / "mine.toml")]) == RECIPES["strong"]
    again = recipe_of(["--recipe", str(finished / "config.toml")])
    assert (again.network, again.epochs, again.learning_rate) == ("resnet14", 2, 0.05)


def test_another_optimizer_brings_values_that_suit_it_unless_they_are_given() -> None:
    words = ["digits", "--optimizer", "sgd", "--weight-decay", "0.001"]
    recipe = _parse(words, Arguments(recipe=recipe_of(words))).recipe
    assert (recipe.rate, recipe.weight_decay) == (0.25, 0.001)
    assert recipe_of(["--recipe", "strong", "--optimizer", "sgd"]) == RECIPES["strong"]
    assert recipe_of(["--optimizer=adamw"]).rate == 0.002


def test_help_shows_the_named_recipes_values_as_defaults() -> None:
    command = [sys.executable, "-m", "resnets", "train", "--recipe", "paper", "--help-all"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    text = " ".join(run.stdout.replace("│", " ").split())
    assert "(default: 64000)" in text
    assert "Train a network on labelled images" in text


@pytest.mark.parametrize("words", [["--recipe", "transfer"], ["--freeze", "all"]])
def test_find_lr_fits_no_classifier_to_a_network_that_nobody_trained(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--from"):
        find_lr.main(["digits", "--from", "none", *words])


def test_find_lr_draws_a_curve_and_suggests_a_rate_that_was_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*QUICK, "--tries", "12", "--plot", str(tmp_path / "curve.png")]
    assert find_lr.main(words) == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr().out
    assert "falls fastest" in output
    suggestion = float(output.rsplit("--learning-rate ", 1)[1])
    assert 1e-4 <= suggestion <= 10


def test_a_threshold_counts_among_how_many_epochs_the_same_images_chose(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With patience the validation images choose the epoch; without, the last weights are kept."""
    words = [*QUICK, "--patience", "2", "--no-report", "--output", str(tmp_path / "patient")]
    assert main(words) == 0
    assert "chose the epoch" in capsys.readouterr().out
    patient, plain = (
        model_file.read_description(folder / "model.safetensors").calibration
        for folder in (tmp_path / "patient", finished)
    )
    assert (patient["candidates"], plain["candidates"]) == (2, 1)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """By the value of white, a run on the same noise as 32-bit fractions of another range."""
    runs = {}
    for top in (1.0001, 255.5):
        data = tmp_path_factory.mktemp("deep")
        for label in range(2):
            (data / "data" / str(label)).mkdir(parents=True)
            for number in range(6):
                noise = np.random.default_rng([label, number]).random((16, 16))
                values = np.float32(top) * noise.astype(np.float32)
                values[0] = top
                Image.fromarray(values).save(data / "data" / str(label) / f"{number}.tif")
        words = ["--network", "resnet14", "--epochs", "1", "--no-report", "--mirror-characters"]
        assert main([str(data / "data"), *words, "--output", str(data / "run")]) == 0
        runs[top] = data
    return runs


def test_what_is_white_in_deep_images_is_decided_and_said_and_kept(
    deep: dict[float, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [load(folder / "run") for folder in deep.values()]
    kept = [run.description.preprocessing for run in runs]
    assert [each.white.float32 for each in kept] == [1.0, 255.0]
    for mine, theirs in zip(kept[0].mean + kept[0].std, kept[1].mean + kept[1].std, strict=True):
        assert mine == pytest.approx(theirs, abs=0.03)  # other content draws other splits
    folder = deep[255.5]
    words = ["--network", "resnet14", "--epochs", "1", "--no-report", "--mirror-characters"]
    assert main([str(folder / "data"), *words, "--output", str(folder / "again")]) == 0
    output = capsys.readouterr().out
    assert re.search(r"white is 255\b", output, re.IGNORECASE)
    assert re.search(r"\b1[23]\d values in 8 of 8 sampled images .* clipped", output)


def test_deep_images_are_measured_predicted_and_explained_by_the_white_they_were_trained_with(
    deep: dict[float, Path],
) -> None:
    """A dark image alone would seem as bright as others: here the eager network is the witness."""
    folder = deep[255.5]
    model = load(folder / "run")
    bright = np.asarray(Image.open(folder / "data/0/0.tif"))
    Image.fromarray(bright / 255).save(folder / "dark.tif")
    Image.new("L", (16, 16)).save(folder / "black.png")
    dark, black, from_image = predict(
        model, [folder / "dark.tif", folder / "black.png", Image.open(folder / "dark.tif")]
    )
    assert dark.probability == pytest.approx(black.probability, abs=0.02)
    assert dark.probability == from_image.probability
    (one,) = explain(model, folder / "dark.tif", side=16)
    assert one.overlay().mean() < 128
    pixels = decode(folder / "data/0/0.tif", white=model.description.preprocessing.white)
    direct = predict(model, pixels)[0].probability
    assert predict(model, folder / "data/0/0.tif")[0].probability == direct
    result = evaluate(model, folder / "data", split="all").metrics
    images = [folder / f"data/{label}/{number}.tif" for label in "01" for number in range(6)]
    assert result.loss == pytest.approx(evaluate(model, images, ["0"] * 6 + ["1"] * 6).metrics.loss)


def test_a_run_on_deep_images_goes_on_with_the_same_white(deep: dict[float, Path]) -> None:
    folder = deep[1.0001]
    before = model_file.read_description(folder / "run/model.safetensors")
    assert main(["--resume", str(folder / "run")]) == 0
    after = model_file.read_description(folder / "run/model.safetensors")
    assert after.preprocessing == before.preprocessing
    assert after.metrics == before.metrics


def test_a_damaged_configuration_or_recipe_is_told_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from resnets import cli

    damaged = tmp_path / "config.toml"
    for text in ("data = \n", 'data = "digits"\nnonsense = 3\n', "\n[recipe]\nepochs = 'x'\n"):
        damaged.write_text(text, encoding="utf-8")
        for words in (("--resume", str(tmp_path)), ("digits", "--recipe", str(damaged))):
            assert cli.main(["train", *words]) in (1, 2)
            assert str(damaged) in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_while_the_network_is_scored_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    words = ["digits", "--network", "resnet14", "--epochs", "1", "--image-size", "8"]
    with monkeypatch.context() as patch:
        patch.setattr("resnets.runs.active_run.score_and_save", interrupted)
        assert main([*words, "--no-report", "--output", str(tmp_path / "run")]) == 130
    assert f"resnets train --resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert main(["--resume", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("at", ["train.prepare", "active_run.introduction"])
def test_ctrl_c_before_the_first_step_says_what_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run, to_continue = tmp_path / "run", f"resnets train --resume {tmp_path / 'run'}"
    words = ["digits", "--network", "resnet14", "--epochs", "1", "--image-size", "8"]
    with monkeypatch.context() as patch:
        patch.setattr(f"resnets.runs.{at}", interrupted)
        assert main([*words, "--output", str(run)]) == 130
        printed = capsys.readouterr().out
        assert "SIGINT" in printed
        assert run.exists() == (to_continue in printed) == (at == "active_run.introduction")
        assert ("no run was written" in printed) == (at == "train.prepare")
        if run.exists():
            assert main(["--resume", str(run)]) == 130
            assert to_continue in capsys.readouterr().out
            shutil.rmtree(run)
    assert not run.exists()
