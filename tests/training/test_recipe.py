import ast
import dataclasses
import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from hypothesis import assume, example, given
from hypothesis import strategies as st

from resnets.data.augmentation.augmentation import Augmentation
from resnets.errors import ContentError, UsageError
from resnets.fields import from_table
from resnets.training.named_recipes import RECIPES, named_recipe
from resnets.training.recipe import Recipe
from resnets.training.schedules import make_schedule

HINTS = typing.get_type_hints(Recipe, include_extras=True)


def values(annotation: object) -> st.SearchStrategy:
    """Whatever the annotation of a recipe's field allows."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        low, high = arguments[1].low, min(arguments[1].high, 1e9)
        return st.integers(int(low), int(high)) if arguments[0] is int else st.floats(low, high)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values, arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=4).map(tuple)
    if annotation is Augmentation:
        return st.builds(
            Augmentation,
            flip=st.sampled_from(["none", "random", "alternating"]),
            crop_padding=st.none() | st.integers(0, 9),
            mixup=st.floats(0, 9),
            erase=st.floats(0, 1),
        )
    plain = {bool: st.booleans(), str: st.text(st.characters(codec="utf-8")), type(None): st.none()}
    return plain[annotation]


fields = st.fixed_dictionaries({}, optional={name: values(hint) for name, hint in HINTS.items()})


@example({"network": '\x7f \x00 "quoted" \\ \n 😀'})
@given(fields)
def test_toml_gives_back_the_recipe_that_was_written(changes):
    if changes.get("batch_size") == "auto":
        changes.pop("accumulate", None)
    else:
        changes["batch_size"] = (changes.get("batch_size") or 128) + changes.get("accumulate", 1)
    assume(changes.get("epochs", 1) or changes.get("steps"))
    recipe = Recipe(**changes)
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_survives_toml(name):
    assert Recipe.from_toml(RECIPES[name].to_toml()) == RECIPES[name]


def test_what_toml_cannot_write_is_the_default():
    """TOML has no null: a field that may be None must be None when left out."""
    optional = [name for name, hint in HINTS.items() if type(None) in typing.get_args(hint)]
    assert len(optional) >= 3
    assert all(getattr(Recipe(), name) is None for name in optional)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat = 0.1", "learning_rat: no such setting; the nearest is learning_rate"),
        (
            "[augmentation]\nmixupp = 1.0",
            "augmentation.mixupp: no such setting; the nearest is augmentation.mixup",
        ),
        ("epochs = 'many'", "epochs is 'many'; it must be an integer >= 0"),
        ("nesterov = 1", "nesterov is 1; it must be true or false"),
        ("milestones = [0.5, 2]", "it must be a tuple, each item a number from 0 to 1"),
        ("augmentation = 3", "augmentation is 3; it must be a table"),
        ("[augmentation]\nerase = 'x'", "augmentation.erase is 'x'; it must be a number"),
        ("[augmentation]\nerase = 2.0", "erase is 2.0; it must be from 0 to 1"),
        ("accumulate = 256", "accumulate is 256; a batch of 128 images has at most 128 pieces"),
        ("epochs = ", "not TOML: Invalid value"),
        ("format = 6", "format is 6; this version reads 1 to 5"),
        ("format = true", "format is True; this version reads 1 to 5"),
    ],
)
def test_a_toml_error_names_the_key_and_what_is_allowed(text, message):
    with pytest.raises(ContentError) as error:
        Recipe.from_toml(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": -0.1}, "momentum is -0.1; it must be a number from 0 to 1"),
        (
            {"learning_rate": float("nan")},
            "learning_rate is nan; it must be a number >= 0 or unset",
        ),
        (
            {"learning_rate": float("inf")},
            "learning_rate is inf; it must be a number >= 0 or unset",
        ),
        ({"batch_size": 0}, "batch_size is 0; it must be an integer >= 1, the word auto, or unset"),
        (
            {"batch_size": 12.5},
            "batch_size is 12.5; it must be an integer >= 1, the word auto, or unset",
        ),
        ({"epochs": True}, "epochs is True; it must be an integer >= 0 or unset"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; it must be one of sgd, adamw, muon"),
        ({"image_size": 0}, "image_size is 0; it must be an integer >= 1 or unset"),
        ({"epochs": 0}, "epochs and steps are both 0; set one of them"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(changes, message):
    with pytest.raises(UsageError) as error:
        Recipe(**changes)
    assert str(error.value) == message


def test_an_optimizer_that_was_removed_is_said_to_be():
    with pytest.raises(ContentError, match=r"lamb.* removed.* sgd, adamw or muon"):
        Recipe.from_toml('optimizer = "lamb"')


def test_flags_are_made_from_the_fields_and_start_from_a_named_recipe():
    words = ["--steps", "100", "--flip", "none", "--milestones", "0.3", "0.6", "--no-channels-last"]
    recipe = tyro.cli(tyro.conf.OmitArgPrefixes[Recipe], args=words, default=named_recipe("paper"))
    assert recipe == dataclasses.replace(
        RECIPES["paper"],
        steps=100,
        milestones=(0.3, 0.6),
        channels_last=False,
        augmentation=Augmentation(crop_padding=4),
    )


def test_every_field_says_what_it_is():
    """The text below a field is the help of its flag."""
    (tree,) = ast.parse(inspect.getsource(Recipe)).body
    documented = {
        before.target.id
        for before, after in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
    assert documented == {field.name for field in dataclasses.fields(Recipe)}


@given(st.integers(0, 100), st.integers(0, 10_000), st.integers(1, 500))
def test_a_run_ends_at_the_first_of_epochs_and_steps(epochs, steps, steps_per_epoch):
    if not epochs and not steps:
        return
    total = Recipe(epochs=epochs, steps=steps).total_steps(steps_per_epoch)
    allowed = [epochs * steps_per_epoch] * (epochs > 0) + [steps] * (steps > 0)
    assert total == min(allowed)


@pytest.mark.parametrize("epochs", [1, 2, 3, 24])
def test_the_last_epochs_are_at_full_size(epochs: int) -> None:
    recipe = Recipe(epochs=epochs, training_size=32, progressive_resizing_scale=0.75)
    sides = [recipe.size_in(epoch, steps_per_epoch=7) for epoch in range(epochs)]
    assert sides[-1] is None
    assert sum(side is not None for side in sides) == epochs // 2


@pytest.mark.parametrize(
    ("recipe", "side", "progressive_resizing_scale"),
    [
        (Recipe(), 32, 0.75),
        (Recipe(), 500, 0.75),
        (Recipe(), 16, 1.0),
        (Recipe(epochs=9), 32, 1.0),
        (Recipe(epochs=9, progressive_resizing_scale=0.5), 16, 0.5),
        (Recipe(image_size=64), 16, 0.75),
    ],
)
def test_images_grow_where_they_are_large_enough_and_there_is_time(
    recipe: Recipe, side: int, progressive_resizing_scale: float
) -> None:
    assert recipe.resolved(side).progressive_resizing_scale == progressive_resizing_scale


@pytest.mark.parametrize("name", ["paper", "strong", "imagenet"])
def test_published_recipes_do_not_grow_their_images(name: str) -> None:
    assert named_recipe(name).progressive_resizing_scale == 1


def rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    schedule = make_schedule(recipe, steps_per_epoch)
    steps = recipe.total_steps(steps_per_epoch)
    return [recipe.learning_rate * schedule(step) for step in range(steps)]


def test_paper_divides_the_rate_at_32k_and_48k_and_stops_at_64k_iterations():
    """He et al. 2015, section 4.2."""
    expected = [0.1] * 32_000 + [0.01] * 16_000 + [0.001] * 16_000
    assert rates(named_recipe("paper"), steps_per_epoch=390) == pytest.approx(expected)


def test_paper_warms_the_110_layers_up_at_a_tenth_of_the_rate():
    """He et al. 2015, section 4.2: 0.01 for about 400 iterations, then back to 0.1."""
    expected = [0.01] * 400 + [0.1] * 31_600 + [0.01] * 16_000 + [0.001] * 16_000
    recipe = named_recipe("paper", "resnet110")
    assert rates(recipe, steps_per_epoch=390) == pytest.approx(expected)
    assert named_recipe("paper", "resnet56").warmup_length(390) == 0


def test_imagenet_has_the_rates_of_torchvisions_schedule():
    """Its reference training sets the rate once an epoch; ours agrees where an epoch starts."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=5),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=600 - 5),
        ],
        milestones=[5],
    )
    theirs = []
    for _ in range(600):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    ours = rates(named_recipe("imagenet"), steps_per_epoch=3)[::3]
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_imagenet_augments_and_decays_as_torchvisions_references_do():
    """presets.py: TrivialAugmentWide(interpolation=BILINEAR), whose fill is black by default;
    train.py with --norm-weight-decay 0: norms do not decay, the classifier's bias does.
    """
    recipe = named_recipe("imagenet")
    augmentation = recipe.augmentation
    assert (augmentation.policy_fill, augmentation.policy_interpolation) == ("black", "bilinear")
    assert recipe.decay_biases
    assert not recipe.decay_norms_and_biases


