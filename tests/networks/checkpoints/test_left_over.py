"""What else a checkpoint holds: what changes the network's answers is refused, the rest is not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnets.errors import ContentError
from resnets.networks import build, load_checkpoint
from resnets.networks.checkpoints.foreign import _understand, read_checkpoint

Shared = Callable[[str], Path]


def state(**names: torch.Tensor) -> dict[str, torch.Tensor]:
    own = {f"model.{n}": v for n, v in build("resnet14", width=4).state_dict().items()}
    return own | {name.replace("__", "."): value for name, value in names.items()}


@pytest.mark.parametrize(
    ("file", "name", "count"),
    [
        ("apot_res20_4bit.pth.tar", "layer1.0.conv1.act_alpha", 40),  # steps of a quantisation
        ("layerfolding_prefold_resnet20.ckpt", "layer1.0.alpha1.alpha", 18),  # leaky activations
    ],
)
def test_weights_that_change_the_function_and_are_not_understood_are_refused(
    file: str, name: str, count: int, shared: Shared
) -> None:
    path = shared(f"weights/{file}")
    with pytest.raises(ContentError, match=f"{count} weights.*not understood.*{name}.*--ignore"):
        load_checkpoint(path)
    assert load_checkpoint(path, ignore_left_over=True).architecture.num_classes == 10
    left = read_checkpoint(path).left_over
    assert len(left.unknown) == count
    assert not any("momentum" in each for each in left.unknown)


@pytest.mark.parametrize(
    "name",
    [
        "model__layer1__0__conv1__weight_scale",
        "model__layer2__0__bn1__weight_mask",
        "model__layer1__0__prelu__weight",
        "model__normalize__mean",
        "normalizer__std",
    ],
)
def test_scales_masks_activations_and_normalisations_are_refused(name: str) -> None:
    with pytest.raises(ContentError, match=name.replace("__", r"\.")):
        _understand(state(**{name: torch.ones(4)})).build()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("optimizer__state__0__momentum_buffer", "training"),
        ("optim_state__exp_avg", "training"),
        ("lr_scheduler__last", "training"),
        ("best_acc1", "training"),
        ("model__queue", "harmless"),
    ],
)
def test_buffers_counters_and_other_networks_are_not(name: str, kind: str) -> None:
    checkpoint = _understand(state(**{name: torch.ones(4, 3, 3, 3)}))
    assert checkpoint.left_over.unknown == ()
    assert getattr(checkpoint.left_over, kind)
    checkpoint.build()


def test_of_two_networks_in_a_file_the_other_one_does_not_matter() -> None:
    own = state()
    copy = {name.replace("model.", "ema."): value for name, value in own.items()}
    checkpoint = _understand(own | copy)
    assert checkpoint.prefix == "ema."
    assert checkpoint.left_over.unknown == ()
    names = {name for name in own if not name.endswith("num_batches_tracked")}
    assert set(checkpoint.left_over.harmless) == names


def test_heads_of_other_tasks_do_not_matter_where_a_fresh_classifier_is_asked_for() -> None:
    weights = {n: v for n, v in state().items() if not n.startswith("model.fc.")}
    checkpoint = _understand(weights | {"model.fc.0.weight": torch.ones(9, 16)})
    assert checkpoint.left_over.harmless == ("model.fc.0.weight",)
    assert checkpoint.build(num_classes=3).architecture.num_classes == 3


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8])
def test_weights_of_whole_numbers_are_those_of_a_quantised_network(kind: torch.dtype) -> None:
    """They were read as values of up to 127, whatever a step was worth."""
    own = state()
    own["model.layer2.0.conv1.weight"] = own["model.layer2.0.conv1.weight"].to(kind)
    renamed = {name.replace("layer", "part").replace("conv", "c"): own[name] for name in own}
    for weights in (own, renamed):
        with pytest.raises(
            ContentError, match=r"2\.0\.c.*1\.weight holds whole numbers.*quantised"
        ):
            _understand(weights)


def test_a_classifier_without_its_bias_is_not_used_and_listed() -> None:
    """Those of networks that compare directions have none, and compute something else."""
    own = state()
    del own["model.fc.bias"]
    checkpoint = _understand(own)
    assert not checkpoint.has_head
    assert checkpoint.left_over.harmless == ("model.fc.weight",)
