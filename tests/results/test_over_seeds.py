import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts can be imported, as they import each other."""
    sys.path.insert(0, str(RESULTS))
    yield
    sys.path.remove(str(RESULTS))


def test_the_interval_is_that_of_a_paired_t_test_on_the_seeds_of_both() -> None:
    from over_seeds import apart

    ours, reference = {2: 75.0, 0: 71.5, 1: 74.0, 9: 1.0}, {0: 70.0, 1: 73.5, 2: 70.5, 5: 2.0}
    shown = [float(number) for number in re.findall(r"[+-]\d+\.\d", apart(ours, reference))]
    tested = ttest_rel([71.5, 74.0, 75.0], [70.0, 73.5, 70.5])
    low, high = tested.confidence_interval(0.95)
    assert shown == pytest.approx([13 / 6, low, high], abs=0.05)


def test_one_seed_has_no_interval_and_none_no_difference() -> None:
    from over_seeds import apart

    assert "(" not in apart({0: 71.5}, {0: 70.0})
    assert "-" not in apart({0: 70.0}, {0: 70.01})  # no zero below zero
    assert not re.search(r"\d", apart({0: 71.5}, {1: 70.0}))


def test_a_way_is_compared_with_transfer_on_the_same_data_alone() -> None:
    from benchmark_tables import transfer

    run = {
        "network": "resnet20",
        "size": 32,
        "per_class": 0,
        "changes": {},
        "seconds": 1.0,
        "validation": [1, 2],
    }
    tests = {("ants", "transfer"): 40, ("ants", "scratch"): 41, ("digits", "transfer"): 90}
    tests[("digits", "scratch")] = 45
    runs = [
        run | {"data": data, "way": way, "seed": seed, "test": [right - seed, 100]}
        for (data, way), right in tests.items()
        for seed in (0, 1)
    ]
    lines = [line for line in transfer({"runs": runs}).splitlines() if "scratch" in line]
    assert "+1.0 points" in lines[0]
    assert "-45.0 points" in lines[1]


def test_other_epochs_are_compared_with_the_first_of_the_same_images() -> None:
    from benchmark_tables import transfer_epochs

    run = {"data": "ants", "network": "resnet20", "size": 32, "changes": {}, "validation": [1, 2]}
    rights = {(10, 34): 50, (10, 20): 47, (30, 12): 60, (30, 20): 62, (10, 1): 45}
    runs = [
        {**run, "per_class": count, "epochs": epochs, "seed": seed, "test": [right - seed, 100]}
        | {"way": "frozen" if epochs == 1 else "transfer"}
        for (count, epochs), right in rights.items()
        for seed in (0, 1)
    ]
    lines = [
        re.split(r" *\| *", line)[4:-1] for line in transfer_epochs({"runs": runs}).split("\n")
    ]
    differences = {tuple(line[:2]): re.findall(r"[+-][\d.]+", line[6])[:1] for line in lines[2:7]}
    assert differences == {
        ("10", "34 epochs"): [],
        ("10", "20 epochs"): ["-3.0"],
        ("10", "frozen"): ["-5.0"],
        ("30", "12 epochs"): [],
        ("30", "20 epochs"): ["+2.0"],
    }


def test_settings_of_transfer_are_multiples_of_the_usual_ones_for_so_many_images() -> None:
    from benchmark_tables import transfer_settings

    def run(count: int, length: int, right: int, **changes: object) -> dict[str, object]:
        row = {"per_class": count, "epochs": length, "learning_rate": 0.01, "changes": changes}
        return row | {"way": "transfer", "seed": 0, "validation": [right, 100], "test": [1, 2]}

    runs = [run(10, 67, 50), run(10, 134, 51, epochs=134), run(10, 33, 48, epochs=33)]
    runs += [run(50, 14, 60), run(50, 28, 64, epochs=28), run(50, 7, 61, epochs=7)]
    runs += [run(50, 14, 59, fit_head_first=False, epochs=14)]
    lines = [
        re.split(r" *\| *", line)[1:-1] for line in transfer_settings({"runs": runs}).split("\n")
    ]
    differences = {
        line[0]: [re.findall(r"[+-][\d.]+", cell) for cell in line[1:]] for line in lines[3:6]
    }
    assert differences == {
        "epochs × 2": [["+1.0"], ["+4.0"]],
        "epochs × 0.5": [["-2.0"], ["+1.0"]],
        "fit_head_first = False": [[], ["-1.0"]],
    }


def test_a_setting_is_compared_with_the_one_before_on_the_same_images_alone() -> None:
    from benchmark_tables import quick_photos

    run = {"full": False, "size": 64, "seed": 0, "loss": 1.0, "cpu_seconds": 9.0}
    rights = {("before", 1500): 50, ("sgd", 1500): 30, ("before", 3000): 60, ("sgd", 3000): 61}
    runs = [
        run | {"setting": setting, "images": images, "measured": [right, 100]}
        for (setting, images), right in rights.items()
    ]
    shown = [line for line in quick_photos({"runs": runs}).splitlines() if "sgd" in line]
    assert ["+1.0" in shown[0], "-20.0" in shown[1]] == [True, True]
