"""The settings of a training run as one frozen value, from which flags and TOML are made."""

import warnings
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, Self

from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.augmentation.draws import epoch_steps
from resnets.errors import ContentError, RenamedWarning, UsageError
from resnets.fields import Between, check, from_table, parse_toml, to_toml
from resnets.machine import MOST_THREADS

_Count = Annotated[int, Between(0)]
Positive = Annotated[int, Between(1)]
_Threads = Annotated[int, Between(0, MOST_THREADS)]
_Fraction = Annotated[float, Between(0, 1)]
_NonNegative = Annotated[float, Between(0)]

OptimizerName = Literal["sgd", "adamw", "muon"]
ScheduleName = Literal["constant", "step", "linear", "cosine", "one-cycle"]
Precision = Literal["float32", "bf16", "fp16"]

_LARGEST_SMALL_SIDE = 64  # pixels; larger images are photos, whose networks start at a stride of 4
_RESIZING_SCALE = 0.75  # of progressive resizing, where the recipe leaves it open:
_LEAST_RESIZING_SIDE, _LEAST_RESIZING_EPOCHS = 32, 10  # from these on it is used
_LARGE_SIDE = 224  # pixels that networks for photos see of large sets, as for ImageNet
_SMALL_SIDE = 128  # and of small ones, and of small photos at least: a quarter of the arithmetic
_LARGE_COUNT = 2048  # training images of a large set: sixteen batches of the largest size
_LARGEST_BATCH, _SMALLEST_BATCH = 128, 16  # images; below 16 batch norms are noisy
_BATCHES = 16  # an epoch of a smaller set has about as many
_LEAST_BATCH_FOR_STATISTICS = 64  # images, for batch norms of a network that was trained before
_EPOCHS, _MOST_EPOCHS = 24, 100
LEAST_STEPS = 500  # of a small set's run, unless these are more than _MOST_EPOCHS
FEW_STEPS = 15  # from scratch, after which photos are told apart better than by chance
# the same where a classifier is fitted first: docs/decisions.md, recipe transfer
_FINE_TUNING_EPOCHS, _FINE_TUNING_STEPS = 20, 200
_CROP_AND_FLIP = Augmentation(flip="alternating", padding_mode="reflect")

NETWORK_FIELDS = {  # of a recipe, and what they are called in an `Architecture`
    **{name: name for name in ("stochastic_depth", "dropout", "zero_init")},
    "channels": "in_channels",
}
EARLIER_NAMES = {  # names that fields had in versions before 2026-12, and their names today
    "first_scale": "progressive_resizing_scale",
    "grown": "progressive_resizing_until",
    "rest_rate": "non_conv_learning_rate_scale",
    "drop": "gamma",
}

# Settings for an optimizer other than the recipe's: suitable learning rates and weight decays
# differ. sgd's are those of quick before it used muon; the others are usual ones.
FOR_OPTIMIZER: dict[OptimizerName, dict[str, float]] = {
    "sgd": {"learning_rate": 0.25, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"learning_rate": 0.002, "momentum": 0.9, "weight_decay": 0.05},
    "muon": {"learning_rate": 0.02, "momentum": 0.95, "weight_decay": 0.05},
}

# The highest learning rates of a network that is trained already, where a recipe fits the
# classifier first.
_FINE_TUNING_RATE: dict[OptimizerName, float] = {"sgd": 0.08, "adamw": 0.0005, "muon": 0.002}

_AS_BEFORE_5: dict[str, Any] = {"even_batches": False}  # what was not said then
_AS_BEFORE_4: dict[str, Any] = {
    **{"batch_norm_images": 0, "carry_over": False, "validation_every": 1},
    **{"batch_size": 128, "epochs": 24, "learning_rate": 0.02},
}


