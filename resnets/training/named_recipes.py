"""Recipes with names, for training from scratch and from trained weights."""

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any

from resnets.addresses import AS_FILE, refuse_address
from resnets.data.augmentation.augmentation import Augmentation
from resnets.errors import UsageError
from resnets.training.recipe import FOR_OPTIMIZER, OptimizerName, Recipe

RECIPES = {
    "quick": Recipe(),  # the defaults
    # He et al. 2015 (arXiv:1512.03385), section 4.2. The schedule there was chosen on 45k/5k
    # images; the results are of networks trained on all 50k, so nothing is set aside here.
    # Differences: images are normalised by the mean and standard deviation of each channel, not by
    # a mean of each pixel; batch norm sees 128 images, not the 64 of each of two GPUs.
    "paper": Recipe(
        network="resnet20",
        progressive_resizing_scale=1.0,
        epochs=0,
        steps=64_000,
        batch_size=128,
        even_batches=False,
        validation=0.0,
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=1e-4,
        decay_norms_and_biases=True,
        schedule="step",
        milestones=(32 / 64, 48 / 64),
        gamma=0.1,
        label_smoothing=0.0,
        augmentation=Augmentation(flip="random", crop_padding=4),
    ),
    # From the weights of a trained network: linear probing, then fine-tuning (Kumar et al. 2022,
    # arXiv:2202.10054). How its values were chosen: docs/decisions.md.
    "transfer": Recipe(
        progressive_resizing_scale=1.0,
        optimizer="sgd",
        momentum=0.9,
        weight_decay=5e-4,
        layer_decay=0.7,
        clip_norm=10.0,
        fit_head_first=True,
    ),
    # For the highest accuracy; far longer than quick. It follows no published recipe.
    "strong": Recipe(
        progressive_resizing_scale=1.0,
        epochs=200,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.2,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_epochs=5.0,
        label_smoothing=0.1,
        average_decay=0.998,
        average_from=0.5,
        augmentation=Augmentation(flip="random", padding_mode="reflect", mixup=0.2, cutmix=1.0),
    ),
    # torchvision's weights IMAGENET1K_V2 of ResNet-50 (80.858 %): the command is in
    # https://github.com/pytorch/vision/issues/3995#issuecomment-1013906621, its defaults in
    # references/classification/train.py. It ran 8 processes of 128 images. Differences: mixup or
    # cutmix and its strength are drawn for each image, not for each process's batch; the learning
    # rate changes with every step, not every epoch (they agree where an epoch begins); the average
    # of the weights is not biased towards the first ones; rectangles to erase are cut to fit, not
    # redrawn.
    "imagenet": Recipe(
        network="resnet50",
        image_size=224,
        training_size=176,
        progressive_resizing_scale=1.0,
        resize=232,
        epochs=600,
        batch_size=8 * 128,
        repeats=4,
        optimizer="sgd",
        learning_rate=0.5,
        momentum=0.9,
        nesterov=False,
        weight_decay=2e-5,
        decay_biases=True,
        schedule="cosine",
        warmup_epochs=5.0,
        first_rate=0.01,
        label_smoothing=0.1,
        # a decay of 0.99998 for one image and one epoch, in steps of 32 updates
        average_decay=1 - (1 - 0.99998) * 8 * 128 * 32 / 600,
        average_every=32,
        average_from=5 / 600,
        augmentation=Augmentation(
            smallest_crop=0.08,
            flip="random",
            policy="trivialaugment",
            policy_fill="black",
            policy_interpolation="bilinear",
            erase=0.1,
            mixup=0.2,
            cutmix=1.0,
        ),
    ),
}

# "We use 0.01 to warm up the training until the training error is below 80% (about 400
# iterations)", He et al. 2015, section 4.2, of the 110-layer network.
_DEEP = {"warmup": "constant", "warmup_steps": 400, "first_rate": 0.1}

_FOR_NETWORK: dict[tuple[str, str], dict[str, Any]] = {
    ("paper", "resnet110"): _DEEP,
    ("paper", "resnet1202"): _DEEP,
}


def with_optimizer(recipe: Recipe, name: OptimizerName) -> Recipe:
    """The recipe with another optimizer and its usual learning rate, momentum and weight decay.

    >>> with_optimizer(RECIPES["quick"], "sgd").rate
    0.25
    """
    if name == recipe.optimizer:
        return recipe
    usual: dict[str, Any] = FOR_OPTIMIZER[name] | {"learning_rate": None}
    return replace(recipe, optimizer=name, **usual)


def named_recipe(name: str, network: str | None = None) -> Recipe:
    """The recipe of a name, with its changes for a network.

    Args:
        name: a key of ``RECIPES``.
        network: name of the network to train; None: the recipe's network.

    Raises:
        UsageError: there is no such recipe.

    >>> named_recipe("paper", "resnet110").warmup_steps
    400
    """
    if name not in RECIPES:
        refuse_address(name, AS_FILE)
        raise UsageError(
            f"recipe {name}: no such recipe; there are {', '.join(RECIPES)}, and files "
            "whose names end in .toml"
        )
    recipe = RECIPES[name]
    network = network or recipe.network
    return replace(recipe, network=network, **_FOR_NETWORK.get((name, network), {}))


def transferring(recipe: Recipe, set_by_user: Collection[str] = ()) -> Recipe:
    """The recipe that trained weights ask for, in place of one for fresh ones.

    Args:
        recipe: for fresh weights.
        set_by_user: names of what the user has set, which is kept; "recipe" stands for all of it.

    >>> transferring(RECIPES["quick"], {"optimizer"}).optimizer
    'muon'
    """
    if "recipe" in set_by_user:
        return recipe
    transfer = named_recipe("transfer", recipe.network)
    if "optimizer" in set_by_user:
        transfer = with_optimizer(transfer, recipe.optimizer)
    augmentation = replace(transfer.augmentation, **_values_of(recipe.augmentation, set_by_user))
    kept = {"augmentation": augmentation} | _values_of(recipe, {"network", *set_by_user})
    return replace(transfer, **kept)


def _values_of(value: Recipe | Augmentation, names: Collection[str]) -> dict[str, Any]:
    """The fields with these names, where there are such."""
    return {item.name: getattr(value, item.name) for item in fields(value) if item.name in names}
