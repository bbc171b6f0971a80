"""The results' folders and the page made from them: no number without its log."""

import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from resnets.errors import ContentError, UsageError
from resnets.machine import machine
from resnets.runs.job import Job
from resnets.training.named_recipes import named_recipe
from tests.in_process import call_script

RESULTS = Path(__file__).parents[2] / "results"
NAME = "resnet14-digits"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts can be imported, as they import each other."""
    sys.path.insert(0, str(RESULTS))
    yield
    sys.path.remove(str(RESULTS))


def script(name: str, *words: Any, code: int = 0) -> str:
    """Run a script of the results; what it printed, errors included."""
    done = call_script(RESULTS / f"{name}.py", *words)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def add(run: Path, name: str, root: Path, **options: Any) -> str:
    """Make a result; returns the page with it."""
    importlib.import_module("add").main(run, name, root=root, **options)
    return (root / "README.md").read_text(encoding="utf-8")


def write(root: Path) -> str:
    """Write the page; returns it."""
    importlib.import_module("table").write(root)
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The results with one folder, to change at will."""
    root = tmp_path / "results"
    shutil.copytree(RESULTS / NAME, root / NAME)
    write(root)
    return root


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_page_is_what_the_folders_make() -> None:
    script("table", "--check")  # python results/table.py writes it anew


