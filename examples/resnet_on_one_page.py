"""ResNet-20 for 32 x 32 images on one page, in plain torch.

The network of section 4.2 of "Deep Residual Learning for Image Recognition" (He et al. 2015,
arXiv:1512.03385): 19 convolutions of 3x3 and a classifier, 0.27 million weights. Its names and its
logits are those of `resnets.networks.build("resnet20")`, so either reads the other's weights.

Shapes: N images, C channels, H x W pixels, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, since a batch norm follows; He initialised (arXiv:1502.01852)."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class ResidualBlock(nn.Module):
    """y = relu(branch(x) + shortcut(x)): the branch learns only what to add to its input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = out_channels - in_channels
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def branch(self, x: Tensor) -> Tensor:
        """What is learned. (N, C, H, W) -> (N, out_channels, H/stride, W/stride)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A, without weights: skip pixels, and pad channels of zeros on both sides."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.new_channels // 2, self.new_channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H/stride, W/stride)."""
        return F.relu(self.branch(x) + self.shortcut(x))


def stage(in_channels: int, out_channels: int, depth: int, stride: int) -> nn.Sequential:
    """`depth` blocks, of which the first changes the shape."""
    first = ResidualBlock(in_channels, out_channels, stride)
    others = (ResidualBlock(out_channels, out_channels, stride=1) for _ in range(depth - 1))
    return nn.Sequential(first, *others)


class ResNet20(nn.Module):
    """Three stages of three blocks; the later two halve the resolution and double the width."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = conv3x3(3, 16)
        self.bn = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, depth=3, stride=1)  # 32 x 32 pixels
        self.layer2 = stage(16, 32, depth=3, stride=2)  # 16 x 16
        self.layer3 = stage(32, 64, depth=3, stride=2)  # 8 x 8
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits. (N, 3, 32, 32) -> (N, K)."""
        x = F.relu(self.bn(self.conv(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


if __name__ == "__main__":
    network = ResNet20()
    print(f"{sum(weights.numel() for weights in network.parameters()):,} weights")
    print(f"logits of shape {tuple(network(torch.rand(1, 3, 32, 32)).shape)}")
