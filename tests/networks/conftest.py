from dataclasses import replace
from typing import Any

import pytest

from resnets.networks.architecture import Architecture
from resnets.networks.catalog import CATALOG


def shrunk(architecture: Architecture) -> Architecture:
    """The same kind of network, small enough to run in milliseconds."""
    return replace(
        architecture,
        depths=(2, *(1 for _ in architecture.depths[1:])),
        width=16,
        stem_width=None if architecture.stem_width is None else 24,
        num_classes=7,
    )


SMALL = Architecture("residual", (2, 1, 1), width=8, stem="cifar", num_classes=7)
LARGE = Architecture("bottleneck", (2, 1, 1, 1), width=8, num_classes=7)
UNNAMED = (  # choices that no row of the catalog makes
    replace(SMALL, norm="group", shortcut="projection_everywhere"),
    replace(SMALL, attention="eca", norm="frozen", output_stride=2),
    replace(SMALL, block="preact_residual", blur=True, stochastic_depth=0.5),
    replace(SMALL, block="preact_bottleneck", attention="se", shortcut="none", dropout=0.5),
    replace(LARGE, stochastic_depth=0.5, output_stride=8, dropout=0.5),
    replace(LARGE, block="residual", output_stride=16, shortcut="pooled", blur=True),
    replace(LARGE, strided_conv=1, output_stride=8, shortcut="projection3x3"),
    replace(LARGE, block="preact_bottleneck", stem="deep_strided", blur=True, norm="group"),
    replace(LARGE, zero_init=True, in_channels=1),
    replace(LARGE, block="preact_residual", stem="tiered", zero_init=True, in_channels=4),
)
KINDS = tuple(dict.fromkeys([*(shrunk(row.architecture) for row in CATALOG.values()), *UNNAMED]))


def kind_id(architecture: Architecture) -> str:
    usual = Architecture(architecture.block, architecture.depths).to_dict()
    fields = architecture.to_dict().items()
    unusual = [str(value) for key, value in fields if value != usual.get(key)]
    return "-".join([architecture.block, *unusual])


def _choices(architecture: Architecture) -> set[tuple[str, object]]:
    """What is built into the graph: each choice by its value, or whether it was made."""
    fields = architecture.to_dict()
    chosen = {(name, value) for name, value in fields.items() if isinstance(value, str | bool)}
    numbers = {"groups": 1, "base_width": 64, "dropout": 0, "stochastic_depth": 0}
    chosen |= {(name, fields[name] != usual) for name, usual in numbers.items()}
    chosen |= {(name, fields[name]) for name in ("output_stride", "strided_conv")}
    return chosen | {("stem_width", architecture.stem_width is not None)}


def _few() -> tuple[Architecture, ...]:
    few: list[Architecture] = []
    missing = set[tuple[str, object]]().union(*map(_choices, KINDS))
    while missing:
        few.append(max(KINDS, key=lambda kind: len(_choices(kind) & missing)))
        missing -= _choices(few[-1])
    return tuple(few)


FEW = _few()  # for tests that take seconds: each choice is made by one of them at least


def _for_test_or_soak(kind: Architecture) -> Any:
    return kind if kind in FEW else pytest.param(kind, marks=pytest.mark.soak)


@pytest.fixture(params=map(_for_test_or_soak, KINDS), ids=kind_id)
def kind(request: pytest.FixtureRequest) -> Architecture:
    """Every kind of network in the catalog, and some that have no name, shrunk."""
    return request.param


@pytest.fixture
def kinds() -> tuple[Architecture, ...]:
    """All of them, except those that differ only in how they are initialised."""
    return tuple(kind for kind in KINDS if not kind.zero_init)


@pytest.fixture
def side(kind: Architecture) -> int:
    """Height and width, in pixels, of the smallest images that `kind` takes, doubled."""
    return 2 * kind.stem_stride * 2 ** (len(kind.depths) - 1)
