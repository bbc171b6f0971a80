"""What the experiments' table says, against the paper and the catalog."""

import pytest

from resnets.errors import UsageError
from resnets.networks import CATALOG
from resnets.runs.experiments import EXPERIMENTS, experiment, rows
from resnets.training.named_recipes import RECIPES

# He et al. 2015 (arXiv:1512.03385), table 6, test error in percent
TABLE_6 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43}


def test_the_errors_are_those_of_the_papers_table_6() -> None:
    assert {row.layers: row.error for row in EXPERIMENTS["he2015-table6"].rows} == TABLE_6


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_is_a_network_with_so_many_layers_and_a_recipe(name: str) -> None:
    paper = experiment(name)
    assert paper.recipe in RECIPES
    for row in paper.rows:
        assert CATALOG[row.network].architecture.depth == row.layers
    assert {row.layers for row in rows(paper, None)} == set(paper.chosen)


def test_a_plain_network_is_the_residual_one_of_its_row_without_shortcuts() -> None:
    by_layers: dict[int, set[str]] = {}
    for row in EXPERIMENTS["he2015-figure6"].rows:
        by_layers.setdefault(row.layers, set()).add(row.network)
    for layers, networks in by_layers.items():
        assert networks == {f"plain{layers}", f"resnet{layers}"}
        plain, residual = (CATALOG[f"{kind}{layers}"].architecture for kind in ("plain", "resnet"))
        assert plain.shortcut == "none"
        assert {**plain.to_dict(), "shortcut": "padding"} == residual.to_dict()


def test_rows_are_chosen_by_their_layers_whatever_the_order() -> None:
    table = EXPERIMENTS["he2015-table6"]
    assert [row.layers for row in rows(table, "110, 20")] == [20, 110]


@pytest.mark.parametrize("asked", ["21", "20,", "", "twenty", "20;32", "-20"])
def test_a_row_that_there_is_not_is_wrong_usage(asked: str) -> None:
    with pytest.raises(UsageError, match="there are 20, 32, 44, 56, 110"):
        rows(EXPERIMENTS["he2015-table6"], asked)


def test_an_unknown_experiment_names_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="he2015-table6, he2015-figure6"):
        experiment("he2016-table4")
