"""A training loop as in tutorials: the baseline for this project's trainer.

NCHW, eager, the images transformed one by one with Pillow in a DataLoader with two workers.
"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Images that are cropped, mirrored and normalised one by one, in (3, 32, 32) float32."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.mean = torch.tensor(MEAN).view(3, 1, 1)
        self.deviation = torch.tensor(DEVIATION).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index]), 4)
        x, y = torch.randint(0, 9, (2,)).tolist()
        image = image.crop((x, y, x + 32, y + 32))
        if torch.rand(1).item() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
        return (pixels - self.mean) / self.deviation, int(self.labels[index])


def plain_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int = 128,
) -> Iterator[float]:
    """Train for an epoch; yields the loss of every step.

    Args:
        network: in training mode.
        optimizer: of its parameters.
        images: (N, 32, 32, 3) uint8.
        labels: (N,).
        batch_size: images per step.
    """
    loss = nn.CrossEntropyLoss()
    dataset = PlainImages(images, labels)
    for inputs, targets in DataLoader(
        dataset, batch_size, shuffle=True, num_workers=2, drop_last=True
    ):
        optimizer.zero_grad()
        output = loss(network(inputs), targets)
        output.backward()
        optimizer.step()
        yield output.item()
