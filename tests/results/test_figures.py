"""Figures in README, CHANGELOG and docs: no measured number without the log that it comes from."""

import json
import re
import runpy
import shlex
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resnets.errors import ContentError
from resnets.format import duration
from tests.in_process import call, call_script

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
PAGES = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]
MARKED = re.compile(r"<!-- figure: \S+ -->.*?<!-- end -->", re.DOTALL)
# Fractions of a percent or of a ratio, times and speeds; whole percents are bounds and targets.
MEASURED = re.compile(
    r"(?<![\w/.-])(?:\d+\.\d+\s*(?:%|points|times)|"
    r"\d[\d,.]*\s*(?:ms|us|µs|minutes|hours|images/s|GFLOP/s))(?![\w/])"
)


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts can be imported, as they import each other."""
    sys.path.insert(0, str(RESULTS))
    yield
    sys.path.remove(str(RESULTS))


def shown(name: str) -> str:
    """A figure as it stands on the pages, which agree; test_the_figures_are_those_of_the_logs."""
    marked = re.compile(rf"<!-- figure: {re.escape(name)} -->(.*?)<!-- end -->", re.DOTALL)
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    (figure,) = {figure for text in texts for figure in marked.findall(text)}
    return figure


def log(name: str) -> list[dict]:
    """A run's log, read with nothing of the project's."""
    return [
        json.loads(x)
        for x in (RESULTS / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_the_figures_are_those_of_the_logs() -> None:
    done = call_script(RESULTS / "figures.py", "--check")
    assert done.returncode == 0, done.stderr  # python results/figures.py writes them anew


@pytest.mark.parametrize("seed", [0, 1])
def test_accuracy_and_time_are_what_the_log_says(seed: int) -> None:
    name = f"quick-resnet20-seed{seed}"
    records = log(name)
    test = records[-1]["test"]["top1"]
    assert shown(f"{name}.accuracy") == f"{100 * test['count'] / 10_000:.2f} %"
    minutes = max(record.get("seconds", 0) for record in records) / 60
    assert shown(f"{name}.minutes") == f"{minutes:.1f}"
    validation = re.search(
        r"^validation = (.*)$", (RESULTS / name / "config.toml").read_text(encoding="utf-8"), re.M
    )
    assert validation is not None
    assert shown("quick-resnet20-seed0.validation") == validation[1] != "0.1"


@pytest.mark.parametrize("network", ["resnet20", "resnet14"])
def test_packaged_networks_are_told_with_the_settings_in_their_headers(network: str) -> None:
    """Their file is the run's whose figures stand beside their names."""
    content = (ROOT / "resnets" / "shipped" / f"{network}_cifar10.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    validation = json.loads(header["recipe"])["validation"]
    assert shown("quick-resnet20-seed0.validation") == f"{validation:g}"
    test = json.loads(header["metrics"])["test"]["top1"]
    accuracy = f"{100 * test['count'] / test['total']:.2f} %"
    assert shown(f"quick-{network}-seed0.accuracy") == accuracy


def test_times_that_no_run_took_are_called_estimates() -> None:
    """The plain loop's 200 epochs, and the paper's 64,000 steps, at the measured speed."""
    speed = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))["networks"]["resnet20"]
    images = sum(
        r["training"]["images"] for r in log("quick-resnet20-seed0") if r["kind"] == "epoch"
    )
    ours = speed["images_per_second"]["plain_loop"] * statistics.median(
        trainer / plain
        for trainer, plain in zip(
            speed["rounds"]["trainer"], speed["rounds"]["plain_loop"], strict=True
        )
    )
    assert shown("speed.minutes") == f"{images / ours / 60:.1f}"
    paper = 64_000 * 128 / speed["images_per_second"]["plain_loop"]
    assert shown("speed.paper_ratio") == f"{paper / (images / ours):.1f}"
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    after = text.split("<!-- figure: speed.minutes -->")[1][:400]
    assert "estimate" in after
    for line in (RESULTS / "README.md").read_text(encoding="utf-8").splitlines():
        assert ("the benchmark" in line and line.startswith("| [")) == ("| about " in line)


def test_unequal_times_stand_beside_what_was_reached_in_them() -> None:
    runs = json.loads((RESULTS / "accuracy_vs_time.json").read_text(encoding="utf-8"))["runs"]
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert "equal time" not in page.replace("rows of unequal time", "").lower()
    for recipe in ("quick", "reference"):
        own = [run for run in runs if (run["recipe"], run["budget"]) == (recipe, 300)]
        seconds = f"{statistics.mean(run['seconds'] for run in own):.0f}"
        images = f"{statistics.mean(run['images'] for run in own):,.0f}"
        assert shown(f"budget300.{recipe}_seconds") == seconds
        assert shown(f"budget300.{recipe}_images") == images
        assert duration(float(seconds)) in page
        assert images in page