@pytest.mark.parametrize("name", RECIPES)
def test_where_a_recipe_differs_from_its_source_is_written_down(name):
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    part = page.split(f"## `{name}`")[1].split("\n## ")[0]
    words = {
        "paper": ("mean of each pixel", "two GPUs", "arXiv:1512.03385"),
        "transfer": ("arXiv:2202.10054", "fixed penalty"),
        "imagenet": ("drawn for each image", "once an epoch", "references/classification"),
    }
    for word in words.get(name, ("no published recipe",)):
        assert word in part, word


def test_recipes_that_were_stored_before_a_field_existed_keep_what_they_did():
    """A config.toml of an earlier version lacks the new fields; their defaults are as it was."""
    lines = named_recipe("imagenet").to_toml().splitlines(keepends=True)
    new = ("decay_biases", "policy_fill", "policy_interpolation", "replanned")
    stored = Recipe.from_toml("".join(x for x in lines if not x.startswith(new)))
    assert not stored.decay_biases
    assert stored.augmentation.policy_fill == "mean"
    assert stored.augmentation.policy_interpolation == "nearest"
    assert stored.replanned == ()


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        ("workers = 0", None),
        ("format = 1\nworkers = 0", None),
        ("workers = 3", 3),
        ("format = 2\nworkers = 0", 0),
        ("format = 2", None),
    ],
)
def test_no_workers_were_one_per_core_until_format_2(text, workers):
    recipe = Recipe.from_toml(text)
    assert recipe.workers == workers
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert from_table(Recipe, json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("text", ["epochs = 4", "format = 3", "format = 3\nepochs = 4"])
def test_statistics_of_batch_norms_were_not_estimated_until_format_4(text):
    recipe = Recipe.from_toml(text)
    assert recipe.batch_norm_images == 0
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_toml("format = 4").batch_norm_images > 0


@pytest.mark.parametrize("text", ["epochs = 4", "format = 3", "format = 4\ncarry_over = true"])
def test_all_batches_were_full_until_format_5(text):
    recipe = Recipe.from_toml(text)
    assert not recipe.even_batches
    assert recipe.carry_over == ("carry_over" in text)
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_toml("format = 5").even_batches


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="recipe fast: no such recipe; there are quick, paper"):
        named_recipe("fast")


