from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnets.errors import UsageError
from resnets.evaluation.explain import _METHODS, _occlusion, explain, grad_cam
from resnets.evaluation.source import Source
from resnets.images import Preprocessing
from resnets.model_file import Description, Model
from resnets.networks import CATALOG, Architecture, ResNet, build
from tests.spread import spread

SIZE, PATCH = 32, 8  # pixels


def small(architecture: Architecture) -> Architecture:
    """The same kind of network with one block a stage, and few channels."""
    depths = (1,) * len(architecture.depths)
    stem_width = None if architecture.stem_width is None else 24
    return replace(architecture, depths=depths, width=16, stem_width=stem_width, num_classes=10)


KINDS = {str(small(entry.architecture)): name for name, entry in CATALOG.items()}


def class_activation_maps(network: ResNet, images: Tensor, classes: list[int]) -> Tensor:
    """Zhou et al. 2016 (arXiv:1512.04150), equation 2: the class's weights times the maps."""
    seen = []
    pool = next(m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d))
    hook = pool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(images)
    hook.remove()
    return torch.einsum("nc,nchw->nhw", network.get_parameter("fc.weight")[classes], seen[0])


@pytest.mark.parametrize("name", KINDS.values())
def test_grad_cam_is_the_class_activation_map_of_every_kind_of_network(name: str) -> None:
    """Where pooling and a classifier follow the maps, both are the same up to ReLU and scale."""
    torch.manual_seed(0)
    network = build(small(CATALOG[name].architecture)).eval()
    images, classes = torch.randn(2, 3, 64, 64), [3, 7]
    closed_form = class_activation_maps(network, images, classes).relu().detach()[:, None]
    large = F.interpolate(closed_form, (64, 64), mode="bilinear")[:, 0].numpy()
    maps = grad_cam(network, images, classes)
    assert maps.shape == (2, 64, 64)
    peaks = large.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(maps * peaks, large, atol=1e-5 * float(peaks.max()) + 1e-12)
    assert all(parameter.grad is None for parameter in network.parameters())


def striped(count: int, seed: int) -> tuple[Tensor, list[int], np.ndarray]:
    """Noise with a patch of stripes somewhere: lying ones are class 0, standing ones class 1."""
    random = np.random.default_rng(seed)
    images = random.normal(0, 0.3, (count, 1, SIZE, SIZE)).astype(np.float32)
    labels = random.integers(0, 2, count)
    corners = random.integers(0, SIZE - PATCH + 1, (count, 2))
    stripes = np.where(np.arange(PATCH) // 2 % 2, 1.5, -1.5) * np.ones((PATCH, 1))
    for image, label, (top, left) in zip(images, labels, corners, strict=True):
        image[0, top : top + PATCH, left : left + PATCH] = stripes if label else stripes.T
    return torch.from_numpy(images), labels.tolist(), corners


@pytest.fixture(scope="module")
def knows_stripes() -> ResNet:
    """A small network that was trained to tell the two kinds of stripes."""
    torch.manual_seed(0)
    network = build("resnet14", width=8, in_channels=1, num_classes=2)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    images, labels, _ = striped(1024, seed=0)
    for step in range(32):
        part = slice(step * 64 % 1024, step * 64 % 1024 + 64)
        loss = F.cross_entropy(network(images[part]), torch.tensor(labels[part]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("method", spread(["grad-cam", "occlusion"]))
def test_the_heat_is_where_what_decides_the_class_is(knows_stripes: ResNet, method: str) -> None:
    images, labels, corners = striped(24, seed=1)
    with torch.no_grad():
        assert knows_stripes(images).argmax(1).tolist() == labels
    heats = _METHODS[method](knows_stripes, images, labels)
    inside = 0
    for heat, (top, left) in zip(heats, corners, strict=True):
        assert heat.min() >= 0
        assert heat.max() == pytest.approx(1)
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        near = PATCH // 2 + 4  # from the middle of the patch: a stride of the last stage more
        inside += abs(row - top - PATCH / 2) <= near and abs(column - left - PATCH / 2) <= near
    assert inside >= 22  # a peak anywhere would be that near in a quarter of the images


def test_what_nothing_speaks_for_is_zero_all_over(knows_stripes: ResNet) -> None:
    blank = torch.zeros(1, 1, SIZE, SIZE)
    assert not _occlusion(knows_stripes, blank, [0]).any()


def model(channels: int = 3) -> Model:
    torch.manual_seed(0)
    network = build("resnet14", width=4, num_classes=3, in_channels=channels).eval()
    preprocessing = Preprocessing(16, 20, (0.5,) * channels, (0.2,) * channels)
    names = ("ant", "bee", "cat")
    return Model(network, Description(network.architecture.to_dict(), names, preprocessing))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_picture_is_the_part_that_the_network_sees(channels: int) -> None:
    """Of 40 x 80 pixels, the shorter side goes to 20, and 16 x 16 in the middle are seen."""
    image = np.zeros((40, 80, 3), np.uint8)
    image[4:36, 24:56] = 255
    explanation = next(explain(model(channels), [Source("a", image)], side=64))
    assert explanation.picture is not None
    assert explanation.picture.shape == (64, 64, 3)
    assert explanation.picture[4:-4, 4:-4].min() > 250  # all of it is the white square
    assert explanation.picture[0].max() < 250  # and that begins at its edge


def test_a_broken_image_is_told_and_the_others_are_explained(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    image = np.full((20, 20, 3), 100, np.uint8)
    sources = [Source("broken", broken), Source("a", image), Source("b", image)]
    first, second, third = explain(model(), sources, target="bee")
    assert first.prediction.error is not None
    assert first.heat is None
    assert second.heat is not None
    assert third.heat is not None
    assert second.target == third.target == "bee"
    np.testing.assert_array_equal(second.heat, third.heat)
    assert second.overlay().shape == (384, 384, 3)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"method": "tarot"}, "there are grad-cam, occlusion"),
        ({"target": "elk"}, "the network knows ant, bee, cat"),
        ({"top": 4}, "the network has 3 classes"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_wrong_choices_are_refused_before_any_image_is_read(choices: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explain(model(), iter(()), **choices)
