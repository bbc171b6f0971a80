"""The settings of augmentation, from which flags are made. No torch is imported here."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from resnets.data.augmentation.crops import ResizedCrop
from resnets.errors import UsageError

Flip = Literal["none", "random", "alternating"]
PaddingMode = Literal["zero", "reflect"]
Policy = Literal["none", "randaugment", "trivialaugment"]
PolicyFill = Literal["mean", "black"]
Interpolation = Literal["nearest", "bilinear"]

_PADDING = 3 / 32  # of the side of a small image
SMALLEST_CROP = 0.35  # of the area of a photo; fastai's
SMALLEST_CROP_OF_A_SHORT_RUN = 0.6  # docs/decisions.md: unset crops


@dataclass(frozen=True)
class Augmentation:
    """The random changes of training images, in the order of the fields. An unset crop is none.

    Raises:
        UsageError: a value is not allowed; the message names the field and the allowed values.

    >>> Augmentation(flip="random", crop_padding=4).mixes
    False
    >>> Augmentation(mixup=-1)
    Traceback (most recent call last):
    resnets.errors.UsageError: augmentation: mixup is -1; it must be at least 0
    """

    smallest_crop: float | None = None
    """Random resized crop: its smallest area as a fraction of the image (0.08 is usual for long
    runs). 0: no such crop. Unset: 0.35 for photos, 0.6 in runs of fewer than ten epochs, unless
    crop_padding is set."""
    crop_ratio: float = 4 / 3
    """Random resized crop: largest ratio of width to height; the smallest is its inverse."""
    crop_padding: int | None = None
    """Random crop after padding: pixels of padding on every side. Unset: 3 for small images of 32
    pixels and in proportion for other sizes, unless smallest_crop is set."""
    padding_mode: PaddingMode = "zero"
    """Padding: zero, which is the mean colour, or the image reflected at its edge."""
    flip: Flip = "none"
    """Horizontal flip: random; or alternating, which flips every image in every second epoch, half
    of the images in the first epoch (as airbench does)."""
    policy: Policy = "none"
    """randaugment (arXiv:1909.13719) or trivialaugment with its wide ranges (arXiv:2103.10158)."""
    policy_operations: int = 2
    """Number of operations that randaugment applies to an image, one after another."""
    policy_magnitude: int = 9
    """Magnitude of randaugment, 0 to 30."""
    policy_fill: PolicyFill = "mean"
    """Colour of the area that an operation leaves empty: the mean colour, or black."""
    policy_interpolation: Interpolation = "nearest"
    """Interpolation of shears, translations and rotations."""
    erase: float = 0.0
    """Probability of erasing a random rectangle (arXiv:1708.04896)."""
    cutout: int = 0
    """Side in pixels of a square set to zero, centred anywhere in the image (arXiv:1708.04552)."""
    mixup: float = 0.0
    """Alpha of mixup (arXiv:1710.09412): the weight of the other image has the distribution
    Beta(alpha, alpha). 0: none. With cutmix too, each image gets one of the two at random."""
    cutmix: float = 0.0
    """Alpha of cutmix (arXiv:1905.04899): the fraction of the image's area that remains has the
    distribution Beta(alpha, alpha). 0: none."""

    def __post_init__(self) -> None:
        limits = {
            "smallest_crop": (0, 1),
            "crop_ratio": (1, 100),
            "crop_padding": (0, None),
            "policy_operations": (1, 20),
            "policy_magnitude": (0, 30),
            "erase": (0, 1),
            "cutout": (0, None),
            "mixup": (0, None),
            "cutmix": (0, None),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not (low <= value and (high is None or value <= high)):
                allowed = f"at least {low}" if high is None else f"from {low} to {high}"
                raise UsageError(f"augmentation: {name} is {value}; it must be {allowed}")
        choices = {
            "flip": Flip,
            "padding_mode": PaddingMode,
            "policy": Policy,
            "policy_fill": PolicyFill,
            "policy_interpolation": Interpolation,
        }
        for name, allowed_values in choices.items():
            value, options = getattr(self, name), get_args(allowed_values)
            if value not in options:
                allowed = "one of " + ", ".join(options)
                raise UsageError(f"augmentation: {name} is {value!r}; it must be {allowed}")
        if self.smallest_crop and self.crop_padding:
            raise UsageError("augmentation: choose smallest_crop or crop_padding, not both")

    def for_images(self, side: int, photos: bool, short: bool = False) -> "Augmentation":
        """The same augmentation with a crop that suits the images, if none is set.

        Args:
            side: of the training images, in pixels.
            photos: whether these are larger images that were resized.
            short: whether the run has so few epochs that small crops show too little of an image.

        >>> Augmentation().for_images(32, photos=False).crop_padding
        3
        >>> Augmentation(crop_padding=0).for_images(224, photos=True).smallest_crop
        0.0
        """
        unset = self.smallest_crop is None and self.crop_padding is None
        smallest = SMALLEST_CROP_OF_A_SHORT_RUN if short else SMALLEST_CROP
        return replace(
            self,
            smallest_crop=smallest if unset and photos else self.smallest_crop or 0.0,
            crop_padding=round(_PADDING * side) if unset and not photos else self.crop_padding or 0,
        )

    @property
    def resized_crop(self) -> ResizedCrop | None:
        """The random resized crop, applied to the image at its full size; None if there is none."""
        return ResizedCrop(self.smallest_crop, self.crop_ratio) if self.smallest_crop else None

    @property
    def mixes(self) -> bool:
        """Whether images and their labels are mixed with others."""
        return self.mixup > 0 or self.cutmix > 0
