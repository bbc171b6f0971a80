"""Whether the host waits for the GPU while it makes a batch: torch's meta device stands for one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from resnets.data.augmentation import policies
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import ProcessRank, TrainingBatches
from resnets.images import Preprocessing, placement
from tests.training.ramps import ramps
from tests.training.without_float64 import WithoutFloat64

SEEN = Preprocessing(size=8, resize=8, mean=(0.5,) * 3, std=(0.25,) * 3)
META = torch.device("meta")
ANSWERS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique")


class Waits(TorchDispatchMode):
    """Notes what a GPU would make the host wait for: copies in turn, and answers for the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.copies = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, options = str(func), kwargs or {}
        to_device = "_to_copy" in name and options.get("device") == META
        self.copies += to_device
        if to_device and not options.get("non_blocking"):
            self.found.append(name)
        if any(answer in name for answer in ANSWERS):
            self.found.append(name)
        return func(*args, **options)


AUGMENTATIONS = {
    "crop and flip": Augmentation(flip="alternating", crop_padding=2, padding_mode="reflect"),
    "flip": Augmentation(flip="random"),
    "randaugment": Augmentation(policy="randaugment", smallest_crop=0.2),
    "trivialaugment": Augmentation(policy="trivialaugment", policy_interpolation="bilinear"),
    "all": Augmentation(mixup=0.2, cutmix=1.0, erase=0.5, cutout=2),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_host_does_not_wait_while_it_makes_a_batch(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(placement, "_BEHIND", ("meta",))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    made = TrainingBatches(ramps(32), SEEN, AUGMENTATIONS[name], batch_size=32, device=META)
    with Waits() as waits:
        batch = next(made.epoch(0))
    assert batch.images.device == META
    assert not waits.found
    assert waits.copies


def test_a_copy_that_waits_is_noticed() -> None:
    """As before: without page-locked memory each copy waits."""
    made = TrainingBatches(ramps(32), SEEN, AUGMENTATIONS["all"], batch_size=32, device=META)
    with Waits() as waits:
        next(made.epoch(0))
    assert len(waits.found) == waits.copies > 5


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_nothing_of_a_batch_is_in_float64_on_the_device(name: str) -> None:
    """Apple's GPUs have none: the meta device stands for one."""
    with WithoutFloat64(META) as device:
        made = TrainingBatches(ramps(32), SEEN, AUGMENTATIONS[name], batch_size=32, device=META)
        batch = next(made.epoch(0, size=6))
    assert (batch.images.device, batch.images.dtype) == (META, torch.float32)
    assert device.results


def test_values_are_counted_alike_with_and_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.tensor([3, 1, 3, 511, 0])
    plain = policies._occurrences(numbers, 512)
    monkeypatch.setattr(torch, "bincount", None)
    on_gpu = policies._occurrences(numbers.to(META), 512)
    assert on_gpu.shape == plain.shape
    zeros = torch.zeros(512, dtype=torch.int64)
    assert torch.equal(plain, zeros.index_add_(0, numbers, torch.ones_like(numbers)))


def test_workers_share_the_cores_of_their_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnets.data.processes.cores", lambda: 64)
    assert ProcessRank(0, 128, on_machine=8).workers(None) == 8
    assert ProcessRank(0, 8).workers(None) == 8
    assert ProcessRank(0, 128, on_machine=8).workers(3) == 3


class Streams:
    """Notes what is asked of two streams, which stand for those of a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[str] = []
        self.computing, self.copying = self.stream("computing"), self.stream("copying")
        monkeypatch.setattr(placement, "_BEHIND", ("meta",))
        monkeypatch.setattr(placement, "_copying_stream", lambda _: self.copying)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: self.computing)
        monkeypatch.setattr(torch.cuda, "stream", self.within)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self.note("pinned", tensor))
        monkeypatch.setattr(torch.Tensor, "record_stream", self.kept)

    def note(self, text: str, tensor: Tensor) -> Tensor:
        self.order.append(text)
        return tensor

    def stream(self, name: str) -> SimpleNamespace:
        def wait_stream(other: SimpleNamespace) -> None:
            self.order.append(f"{name} waits for {other.name}")

        return SimpleNamespace(name=name, wait_stream=wait_stream)

    @contextmanager
    def within(self, stream: SimpleNamespace) -> Iterator[None]:
        self.order.append(f"on {stream.name}")
        yield
        self.order.append(f"off {stream.name}")

    @property
    def kept(self) -> Callable[[Tensor, SimpleNamespace], Tensor]:
        return lambda tensor, stream: self.note(f"{tensor.device} kept for {stream.name}", tensor)


def test_a_batch_is_copied_beside_the_computation_which_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = Streams(monkeypatch)
    with Waits() as waits:
        copy = placement.copied_beside(torch.zeros(2, 3, dtype=torch.uint8), META)
    assert (copy.device, copy.shape, waits.found) == (META, (2, 3), [])
    assert streams.order == [
        *("on copying", "pinned", "off copying"),
        *("computing waits for copying", "meta kept for computing"),
    ]


def test_batches_that_are_read_anew_are_copied_so(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    settings = {"batch_size": 16, "device": META, "memory_limit": 0, "workers": 0}
    made = TrainingBatches(ramps(32), SEEN, Augmentation(), **settings)
    steps = len([*made.epoch(0)])
    assert steps == streams.order.count("computing waits for copying") == 2


def test_on_a_cpu_there_is_nothing_to_copy() -> None:
    values = torch.arange(3)
    assert placement.copied_beside(values, torch.device("cpu")) is values
