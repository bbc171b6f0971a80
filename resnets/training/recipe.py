"""Everything tunable about a training run, in one frozen value: flags and TOML come from it."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, Self

from resnets.data.augmentation.augmentation import Augmentation
from resnets.errors import ContentError, UsageError
from resnets.fields import Between, check, from_toml, to_toml

_Count = Annotated[int, Between(0)]
Positive = Annotated[int, Between(1)]
_Fraction = Annotated[float, Between(0, 1)]
_Size = Annotated[float, Between(0)]

OptimizerName = Literal["sgd", "adamw", "muon"]
ScheduleName = Literal["constant", "step", "linear", "cosine", "one-cycle"]
Precision = Literal["float32", "bf16", "fp16"]

_LARGEST_SMALL_SIDE = 64  # pixels; larger images are photos, whose networks start at a stride of 4
_FIRST_SCALE = 0.75  # where images are to grow: of so many pixels, in so many epochs
_LEAST_GROWING, _LONG = 32, 10
_CROP_AND_FLIP = Augmentation(flip="alternating", padding_mode="reflect")


@dataclass(frozen=True)
class Recipe:
    """How to train a network. The defaults are the recipe ``quick``.

    Raises:
        UsageError: if a value is not allowed; it names the field, the value and what is allowed.

    >>> Recipe(epochs=30).total_steps(steps_per_epoch=390)
    11700
    >>> Recipe(momentum=1.5)
    Traceback (most recent call last):
    resnets.errors.UsageError: momentum is 1.5; it must be a number from 0 to 1
    """

    network: str = "auto"
    """Name of the network. auto: resnet20 for images up to 64 pixels, else resnet18."""
    image_size: Positive | None = None
    """Side in pixels of the square that the network sees. Unset: decided from the data."""
    training_size: Positive | None = None
    """Its side while training, if that should differ. Unset: image_size."""
    first_scale: Annotated[float, Between(0.1, 1)] | None = None
    """Side of the training images in the first epoch, relative to training_size, to which it
    grows: a faster start. 1: they do not grow. Unset: 0.75 from 32 pixels on, in a run of 10
    epochs or for a budget."""
    grown: _Fraction = 0.5
    """Fraction of the run, in whole epochs, after which it is training_size."""
    resize: Positive | None = None
    """Shorter side in pixels before an evaluated image's centre crop. Unset: from image_size."""
    stochastic_depth: _Fraction | None = None
    """Probability of skipping the last block while training. Unset: the network's own."""
    dropout: _Fraction | None = None
    """Probability of dropping a value inside a block while training. Unset: the network's own."""
    zero_init: bool | None = None
    """Start every block as the identity. Unset: the network's own."""

    epochs: _Count = 24
    """Passes over the training images. 0: as many as `steps` needs."""
    steps: _Count = 0
    """Weight updates; with epochs too, the run ends at the first of both. 0: no limit."""
    replanned: tuple[_Count, ...] = ()
    """What --budget changed on the way, so that a run can be repeated: updates of an epoch and of
    the whole run as first planned; then pairs of a step and the updates of the whole run from that
    step on. Ignored where the first plan is another."""
    batch_size: Positive = 128
    """Images per weight update, over all processes together."""
    repeats: Positive = 1
    """Times a batch holds each of its images, augmented anew (arXiv:1901.09335)."""
    accumulate: Positive = 1
    """Pieces in which a batch is computed, to save memory; a weight update sums them."""
    patience: _Count = 0
    """Stop after so many epochs without a better validation accuracy. 0: never."""
    validation: Annotated[float, Between(0, 0.9)] = 0.1
    """Fraction of the training images set aside to validate, where the data has no split."""
    seed: _Count = 0
    """Of the weights, the order of the images and their augmentation."""

    optimizer: OptimizerName = "muon"
    """muon orthogonalises the updates of convolutions. As a flag it also brings a learning_rate,
    momentum and weight_decay that suit it, unless they are given."""
    learning_rate: _Size = 0.02
    """The rate at its highest; the schedule only lowers it."""
    momentum: _Fraction = 0.95
    """Of sgd and muon, and the first beta of adamw."""
    nesterov: bool = True
    """Look ahead by one momentum step (sgd and muon)."""
    weight_decay: _Size = 0.05
    """sgd adds it times the weight to the gradient; the others shrink weights by it times rate."""
    decay_norms_and_biases: bool = False
    """Decay every parameter, not only the weights of convolutions and classifier."""
    decay_biases: bool = False
    """Decay the biases of convolutions and classifier too, but not the parameters of norms."""
    rest_rate: _Size = 0.3
    """With muon: rate of all that is no convolution, relative to learning_rate."""
    layer_decay: _Fraction = 1.0
    """Factor on the rate for every stage further from the classifier."""
    freeze: _Count | None = None
    """Do not train the stem and the stages up to this one. 0: the stem alone. Unset: train all."""
    clip_norm: _Size = 0.0
    """Longest gradient (2-norm over all parameters); a longer one is shortened. 0: any."""

    schedule: ScheduleName = "one-cycle"
    """How the rate falls. one-cycle rises to its peak and then falls, in straight lines."""
    warmup: Literal["linear", "constant"] = "linear"
    """How the rate gets from first_rate to its highest: in a straight line or in one jump."""
    warmup_epochs: _Size = 0.0
    """Length of the warm-up (one-cycle uses peak)."""
    warmup_steps: _Count = 0
    """Length of the warm-up in weight updates, in place of warmup_epochs if above 0."""
    peak: _Fraction = 0.2
    """Fraction of a one-cycle run at which the rate is highest."""
    first_rate: _Fraction = 0.1
    """Where a warm-up starts, relative to learning_rate."""
    final_rate: _Fraction = 0.0
    """Where linear, cosine and one-cycle end, relative to learning_rate."""
    milestones: tuple[_Fraction, ...] = (0.5, 0.75)
    """Fractions of the run at which the schedule step lowers the rate."""
    drop: _Fraction = 0.1
    """Factor on the rate at each milestone."""

    label_smoothing: _Fraction = 0.0
    """Share of the target that is spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weigh an image's loss by how rare its class is."""
    balanced_sampling: bool = False
    """Draw every class equally often, whatever its size."""
    average_decay: _Fraction = 0.0
    """Keep a mean of the weights, each older one counting this factor less. 0: none; 1: plain."""
    average_every: Positive = 1
    """Weight updates between two that enter the mean."""
    average_from: _Fraction = 0.0
    """Fraction of the run after which the mean begins."""
    augmentation: Augmentation = _CROP_AND_FLIP
    """What happens to the training images."""

    precision: Precision = "float32"
    """Of the arithmetic; bf16 and fp16 are torch's autocast."""
    channels_last: bool = True
    """Keep the channels of a pixel together in memory: faster on most machines."""
    compile: bool = False
    """Compile the network with torch.compile: slow to start, sometimes faster after."""
    sync_batch_norm: bool = False
    """Take the statistics of batch normalisation over all processes."""
    threads: _Count = 0
    """Threads that compute. 0: one per core."""
    workers: _Count | None = None
    """Processes that decode images, where they do not fit in memory. Unset: one per core. 0: none,
    so that this process decodes them."""

    FORMAT = 2  # of the TOML; what `upgraded` says changed with it

    def __post_init__(self) -> None:
        check(self)
        if not self.epochs and not self.steps:
            raise UsageError("epochs and steps are both 0; one of them must say how long to train")
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate is {self.accumulate}; a batch of {self.batch_size} images has at most "
                f"{self.batch_size} pieces"
            )

    def planned_steps(self, steps_per_epoch: int) -> int:
        """Weight updates of the whole run, as it is planned before it begins."""
        by_epochs = self.epochs * steps_per_epoch
        return min(by_epochs, self.steps) if by_epochs and self.steps else by_epochs or self.steps

    def total_steps(self, steps_per_epoch: int) -> int:
        """Weight updates of the whole run, as far as is known by now."""
        changes = self.changes(steps_per_epoch)
        return changes[-1][1] if changes else self.planned_steps(steps_per_epoch)

    def changes(self, steps_per_epoch: int) -> list[tuple[int, int]]:
        """Where the length was changed on the way: a step, and the length from then on."""
        if self.replanned[:2] != (steps_per_epoch, self.planned_steps(steps_per_epoch)):
            return []
        pairs = iter(self.replanned[2:])
        return list(zip(pairs, pairs, strict=False))

    def replan(self, step: int, total: int, steps_per_epoch: int) -> "Recipe":
        """The same, ending after ``total`` weight updates, as decided after ``step`` of them.

        >>> recipe = Recipe(epochs=4).replan(20, 60, steps_per_epoch=10)
        >>> recipe.total_steps(10), recipe.position(20, 10), recipe.position(40, 10)
        (60, 20.0, 30.0)
        """
        plan = (steps_per_epoch, self.planned_steps(steps_per_epoch))
        before = self.replanned if self.replanned[:2] == plan else plan
        return replace(self, replanned=(*before, step, total))

    def position(self, step: int, steps_per_epoch: int, known: int | None = None) -> float:
        """Where in the run as first planned a step is, from 0 to its length.

        The schedule, the size of the images and the mean of the weights follow it. Where the
        length is changed on the way, the rest of the first plan is stretched or shrunk to the new
        length: the position goes on from where it is, faster or slower.

        Args:
            step: weight updates done.
            steps_per_epoch: weight updates in a pass over the training images.
            known: only what was decided up to this step counts; None: all of it.
        """
        planned = self.planned_steps(steps_per_epoch)
        begin, start, total = 0, 0.0, planned  # of the piece that the step is in
        for at, length in self.changes(steps_per_epoch):
            if at > step or (known is not None and at > known):
                break
            start = _along(start, at - begin, total - begin, planned)
            begin, total = at, length
        return _along(start, step - begin, total - begin, planned)

    def size_in(self, epoch: int, steps_per_epoch: int) -> int | None:
        """Side in pixels to which training images are resized in an epoch; None if they are not.

        It grows evenly, in multiples of 4, so that the stages of small networks divide it.

        >>> recipe = Recipe(epochs=8, training_size=32, first_scale=0.75)
        >>> [recipe.size_in(epoch, steps_per_epoch=9) for epoch in range(8)]
        [24, 24, 28, 28, None, None, None, None]
        """
        if self.first_scale in (None, 1) or self.training_size is None:
            return None
        growing = self.grown * self.planned_steps(steps_per_epoch) / steps_per_epoch
        first, last = epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch
        begin, end = (
            self.position(step, steps_per_epoch, known=first) / steps_per_epoch
            for step in (first, last)
        )
        if end > growing or begin >= growing:
            return None
        return _scaled(
            self.training_size, self.first_scale + (1 - self.first_scale) * begin / growing
        )

    @property
    def first_share(self) -> float:
        """Pixels of the smallest training images, relative to those at training_size."""
        if self.training_size is None or self.first_scale in (None, 1):
            return 1.0
        return (_scaled(self.training_size, self.first_scale) / self.training_size) ** 2

    def work(self, steps_per_epoch: int, done: int = 0) -> float:
        """Weight updates from the step ``done`` to the end of the run, counted by their pixels.

        One of images at training_size is 1, one of smaller images less.

        >>> Recipe(epochs=8, training_size=32, first_scale=0.75).work(steps_per_epoch=16)
        106.5
        """
        total, work = self.total_steps(steps_per_epoch), 0.0
        while done < total:
            epoch = done // steps_per_epoch
            end = min((epoch + 1) * steps_per_epoch, total)
            work += (end - done) * self.share_in(epoch, steps_per_epoch)
            done = end
        return work

    def share_in(self, epoch: int, steps_per_epoch: int) -> float:
        """Pixels of training images in an epoch, relative to those at training_size."""
        side = self.size_in(epoch, steps_per_epoch)
        return (
            1.0 if side is None or self.training_size is None else (side / self.training_size) ** 2
        )

    def warmup_length(self, steps_per_epoch: int) -> int:
        """Weight updates before the rate is at its highest; at most the whole run as planned."""
        total = self.planned_steps(steps_per_epoch)
        if self.schedule == "one-cycle":
            return round(self.peak * total)
        return min(self.warmup_steps or round(self.warmup_epochs * steps_per_epoch), total)

    def settled(self, side: int) -> "Recipe":
        """The same with network, sizes and crops decided, for images of about ``side`` pixels.

        >>> photos = Recipe().settled(side=500)
        >>> photos.network, photos.image_size, photos.training_size, photos.resize
        ('resnet18', 224, 224, 256)
        """
        small = side <= _LARGEST_SMALL_SIDE
        image_size = self.image_size or (side if small else 224)
        training_size = self.training_size or image_size
        grows = training_size >= _LEAST_GROWING and self.epochs >= _LONG
        first_scale = self.first_scale or (_FIRST_SCALE if grows else 1.0)
        return replace(
            self,
            network=("resnet20" if small else "resnet18")
            if self.network == "auto"
            else self.network,
            image_size=image_size,
            training_size=training_size,
            first_scale=first_scale,
            augmentation=self.augmentation.for_images(training_size, photos=not small),
            resize=self.resize or (image_size if small else image_size * 8 // 7),
        )

    def network_changes(self) -> dict[str, Any]:
        """What the recipe changes of the network's architecture, for ``resnets.networks.build``."""
        names = ("stochastic_depth", "dropout", "zero_init")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @staticmethod
    def upgraded(table: dict[str, Any], form: int) -> dict[str, Any]:
        """A table of an earlier format as today's: until 2, ``workers = 0`` was one per core.

        >>> Recipe.upgraded({"workers": 0, "seed": 1}, form=1)
        {'seed': 1}

        Raises:
            ContentError: it asks for what no longer exists.
        """
        if table.get("optimizer") == "lamb":
            raise ContentError("optimizer is 'lamb', which was removed: take sgd, adamw or muon")
        if form < 2 and repr(table.get("workers")) == "0":
            return {key: value for key, value in table.items() if key != "workers"}
        return table

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """A recipe from TOML; fields that the text leaves out have their defaults.

        Raises:
            ContentError: if the text is no TOML, or a key or value is not one of a recipe.
        """
        return from_toml(cls, text)

    def to_dict(self) -> dict[str, Any]:
        """As a model file keeps it; `fields.from_table` reads it."""
        return {"format": self.FORMAT, **asdict(self)}

    def to_toml(self) -> str:
        """Every field that is set, as TOML that :meth:`from_toml` reads back as an equal recipe."""
        return to_toml(self)


def _along(start: float, done: int, length: int, end: float) -> float:
    """From start to end, after so many of a number of equal steps; at most the end."""
    return end if done >= length else start + (end - start) * done / length


def _scaled(side: int, scale: float) -> int:
    """A side so many times as long, in multiples of 4."""
    return max(4, int(side * scale) // 4 * 4)


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
_DEEP = {"warmup": "constant", "warmup_steps": 400, "first_rate": 0.1}

_FOR_NETWORK: dict[tuple[str, str], dict[str, Any]] = {
    ("paper", "resnet110"): _DEEP,
    ("paper", "resnet1202"): _DEEP,
}

# Where to start with another optimizer than the recipe's: a rate and a decay mean other things to
# each. sgd's are those at which quick trained before it had muon; the others are usual ones.
FOR_OPTIMIZER: dict[OptimizerName, dict[str, float]] = {
    "sgd": {"learning_rate": 0.25, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"learning_rate": 0.002, "momentum": 0.9, "weight_decay": 0.05},
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
    return replace(recipe, network=network, **_FOR_NETWORK.get((name, network), {}))