def test_every_number_of_a_row_is_in_its_log(copy: Path) -> None:
    """Read here with nothing of the project's."""
    page = (copy / "README.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| [{NAME}]"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    log = [
        json.loads(line)
        for line in (copy / NAME / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    score = log[-1]["test"]["top1"]
    interval = binomtest(score["count"], score["total"]).proportion_ci(method="wilson")
    accuracy = f"{100 * score['count'] / score['total']:.2f} % ({score['count']}/{score['total']}"
    assert cells[4] == f"{accuracy}; {100 * interval.low:.2f} to {100 * interval.high:.2f})"
    assert cells[7] == f"{max(record.get('seconds', 0) for record in log):.0f} s"
    assert log[0]["machine"]["processor"] in cells[8]


def test_the_papers_rows_that_were_not_run_say_so(copy: Path) -> None:
    page = (copy / "README.md").read_text(encoding="utf-8")
    for network, error in (("resnet20", "8.75"), ("resnet32", "7.51"), ("resnet56", "6.97")):
        assert f"| {network} | {error} | not run | 0 | `resnets reproduce he2015-table6" in page
    assert "best of 5" in page


Change = Callable[[Path], None]
CHANGES: dict[str, tuple[Change, str]] = {
    "a folder without its log": (lambda at: (at / "log.jsonl").unlink(), "has no log.jsonl"),
    "a folder without its config": (lambda at: (at / "config.toml").unlink(), "has no config.toml"),
    "a better count than the log's": (
        lambda at: changed(at / "metrics.json", '"count": 178', '"count": 179'),
        "according to log.jsonl",
    ),
    "another speed than the log's": (
        lambda at: changed(at / "metrics.json", '"seconds": ', '"seconds": 1'),
        "metrics.json: seconds is",
    ),
    "another command": (
        lambda at: changed(at / "metrics.json", "train digits", "train digits --epochs 99"),
        "metrics.json: command is",
    ),
    "a better end in the log": (
        lambda at: changed(at / "log.jsonl", '"count": 178', '"count": 179'),
        "metrics.json: test is",
    ),
    "a log without its end": (
        lambda at: changed(at / "log.jsonl", '"kind": "end"', '"kind": "interval"'),
        "the run has not finished",
    ),
    "metrics that are no JSON": (
        lambda at: (at / "metrics.json").write_text("{", encoding="utf-8"),
        "not JSON",
    ),  # type: ignore[dict-item]
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_what_does_not_agree_with_its_log_is_refused(
    copy: Path, change: Change, message: str
) -> None:
    change(copy / NAME)
    with pytest.raises(ContentError, match=message):
        write(copy)


def test_a_number_that_was_changed_on_the_page_is_refused(copy: Path) -> None:
    changed(copy / "README.md", "99.44 %", "99.94 %")
    with pytest.raises(SystemExit, match="differs from the folders"):
        importlib.import_module("table").main(copy, check=True)


def test_faults_end_with_1_and_one_line(copy: Path) -> None:
    (copy / NAME / "log.jsonl").unlink()
    words = {
        "table": ["--root", copy, "--check"],
        "add": [copy, "new", "--root", copy],
        "time_to_accuracy": ["--root", copy],
    }
    messages = {"table": "has no log.jsonl", "add": "no run", "time_to_accuracy": "missing"}
    for name, options in words.items():
        output = script(name, *options, code=1)
        assert output.count("\n") == 1
        assert messages[name] in output


@pytest.mark.soak
def test_the_command_of_a_row_trains_it_again(tmp_path: Path) -> None:
    """Its first epoch is the log's, up to what another processor rounds otherwise."""
    metrics = json.loads((RESULTS / NAME / "metrics.json").read_text(encoding="utf-8"))
    words = shlex.split(metrics["command"])
    assert words[:3] == ["resnets", "train", "digits"]
    command = [sys.executable, "-m", *words, "--output", str(tmp_path / "run")]
    with subprocess.Popen(
        command, cwd=RESULTS.parent, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("epoch  1/16"):
                run.send_signal(signal.SIGTERM)
                break
        run.communicate(timeout=300)
    ours, theirs = (
        [
            json.loads(line)
            for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for folder in (tmp_path / "run", RESULTS / NAME)
    )
    assert ours[0]["fingerprint"] == theirs[0]["fingerprint"]
    assert ours[0]["steps"] == theirs[0]["steps"]
    assert ours[1]["training"]["loss"] == pytest.approx(theirs[1]["training"]["loss"], rel=0.01)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of CIFAR-10's size, with a long log, as the trainer would have left it."""
    run = tmp_path_factory.mktemp("runs") / "long"
    shutil.copytree(RESULTS / NAME, run)
    recipe = (run / "config.toml").read_text(encoding="utf-8")
    recipe = recipe.replace('data = "digits"', 'data = "/home/someone/cifar10"')
    recipe = recipe.replace('network = "resnet14"', 'network = "resnet20"')
    (run / "config.toml").write_text(recipe, encoding="utf-8")
    log = [
        json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    interval = next(record for record in log if record["kind"] == "interval")
    speed = {"images_per_second": 700.0}
    many = [interval | speed | {"step": step} for step in range(1000)]
    end = log[-1] | {"test": {"top1": {"count": 9130, "total": 10_000}}}
    records = [log[0], *many, *(r | speed for r in log if r["kind"] == "epoch"), end]
    (run / "log.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
    )
    return run


def test_a_run_becomes_a_result_without_anything_of_its_machines_paths(
    copy: Path, long_run: Path
) -> None:
    page = add(long_run, "long-one", copy, remark="for a test")
    files = {path.name: path.read_text(encoding="utf-8") for path in (copy / "long-one").iterdir()}
    assert set(files) == {"config.toml", "log.jsonl", "metrics.json"}
    assert not any("/home/someone" in text for text in files.values())
    metrics = json.loads(files["metrics.json"])
    command = "resnets train cifar10 --recipe results/long-one/config.toml"
    assert metrics["command"] == command
    assert command in files["config.toml"]
    assert "; for a test |" in page
    assert "91.30 % (9,130/10,000;" in page


def test_a_long_log_keeps_its_epochs_and_its_end_word_for_word(copy: Path, long_run: Path) -> None:
    add(long_run, "long-one", copy)
    before = (long_run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    after = (copy / "long-one" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(map(len, before)) > 200_000
    assert sum(map(len, after)) < 64_000
    assert set(after) <= set(before)
    kind = '"kind": "interval"'
    assert [line for line in after if kind not in line] == [x for x in before if kind not in x]
    steps = [json.loads(line)["step"] for line in after if kind in line]
    assert len(steps) > 50
    gaps = {later - sooner for sooner, later in pairwise(steps)}
    assert max(gaps) - min(gaps) <= 1


def test_a_name_that_is_taken_or_no_name_is_refused(copy: Path, long_run: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        add(long_run, NAME, copy)
    with pytest.raises(UsageError, match="lower-case letters"):
        add(long_run, "../x", copy)


def test_seeds_are_taken_together_with_mean_and_deviation(copy: Path, long_run: Path) -> None:
    for seed, count in ((0, 9130), (1, 9100), (2, 9200)):
        run = copy.parent / f"seed{seed}"
        shutil.copytree(long_run, run)
        changed(run / "config.toml", "seed = 0", f"seed = {seed}")
        changed(run / "log.jsonl", '"count": 9130', f'"count": {count}')
        page = add(run, f"seed-{seed}", copy)
    assert "| 91.43 ± 0.51 % | 3 | [seed-0](seed-0), [seed-1](seed-1), [seed-2](seed-2) |" in page


def test_the_time_to_the_papers_accuracy_is_reckoned_from_logs_alone(
    copy: Path, long_run: Path
) -> None:
    """200 epochs of 50,000 images at 400 a second, against 22,528 images at 700 a second."""
    add(long_run, "long-one", copy)
    known = json.loads((copy / "long-one" / "metrics.json").read_text(encoding="utf-8"))["machine"]
    rounds = {"plain_loop": [400.0, 200.0, 500.0], "trainer": [800.0, 300.0, 1500.0]}
    speeds = {"images_per_second": {"plain_loop": 400.0}, "rounds": rounds}
    results = {"machine": known | {"load_before": 0.1}, "networks": {"resnet20": speeds}}
    results["recipe"] = "results/long-one/config.toml"
    (copy / "speed.json").write_text(json.dumps(results), encoding="utf-8")
    times = json.loads(script("time_to_accuracy", "--root", copy, "--json"))
    assert times["reference_seconds"] == 25_000
    log, benchmark = times["runs"]
    assert (log["measured"], benchmark["measured"]) == ("its log", "the benchmark (estimate)")
    assert log["reached"] is True
    assert log["error"] == pytest.approx(8.70)
    assert log["seconds"] == pytest.approx(22_528 / 700)
    assert log["ratio"] == pytest.approx(25_000 * 700 / 22_528)
    assert benchmark["ratio"] == pytest.approx(25_000 * 800 / 22_528)
    assert benchmark["paper_ratio"] == pytest.approx(64_000 * 128 / 400 * 800 / 22_528)
    page = write(copy)
    assert f"| {25_000 * 700 / 22_528:.1f} |" in page
    assert f"| about {25_000 * 800 / 22_528:.1f} |" in page  # no run took that time
    assert "2.00 times as many (median of 3 rounds; 1.50 to 3.00)" in page
    for name, old, new in (
        ("seed", "seed = 0", "seed = 1"),
        ("momentum", "nesterov = true", "nesterov = false"),
    ):
        run = copy.parent / name
        shutil.copytree(long_run, run)
        changed(run / "config.toml", old, new)
        page = add(run, f"another-{name}", copy)
    assert (
        page.count("| the benchmark (estimate) |") == 2
    )  # of another seed too, not of another recipe
    assert "another-seed](another-seed) | 1, on a CPU | 8.70 % | yes | 22,528 | 800 |" in page
    (copy / "speed.json").unlink()
    assert "Not measured yet: `results/speed.json` is missing" in write(copy)
    (copy / "speed.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ContentError, match="not what benchmarks/training"):
        write(copy)


def test_a_run_of_the_papers_recipe_is_set_beside_the_paper_with_its_curve(
    copy: Path, long_run: Path
) -> None:
    """A run of another recipe is not."""
    paper = named_recipe("paper", "plain20")
    run = copy.parent / "paper"
    shutil.copytree(long_run, run)
    (run / "config.toml").write_text(
        Job("cifar10", follow_test=True, recipe=paper).to_toml(), encoding="utf-8"
    )
    changed(run / "log.jsonl", '"validation": {"correct"', '"test": {"correct"')
    assert "| plain20 | – (a curve only) | not run |" in add(long_run, "another", copy)
    page = add(run, "plain", copy)
    assert "| plain20 | – (a curve only) | 8.70 | 1 |" in page
    assert "| plain56 | – (a curve only) | not run | 0 |" in page
    assert "--recipe results/plain/config.toml --follow-test`" in page
    assert "(he2015-figure6.svg)" in page
    assert (copy / "he2015-figure6.svg").read_text(encoding="utf-8").count("stroke-dasharray") > 0


def test_a_log_that_names_no_machine_gets_the_one_where_it_is_added(
    copy: Path, long_run: Path
) -> None:
    run = copy.parent / "old"
    shutil.copytree(long_run, run)
    changed(run / "log.jsonl", '"machine": {', '"elsewhere": {')
    add(run, "old", copy)
    metrics = json.loads((copy / "old" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["machine"] == machine()
    assert metrics["machine_known_from"] == "where the result was added"


def test_recipes_that_were_allowed_the_same_time_are_set_side_by_side_with_what_they_took(
    copy: Path,
) -> None:
    """Means and deviations by hand."""
    assert "Not measured yet: `results/accuracy_vs_time.json` is missing" in write(copy)
    runs = [
        {"recipe": name, "budget": 90.0, "seed": seed, "steps": steps, "test": test}
        | {"seconds": took + 20 * seed, "images": 128 * steps}
        for name, counts, steps, took in (
            *(("quick", (50, 52), 300, 95.0), ("reference", (41, 40), 250, 70.0)),
        )
        for seed, count in enumerate(counts)
        for test in [{"count": count, "total": 100}]
    ]
    results = {"network": "resnet20", "data": "cifar10", "machine": machine(), "runs": runs[::-1]}
    (copy / "accuracy_vs_time.json").write_text(json.dumps(results), encoding="utf-8")
    row = "| 1 min 30 s | 51.00 ± 1.41 % | 40.50 ± 0.71 % | 2 | 10.50 ± 2.12 points "
    row += "| 1 min 45 s, 1 min 20 s | 38,400, 32,000 | 300, 250 |"
    assert row in write(copy)
    results["runs"].pop()
    (copy / "accuracy_vs_time.json").write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(ContentError, match="not what benchmarks/accuracy_vs_time"):
        write(copy)
