import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resnets.data.augmentation.draws import Draws, _scramble, balanced_order, epoch_order

seeds = st.integers(0, 2**63)


def splitmix64(state: int, steps: int) -> list[int]:
    """The generator as its authors print it, one number after another."""
    mask, numbers = 2**64 - 1, []
    for _ in range(steps):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


def test_scrambled_counters_are_the_numbers_of_splitmix64() -> None:
    # The first three from state 0 are published in many ports, such as Java's SplittableRandom.
    assert splitmix64(0, 3) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert _scramble(np.arange(1, 101, dtype=np.uint64)).tolist() == splitmix64(0, 100)


def test_numbers_are_uniform_and_independent_of_each_other() -> None:
    uniform = Draws(0, 0, 100_000, np.arange(100_000)).uniform("a", 3)
    other = Draws(0, 0, 100_000, np.arange(100_000)).uniform("b", 1)
    later = Draws(0, 1, 100_000, np.arange(100_000)).uniform("a", 1)
    columns = np.concatenate([uniform, other, later], axis=1)
    assert 0 <= columns.min() < columns.max() < 1
    for column in columns.T:
        assert stats.kstest(column, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 0.015  # of one image and the next
    assert abs(np.corrcoef(columns.T) - np.eye(5)).max() < 0.015


@given(seeds, st.integers(0, 1000), st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
def test_a_sample_has_its_numbers_in_any_company(seed: int, epoch: int, samples: list[int]) -> None:
    draws = Draws(seed, epoch, 1000, np.array(samples))
    together = draws.uniform("crop", 5)
    alone = [Draws(seed, epoch, 1000, np.array([s])).uniform("crop", 5)[0] for s in samples]
    assert (together == np.stack(alone)).all()
    assert (draws.uniform("crop", 2) == together[:, :2]).all()
    assert (draws.part(1, 3).uniform("crop", 5) == together[1:3]).all()


def test_more_columns_than_a_sample_has_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        Draws(0, 0, 3, np.arange(3)).uniform("crop", 65)


@given(st.integers(1, 300), seeds, st.integers(0, 1000))
def test_an_epoch_has_every_image_once(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    assert sorted(order) == list(range(count))
    assert (order == epoch_order(count, seed, epoch)).all()


def test_orders_differ_by_epoch_and_seed() -> None:
    orders = [epoch_order(1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), seeds, st.integers(0, 99))
def test_a_balanced_epoch_has_every_class_equally_often(
    labels: list[int], seed: int, epoch: int
) -> None:
    count, classes = len(labels), set(labels)
    samples = balanced_order(np.array(labels), seed, epoch)
    assert len(samples) == count
    assert len(set(samples)) == count  # a repeated image is another sample, with other draws
    sizes = [sum(labels[s % count] == label for s in samples) for label in classes]
    assert max(sizes) - min(sizes) <= 1
    for label in classes:  # no image is used again before the others of its class
        members = [i for i in range(count) if labels[i] == label]
        uses = [sum(s % count == i for s in samples) for i in members]
        assert max(uses) - min(uses) <= 1


def test_a_large_class_is_seen_whole_over_balanced_epochs() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    seen = {s % 100 for epoch in range(20) for s in balanced_order(labels, 0, epoch)}
    assert seen == set(range(100))


def test_alternating_flips_turn_every_image_in_every_epoch() -> None:
    flips = [Draws(0, epoch, 1000, np.arange(1000)).flips() for epoch in range(4)]
    assert 430 < flips[0].sum() < 570
    assert (flips[1] == ~flips[0]).all()
    assert (flips[2] == flips[0]).all()
    again = Draws(0, 0, 1000, np.arange(1000) + 1000).flips()  # the second use in an epoch
    assert (again == ~flips[0]).all()
