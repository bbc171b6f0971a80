"""The named recipes, one row each. docs/recipes.md lists how they differ from their sources."""

from dataclasses import replace
from typing import Any

from resnets.data.augmentation import Augmentation
from resnets.errors import UsageError
from resnets.training.recipe import OptimizerName, Recipe

RECIPES = {
    "quick": Recipe(),  # the defaults
    # He et al. 2015 (arXiv:1512.03385), section 4.2. The schedule there was chosen on 45k/5k
    # images; the results are of networks trained on all 50k, so nothing is set aside here.
    # Otherwise than there: images are centred and scaled by the mean and deviation of each channel,
    # not by a mean of each pixel; batch norm sees 128 images, not the 64 of each of two GPUs.
    "paper": Recipe(
        network="resnet20",
        first_scale=1.0,
        epochs=0,
        steps=64_000,
        batch_size=128,
        validation=0.0,
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=1e-4,
        decay_norms_and_biases=True,
        schedule="step",
        milestones=(32 / 64, 48 / 64),
        drop=0.1,
        label_smoothing=0.0,
        augmentation=Augmentation(flip="random", crop_padding=4),
    ),
    # For the last points of accuracy; far longer than quick. It follows no published recipe.
    "strong": Recipe(
        first_scale=1.0,
        epochs=200,
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
    # https://github.com/pytorch/vision/issues/3995#issuecomment-1013906621, what it leaves open in
    # references/classification/train.py. It ran 8 processes of 128 images. Otherwise than there:
    # mixup or cutmix and its strength are drawn for each image, not for each process's batch; the
    # rate changes with every step, not every epoch (they agree where an epoch begins); the mean of
    # the weights has no trace of the first ones; rectangles to erase are cut to fit, not redrawn.
    "imagenet": Recipe(
        network="resnet50",
        image_size=224,
        training_size=176,
        first_scale=1.0,
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
DEEP = {"warmup": "constant", "warmup_steps": 400, "first_rate": 0.1}

FOR_NETWORK: dict[tuple[str, str], dict[str, Any]] = {
    ("paper", "resnet110"): DEEP,
    ("paper", "resnet1202"): DEEP,
}

# Where to start with another optimizer than the recipe's: a rate and a decay mean other things to
# each. sgd's are those at which quick trained before it had muon; the others are usual ones.
FOR_OPTIMIZER: dict[OptimizerName, dict[str, float]] = {
    "sgd": {"learning_rate": 0.25, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"learning_rate": 0.002, "momentum": 0.9, "weight_decay": 0.05},
    "lamb": {"learning_rate": 0.005, "momentum": 0.9, "weight_decay": 0.02},
    "muon": {"learning_rate": 0.02, "momentum": 0.95, "weight_decay": 0.05},
}


def with_optimizer(recipe: Recipe, name: OptimizerName) -> Recipe:
    """The recipe with another optimizer, and rate, momentum and weight decay that suit it.

    >>> with_optimizer(RECIPES["quick"], "sgd").learning_rate
    0.25
    """
    if name == recipe.optimizer:
        return recipe
    return replace(recipe, optimizer=name, **FOR_OPTIMIZER[name])  # type: ignore[arg-type]


def named_recipe(name: str, network: str | None = None) -> Recipe:
    """The recipe of that name, as it is for a network.

    Args:
        name: a key of ``RECIPES``.
        network: name of the network to train; None: the recipe's own.

    Raises:
        UsageError: if there is no such recipe.

    >>> named_recipe("paper", "resnet110").warmup_steps
    400
    """
    if name not in RECIPES:
        raise UsageError(f"recipe {name}: no such recipe; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    network = network or recipe.network
    return replace(recipe, network=network, **FOR_NETWORK.get((name, network), {}))