def test_the_picture_shows_the_time_that_each_run_took(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if f"matplotlib=={matplotlib.__version__}" not in locked:
        pytest.skip("another matplotlib drew the picture")
    results = json.loads((RESULTS / "accuracy_vs_time.json").read_text(encoding="utf-8"))
    plot = runpy.run_path(str(ROOT / "benchmarks" / "accuracy_vs_time.py"))["plot"]
    machine = f"{results['machine']['processor']}, {results['machine']['cores']} cores"
    title = f"{results['network']} on {results['data']}, {machine}"
    plot(results["runs"], title, tmp_path / "again.svg")
    drawn = (RESULTS / "accuracy_vs_time.svg").read_text(encoding="utf-8")
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == drawn
    for run in results["runs"]:
        run["seconds"] *= 1.5 if run["recipe"] == "quick" else 1
    plot(results["runs"], title, tmp_path / "other.svg")
    assert (tmp_path / "other.svg").read_text(encoding="utf-8") != drawn


PLAN = (  # constants of the model, which the page cites
    "1.6 times",
    "16,621 images/s",
    "2,470 images/s",
    "2.7 %",
    "3.2 times",
    "3.8 µs",
    "5 µs",
)
# What looks like a measurement and is a setting or a published figure.
NO_MEASUREMENTS = {
    "README.md": {"91.25 %"},  # He et al. 2015, table 6
    "docs/benchmarks.md": {"91.25 %"},
    "docs/decisions.md": {"0.1 %"},  # of pixels that may exceed white
    "docs/how-to/plan.md": PLAN,
}


@pytest.mark.parametrize("page", PAGES)
def test_no_measured_figure_stands_outside_what_the_logs_write(page: str) -> None:
    """Code blocks aside, which test_examples_are_kept_outputs holds."""
    text = MARKED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`|\"[^\"\n]*\"", "", text)  # names, and messages that are quoted
    loose = [match[0] for match in MEASURED.finditer(text)]
    assert [figure for figure in loose if figure not in NO_MEASUREMENTS.get(page, ())] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_output_is_typed(page: str) -> None:
    """Each block that begins with a command and goes on with what it printed."""
    text = MARKED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for block in re.findall(r"```(?:console)?\n(.*?)```", text, re.DOTALL):
        lines = block.splitlines()
        if lines and lines[0].startswith("$ "):
            assert [line for line in lines if not line.startswith(("$ ", "  "))] == []


def test_every_kept_output_is_shown() -> None:
    for path in (ROOT / "docs" / "examples").glob("*.txt"):
        kept = path.read_text(encoding="utf-8").rstrip()
        assert shown(f"example.{path.stem}").strip("\n`") == kept


@pytest.mark.parametrize("name", ["show", "doctor", "inspect", "predict-photos"])
def test_what_does_not_depend_on_the_machine_is_printed_so_today(
    name: str, shared: Callable[[str], Path]
) -> None:
    """python docs/examples.py keeps it anew."""
    folder = {"inspect": ROOT, "predict-photos": None}.get(name, ROOT)
    if name == "inspect" and not (ROOT.parent / "shared").exists():
        pytest.skip("there is no ../shared here, which the example names")
    folder = folder or shared("photos")
    first, _, printed = (
        (ROOT / "docs" / "examples" / f"{name}.txt").read_text(encoding="utf-8").partition("\n")
    )
    words = shlex.split(first.removeprefix("$ "))[1:]
    done = call(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    today = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
    ours, theirs = (  # the engine is the fastest one of the machine
        [line for line in lines if not line.startswith("computed by")]
        for lines in (today, printed.splitlines())
    )
    assert ours == theirs


def test_figures_that_were_changed_or_have_no_log_are_refused() -> None:
    from figures import figures, filled

    known = figures()
    page = "<!-- figure: quick-resnet20-seed0.accuracy -->99.99 %<!-- end -->, one run"
    assert "91.44 %" in filled(page, known, "page")
    with pytest.raises(ContentError, match=r"page: no log has the figure best\.run"):
        filled("<!-- figure: best.run -->100 %<!-- end -->", known, "page")


def test_a_benchmark_without_its_file_has_its_command_and_no_table(tmp_path: Path) -> None:
    from benchmark_tables import TABLES

    shutil.copy(RESULTS / "speed.json", tmp_path)
    assert "| resnet20 |" in TABLES["quick"](tmp_path)
    for name in ("paper", "inference", "decoding"):
        assert "--json-file results/" in TABLES[name](tmp_path)
    (tmp_path / "inference.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ContentError, match=r"inference\.json: not what"):
        TABLES["inference"](tmp_path)


def test_the_time_of_frozen_features_is_a_median_of_each_way(tmp_path: Path) -> None:
    from benchmark_tables import TABLES
    from figures import of_frozen

    assert "benchmarks/frozen.py" in of_frozen(tmp_path)["in_words"]
    runs = [
        {"way": way, "seconds": seconds, "cpu_seconds": 2 * seconds, "load_before": 0.1}
        for seconds in (40.0, 42.0, 90.0)
        for way in ("from nothing", "with features there too")
    ]
    machine = {"processor": "Abacus", "cores": 2}
    header = {"machine": machine, "images": 397, "data": "ants", "weights": "a/b", "size": 288}
    file = tmp_path / "frozen.json"
    file.write_text(json.dumps(header | {"runs": runs}), encoding="utf-8")
    words = of_frozen(tmp_path)["in_words"]
    assert all(part in words for part in ("397", "42 s from nothing", "medians of 3", "2 cores"))
    row = "| from nothing | 42.0 (40.0 to 90.0) | 84.0 (80.0 to 180.0) |"
    assert row in TABLES["frozen"](tmp_path)
