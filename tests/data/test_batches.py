import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.augmentation.draws import epoch_order
from resnets.data.batches import (
    Batch,
    EvaluationBatches,
    ProcessRank,
    TrainingBatches,
    evaluation_batches,
)
from resnets.data.labelled import LabelledImages
from resnets.data.storage import FileStorage, PixelStorage
from resnets.errors import UsageError
from resnets.images import Preprocessing

SMALL = Preprocessing(size=8, resize=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
EVERYTHING = Augmentation(
    crop_padding=2,
    padding_mode="reflect",
    flip="alternating",
    policy="trivialaugment",
    erase=0.5,
    cutout=3,
    mixup=0.2,
    cutmix=1.0,
)
RESIZED_CROP = Augmentation(smallest_crop=0.2, flip="random")


def labelled(count: int, classes: int = 4, side: int = 8) -> LabelledImages:
    random = np.random.default_rng(count)
    pixels = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    names = [f"class {k}" for k in range(classes)]
    return LabelledImages(PixelStorage(pixels, "random"), np.arange(count) % classes, names)


def training(images: LabelledImages, augmentation: Augmentation, **rest: object) -> TrainingBatches:
    rest = {"batch_size": 8, "workers": 0} | rest
    return TrainingBatches(images, SMALL, augmentation, **rest)  # type: ignore[arg-type]


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    """The same batches, bit for bit."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


augmentations = st.sampled_from([Augmentation(), EVERYTHING, RESIZED_CROP])
cases = settings(max_examples=25)


@cases
@given(
    st.integers(2, 60),
    st.sampled_from([2, 4, 8, 16]),
    augmentations,
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 2**40),
    st.data(),
)
def test_an_epoch_goes_on_from_any_step_as_if_it_had_never_stopped(
    count: int,
    batch_size: int,
    augmentation: Augmentation,
    balanced: bool,
    epoch: int,
    seed: int,
    data: st.DataObject,
) -> None:
    batches = training(
        labelled(count), augmentation, batch_size=batch_size, balanced=balanced, seed=seed
    )
    step = data.draw(st.integers(0, batches.steps_per_epoch))
    whole = list(batches.epoch(epoch))
    assert len(whole) == batches.steps_per_epoch
    assert_equal(list(batches.epoch(epoch, first_step=step)), whole[step:])


@cases
@given(
    st.integers(8, 60),
    st.sampled_from([1, 2, 3, 4, 5]),
    st.sampled_from([1, 2, 4]),
    augmentations,
    st.booleans(),
    st.integers(0, 9),
)
def test_several_processes_share_out_the_batches_of_one(
    count: int,
    world_size: int,
    repeats: int,
    augmentation: Augmentation,
    balanced: bool,
    epoch: int,
) -> None:
    images, rest = labelled(count), {"repeats": repeats, "balanced": balanced, "seed": 7}
    alone = list(training(images, augmentation, **rest).epoch(epoch))
    parts = [
        list(
            training(images, augmentation, process=ProcessRank(rank, world_size), **rest).epoch(
                epoch
            )
        )
        for rank in range(world_size)
    ]
    together = [
        Batch(*(torch.cat(tensors) for tensors in zip(*same_step, strict=True)))
        for same_step in zip(*parts, strict=True)
    ]
    assert_equal(together, alone)


@cases
@given(st.integers(8, 60), st.sampled_from([1, 2, 3, 8]), st.integers(0, 9))
def test_the_digest_of_an_order_is_of_the_images_that_all_processes_use(
    count: int, world_size: int, epoch: int
) -> None:
    images = labelled(count)
    ranks = [
        training(images, Augmentation(), process=ProcessRank(rank, world_size))
        for rank in range(world_size)
    ]
    steps = zip(*(rank.epoch(epoch) for rank in ranks), strict=True)
    used = np.array([index for step in steps for batch in step for index in batch.indices.tolist()])
    digest = hashlib.sha256(used.astype("<i8").tobytes()).hexdigest()
    assert len({*used.tolist()}) == len(used) == count // 8 * 8
    assert {rank.order_digest(epoch) for rank in ranks} == {digest[:16]}


@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
def test_a_set_in_memory_and_the_same_set_streamed_give_the_same(
    augmentation: Augmentation,
) -> None:
    held = training(labelled(30), augmentation)
    streamed = training(labelled(30), augmentation, memory_limit=0)
    assert held.in_memory
    assert not streamed.in_memory
    assert_equal(list(streamed.epoch(4)), list(held.epoch(4)))


def test_a_resized_crop_in_memory_is_the_streamed_one_but_for_rounding() -> None:
    held = training(labelled(30, side=20), RESIZED_CROP)
    streamed = training(labelled(30, side=20), RESIZED_CROP, memory_limit=0)
    assert held.in_memory
    assert not streamed.in_memory
    for one, other in zip(held.epoch(4), streamed.epoch(4), strict=True):
        assert torch.equal(one.targets, other.targets)
        assert (one.images - other.images).abs().max() < 1.01 / 255 / 0.2


def test_an_epoch_has_every_image_at_most_once_and_another_order_every_time() -> None:
    batches = training(labelled(30), Augmentation())
    epochs = [torch.cat([b.indices for b in batches.epoch(e)]).tolist() for e in range(3)]
    assert all(len(epoch) == len(set(epoch)) == 24 for epoch in epochs)  # 3 batches of 8
    assert len(set(map(tuple, epochs))) == 3
    other_seed = training(labelled(30), Augmentation(), seed=1)
    assert torch.cat([b.indices for b in other_seed.epoch(0)]).tolist() not in epochs


@given(
    count=st.integers(2, 60),
    size=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_images_that_fill_no_batch_come_first_in_the_next_epoch(
    count: int, size: int, seed: int
) -> None:
    batches = training(labelled(count), Augmentation(), batch_size=size, seed=seed, carry_over=True)
    used = batches.steps_per_epoch * batches.batch_size
    orders = [batches.order(epoch) for epoch in range(4)]
    for before, after in pairwise(orders):
        left = before[used:]
        assert sorted(after) == list(range(count))
        assert after[: len(left)].tolist() == left.tolist()
        assert {*before[:used]} | {*after[:used]} == {*range(count)}
    again = training(labelled(count), Augmentation(), batch_size=size, seed=seed, carry_over=True)
    for epoch in (3, 1, 2):  # a resumed run begins anywhere
        assert again.order(epoch).tolist() == orders[epoch].tolist()
    assert orders[0].tolist() == epoch_order(count, seed, 0).tolist()


@given(count=st.integers(2, 60), size=st.integers(1, 40), epoch=st.integers(0, 4))
def test_an_order_goes_on_from_what_a_checkpoint_keeps(count: int, size: int, epoch: int) -> None:
    def batches(batch_size: int = size) -> TrainingBatches:
        return training(labelled(count), Augmentation(), batch_size=batch_size, carry_over=True)

    unbroken, resumed, others = batches(), batches(), batches(size + 1)
    orders = [unbroken.order(number).tolist() for number in range(7)]
    kept = batches().carried(epoch)
    resumed.go_on(kept)
    assert [resumed.order(epoch + after).tolist() for after in range(3)] == orders[epoch:][:3]
    others.go_on(kept)  # a batch of another size: its orders are its own
    assert others.order(epoch).tolist() == batches(size + 1).order(epoch).tolist()
    if kept is not None and epoch:
        kept["samples"] = kept["samples"].flip(0)
        resumed.go_on(kept)
        assert resumed.order(epoch)[: len(kept["samples"])].tolist() == kept["samples"].tolist()


@given(
    count=st.integers(4, 90),
    size=st.integers(1, 40),
    epoch=st.integers(0, 5),
    processes=st.integers(1, 3),
    balanced=st.booleans(),
)
def test_even_batches_have_every_image_exactly_once(
    count: int, size: int, epoch: int, processes: int, balanced: bool
) -> None:
    """In an order that is a function of seed and epoch, whatever precedes it, for any processes."""
    rest: dict[str, Any] = {"batch_size": max(size, 2 * processes), "even": True}
    rest |= {"carry_over": True, "balanced": balanced, "seed": 3}
    images, ranks = labelled(count), [ProcessRank(rank, processes) for rank in range(processes)]
    parts = [training(images, Augmentation(), process=rank, **rest) for rank in ranks]
    steps = list(zip(*(part.epoch(epoch) for part in parts), strict=True))
    whole = [torch.cat([batch.indices for batch in step]).tolist() for step in steps]
    sizes = [len(batch) for batch in whole]
    assert sizes == [parts[0].images_of(step) for step in range(len(steps))]
    assert sizes == [parts[-1].images_of(len(steps) * 7 + step) for step in range(len(steps))]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(parts[0].batch_size, 3)
    assert len(sizes) - count / parts[0].batch_size < 1
    order = [index for batch in whole for index in batch]
    assert parts[0].carried(epoch) is None
    if balanced:
        times = np.bincount(images.labels[order])
        assert len(order) == count
        assert np.ptp(times) <= 1
    else:
        assert order == epoch_order(count, 3, epoch).tolist()
        assert sorted(order) == list(range(count))


def test_even_batches_leave_no_process_without_an_image() -> None:
    with pytest.raises(UsageError, match=r"9 training images in 2 batches: 5 processes .* up to 9"):
        training(labelled(9), Augmentation(), batch_size=8, even=True, process=ProcessRank(0, 5))


def test_without_augmentation_batches_are_the_normalised_images_with_their_labels() -> None:
    images = labelled(30)
    for batch in training(images, Augmentation()).epoch(0):
        pixels = np.stack([images.image(int(i)) for i in batch.indices])
        expected = (pixels / 255 - SMALL.mean) / SMALL.std
        np.testing.assert_allclose(batch.images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
        assert batch.targets.tolist() == images.labels[batch.indices.numpy()].tolist()
        assert batch.targets.dtype == batch.indices.dtype == torch.int64
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_mixed_targets_sum_to_one_and_name_both_labels() -> None:
    images = labelled(40)
    for batch in training(images, Augmentation(mixup=1.0)).epoch(0):
        assert batch.targets.shape == (8, 4)
        torch.testing.assert_close(batch.targets.sum(1), torch.ones(8))
        labels = torch.from_numpy(images.labels)[batch.indices]
        for row, target in enumerate(batch.targets):  # before the first comes the last
            both_labels = {int(labels[row]), int(labels[row - 1])}
            assert set(target.nonzero().flatten().tolist()) == both_labels


def test_repeats_show_an_image_several_times_in_a_batch_never_the_same() -> None:
    batches = training(labelled(64), EVERYTHING, batch_size=16, repeats=4)
    assert batches.steps_per_epoch == 4
    seen: list[int] = []
    for batch in batches.epoch(0):
        images, uses = batch.indices.unique(return_counts=True)
        assert uses.tolist() == [4, 4, 4, 4]
        assert len(batch.images.flatten(1).unique(dim=0)) == 16
        seen += images.tolist()
    assert len(set(seen)) == 16  # a quarter of the images


def test_balanced_batches_have_rare_classes_as_often_as_common_ones() -> None:
    images = labelled(400)
    skewed = images.subset(np.flatnonzero((images.labels != 3) | (np.arange(400) % 40 == 3)))
    assert np.bincount(skewed.labels).tolist() == [100, 100, 100, 10]
    plain, balanced = (training(skewed, EVERYTHING, balanced=b) for b in (False, True))
    assert balanced.steps_per_epoch == plain.steps_per_epoch
    indices = torch.cat([batch.indices for batch in balanced.epoch(0)])
    counts = np.bincount(skewed.labels[indices.numpy()])
    assert counts.max() - counts.min() <= 6  # of 310 // 8 * 8 images
    rare = torch.cat([b.images[torch.from_numpy(skewed.labels[b.indices.numpy()] == 3)]
                      for b in balanced.epoch(0)])  # fmt: skip
    assert len(rare.flatten(1).unique(dim=0)) == len(rare)  # each use is augmented anew


def test_global_random_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    one = list(training(labelled(30), EVERYTHING).epoch(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002
    torch.manual_seed(1)
    assert_equal(list(training(labelled(30), EVERYTHING).epoch(0)), one)


def test_progressive_sizes_resize_the_finished_batch() -> None:
    batches = training(labelled(30), Augmentation())
    for small, whole in zip(batches.epoch(0, size=4), batches.epoch(0), strict=True):
        assert small.images.shape == (8, 3, 4, 4)
        assert small.images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(
            small.images.mean((2, 3)), whole.images.mean((2, 3)), atol=0.25, rtol=0
        )
    assert_equal(list(batches.epoch(0, size=8)), list(batches.epoch(0)))


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (30, {"batch_size": 0}, "batch size 0"),
        (30, {"repeats": 0}, "repeats 0"),
        (30, {"batch_size": 10, "process": ProcessRank(0, 41)}, "at least 41, an image for each"),
        (30, {"batch_size": 8, "repeats": 3}, "a multiple of 3"),
        (3, {"process": ProcessRank(0, 4)}, "3 training images: at least 4"),
        (0, {}, "0 training images: at least 1"),
        (30, {"seed": -1}, "seed -1"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(
    count: int, changes: dict, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        training(labelled(count), Augmentation(), **changes)


def test_a_place_outside_its_world_is_refused() -> None:
    for rank, world_size in [(-1, 1), (1, 1), (0, 0)]:
        with pytest.raises(UsageError, match="0 is the first"):
            ProcessRank(rank, world_size)


def test_policies_refuse_channels_they_have_no_colours_for() -> None:
    four = Preprocessing(8, 8, (0.5,) * 4, (0.25,) * 4)
    with pytest.raises(UsageError, match="randaugment needs 1 or 3 channels, not 4"):
        TrainingBatches(labelled(30), four, Augmentation(policy="randaugment"), batch_size=8)


def test_a_batch_larger_than_the_set_is_the_set() -> None:
    batches = training(labelled(30), Augmentation(), batch_size=128, process=ProcessRank(1, 4))
    assert batches.batch_size == 30  # for one process as for four
    assert batches.steps_per_epoch == 1
    assert [len(batch.images) for batch in batches.epoch(0)] == [8]


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images_make_batches_too(channels: int) -> None:
    preprocessing = Preprocessing(8, 8, (0.5,) * channels, (0.25,) * channels)
    augmentation = Augmentation(crop_padding=2, flip="random", mixup=1.0, cutout=2)
    batches = TrainingBatches(labelled(30), preprocessing, augmentation, batch_size=8)
    assert next(batches.epoch(0)).images.shape == (8, channels, 8, 8)


def evaluated(images: LabelledImages, **rest: object) -> EvaluationBatches:
    return evaluation_batches(images, SMALL, **rest)  # type: ignore[arg-type]


@cases
@given(st.integers(0, 40), st.integers(1, 50), st.integers(1, 5))
def test_evaluation_shows_every_image_once_at_any_world_and_batch_size(
    count: int, batch_size: int, world_size: int
) -> None:
    images, seen = labelled(count), []
    for rank in range(world_size):
        batches = evaluated(images, batch_size=batch_size, process=ProcessRank(rank, world_size))
        assert len(list(batches)) == len(batches)
        for batch in batches:
            assert 1 <= len(batch.images) <= batch_size
            assert batch.targets.tolist() == images.labels[batch.indices.numpy()].tolist()
            pixels = np.stack([images.image(int(i)) for i in batch.indices])
            expected = (pixels / 255 - SMALL.mean) / SMALL.std
            np.testing.assert_allclose(
                batch.images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5
            )
            seen += batch.indices.tolist()
    assert sorted(seen) == list(range(count))


def test_evaluation_batches_can_be_gone_over_again() -> None:
    batches = evaluated(labelled(30), batch_size=8)
    assert_equal(list(batches), list(batches))


def test_evaluation_refuses_empty_batches() -> None:
    with pytest.raises(UsageError, match="batch size 0"):
        evaluated(labelled(30), batch_size=0)


def test_resized_crops_of_images_of_several_sizes_are_streamed(tmp_path: Path) -> None:
    for number, side in enumerate([20, 30, 20]):
        random = np.random.default_rng(number).integers(0, 256, (side, 25, 3), dtype=np.uint8)
        Image.fromarray(random).save(tmp_path / f"{number}.png")
    storage = FileStorage(tmp_path, ["0.png", "1.png", "2.png"])
    mixed_sizes = LabelledImages(storage, [0, 1, 0], ["a", "b"])
    batches = training(mixed_sizes, RESIZED_CROP, batch_size=3)
    assert not batches.in_memory
    assert next(batches.epoch(0)).images.shape == (3, 3, 8, 8)
    assert training(mixed_sizes.subset([0, 2]), RESIZED_CROP, batch_size=2).in_memory
    assert training(mixed_sizes, EVERYTHING, batch_size=3).in_memory  # at the network's size


def test_an_augmentation_of_ones_own_gets_raw_batches_and_comes_before_the_recipe_s() -> None:
    images, seen = labelled(20), []

    def darker(pixels: torch.Tensor) -> torch.Tensor:
        seen.append((pixels.dtype, tuple(pixels.shape)))
        return pixels // 2

    dark = images.other(images.labels, images.class_names, images.indices)
    dark.storage = PixelStorage(images.stacked() // 2, str)
    flipped = Augmentation(flip="random", mixup=0.2)
    expected = [*training(dark, flipped).epoch(3)]
    assert_equal([*training(images, flipped, custom=darker).epoch(3)], expected)
    batch = len(expected[0].images) + 1  # and the one before it, to mix with
    assert seen == [(torch.uint8, (batch, 8, 8, 3))] * len(expected)


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        (lambda pixels: pixels / 255, "float32"),
        (lambda pixels: pixels[:, :4], r"\(\d+, 4, 8, 3\)"),
        (lambda _: None, "NoneType"),
    ],
)
def test_an_augmentation_that_returns_something_else_is_refused(custom: Any, words: str) -> None:
    with pytest.raises(UsageError, match=f"{words}.*uint8"):
        next(training(labelled(20), Augmentation(), custom=custom).epoch(0))
