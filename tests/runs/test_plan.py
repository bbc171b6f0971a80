"""The estimates of `plan` against published times; no constant of it comes from MLPerf."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.errors import UsageError
from resnets.runs.plan import Costs, Machines, Training, _usual_batch, costs_of, plan
from tests.in_process import call

RESNET50 = Costs(25_557_032, 4_089_184_256, 85_909_504, 126, norms=53, norm_channels=26_560)


def planned(*words: object) -> dict[str, Any]:
    done = call("plan", "--network", "resnet50", "--json", *words)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def test_a_dgx_a100_trains_as_fast_as_nvidia_measured_on_one_and_on_eight_gpus() -> None:
    """Apart from what the starts of kernels add, which are in the measured figures already."""
    for gpus, rate in (("1xa100", 2470), ("8xa100", 16_621)):
        figures = planned("--images", "1.28m", "--gpus", gpus)
        assert figures["images_per_second"] == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(
    ("nodes", "epochs", "batch_size", "minutes"),
    [(1, 35, 3264, 13.466), (8, 35, 3200, 2.664), (64, 50, 20480, 0.509)],
)
def test_mlperf_took_as_long_within_a_quarter(
    nodes: int, epochs: int, batch_size: int, minutes: float
) -> None:
    """MLPerf Training 3.0: 3.0-2053, 3.0-2071, 3.0-2068; epochs by the logs, batches likewise."""
    words = ("--images", "1281167", "--gpus", "8xh100", "--nodes", nodes, "--epochs", epochs)
    for batch in (("--batch-size", batch_size), ()):
        figures = planned(*words, *batch)
        assert 60 * figures["hours"] == pytest.approx(minutes, rel=0.25)
        assert figures["hours_by_bandwidth"] > figures["hours"]


def test_costs_are_those_of_the_network() -> None:
    assert costs_of("resnet50", 224) == RESNET50


def test_figures_belong_together() -> None:
    words = ("--images", "1,000", "--gpus", "2xh100", "--epochs", "3", "--batch-size", "100")
    figures = planned(*words, "--price", "2.5")
    assert figures["steps"] == 30
    step = figures["computing"] + figures["waiting"] + figures["starting"] + figures["exchanging"]
    assert figures["hours"] == pytest.approx(30 * step / 3600)
    assert figures["images_per_second"] == pytest.approx(100 / step)
    assert figures["communication_share"] == pytest.approx(figures["exchanging"] / step)
    assert figures["cost"] == pytest.approx(figures["hours"] * 2 * 2.5)


def test_a_node_that_reads_slowly_holds_the_gpus_up() -> None:
    figures = planned("--images", "1m", "--gpus", "8xh100", "--nodes", 2, "--reading", 1000)
    assert figures["images_per_second"] == pytest.approx(2000)
    assert figures["node_reads"] == pytest.approx(1000)
    assert figures["input_share"] > 0.9


def test_ways_of_exchanging_follow_their_closed_forms_at_64_devices() -> None:
    """A network of 8 Gbit/s, so slow that nothing else counts: 1 GB/s for the 8 GPUs of a node."""
    words = ("--images", "1m", "--gpus", "8xh100", "--nodes", 8, "--batch-size", 64)
    figures = planned(*words, "--bandwidth", 8)
    ways = {row["way"]: row for row in figures["exchanges"]}
    usual, bf16, apart, accumulated, norms = figures["exchanges"]
    assert {"--gradient-exchange bf16", "no overlap", "--sync-batch-norm"} < set(ways)
    computing = sum(figures[part] for part in ("computing", "waiting", "starting"))
    for row, batches in ((usual, 1), (bf16, 1), (apart, 1), (accumulated, 4), (norms, 1)):
        assert row["step"] == pytest.approx(batches * computing + row["exchanging"])
        assert row["images_per_second"] == pytest.approx(64 * batches / row["step"])
    assert usual["exchanging"] == figures["exchanging"] == accumulated["exchanging"]
    sent = 2 * 7 / 8 * 4 * 25_557_032  # bytes that a node sends and gets: a ring of 8 nodes
    assert apart["exchanging"] == pytest.approx(sent / 1e9, rel=0.05)
    assert bf16["exchanging"] == pytest.approx(sent / 2 / 1e9, rel=0.05)
    assert 0 < apart["exchanging"] - usual["exchanging"] <= figures["computing"] * 2 / 3
    gathered = 63 * (2 * 26_560 + 53) * 4 / (1e9 / 8)  # torch gathers those of each device
    waited = norms["exchanging"] - usual["exchanging"]
    assert waited == pytest.approx(gathered + 53 * 3 * 6 * 5e-6, rel=0.05)


def test_one_gpu_exchanges_nothing() -> None:
    assert planned("--images", "1m", "--gpus", "1xh100")["exchanges"] == []


def test_fp16_is_as_fast_as_bf16_and_takes_as_much_memory() -> None:
    words = ("--images", "1m", "--gpus", "8xv100")
    fp16, bf16, fp32 = (planned(*words, "--precision", each) for each in ("fp16", "bf16", "fp32"))
    assert fp16 == bf16 != fp32


def test_a_measured_rate_takes_the_place_of_the_data_sheet() -> None:
    figures = planned("--images", "1m", "--gpus", "1xh100", "--rate", 3000)
    assert figures["computing"] == pytest.approx(256 / 3000)
    assert figures["hours_by_bandwidth"] == figures["hours"]


@given(
    nodes=st.integers(1, 256),
    gpus=st.integers(1, 8),
    kind=st.sampled_from(["v100", "a100", "h100", "h200"]),
    each=st.integers(1, 128),
)
def test_machines_are_never_better_than_in_proportion_and_larger_batches_never_slower(
    nodes: int, gpus: int, kind: str, each: int
) -> None:
    """More machines may well be slower: at one image a step, gradients are all they send."""

    def rate(machines: Machines, each: int) -> float:
        training = Training(10**7, batch_size=each * machines.devices)
        estimate = plan(RESNET50, machines, training)
        assert 0 <= estimate.communication_share < 1
        return estimate.images_per_second

    one, many = Machines(1, 1, kind), Machines(nodes, gpus, kind)
    assert rate(many, each) <= rate(one, each) * many.devices * (1 + 1e-9)
    assert rate(many, 2 * each) >= rate(many, each) * (1 - 1e-9)


def test_the_largest_batch_fits_and_one_more_image_does_not() -> None:
    machines = Machines(1, 1, "v100")
    largest = plan(RESNET50, machines, Training(10**6, batch_size=1)).largest_batch
    assert plan(RESNET50, machines, Training(10**6, batch_size=largest)).memory <= 32e9
    with pytest.raises(UsageError, match="memory"):
        plan(RESNET50, machines, Training(10**6, batch_size=largest + 1))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--images", "many", "--gpus", "8xh100"), "--images many"),
        (("--images", "1.28", "--gpus", "8xh100"), "--images 1.28: "),
        (("--images", "1.2345k", "--gpus", "8xh100"), "--images 1.2345k: "),
        (("--images", "1,28m", "--gpus", "8xh100"), "--images 1,28m: "),
        (("--images", "1,281m", "--gpus", "8xh100"), "--images 1,281m: "),
        (("--images", "12,81,167", "--gpus", "8xh100"), "--images 12,81,167: "),
        (("--images", "1m", "--gpus", "8xtpu"), "--gpus 8xtpu"),
        (("--images", "1m", "--gpus", "0xh100"), "--gpus 0xh100"),
        (("--images", "1m", "--gpus", "8xh100", "--nodes", "0"), "--nodes 0"),
        (("--images", "1m", "--gpus", "8xh100", "--bandwidth", "0"), "--bandwidth 0"),
        (("--images", "1m", "--gpus", "8xh100", "--bandwidth", "inf"), "--bandwidth inf"),
        (("--images", "1m", "--gpus", "8xh100", "--reading", "nan"), "--reading nan"),
        (("--images", "1m", "--gpus", "8xh100", "--epochs", "1e308"), "--epochs 1e+308"),
        (("--images", "9" * 400, "--gpus", "8xh100"), "--images"),
        (("--images", "1m", "--gpus", "8xh100", "--size", "100000"), "single image fits"),
        (("--images", "1m", "--gpus", "8xh100", "--size", "800"), "give --batch-size"),
        (("--images", "1m", "--gpus", "8xh100", "--epochs", "0"), "--epochs"),
        (("--images", "1m", "--gpus", "8xh100", "--batch-size", "4"), "--batch-size 4"),
        (("--images", "1m", "--gpus", "8xh100", "--batch-size", "0"), "--batch-size 0"),
        (("--images", "0", "--gpus", "8xh100"), "--images"),
        (("--images", "1m", "--gpus", "8xh100", "--network", "resnet51"), "resnet50"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], reason: str) -> None:
    done = call("plan", "--network", "resnet50", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_the_usual_batch_stays_between_what_a_device_and_a_step_want() -> None:
    assert [_usual_batch(n) for n in (1, 8, 16, 64, 512)] == [256, 2048, 4096, 4096, 16384]


def test_without_a_size_images_have_that_of_the_network() -> None:
    for name, size in (("resnet20", 32), ("resnet50", 224)):
        assert costs_of(name) == costs_of(name, size) != costs_of(name, size + 32)


def test_the_batch_that_is_advised_for_large_images_fits() -> None:
    words = ("plan", "--network", "resnet50", "--images", "1m", "--gpus", "8xh100", "--size", 800)
    done = call(*words)
    (advised,) = re.findall(r"--batch-size (\d+)", done.stderr)
    assert call(*words, "--batch-size", advised).returncode == 0
    assert call(*words, "--batch-size", int(advised) + 1).returncode == 2


def test_fewer_images_than_a_step_has_are_refused_with_what_fits() -> None:
    """The batch that is advised is accepted; fewer images than GPUs need fewer GPUs."""
    for more in ((), ("--batch-size", "4096")):
        words = ("plan", "--network", "resnet50", "--images", "1.2e2", "--gpus", "8xh100")
        done = call(*words, *more)
        assert (done.returncode, done.stdout) == (2, "")
        (advised,) = re.findall(r"give --batch-size (\d+)", done.stderr)
        assert call(*words, "--batch-size", advised).returncode == 0
    done = call("plan", "--network", "resnet50", "--images", "5", "--gpus", "8xh100")
    assert (done.returncode, "fewer GPUs" in done.stderr) == (2, True)
