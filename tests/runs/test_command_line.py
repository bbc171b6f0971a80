import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from resnets.commands.train import Arguments, _job_of, _parse, recipe_of
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.membership import NONE, Generation, TrainedOn
from resnets.images import Preprocessing
from resnets.model_file import Description
from resnets.runs.command_line import command_by_default, command_to_change, training_command
from resnets.runs.job import Job
from resnets.training.named_recipes import RECIPES
from resnets.training.recipe import Recipe

ODD = Recipe(
    network="resnet32",
    epochs=3,
    validation=0.25,
    seed=7,
    nesterov=False,
    freeze=2,
    milestones=(0.25, 0.5, 0.875),
    learning_rate=1e-05,
    augmentation=Augmentation(flip="random", mixup=0.3, padding_mode="reflect"),
)
SGD = Recipe(optimizer="sgd")  # with the rate and the decay of another optimizer


def parsed(command: str) -> Job:
    """What `resnets train` understands."""
    program, name, *words = shlex.split(command.replace("\\\n", ""))
    assert (program, name) == ("resnets", "train")
    return _job_of(_parse(words, Arguments(recipe=recipe_of(words))))


@pytest.mark.parametrize("recipe", [*RECIPES.values(), ODD, SGD], ids=[*RECIPES, "odd", "sgd"])
def test_the_command_of_a_model_file_asks_for_the_recipe_that_made_it(recipe: Recipe) -> None:
    settled = recipe.resolved(side=32)
    description = Description(
        architecture={},
        class_names=("cat", "dog"),
        preprocessing=Preprocessing(32, 32, (0.5,), (0.5,)),
        recipe={**vars(settled), "augmentation": vars(settled.augmentation)},
        data={"source": "a folder/it's", "skipped": 0},
        calibration={"max_error": 0.125},
    )
    job = parsed(training_command(description))
    assert job == Job(data="a folder/it's", max_error=0.125, recipe=settled)


def test_the_command_of_a_fitted_classifier_names_no_epochs_which_it_would_refuse() -> None:
    settled = replace(RECIPES["transfer"], freeze="all", fit_head_first=False).resolved(side=64)
    recipe = {**vars(settled), "augmentation": vars(settled.augmentation)}
    seen = Preprocessing(64, 64, (0.5,), (0.5,))
    description = Description({}, ("cat", "dog"), seen, recipe=recipe, data={"source": "photos"})
    command = training_command(description)
    assert "--freeze all" in command
    assert "--epochs" not in command
    assert parsed(command).recipe.resolved(side=64).epochs == settled.epochs == 1


@pytest.mark.parametrize("origin", [{"id": "timm/resnet18.a1_in1k", "commit": "c0ffee"}, {}])
def test_the_command_of_a_model_file_names_the_weights_that_it_started_from(
    origin: dict[str, str],
) -> None:
    """Where the file has no name for them, there is none; that for other settings stays."""
    start = Generation("ImageNet-1k", unknown="its publisher gives no list", origin=origin)
    settled = RECIPES["transfer"].resolved(side=224)
    description = Description(
        *({}, ("cat", "dog"), Preprocessing(224, 224, (0.5,), (0.5,))),
        recipe={**vars(settled), "augmentation": vars(settled.augmentation)},
        data={"source": "photos"},
        trained_on=TrainedOn((start,)).after(Generation.of("photos", NONE, NONE)).to_dict(),
    )
    command = training_command(description)
    assert bool(command) == bool(origin)
    if command:
        assert parsed(command).start == "timm/resnet18.a1_in1k@c0ffee"
        assert parsed(command).recipe == settled
    assert parsed(command_by_default(description)).data == "photos"


def test_the_command_of_a_run_is_what_its_config_says(tmp_path: Path) -> None:
    job = Job(
        data="digits", mirror_characters=True, start="other/model.safetensors", device="cpu",
        recipe=ODD,
    )  # fmt: skip
    (tmp_path / "config.toml").write_text(job.to_toml(), encoding="utf-8")
    description = Description({}, (), Preprocessing(32, 32, (0.5,), (0.5,)))
    assert parsed(training_command(description, tmp_path)) == replace(job, report=True)


def test_where_the_training_is_unknown_there_is_no_command() -> None:
    preprocessing = Preprocessing(32, 32, (0.5,), (0.5,))
    assert not training_command(Description({}, (), preprocessing))
    later = Description({}, (), preprocessing, recipe={"flux": 1}, data={"source": "digits"})
    assert not training_command(later)


def test_flags_can_be_added_to_the_command_that_trains_a_run_again(tmp_path: Path) -> None:
    job = Job(data="my photos", start="other.safetensors", group_by="folder:1", recipe=ODD)
    launched = replace(job, torchrun_id="7ab8", wait_for_processes="5m")  # no matter of the result
    (tmp_path / "config.toml").write_text(launched.to_toml(), encoding="utf-8")
    description = Description({}, (), Preprocessing(32, 32, (0.5,), (0.5,)))
    command = command_to_change(description, tmp_path)
    assert "\n" not in command
    theirs = replace(ODD, network="auto")  # the network is the one that --from names
    assert parsed(command) == replace(job, recipe=theirs)
    changed = parsed(f"{command} --epochs 9")
    assert changed == replace(job, recipe=replace(theirs, epochs=9))


def test_default_settings_are_for_the_same_data(tmp_path: Path) -> None:
    job = Job(data="my photos", start="other.safetensors", group_by="folder:1", recipe=ODD)
    (tmp_path / "config.toml").write_text(job.to_toml(), encoding="utf-8")
    description = Description({}, (), Preprocessing(32, 32, (0.5,), (0.5,)))
    plain = parsed(command_by_default(description, tmp_path))
    assert plain == Job(data="my photos", group_by="folder:1")


def test_what_is_of_the_machine_or_the_images_stays_with_default_settings(tmp_path: Path) -> None:
    recipe = replace(ODD, memory_gb=0.0, channels=4)
    (tmp_path / "config.toml").write_text(Job(data="x", recipe=recipe).to_toml(), encoding="utf-8")
    description = Description({}, (), Preprocessing(32, 32, (0.5,), (0.5,)))
    plain = parsed(command_by_default(description, tmp_path))
    assert plain == Job(data="x", recipe=replace(Job(data="x").recipe, memory_gb=0.0, channels=4))