@pytest.mark.parametrize(
    ("recipe", "side", "padding", "smallest"),
    [
        (Recipe(), 32, 3, 0),
        (Recipe(), 16, 2, 0),
        (Recipe(), 500, 0, 0.35),
        (Recipe(epochs=5), 500, 0, 0.6),
        (Recipe(epochs=5), 32, 3, 0),
        (Recipe(image_size=128), 32, 12, 0),
        (Recipe(augmentation=Augmentation(crop_padding=0)), 500, 0, 0),
        (Recipe(augmentation=Augmentation(crop_padding=5)), 500, 5, 0),
        (Recipe(augmentation=Augmentation(smallest_crop=0.1)), 32, 0, 0.1),
        (named_recipe("paper"), 64, 4, 0),
        (named_recipe("strong"), 32, 3, 0),
        (named_recipe("imagenet"), 32, 0, 0.08),
    ],
)
def test_crops_that_are_left_open_suit_the_images(
    recipe: Recipe, side: int, padding: int, smallest: float
) -> None:
    augmentation = recipe.resolved(side).augmentation
    assert (augmentation.crop_padding, augmentation.smallest_crop) == (padding, smallest)
    assert recipe.resolved(side).resolved(1000).augmentation == augmentation


def test_small_images_and_photos_get_their_networks_and_sizes():
    small, photo = Recipe().resolved(side=28), Recipe().resolved(side=480)
    assert (small.network, small.image_size, small.resize) == ("resnet20", 28, 28)
    assert (photo.network, photo.image_size, photo.resize) == ("resnet18d", 224, 256)
    chosen = Recipe(network="resnet50", image_size=160, training_size=128).resolved(side=480)
    assert (chosen.network, chosen.image_size, chosen.training_size) == ("resnet50", 160, 128)
    assert photo.resolved(side=28) == photo


@pytest.mark.parametrize(
    ("count", "batch", "epochs"),
    [
        *((45_000, 128, 24), (2048, 128, 24), (1457, 64, 24), (700, 32, 24), (221, 16, 36)),
        *((16, 16, 100), (2, 16, 100)),
    ],
)
def test_batch_and_epochs_follow_the_number_of_images(count: int, batch: int, epochs: int) -> None:
    recipe = Recipe().resolved(side=32, count=count)
    assert (recipe.batch_size, recipe.epochs) == (batch, epochs)


