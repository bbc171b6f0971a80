"""Other people's checkpoints; the witnesses are the logits that their own code computes."""

import argparse
import gzip
import importlib.util
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from resnets.errors import ContentError, UsageError
from resnets.networks import CATALOG, build
from resnets.networks.catalog import name_of
from resnets.networks.checkpoints.conversion import _PROJECTS, _check_convertible, convert
from resnets.networks.checkpoints.foreign import (
    _best_prefix,
    _understand,
    load_checkpoint,
    read_checkpoint,
)
from resnets.networks.checkpoints.layouts import _KUANGLIU, _MMPRETRAIN, _WEIAICUNZAI, Layout
from resnets.networks.checkpoints.left_over import LeftOver
from tests.spread import spread

Shared = Callable[[str], Path]
PARITY = [
    ("huggingface-resnet18", "resnet18"),
    ("huggingface-resnet50", "resnet50"),
    ("timm-resnet26", "resnet26"),
    ("timm-resnet50d", "resnet50d"),
    ("timm-resnetv2_50", "resnetv2_50"),
    ("timm-seresnet50", "seresnet50"),
    ("torchvision-resnet18", "resnet18"),
    ("torchvision-resnet50", "resnet50"),
    ("torchvision-resnext50_32x4d", "resnext50_32x4d"),
    ("torchvision-wide_resnet50_2", "wide_resnet50_2"),
]


