"""Networks of unknown names, by their shapes and order."""

import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from resnets.errors import ContentError, GuessWarning
from resnets.networks import build, load_checkpoint
from resnets.networks.checkpoints.foreign import _understand, read_checkpoint

Shared = Callable[[str], Path]


def renamed(state: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The same tensors in the same order, every name made up."""
    names = random.Random(seed).sample(range(10**6), len(state))
    return {f"w{name}": value for name, value in zip(names, state.values(), strict=True)}


@pytest.mark.parametrize(
    ("file", "layout", "shortcut", "stem"),
    [
        ("ehanw_resnet20.pth", "unknown names", "projection", "cifar"),
        ("amartyn_resnet20.pt", "a-martyn/resnet", "padding_after", "cifar"),
        # whose first convolution has neither norm nor ReLU
        ("eteresh_res_net_20.model", "eteresh/resnet20_cifar10", "projection3x3", "linear"),
    ],
)
def test_resnets_for_cifar_under_other_names_are_recognised(
    file: str, layout: str, shortcut: str, stem: str, shared: Shared
) -> None:
    checkpoint = read_checkpoint(shared(f"weights/{file}"))
    assert checkpoint.layout.name == layout
    assert checkpoint.guessed == (layout == "unknown names")
    assert checkpoint.architecture.depths == (3, 3, 3)
    assert (checkpoint.architecture.shortcut, checkpoint.architecture.stem) == (shortcut, stem)
    assert checkpoint.left_over.unknown == ()
    if checkpoint.guessed:
        with pytest.warns(GuessWarning, match="guessed from the shapes"):
            load_checkpoint(shared(f"weights/{file}"))


@pytest.mark.parametrize("name", ["resnet20", "resnet14", "resnet18", "resnet26"])
def test_networks_are_recognised_whatever_their_names(name: str, tmp_path: Path) -> None:
    network = build(name, width=8, num_classes=10).eval()
    torch.save(renamed(network.state_dict()), tmp_path / "odd.pth")
    with pytest.warns(GuessWarning, match=r"odd\.pth.*--verify"):
        loaded = load_checkpoint(tmp_path / "odd.pth")
    assert loaded.architecture == network.architecture
    expected = network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def test_the_order_in_which_a_block_was_written_does_not_matter() -> None:
    """Some make all convolutions of a block first, some the shortcut."""
    network = build("resnet18", width=8, num_classes=3)
    state = network.state_dict()

    def place(name: str, first: tuple[str, ...]) -> tuple[str, int]:
        block = ".".join(name.split(".")[:2]) if name.startswith("layer") else name
        return block, next((i for i, word in enumerate(first) if word in name), len(first))

    blocks = list(dict.fromkeys(place(name, ())[0] for name in state))
    for first in (("downsample",), ("conv",)):
        names = sorted(state, key=lambda n: (blocks.index(place(n, first)[0]), place(n, first)[1]))
        checkpoint = _understand(renamed({name: state[name] for name in names}))
        assert checkpoint.guessed
        assert all(torch.equal(value, state[name]) for name, value in checkpoint.weights.items())


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_shuffled_or_sorted_layers_are_refused(name: str) -> None:
    state = renamed(build(name, width=8, num_classes=3).state_dict())
    names = list(state)
    for order in (sorted(names), random.Random(1).sample(names, len(names)), names[::-1]):
        with pytest.raises(ContentError, match="names"):
            _understand({each: state[each] for each in order})


def test_a_tensor_too_many_or_too_few_is_refused() -> None:
    state = renamed(build("resnet20", num_classes=10).state_dict())
    names = list(state)
    for dropped in (0, 1, 7, len(names) - 1):
        with pytest.raises(ContentError, match="names"):
            _understand({each: state[each] for each in names if each != names[dropped]})
    with pytest.raises(ContentError, match="names"):
        _understand({**state, "zz": torch.ones(7)})
    with pytest.raises(ContentError, match="names"):
        _understand({"zz": torch.ones(1), **state})


def test_names_that_group_a_block_tell_what_shapes_do_not() -> None:
    """Without projections, activation before and after the sum have the same shapes in order."""
    network = build("preact_resnet110", depths=(2, 2, 2), num_classes=10)
    words = {"layer": "group", "conv": "c", "bn": "n", "fc": "out"}
    state = {}
    for name, value in network.state_dict().items():
        for old, new in words.items():
            name = name.replace(old, new)
        state[name] = value
    assert _understand(state).architecture.block == "preact_residual"


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    network = build("resnet14", width=4)
    for kind in (torch.float16, torch.bfloat16):
        state = {name: value.to(kind) for name, value in network.state_dict().items()}
        torch.save(state, tmp_path / "half.pth")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = load_checkpoint(tmp_path / "half.pth")
        assert {value.dtype for value in loaded.parameters()} == {torch.float32}
        torch.testing.assert_close(loaded.fc.weight, state["fc.weight"].float())