@dataclass(frozen=True)
class Recipe:
    """How to train a network. The defaults are the recipe ``quick``.

    Raises:
        UsageError: if a value is not allowed; it names the field, the value and what is allowed.

    >>> Recipe(epochs=30).total_steps(steps_per_epoch=390)
    11700
    >>> Recipe(momentum=1.5)
    Traceback (most recent call last):
    resnets.errors.WrongSetting: momentum is 1.5; it must be a number from 0 to 1
    """

    network: str = "auto"
    """Name of the network. auto: resnet20 for images up to 64 pixels, else resnet18d."""
    image_size: Positive | None = None
    """Side in pixels of the square that the network sees. Unset: chosen to suit the data."""
    training_size: Positive | None = None
    """Side of that square during training, if it should differ. Unset: image_size."""
    progressive_resizing_scale: Annotated[float, Between(0.1, 1)] | None = None
    """Progressive resizing, for a faster start: side of the training images in the first epoch,
    relative to training_size, to which they grow. 1: no progressive resizing. Unset: 0.75 for
    images of at least 32 pixels, in runs of at least 10 epochs or with a budget."""
    progressive_resizing_until: _Fraction = 0.5
    """Fraction of the run, in whole epochs, after which images have training_size."""
    resize: Positive | None = None
    """Shorter side in pixels to which an image is resized before the centre crop in evaluation.
    Unset: derived from image_size."""
    stochastic_depth: _Fraction | None = None
    """Probability of skipping the last block while training. Unset: the network's own."""
    dropout: _Fraction | None = None
    """Probability of dropping a value inside a block while training. Unset: the network's own."""
    zero_init: bool | None = None
    """Start every block as the identity. Unset: the network's own."""
    channels: Literal[1, 3, 4] | None = None
    """Channels of the images that the network sees: 1 (grey), 3 (RGB) or 4 (RGBA). Those of --from
    are adapted: the first convolution's weights are summed, or repeated and rescaled. Unset: its
    own, but 3 for a grey network and images in colour."""

    epochs: _Count | None = None
    """Passes over the training images. 0: as many as `steps` needs. Unset: 24 (with fit_head_first
    20); for fewer than 2,048 images more, until there are 500 steps (with fit_head_first 200), but
    at most 100; 0 if steps is set."""
    steps: _Count = 0
    """Training steps; if epochs is set too, the run ends at whichever comes first. 0: no limit."""
    replanned: tuple[_Count, ...] = ()
    """How --budget changed the length during the run, so that the run can be repeated: first the
    steps of an epoch and of the whole run as planned at the start; then pairs of a step and the
    total number of steps from then on. Ignored if the plan at the start differs."""
    batch_size: Positive | Literal["auto"] | None = None
    """Images per training step, over all processes together. Unset: 128; for fewer than 2,048
    images, the largest of 64, 32 and 16 that gives an epoch at least 16 steps, else 16; for more
    photos, the largest that gives a short run 500 steps. auto: half of that, or a quarter ..., if
    a GPU's memory is too small."""
    even_batches: bool = True
    """Use every image in every epoch, in batches that differ by one image at most (with
    balanced_sampling, as many as there are). Off, or with repeats: all batches are full, and
    images that fill none are left out of the epoch."""
    carry_over: bool = True
    """Without even_batches: begin an epoch with the images that were left out of the one before.
    With repeats or balanced_sampling, others are left out of every epoch at random."""
    validation_every: Positive | None = None
    """Epochs from one validation to the next; the last epoch always has one. Unset: 1; for fewer
    than 2,048 images and without patience, more, so that a run has about 24 validations."""
    repeats: Positive = 1
    """How often a batch holds each of its images, each time augmented anew (arXiv:1901.09335)."""
    accumulate: Positive = 1
    """Pieces in which a batch is computed, to save memory: gradient accumulation."""
    patience: _Count = 0
    """Stop after this many epochs without a better validation accuracy, and keep the best.
    0: never; the weights of the last epoch are kept."""
    validation: Annotated[float, Between(0, 0.9)] = 0.1
    """Fraction of the training images set aside for validation, if the data has no such split."""
    seed: _Count = 0
    """Seed of the initial weights, the order of the images and their augmentation."""

    optimizer: OptimizerName = "muon"
    """muon orthogonalises the updates of convolutions. Chosen by a flag, an optimizer also brings
    its usual learning_rate, momentum and weight_decay, unless they are set too."""
    learning_rate: _NonNegative | None = None
    """The highest learning rate of the run, which the schedule scales by a factor of at most 1.
    Unset: the optimizer's usual one (muon 0.02, sgd 0.25, adamw 0.002; with fit_head_first 0.002,
    0.08, 0.0005); smaller for batches of fewer than 128 images: in proportion to the batch with
    sgd, to its square root with the others."""
    momentum: _Fraction = 0.95
    """Momentum of sgd and muon, and the first beta of adamw."""
    nesterov: bool = True
    """Nesterov momentum (sgd and muon)."""
    weight_decay: _NonNegative = 0.05
    """Weight decay: an L2 penalty with sgd; decoupled, so scaled by the learning rate, with adamw
    and muon."""
    decay_norms_and_biases: bool = False
    """Apply weight decay to every parameter, not only to weights of convolutions and classifier."""
    decay_biases: bool = False
    """Apply weight decay to biases of convolutions and classifier too, but not to norms."""
    non_conv_learning_rate_scale: _NonNegative = 0.3
    """With muon: learning-rate scale of all parameters that are not convolutions."""
    layer_decay: _Fraction = 1.0
    """Factor on the learning rate for each stage further away from the classifier."""
    freeze: _Count | Literal["all"] | None = None
    """Do not train the stem and the stages up to this number. 0: the stem only. all: only the
    classifier is fitted, in seconds, to the features of a network to start from. Unset: train
    everything."""
    fit_head_first: bool = False
    """Before the first step, fit the classifier to features of the network to start from, unless
    its own classifier is kept (linear probing, then fine-tuning: arXiv:2202.10054)."""
    freeze_statistics: bool | None = None
    """Keep the statistics of batch norms, in training too: they stay in evaluation mode. Unset:
    with fit_head_first, for fewer than 2,048 images in batches below 64."""
    clip_norm: _NonNegative = 0.0
    """Clip the gradient to this 2-norm over all parameters. 0: no clipping."""

    schedule: ScheduleName = "one-cycle"
    """Schedule of the learning rate. one-cycle rises linearly to its peak, then falls linearly."""
    warmup: Literal["linear", "constant"] = "linear"
    """Warm-up from first_rate: linear to the highest rate, or constant and then in one jump."""
    warmup_epochs: _NonNegative = 0.0
    """Length of the warm-up in epochs (one-cycle uses peak instead)."""
    warmup_steps: _Count = 0
    """Length of the warm-up in steps; if above 0, it replaces warmup_epochs."""
    peak: _Fraction = 0.2
    """Fraction of a one-cycle run at which the learning rate is highest."""
    first_rate: _Fraction = 0.1
    """Learning rate at the start of a warm-up, relative to learning_rate."""
    final_rate: _Fraction = 0.0
    """Learning rate at the end of linear, cosine and one-cycle, relative to learning_rate."""
    milestones: tuple[_Fraction, ...] = (0.5, 0.75)
    """Fractions of the run at which the schedule `step` multiplies the learning rate by gamma."""
    gamma: _Fraction = 0.1
    """Factor on the learning rate at each milestone."""

    label_smoothing: _Fraction = 0.0
    """Share of the target probability that is spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weight the loss of each class inversely to its number of images."""
    balanced_sampling: bool = False
    """Sample every class equally often, whatever its size."""
    average_decay: _Fraction = 0.0
    """Decay of an exponential moving average of the weights, which is then the result. 0: no
    average; 1: the plain mean."""
    average_every: Positive = 1
    """Steps between two updates of the average."""
    average_from: _Fraction = 0.0
    """Fraction of the run after which the average begins."""
    batch_norm_images: _Count = 1024
    """Training images by which the statistics of batch norms are estimated before a measurement,
    where their running average lags behind the weights: in the first thousand steps, and for a
    plain mean of the weights. 0: never."""
    augmentation: Augmentation = _CROP_AND_FLIP
    """Random changes of the training images."""

    precision: Precision = "float32"
    """Precision of the arithmetic; bf16 and fp16 are torch's autocast."""
    channels_last: bool = True
    """Use the memory format channels_last, which is faster on most machines."""
    compile: bool = False
    """Compile the network with torch.compile: slow to start, sometimes faster afterwards."""
    tf32: bool = True
    """On NVIDIA's GPUs since 2020, convolutions in float32 round their factors to TF32's 10 bits,
    which is several times as fast. Predicting and evaluating never do."""
    deterministic: bool = False
    """On a GPU, use kernels that give the same bits each time, as those of a CPU do: slower."""
    sync_batch_norm: bool = False
    """Compute the statistics of batch normalisation over all processes."""
    gradient_exchange: Literal["float32", "bf16"] = "float32"
    """Precision in which processes exchange gradients. bf16: half the bytes, for slow networks;
    sums are rounded to 8 bits. Without effect for one process."""
    bucket_mb: Positive | None = None
    """MiB of gradients that processes exchange at once, while the backward pass goes on. Unset:
    torch's own choice, 25 after a first 1."""
    threads: _Threads = 0
    """Threads for computation. 0: one per core."""
    workers: _Threads | None = None
    """Processes that decode images, if these do not fit in memory. Unset: one per core. 0: decode
    in this process."""
    memory_gb: _NonNegative = 2.0
    """Largest set of images that is held in memory, in GiB of pixels at the size the network sees
    (for crops of random size: of the images themselves, if all have one size). A larger one is
    read again in every epoch. A GPU holds its own copy. 0: none is held."""

    FORMAT = 5  # of the TOML; `upgraded` says what changed

    def __post_init__(self) -> None:
        check(self)
        if self.epochs == 0 and not self.steps:
            raise UsageError("epochs and steps are both 0; set one of them")
        if self.accumulate > self.batch:
            raise UsageError(
                f"accumulate is {self.accumulate}; a batch of {self.batch} images has at most "
                f"{self.batch} pieces"
            )

    @property
    def batch(self) -> int:
        """Images per training step; where batch_size is unset, those of a large set."""
        return self.batch_size if isinstance(self.batch_size, int) else _LARGEST_BATCH

    @property
    def memory_limit(self) -> int:
        """Bytes of `memory_gb`."""
        return int(self.memory_gb * 2**30)

    @property
    def fills_evenly(self) -> bool:
        """Whether every image is in a batch of every epoch."""
        return self.even_batches and self.repeats == 1

    @property
    def passes(self) -> int:
        """Passes over the training images, 0: no limit; where epochs is unset, of a large set."""
        if self.epochs is None:
            return 0 if self.steps else _EPOCHS
        return self.epochs

    @property
    def rate(self) -> float:
        """The highest learning rate of the run; where learning_rate is unset, by the batch.

        >>> Recipe().rate, Recipe(optimizer="sgd", batch_size=32).rate
        (0.02, 0.0625)
        """
        if self.learning_rate is not None:
            return self.learning_rate
        usual = FOR_OPTIMIZER[self.optimizer]["learning_rate"]
        if self.fit_head_first:
            usual = _FINE_TUNING_RATE[self.optimizer]
        share = min(1.0, self.batch / _LARGEST_BATCH)
        # linear for SGD: arXiv:1706.02677; the root where updates have a fixed size: 2205.10287
        return float(f"{usual * (share if self.optimizer == 'sgd' else share**0.5):.3g}")

    def planned_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run as planned before it begins."""
        by_epochs = self.passes * steps_per_epoch
        return min(by_epochs, self.steps) if by_epochs and self.steps else by_epochs or self.steps

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run as planned by now."""
        changes = self.changes(steps_per_epoch)
        return changes[-1][1] if changes else self.planned_steps(steps_per_epoch)

    def changes(self, steps_per_epoch: int) -> list[tuple[int, int]]:
        """Changes of the length during the run: pairs of a step and the new total of steps."""
        if self.replanned[:2] != (steps_per_epoch, self.planned_steps(steps_per_epoch)):
            return []
        pairs = iter(self.replanned[2:])
        return list(zip(pairs, pairs, strict=False))

    def replan(self, step: int, total: int, steps_per_epoch: int) -> "Recipe":
        """The same recipe, ending after ``total`` steps, as decided after ``step`` steps.

        >>> recipe = Recipe(epochs=4).replan(20, 60, steps_per_epoch=10)
        >>> recipe.total_steps(10), recipe.position(20, 10), recipe.position(40, 10)
        (60, 20.0, 30.0)
        """
        plan = (steps_per_epoch, self.planned_steps(steps_per_epoch))
        before = self.replanned if self.replanned[:2] == plan else plan
        return replace(self, replanned=(*before, step, total))

    def position(self, step: int, steps_per_epoch: int, known: int | None = None) -> float:
        """The position of a step in the run as first planned, from 0 to that run's length.

        The schedule, progressive resizing and the average of the weights depend on it. If the
        length changes during the run, the rest of the first plan is stretched or shrunk to the new
        length: the position continues from its present value, faster or slower.

        Args:
            step: steps done.
            steps_per_epoch: steps in a pass over the training images.
            known: use only changes decided up to this step; None: all changes.
        """
        planned = self.planned_steps(steps_per_epoch)
        begin, start, total = 0, 0.0, planned  # of the segment that holds the step
        for at, length in self.changes(steps_per_epoch):
            if at > step or (known is not None and at > known):
                break
            start = _along(start, at - begin, total - begin, planned)
            begin, total = at, length
        return _along(start, step - begin, total - begin, planned)

    def size_in(self, epoch: int, steps_per_epoch: int) -> int | None:
        """Side in pixels to which progressive resizing brings the images of an epoch.

        None where it leaves them at training_size. The side grows linearly, in multiples of 4, so
        that the stages of small networks divide it.

        >>> recipe = Recipe(epochs=8, training_size=32, progressive_resizing_scale=0.75)
        >>> [recipe.size_in(epoch, steps_per_epoch=9) for epoch in range(8)]
        [24, 24, 28, 28, None, None, None, None]
        """
        scale, size = self.progressive_resizing_scale, self.training_size
        if scale in (None, 1) or size is None:
            return None
        epochs = self.planned_steps(steps_per_epoch) / steps_per_epoch
        growing = self.progressive_resizing_until * epochs
        first, last = epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch
        begin, end = (
            self.position(step, steps_per_epoch, known=first) / steps_per_epoch
            for step in (first, last)
        )
        if end > growing or begin >= growing:
            return None
        return _scaled(size, scale + (1 - scale) * begin / growing)

    @property
    def first_side(self) -> int | None:
        """Side in pixels of the training images in the first epoch; None where that is unset."""
        scale, size = self.progressive_resizing_scale, self.training_size
        return size if size is None or scale in (None, 1) else _scaled(size, scale)

    @property
    def first_share(self) -> float:
        """Pixels of an image in the first epoch, relative to one at training_size."""
        first, size = self.first_side, self.training_size
        return 1.0 if first is None or size is None else (first / size) ** 2

    def work(self, steps_per_epoch: int, done: int = 0) -> float:
        """Computation from the step ``done`` to the end of the run, in steps at training_size.

        A step with smaller images counts in proportion to their pixels.

        >>> recipe = Recipe(epochs=8, training_size=32, progressive_resizing_scale=0.75)
        >>> recipe.work(steps_per_epoch=16)
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
        """Pixels of an image in an epoch, relative to one at training_size."""
        side = self.size_in(epoch, steps_per_epoch)
        return (
            1.0 if side is None or self.training_size is None else (side / self.training_size) ** 2
        )

    def warmup_length(self, steps_per_epoch: int) -> int:
        """Steps before the learning rate is at its highest; at most the whole run as planned."""
        total = self.planned_steps(steps_per_epoch)
        if self.schedule == "one-cycle":
            return round(self.peak * total)
        return min(self.warmup_steps or round(self.warmup_epochs * steps_per_epoch), total)

    def validates(self, epoch: int, steps_per_epoch: int) -> bool:
        """Whether a validation follows an epoch, counted from 0."""
        last = epoch + 1 >= self.total_steps(steps_per_epoch) / steps_per_epoch
        return last or (epoch + 1) % self._validation_period(steps_per_epoch) == 0

    def validations(self, steps_per_epoch: int, epoch: int = 0) -> int:
        """Validations from an epoch, counted from 0, to the end of the run.

        >>> Recipe(epochs=10, validation_every=4).validations(steps_per_epoch=3)
        3
        """
        period = self._validation_period(steps_per_epoch)
        epochs = -(-self.total_steps(steps_per_epoch) // steps_per_epoch)
        return max(0, epochs // period - epoch // period + (epochs > epoch and epochs % period > 0))

    def usual_validation_period(self, steps_per_epoch: int) -> int:
        """Epochs from one validation to the next where validation_every is unset."""
        planned = -(-self.planned_steps(steps_per_epoch) // steps_per_epoch)
        return 1 if self.patience else max(1, planned // _EPOCHS)

    def _validation_period(self, steps_per_epoch: int) -> int:
        return self.validation_every or self.usual_validation_period(steps_per_epoch)

    def resolved(self, side: int, count: int = _LARGE_COUNT) -> "Recipe":
        """The same recipe with all that is unset chosen for the images.

        Args:
            side: a typical image's shorter side, in pixels.
            count: how many training images there are.

        >>> photos = Recipe().resolved(side=500)
        >>> photos.network, photos.image_size, photos.training_size, photos.resize
        ('resnet18d', 224, 224, 256)
        >>> few = Recipe().resolved(side=500, count=221)
        >>> few.image_size, few.batch_size, few.epochs, few.learning_rate
        (128, 16, 36, 0.00707)
        """
        small = not are_photos(side)
        sized = self._with_counts(count, photos=not small)
        image_size = self.image_size or (side if small else _photo_side(side, count))
        training_size = self.training_size or image_size
        lasting = self.epochs is None or self.epochs >= _LEAST_RESIZING_EPOCHS
        large = training_size >= _LEAST_RESIZING_SIDE and lasting and self.freeze != "all"
        scale = self.progressive_resizing_scale or (_RESIZING_SCALE if large else 1.0)
        keeps = self.freeze_statistics
        if keeps is None and self.fit_head_first:
            keeps = count < _LARGE_COUNT and sized.batch < _LEAST_BATCH_FOR_STATISTICS
        return replace(
            sized,
            freeze_statistics=keeps,
            network=("resnet20" if small else "resnet18d")
            if self.network == "auto"
            else self.network,
            image_size=image_size,
            training_size=training_size,
            progressive_resizing_scale=scale,
            augmentation=self.augmentation.for_images(training_size, not small, short=not lasting),
            resize=self.resize or _resize_to(image_size, side),
        )

    def _with_counts(self, count: int, photos: bool) -> "Recipe":
        """The same with batch, rate, epochs and validations chosen for so many training images."""
        if self.freeze == "all":  # nothing is stepped: one epoch that ends with a validation
            return replace(self, epochs=1, average_decay=0.0)
        is_large = count >= _LARGE_COUNT
        least, usual = LEAST_STEPS, _EPOCHS
        if self.fit_head_first:
            least, usual = _FINE_TUNING_STEPS, _FINE_TUNING_EPOCHS
        batch = _batch_of_an_epoch(count)
        if photos and is_large and self.epochs and not self.steps:  # docs/decisions.md: short runs
            batch = min(batch, _power_of_two(self.epochs * count // least))
        batch = max(batch, _SMALLEST_BATCH)
        sized = self if isinstance(self.batch_size, int) else replace(self, batch_size=batch)
        some = max(count, 1)
        steps_per_epoch = epoch_steps(some, min(some, sized.batch), self.fills_evenly)
        enough = -(-least // steps_per_epoch)
        epochs = usual if is_large else min(max(enough, usual), _MOST_EPOCHS)
        return replace(
            sized,
            learning_rate=sized.rate,
            epochs=(0 if self.steps else epochs) if self.epochs is None else self.epochs,
            validation_every=self.validation_every or (1 if is_large else None),
        )

    def network_changes(self) -> dict[str, Any]:
        """The recipe's changes to the architecture, as arguments of ``resnets.networks.build``."""
        values = {field: getattr(self, name) for name, field in NETWORK_FIELDS.items()}
        return {field: value for field, value in values.items() if value is not None}

    @staticmethod
    def upgraded(table: dict[str, Any], form: int) -> dict[str, Any]:
        """A table of an earlier format in today's format.

        Before format 2, ``workers = 0`` meant one per core; before 3, fields had `EARLIER_NAMES`;
        before 4, no statistics of batch norms were estimated, nothing followed from the number of
        images, and those that did not fill a batch were left out; before 5, all batches were full.

        >>> Recipe.upgraded({"workers": 0, "drop": 0.2}, form=1)["gamma"]
        0.2

        Raises:
            ContentError: it names an optimizer that was removed.
        """
        if table.get("optimizer") == "lamb":
            raise ContentError("optimizer is 'lamb', which was removed: use sgd, adamw or muon")
        table = {EARLIER_NAMES.get(key, key): value for key, value in table.items()}
        if form < 2 and repr(table.get("workers")) == "0":
            table = {key: value for key, value in table.items() if key != "workers"}
        unsaid = (_AS_BEFORE_5 if form < 5 else {}) | (_AS_BEFORE_4 if form < 4 else {})
        return unsaid | table

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """A recipe from TOML; fields missing in the text have their defaults.

        Raises:
            ContentError: the text is not TOML, or has a key or value that a recipe does not allow.
        """
        table = parse_toml(text)
        for key in table.keys() & EARLIER_NAMES:
            warnings.warn(f"{key} is called {EARLIER_NAMES[key]} now", RenamedWarning, stacklevel=2)
        return from_table(cls, table)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a model file holds it; `fields.from_table` reads it."""
        return {"format": self.FORMAT, **asdict(self)}

    def to_toml(self) -> str:
        """All fields that are set, as TOML; :meth:`from_toml` reads back an equal recipe."""
        return to_toml(self)


def _batch_of_an_epoch(count: int) -> int:
    """The largest batch, a power of two up to 128, of which `count` images fill at least 16."""
    return min(_power_of_two(count // _BATCHES), _LARGEST_BATCH)


def _power_of_two(number: int) -> int:
    """The largest power of two up to a number; 1 for numbers below."""
    return 1 << max(1, number).bit_length() - 1


def _along(start: float, done: int, length: int, end: float) -> float:
    """Linear interpolation from start to end after ``done`` of ``length`` steps; at most end."""
    return end if done >= length else start + (end - start) * done / length


def _scaled(side: int, scale: float) -> int:
    """A side in pixels times a scale, rounded down to a multiple of 4."""
    return max(4, int(side * scale) // 4 * 4)


def are_photos(side: int) -> bool:
    """Whether images whose typical shorter side has so many pixels get a network for photos."""
    return side > _LARGEST_SMALL_SIDE


def _photo_side(side: int, count: int) -> int:
    """Side in pixels at which a network sees photos: small ones are hardly enlarged.

    >>> _photo_side(500, count=9000), _photo_side(200, count=9000), _photo_side(500, count=200)
    (224, 192, 128)
    """
    return min(max(side // 32 * 32, _SMALL_SIDE), _LARGE_SIDE if count >= _LARGE_COUNT else 128)


def _resize_to(image_size: int, side: int) -> int:
    """The shorter side to which an image is resized before the centre crop of photos.

    >>> _resize_to(224, side=500), _resize_to(128, side=128), _resize_to(32, side=32)
    (256, 128, 32)
    """
    return max(image_size, min(image_size * 8 // 7, side))
