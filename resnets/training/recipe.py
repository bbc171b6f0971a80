"""Everything tunable about a training run, in one frozen value: flags and TOML come from it."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from resnets.data.augment import Augmentation
from resnets.errors import UsageError
from resnets.training.fields import Between, check, from_toml, to_toml

Count = Annotated[int, Between(0)]
Positive = Annotated[int, Between(1)]
Fraction = Annotated[float, Between(0, 1)]
Size = Annotated[float, Between(0)]

OptimizerName = Literal["sgd", "adamw", "lamb", "muon"]
ScheduleName = Literal["constant", "step", "linear", "cosine", "one-cycle"]
Precision = Literal["float32", "bf16", "fp16"]

LARGEST_SMALL_SIDE = 64  # pixels; larger images are photos, whose networks start at a stride of 4
SHIFT_AND_FLIP = Augmentation(flip="alternating", crop_padding=2, padding_mode="reflect")


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
    """Name of the network; "auto" is resnet20 for images up to 64 pixels, else resnet18."""
    image_size: Positive | None = None
    """Side in pixels of the square that the network sees. Unset: decided from the data."""
    training_size: Positive | None = None
    """The same while training, if it should differ. Unset: image_size."""
    resize: Positive | None = None
    """Shorter side in pixels before the centre crop of an evaluated image. Unset: image_size
    for small images, 8/7 of it for large ones."""
    stochastic_depth: Fraction = 0.0
    """Probability with which the last block's branch is skipped while training."""
    dropout: Fraction = 0.0
    """Probability with which a feature is zeroed before the classifier while training."""
    zero_init: bool = False
    """Start every residual branch at zero: the last norm of each has weight 0."""

    epochs: Positive = 16
    """Passes over the training images."""
    steps: Positive | None = None
    """Weight updates, in place of epochs."""
    batch_size: Positive = 128
    """Images per weight update, over all processes together."""
    repeats: Positive = 1
    """How often a batch holds each of its images, augmented anew (arXiv:1901.09335); an epoch
    then sees so many times fewer images."""
    accumulate: Positive = 1
    """Pieces in which a batch is computed, to save memory; a weight update sums them."""
    patience: Count = 0
    """Stop after so many epochs without a better validation accuracy. 0: never."""
    validation: Annotated[float, Between(0, 0.9)] = 0.1
    """Fraction of the training images set aside to validate, where the data has no split."""
    seed: Count = 0
    """Of the weights, the order of the images and their augmentation."""

    optimizer: OptimizerName = "sgd"
    """sgd; adamw; lamb for very large batches; muon, which orthogonalises every convolution's
    update and gives AdamW the rest."""
    learning_rate: Size = 0.25
    """The rate at its highest; the schedule only lowers it."""
    momentum: Fraction = 0.9
    """Of sgd and muon, and the first beta of adamw and lamb."""
    nesterov: bool = True
    """Look ahead by one momentum step (sgd and muon)."""
    weight_decay: Size = 5e-4
    """sgd adds it times the weight to the gradient; the others shrink the weight itself."""
    decay_norms_and_biases: bool = False
    """Decay every parameter, not only the weights of convolutions and classifier."""
    rest_rate: Size = 1.0
    """With muon: rate of all that is no convolution, relative to learning_rate."""
    layer_decay: Fraction = 1.0
    """Factor on the rate for every stage further from the classifier."""
    freeze: Count = 0
    """Keep the stem and the stages up to this one as they are. 0: train all; 1: the stem..."""
    clip_norm: Size = 0.0
    """Longest gradient (2-norm over all parameters); a longer one is shortened. 0: any."""

    schedule: ScheduleName = "one-cycle"
    """How the rate falls: constant, in steps at the milestones, linearly, by a half cosine; or
    one-cycle, which rises and falls in straight lines with its peak at `peak`."""
    warmup: Literal["linear", "constant"] = "linear"
    """How the rate gets from first_rate to its highest: in a straight line or in one jump."""
    warmup_epochs: Size = 0.0
    """Length of the warm-up (one-cycle uses `peak`)."""
    warmup_steps: Positive | None = None
    """The same in weight updates, in place of warmup_epochs."""
    peak: Fraction = 0.25
    """Fraction of a one-cycle run at which the rate is highest."""
    first_rate: Fraction = 0.1
    """Where a warm-up starts, relative to learning_rate."""
    final_rate: Fraction = 0.0
    """Where linear, cosine and one-cycle end, relative to learning_rate."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Fractions of the run at which the schedule "step" lowers the rate."""
    drop: Fraction = 0.1
    """Factor on the rate at each milestone."""

    label_smoothing: Fraction = 0.05
    """Share of the target that is spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weigh an image's loss by how rare its class is."""
    balanced_sampling: bool = False
    """Draw every class equally often, whatever its size."""
    average_decay: Fraction = 0.0
    """Evaluate and keep a running mean of the weights: each older one counts this factor less.
    0: no mean; 1: the plain mean."""
    average_every: Positive = 1
    """Weight updates between two weights that enter the mean."""
    average_from: Fraction = 0.0
    """Fraction of the run after which the mean begins."""
    augmentation: Augmentation = SHIFT_AND_FLIP
    """What happens to the training images."""

    precision: Precision = "float32"
    """Of the arithmetic; bf16 and fp16 are torch's autocast."""
    channels_last: bool = True
    """Keep the channels of a pixel together in memory: faster on most machines."""
    compile: bool = False
    """Compile the network with torch.compile: slow to start, sometimes faster after."""
    sync_batch_norm: bool = False
    """Take the statistics of batch normalisation over all processes."""
    threads: Count = 0
    """Threads that compute. 0: one per core."""
    workers: Count = 0
    """Processes that decode images, where they do not fit in memory. 0: one per core."""

    def __post_init__(self) -> None:
        check(self)
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate is {self.accumulate}; a batch of {self.batch_size} images has at most "
                f"{self.batch_size} pieces"
            )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Weight updates of the whole run."""
        return self.steps or self.epochs * steps_per_epoch

    def warmup_length(self, steps_per_epoch: int) -> int:
        """Weight updates before the rate is at its highest; at most the whole run."""
        total = self.total_steps(steps_per_epoch)
        if self.schedule == "one-cycle":
            return round(self.peak * total)
        return min(self.warmup_steps or round(self.warmup_epochs * steps_per_epoch), total)

    def settled(self, side: int) -> "Recipe":
        """The same with network and sizes decided, for images of about ``side`` pixels.

        >>> photos = Recipe().settled(side=500)
        >>> photos.network, photos.image_size, photos.training_size, photos.resize
        ('resnet18', 224, 224, 256)
        """
        small = side <= LARGEST_SMALL_SIDE
        image_size = self.image_size or (side if small else 224)
        return replace(
            self,
            network=("resnet20" if small else "resnet18")
            if self.network == "auto"
            else self.network,
            image_size=image_size,
            training_size=self.training_size or image_size,
            resize=self.resize or (image_size if small else image_size * 8 // 7),
        )

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """A recipe from TOML; fields that the text leaves out have their defaults.

        Raises:
            ContentError: if the text is no TOML, or a key or value is not one of a recipe.
        """
        return from_toml(cls, text)

    def to_toml(self) -> str:
        """Every field that is set, as TOML that :meth:`from_toml` reads back as an equal recipe."""
        return to_toml(self)
