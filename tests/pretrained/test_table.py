"""The table of published networks against the networks that the catalog builds."""

from collections import Counter

import pytest
import torch

from resnets.networks import CATALOG, build
from resnets.pretrained.names import _synsets, class_names
from resnets.pretrained.reference import is_reference, read_reference
from resnets.pretrained.table import chosen, find_recommended, is_non_commercial, published
from tests.spread import spread

NETWORKS = sorted({row.network for row in published()})


@pytest.mark.parametrize("network", spread(NETWORKS))
def test_the_network_of_a_row_has_the_publisher_s_number_of_parameters(network: str) -> None:
    for classes in {row.classes for row in published() if row.network == network}:
        with torch.device("meta"):
            built = build(network, num_classes=classes)
        counted = sum(value.numel() for value in built.parameters())
        rows = [row for row in published() if (row.network, row.classes) == (network, classes)]
        assert {row.parameters for row in rows} == {counted}


def test_every_row_is_complete_and_its_id_can_be_read() -> None:
    assert len(published()) > 150
    assert max(Counter(row.id for row in published()).values()) == 1
    for row in published():
        assert row.network in CATALOG
        assert is_reference(row.id)
        assert read_reference(row.id).row == row
        assert 0 < row.size <= row.resize
        assert row.licence
        assert (row.top1 is None) == (not row.source)
        assert bool(row.url) == bool(row.sha256) == row.id.startswith("torchvision/")
        assert class_names(row.classes)


def test_figures_are_those_of_the_publishers_pages() -> None:
    """docs.pytorch.org/vision/stable/models, and huggingface.co/timm/resnet50.a1_in1k."""
    rows = {row.id: row for row in published()}
    known = rows["torchvision/resnet50.IMAGENET1K_V2"]
    assert (known.top1, known.parameters, known.resize, known.size) == (80.858, 25557032, 232, 224)
    known = rows["timm/resnet50.a1_in1k"]
    assert (known.train_size, known.size, known.interpolation) == (224, 288, "bicubic")
    assert known.top1 == pytest.approx(81.22, abs=0.05)


def test_a_bare_name_stands_for_free_weights_of_imagenet() -> None:
    assert find_recommended("resnet50") is not None
    assert find_recommended("resnet20") is None
    recommended = [row for row in published() if row.recommended]
    assert max(Counter(row.network for row in recommended).values()) == 1
    assert not any(is_non_commercial(row.licence) for row in recommended)
    assert {row.classes for row in recommended} == {1000}
    for row in recommended:  # the most accurate ones
        assert find_recommended(row.network) == row
        alike = (each for each in published() if each.network == row.network)
        free = [each for each in alike if each.classes == 1000 and each.top1]
        best = max(each.top1 or 0 for each in free if not is_non_commercial(each.licence))
        assert row.top1 == best


def test_weights_for_non_commercial_use_are_listed_only_if_asked_for() -> None:
    free, every = chosen(), chosen(licence="any")
    assert not any("nc" in row.licence for row in free)
    assert {row.licence for row in every} > {row.licence for row in free}


def test_class_names_are_those_of_imagenet_s_validation_labels() -> None:
    """Classes 0, 207 and 999 as everybody knows them; 12k's and 21k's lists are sorted ids."""
    names = class_names(1000)
    assert names[0].startswith("tench")
    assert names[207].startswith("golden retriever")
    assert names[999].startswith("toilet tissue")
    for classes in (1000, 11821, 21843):
        assert len(set(class_names(classes))) == len(set(_synsets(classes))) == classes
        assert list(_synsets(classes)) == sorted(_synsets(classes))
