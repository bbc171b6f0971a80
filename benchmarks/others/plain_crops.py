"""Random resized crops of photos as training scripts have them: Pillow, then a tensor."""

import io
import math
import random

import numpy as np
import torch
from PIL import Image

SIZE = 224
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def crop(data: bytes) -> torch.Tensor:
    """A random resized crop, flipped half the time, normalised: (3, 224, 224) float32."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    wide, tall = image.size
    area = wide * tall * random.uniform(0.08, 1.0)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(wide, round(math.sqrt(area * ratio)))
    height = min(tall, round(math.sqrt(area / ratio)))
    left, top = random.randint(0, wide - width), random.randint(0, tall - height)
    box = (left, top, left + width, top + height)
    small = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
    if random.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
    return (pixels - MEAN[:, None, None]) / STD[:, None, None]