@pytest.mark.parametrize(
    ("side", "changes", "count", "batch"),
    [
        *((side, {"epochs": 5}, 8522, batch) for side, batch in ((128, 64), (32, 128))),
        *((128, {"epochs": epochs}, 8522, batch) for epochs, batch in ((1, 16), (2, 32), (8, 128))),
        (128, {"epochs": 5, "steps": 90}, 8522, 128),
        (128, {"epochs": 5, "batch_size": 256}, 8522, 256),
        (500, {"epochs": 5}, 100_000, 128),
    ],
)
def test_a_short_run_on_photos_has_500_steps_where_batches_allow_it(
    side: int, changes: dict[str, int], count: int, batch: int
) -> None:
    recipe = Recipe(**changes).resolved(side, count)
    assert recipe.batch_size == batch
    if not changes.get("steps") and 16 < batch < 128:
        assert (
            recipe.planned_steps(count // batch) >= 500 > recipe.planned_steps(count // batch // 2)
        )


def test_large_sets_are_trained_on_as_ever() -> None:
    """The plan of the packaged networks, but for batches that are not all full."""
    recipe = Recipe().resolved(side=32, count=45_000)
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.02, 0.95, 0.05)
    assert recipe.total_steps(45_000 // 128) == 24 * 351
    assert recipe.validations(351) == 24


@pytest.mark.parametrize(
    ("optimizer", "rates"), [("sgd", (0.25, 0.125, 0.0312)), ("muon", (0.02, 0.0141, 0.00707))]
)
def test_the_rate_falls_with_the_batch(optimizer: Any, rates: tuple[float, ...]) -> None:
    """In proportion with SGD (arXiv:1706.02677), to its root where updates have a fixed size."""
    recipes = [Recipe(optimizer=optimizer, batch_size=size) for size in (128, 64, 16)]
    assert tuple(recipe.rate for recipe in recipes) == rates
    assert Recipe(optimizer=optimizer, batch_size=1024).rate == rates[0]


def test_what_is_asked_for_wins_over_the_number_of_images() -> None:
    asked = Recipe(batch_size=128, epochs=24, learning_rate=0.02, validation_every=1)
    few = asked.resolved(side=32, count=221)
    assert few == asked.resolved(side=32, count=45_000)
    assert Recipe(steps=90).resolved(side=32, count=221).total_steps(13) == 90


@pytest.mark.parametrize(
    ("side", "count", "size", "resize"),
    [
        *((500, 9000, 224, 256), (500, 221, 128, 146), (128, 9000, 128, 128)),
        *((200, 9000, 192, 200), (100, 9000, 128, 128), (64, 221, 64, 64)),
    ],
)
def test_photos_are_not_enlarged_and_small_sets_are_seen_smaller(
    side: int, count: int, size: int, resize: int
) -> None:
    recipe = Recipe().resolved(side, count)
    assert (recipe.image_size, recipe.training_size, recipe.resize) == (size, size, resize)


@given(
    epochs=st.integers(1, 200),
    steps_per_epoch=st.integers(1, 9),
    every=st.none() | st.integers(1, 9),
    first=st.integers(0, 210),
)
def test_validations_are_counted_as_they_come(
    epochs: int, steps_per_epoch: int, every: int | None, first: int
) -> None:
    recipe = Recipe(epochs=epochs, validation_every=every)
    validated = [recipe.validates(epoch, steps_per_epoch) for epoch in range(epochs)]
    assert recipe.validations(steps_per_epoch, first) == sum(validated[first:])
    assert validated[-1]
    assert every or sum(validated) <= 48


@pytest.mark.parametrize(
    ("count", "epochs"), [(20, 100), (100, 29), (300, 20), (1000, 20), (2500, 20), (100_000, 20)]
)
def test_transfer_has_20_epochs_and_200_steps_where_100_epochs_give_them(
    count: int, epochs: int
) -> None:
    recipe = named_recipe("transfer", "resnet14")
    assert recipe.resolved(32, count).epochs == epochs
    assert dataclasses.replace(recipe, epochs=3).resolved(32, count).epochs == 3


@pytest.mark.parametrize(
    ("count", "batch", "keeps"),
    [(1023, None, True), (1024, None, False), (1024, 16, True), (200, 128, False)],
)
def test_batch_norms_keep_their_statistics_only_where_those_of_a_batch_are_noisy(
    count: int, batch: int | None, keeps: bool
) -> None:
    """Kept ones cannot follow weights that change at the rate of large batches."""
    recipe = dataclasses.replace(named_recipe("transfer", "resnet14"), batch_size=batch)
    assert recipe.resolved(32, count).freeze_statistics == keeps
