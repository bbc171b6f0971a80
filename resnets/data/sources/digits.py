"""The embedded data set: 1,797 handwritten digits that scikit-learn ships."""

import numpy as np

from resnets.data.labelled import LabelledImages
from resnets.data.splits import SourceContent
from resnets.data.storage import PixelStorage, RowNames


def read_digits() -> SourceContent:
    """The digits as grey images of 8x8 pixels, of 10 classes and without splits.

    Their values are counts of ink in 0..16 (E. Alpaydin and C. Kaynak, 1998, UCI "Optical
    Recognition of Handwritten Digits"). A value v becomes (255 v + 8) // 16, which is 255 v / 16
    rounded half up, so that 0 stays 0 and 16 becomes 255.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    data = load_digits()
    ink = data.images.astype(np.int64)
    pixels = ((255 * ink + 8) // 16).astype(np.uint8)[..., None]
    class_names = [str(name) for name in data.target_names]
    images = LabelledImages(
        PixelStorage(pixels, RowNames.of(["digits"], [len(pixels)])), data.target, class_names
    )
    return SourceContent("digits", {"all": images})
