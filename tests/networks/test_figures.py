"""The papers' figures against what is built.

He 2015 is arXiv:1512.03385, He 2016 arXiv:1603.05027, Zagoruyko 2016 arXiv:1605.07146, Xie 2017
arXiv:1611.05431, Hu 2018 arXiv:1709.01507, He 2019 arXiv:1812.01187.
"""

from functools import cache

import pytest
import torch
from torch import nn

from resnets.networks import CATALOG, build
from resnets.networks.profile import Profile, profile
from tests.spread import spread

HUGE = ("resnet1202", "preact_resnet1001")


@cache
def measured(name: str) -> Profile:
    entry = CATALOG[name]
    return profile(entry.architecture, entry.size)


def parameters(name: str) -> int:
    """Of a network without storage, which is not run."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(name).parameters())


def close(value: float, printed: str) -> bool:
    """Whether ``value``, rounded or cut to as many digits as were printed, is what was printed.

    He et al. 2015 cut (3.86 is 3.8 in its table 1), others round.
    """
    decimals = len(printed.partition(".")[2])
    unit = 10**-decimals
    return -unit / 2 <= value - float(printed) < unit


# name, layers, parameters in millions, multiply-adds in billions, source
PAPERS = [
    ("resnet20", 20, "0.27", None, "He 2015, table 6"),
    ("resnet32", 32, "0.46", None, "He 2015, table 6"),
    ("resnet44", 44, "0.66", None, "He 2015, table 6"),
    ("resnet56", 56, "0.85", None, "He 2015, table 6"),
    ("resnet110", 110, "1.7", None, "He 2015, table 6"),
    ("resnet1202", 1202, "19.4", None, "He 2015, table 6"),
    ("plain20", 20, "0.27", None, "He 2015, section 4.2: as many as with shortcuts of option A"),
    ("plain32", 32, "0.46", None, "He 2015, section 4.2: as many as with shortcuts of option A"),
    ("plain44", 44, "0.66", None, "He 2015, section 4.2: as many as with shortcuts of option A"),
    ("plain56", 56, "0.85", None, "He 2015, section 4.2: as many as with shortcuts of option A"),
    ("resnet18", 18, None, "1.8", "He 2015, table 1"),
    ("resnet34", 34, None, "3.6", "He 2015, table 1"),
    ("resnet50_v1", 50, None, "3.8", "He 2015, table 1"),
    ("resnet101_v1", 101, None, "7.6", "He 2015, table 1"),
    ("resnet152_v1", 152, None, "11.3", "He 2015, table 1"),
    ("preact_resnet110", 110, "1.7", None, "He 2016, table 4"),
    ("preact_resnet164", 164, "1.7", None, "He 2016, table 4"),
    ("preact_resnet1001", 1001, "10.2", None, "He 2016, table 4"),
    ("wide_resnet16_8", 16, "11.0", None, "Zagoruyko 2016"),
    ("wide_resnet28_10", 28, "36.5", None, "Zagoruyko 2016"),
    ("wide_resnet40_10", 40, "55.8", None, "Zagoruyko 2016"),
    ("wide_resnet50_2", 50, "68.9", None, "Zagoruyko 2016, of the ImageNet network"),
    ("resnet50", 50, "25.5", "4.1", "Xie 2017, table 1"),
    ("resnext50_32x4d", 50, "25.0", "4.2", "Xie 2017, table 1"),
    ("seresnet50", 50, "28.1", None, "Hu 2018, table 10"),
    ("resnet50c", 52, "25", "4.3", "He 2019, table 5"),
    ("resnet50d", 52, "25", "4.3", "He 2019, table 5"),
]


def layers(name: str) -> int:
    """Convolutions and fully connected layers with weights, not counting shortcuts and gates."""
    with torch.device("meta"):
        network = build(name)
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear)
        for path, module in network.named_modules()
        if not {"downsample", "se"} & set(path.split("."))
    )


@pytest.mark.parametrize(
    ("name", "depth"),
    [(name, depth) for name, depth, *_ in PAPERS if name not in HUGE],
)
def test_networks_are_as_deep_as_the_papers_say(name: str, depth: int) -> None:
    """Zagoruyko 2016 counts the three projections and not the classifier."""
    wide = name.startswith("wide_resnet") and CATALOG[name].size == 32
    assert layers(name) + (2 if wide else 0) == depth


@pytest.mark.parametrize(
    ("name", "millions"),
    [(name, millions) for name, _, millions, _, _ in PAPERS if millions and name not in HUGE],
)
def test_networks_have_as_many_parameters_as_the_papers_say(name: str, millions: str) -> None:
    assert close(parameters(name) / 1e6, millions)


@pytest.mark.soak
def test_the_deepest_networks_have_as_many_parameters_as_the_papers_say() -> None:
    assert close(parameters("resnet1202") / 1e6, "19.4")
    # 10.2 in He 2016 is 1.2 % below what its published code builds (resnet-pre-act.lua), as here
    assert parameters("preact_resnet1001") == 10_327_706


@pytest.mark.parametrize(
    ("name", "billions"), [(name, billions) for name, _, _, billions, _ in PAPERS if billions]
)
def test_networks_cost_as_many_multiply_adds_as_the_papers_say(name: str, billions: str) -> None:
    assert close(measured(name).multiply_adds / 1e9, billions)


@pytest.mark.parametrize(
    ("reduction", "millions"), [(2, 45.7), (4, 35.7), (8, 30.7), (16, 28.1), (32, 26.9)]
)
def test_squeeze_and_excitation_has_the_parameters_of_its_papers_table_10(
    reduction: int, millions: float
) -> None:
    with torch.device("meta"):
        network = build("seresnet50", reduction=reduction)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    ("name", "number"),
    [  # counted by torchvision, in the documentation of its weights
        ("resnet18", 11689512),
        ("resnet34", 21797672),
        ("resnet50", 25557032),
        ("resnet101", 44549160),
        ("resnet152", 60192808),
        ("resnext50_32x4d", 25028904),
        ("resnext101_32x8d", 88791336),
        ("resnext101_64x4d", 83455272),
        ("wide_resnet50_2", 68883240),
        ("wide_resnet101_2", 126886696),
    ],
)
def test_networks_have_exactly_torchvisions_number_of_parameters(name: str, number: int) -> None:
    assert parameters(name) == number


@pytest.mark.parametrize("name", spread(name for name in CATALOG if name not in HUGE))
def test_what_the_catalog_says_was_published_is_what_is_built(name: str) -> None:
    """Within 2 %: some sources cut, and timm counts a little more than convolutions."""
    entry = CATALOG[name]
    if entry.parameters is not None:
        assert parameters(name) / 1e6 == pytest.approx(entry.parameters, rel=0.02)
    if entry.multiply_adds is not None:
        assert measured(name).multiply_adds / 1e9 == pytest.approx(entry.multiply_adds, rel=0.025)