def filling(path: Path) -> ModuleType:
    """The script that makes weights from names, beside the parity vectors."""
    spec = importlib.util.spec_from_file_location("fill", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_state(**changes: Any) -> dict[str, Tensor]:
    return build("resnet18", width=8, num_classes=3, **changes).state_dict()


@pytest.mark.parametrize(("vectors", "name"), spread(PARITY, every=3))
def test_logits_agree_with_the_project_that_the_weights_come_from(
    vectors: str, name: str, shared: Shared
) -> None:
    facts = json.loads(gzip.decompress(shared(f"parity/{vectors}.json.gz").read_bytes()))
    fill = filling(shared("parity/fill.py"))
    state = {
        key: torch.from_numpy(fill.weights(key, tuple(shape)))
        for key, shape in facts["state"].items()
    }
    checkpoint = _understand(state)
    assert checkpoint.name == name
    assert checkpoint.missing == ()
    assert checkpoint.left_over == LeftOver()
    images = torch.from_numpy(fill.images(tuple(facts["input"])))
    with torch.inference_mode():
        network = checkpoint.build()
        features = network.forward_features(images)
        logits = network.forward_head(features)
        assert features.shape[1] == network.num_features
        assert torch.equal(network.get_classifier()(network.forward_head(features, True)), logits)
        exact = checkpoint.build().double()(images.double())
    rounding = ((logits - exact).norm() / exact.norm()).item()
    tolerance = max(1e-5, 10 * rounding)  # seresnet50 with such weights multiplies rounding to 1 %
    assert rounding < 0.02
    expected = np.array(facts["logits"])
    error = np.linalg.norm(logits[:, :16].numpy() - expected) / np.linalg.norm(expected)
    assert error < tolerance
    assert logits.norm().item() == pytest.approx(facts["logit_norm"], rel=tolerance)


def test_a_real_foreign_checkpoint_is_recognised(shared: Shared) -> None:
    checkpoint = read_checkpoint(shared("weights/akamaster_resnet20.th"))
    assert checkpoint.layout.name == "akamaster/pytorch_resnet_cifar10"
    assert checkpoint.prefix == "state_dict.module."
    assert checkpoint.name == "resnet20"
    assert checkpoint.has_head


def translated(state: Mapping[str, Tensor], layout: Layout, prefix: str = "") -> dict[str, Tensor]:
    """The same weights by another project's names."""
    their_weights = {}
    for name, value in state.items():
        theirs = layout.theirs(name)
        assert theirs is not None, name
        their_weights[prefix + theirs] = value
    return their_weights


def without_small_stem(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The projects for CIFAR call their stem conv1 and bn1."""
    stems = {"conv.": "conv1.", "bn.": "bn1."}
    return {
        next(
            (new + name[len(old) :] for old, new in stems.items() if name.startswith(old)), name
        ): v
        for name, v in state.items()
    }


@pytest.mark.parametrize("layout", [_KUANGLIU, _WEIAICUNZAI], ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_cifar_collections_are_recognised(layout: Layout, name: str) -> None:
    network = build(name, stem="cifar", num_classes=10, width=16).eval()
    checkpoint = _understand(translated(without_small_stem(network.state_dict()), layout))
    assert checkpoint.layout is layout
    assert checkpoint.architecture == network.architecture
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(checkpoint.build()(images), network(images))


def test_mmpretrain_is_recognised_by_where_its_classifier_is() -> None:
    state = small_state()
    renamed = {
        f"head.{name}" if name.startswith("fc.") else f"backbone.{name}": value
        for name, value in state.items()
    }
    checkpoint = _understand({f"state_dict.{name}": value for name, value in renamed.items()})
    assert checkpoint.layout is _MMPRETRAIN
    assert checkpoint.has_head
    assert checkpoint.left_over == LeftOver()


def test_mmpretrains_deep_stem_and_unpooled_first_shortcut_are_read() -> None:
    network = build("resnet26d", width=8, num_classes=3).eval()
    state = translated(network.state_dict(), _MMPRETRAIN)
    first = "layer1.0.downsample."
    shifted = {
        f"{first}{int(name[len(first)]) - 1}{name[len(first) + 1 :]}"
        if name.startswith(first)
        else name: value
        for name, value in state.items()
    }
    checkpoint = _understand(shifted)
    assert checkpoint.layout is _MMPRETRAIN
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(checkpoint.build()(images), network(images))


@pytest.mark.parametrize("wrapper", ["", "state_dict.", "model.", "model_ema.", "teacher."])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "backbone.", "net.model."]
)
def test_wrappers_and_prefixes_do_not_matter(wrapper: str, prefix: str) -> None:
    state = small_state()
    wrapped = {f"{wrapper}{prefix}{name}": value for name, value in state.items()}
    checkpoint = _understand(wrapped | {"optimizer.state.0.momentum_buffer": torch.zeros(3)})
    assert checkpoint.prefix == wrapper + prefix
    assert checkpoint.left_over == LeftOver(training=("optimizer.state.0.momentum_buffer",))
    rebuilt = checkpoint.build().state_dict()
    assert all(torch.equal(rebuilt[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model_ema", "model"),
        ("teacher", "student"),
        ("module.encoder_q", "module.encoder_k"),
        ("state_dict", "optimizer"),
    ],
)
def test_of_two_networks_the_one_that_people_mean_is_taken(one: str, other: str) -> None:
    names = [f"{part}.layer1.0.conv1.weight" for part in (other, one)]
    assert _best_prefix(dict.fromkeys(names)) == f"{one}."


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt"])
@pytest.mark.parametrize("packing", ["plain", "gzip", "zip"])
def test_every_format_and_packing_is_read(tmp_path: Path, ending: str, packing: str) -> None:
    state = {name: value.clone() for name, value in small_state().items()}
    path = tmp_path / f"network{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    else:
        lightning = {"state_dict": state, "epoch": 3, "args": argparse.Namespace(rate=0.1)}
        torch.save(lightning, path, _use_new_zipfile_serialization=ending != ".th")
    if packing == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif packing == "zip":
        content = path.read_bytes()
        path = tmp_path / "packed.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("README.txt", "weights")
            archive.writestr(f"folder/network{ending}", content)
    assert read_checkpoint(path).architecture.num_classes == 3


@pytest.mark.parametrize("every", spread([5, 1]))
@pytest.mark.parametrize("project", _PROJECTS)
def test_what_is_converted_reads_back_the_same(project: str, every: int) -> None:
    def convertible(name: str) -> bool:
        try:
            _check_convertible(CATALOG[name].architecture, project)
        except UsageError:
            return False
        return CATALOG[name].architecture.depth <= 50

    names = [name for name in CATALOG if convertible(name)]
    assert len(names) >= 4
    narrow = {} if project == "torchvision" else {"width": 32}  # torchvision has one width
    for name in names[::every]:
        network = build(name, num_classes=5, **narrow).eval()
        known = {k: getattr(network.architecture, k) for k in ("strided_conv", "blur")}
        checkpoint = _understand(convert(network, project), **known)
        assert checkpoint.architecture == network.architecture
        rebuilt = checkpoint.build().state_dict()
        assert all(torch.equal(rebuilt[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize(
    ("project", "name", "field"),
    [
        ("torchvision", "resnet50_v1", "strided_conv"),
        ("huggingface", "seresnet50", "attention"),
        ("huggingface", "resnext50_32x4d", "groups"),
    ],
)
def test_what_a_project_cannot_hold_is_refused_by_name(project: str, name: str, field: str) -> None:
    with pytest.raises(UsageError, match=f"{project} has no such network: {field} is .*resnets"):
        _check_convertible(CATALOG[name].architecture, project)


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet110"])  # of two stems
@pytest.mark.parametrize("project", _PROJECTS)
def test_a_network_for_small_images_is_refused_as_one(project: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"{project} .*small images.*resnets.*resnet18"):
        _check_convertible(CATALOG[name].architecture, project)


def test_a_missing_head_is_said_and_a_fresh_one_made_on_request(tmp_path: Path) -> None:
    state = {name: value for name, value in small_state().items() if not name.startswith("fc.")}
    path = tmp_path / "backbone.pth"
    torch.save(state, path)
    assert not read_checkpoint(path).has_head
    with pytest.raises(ContentError, match=r"backbone\.pth: no classifier .* num_classes"):
        load_checkpoint(path)
    network = load_checkpoint(path, num_classes=12)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 12)


def test_a_missing_weight_is_named() -> None:
    state = small_state()
    del state["layer3.1.bn2.weight"]
    checkpoint = _understand(state)
    assert checkpoint.missing == ("layer3.1.bn2.weight",)
    with pytest.raises(ContentError, match=r"layer3\.1\.bn2\.weight"):
        checkpoint.build()


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    with path.open("wb") as file:
        torch.save({"state_dict": Malicious(marker)}, file, pickle_protocol=protocol)
    with pytest.raises(ContentError, match=r"evil\.pth"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(ContentError, match=r"evil\.pth"):
        load_checkpoint(path)
    assert not marker.exists()


def saved(network: torch.nn.Module) -> bytes:
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    return stream.getvalue()


SAVED = saved(build("resnet14", width=4))


@given(cut=st.none() | st.integers(0, len(SAVED) - 1), flipped=st.integers(0, 2000))
@settings(max_examples=30)
def test_damaged_files_are_refused_in_words(
    cut: int | None, flipped: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(SAVED)
    content[flipped] ^= 0xFF
    path = tmp_path_factory.mktemp("damaged") / "file.pth"
    path.write_bytes(content if cut is None else SAVED[:cut])
    try:
        read_checkpoint(path)
    except ContentError as error:
        message = str(error)
    else:
        message = "file.pth: understood all the same"
    assert "file.pth" in message


_RECOGNISED = [
    name
    for name, row in CATALOG.items()
    if row.architecture.shortcut != "none" and row.architecture.depth <= 110
]


@pytest.mark.parametrize("name", spread(_RECOGNISED))
def test_every_row_is_recognised_by_shape_where_shapes_tell(name: str) -> None:
    """Filters, plain networks, the place of a stride and the like have no weights of their own."""
    unseen = {"blur", "strided_conv", "activated_start", "weight_standardisation"}
    row = CATALOG[name]
    with torch.device("meta"):
        state = build(row.architecture).state_dict()
    known = {field: getattr(row.architecture, field) for field in unseen}
    known |= {"stem": "padded"} if row.architecture.stem == "padded" else {}
    architecture = _understand(state, **known).architecture
    assert architecture.to_dict() == row.architecture.to_dict() | {"dropout": 0.0}
    assert name_of(architecture) == name
