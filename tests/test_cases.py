"""Inputs on which the product was once wrong: each comes out as their README says is right.

They lie in the shared data (`cases`): a script that makes folders, and a few files.
"""

import csv
import io
import itertools
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnets import evaluate, train
from resnets.cli import main
from resnets.data.sources.opening import open_data, read_source
from resnets.evaluation.finding_images import find_images
from resnets.images import decode
from tests.in_process import call as resnets

GIB = 1 << 30

Shared = Callable[[str], Path]


@pytest.fixture(scope="module")
def cases(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the script makes."""
    script = shared("cases/make.py")
    out = tmp_path_factory.mktemp("cases")
    runpy.run_path(str(script))["main"](out)
    return out


@pytest.fixture(scope="module")
def files(shared: Shared) -> Path:
    return shared("cases/files")


def limited(*words: str | Path, cwd: Path, limit: int | None = None) -> Any:
    """Run a command in a process, which may end badly; with a limit, in that many bytes."""
    return subprocess.run(
        [sys.executable, "-m", "resnets", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))),
    )


def peak(*words: str | Path, cwd: Path) -> tuple[int, str, int]:
    """Exit code, output and peak of resident memory, in bytes, of a command in its own process."""
    code = (
        "import resource, subprocess, sys;"
        "done = subprocess.run([sys.executable, '-m', 'resnets', *sys.argv[1:]]);"
        "usage = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print('\\npeak', usage.ru_maxrss * 1024, done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=cwd, capture_output=True, text=True
    )
    text, _, last = done.stdout.rpartition("\npeak ")
    memory, status = map(int, last.split())
    return status, text + done.stderr, memory


# ------------------------------------------------------------------ noise: nothing can be learnt


@pytest.fixture(scope="module")
def remembers(cases: Path) -> Path:
    """A network that knows its 290 images of noise by heart."""
    words = ["--network", "resnet14", "--image-size", "8", "--epochs", "20", "--batch-size", "32"]
    words += ["--crop-padding", "0", "--flip", "none", "--no-report", "--output", "noise-run"]
    done = resnets("train", "noise", *words, cwd=cases)
    assert done.returncode == 0, done.stderr
    return cases / "noise-run" / "model.safetensors"


def evaluated(model: Path, data: str, cases: Path, *words: str) -> tuple[dict[str, Any], str]:
    """The figures of evaluate, and all that was printed in words."""
    done = resnets("evaluate", model, data, *words, "--json", cwd=cases)
    assert done.returncode == 0, done.stderr
    shown = resnets("evaluate", model, data, *words, cwd=cases)
    return json.loads(done.stdout), shown.stdout + shown.stderr


def accuracy(result: dict[str, Any]) -> float:
    return float(result["top1"]["value"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "known"), [("noise", None), ("noise_plus", 324), ("noise_train_val", None)]
)
def test_images_that_were_trained_on_do_not_flatter(
    data: str, known: int | None, remembers: Path, cases: Path
) -> None:
    result, output = evaluated(remembers, data, cases)
    assert accuracy(result) < 0.55
    if known is not None:
        assert "trained on" in output


@pytest.mark.slow
def test_all_is_all_and_says_how_many_were_trained_on(remembers: Path, cases: Path) -> None:
    result, output = evaluated(remembers, "noise", cases, "--split", "all")
    assert result["top1"]["total"] == 360
    assert "trained on" in output
    result, output = evaluated(remembers, "noise_train_val", cases, "--split", "all")
    assert result["top1"]["total"] == 540
    assert "trained on" in output
    result, output = evaluated(remembers, "noise", cases, "--split", "train")
    assert accuracy(result) > 0.9
    assert "trained on" in output


@pytest.mark.slow
def test_the_same_files_under_another_path_count_as_trained_on(
    remembers: Path, cases: Path
) -> None:
    shutil.copytree(cases / "noise", cases / "elsewhere")
    (cases / "elsewhere/class_0/0.png").unlink()
    result, output = evaluated(remembers, "elsewhere", cases)
    assert accuracy(result) < 0.55
    assert "trained on" in output


# ------------------------------------------------------------------ digests


def test_bitmaps_with_equal_borders_are_told_apart(cases: Path, tmp_path: Path) -> None:
    doctor = resnets("doctor", cases / "borders", cwd=tmp_path)
    assert "no errors" in doctor.stdout
    splits = open_data(cases / "borders")
    assert not [text for text in splits.warnings if "label" in text or "split" in text]
    drawn = {tuple(open_data(cases / "borders", seed=seed).validation.names) for seed in range(4)}
    assert len(drawn) > 1
    copy = tmp_path / "borders"
    shutil.copytree(cases / "borders", copy)
    path = next(copy.rglob("7.bmp"))
    pixels = np.asarray(Image.open(path)).copy()
    pixels[100:120] = 0
    Image.fromarray(pixels).save(path)
    assert open_data(copy).fingerprint != splits.fingerprint


@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_in_one_split(seed: int, cases: Path) -> None:
    splits = open_data(cases / "twice", seed=seed, test_seed=seed, validation=0.15)
    parts = (splits.train, splits.validation, splits.test)
    contents = [{part.encoded(index) for index in range(len(part))} for part in parts]
    for one, other in itertools.combinations(contents, 2):
        assert not one & other


# ------------------------------------------------------------------ tiny sets


@pytest.mark.parametrize(("count", "missing"), [(1, "test"), (2, "test"), (3, "validation")])
def test_one_to_three_images_a_class_are_enough_to_train(
    count: int, missing: str, cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--network", "resnet14", "--epochs", "1", "--no-report", "--output", tmp_path / "run"]
    assert main(["train", str(cases / f"tiny{count}"), *map(str, words)]) == 0
    output = capfd.readouterr().out
    assert f"no {missing} images" in output
    assert "too few" in output
    assert (tmp_path / "run/model.safetensors").exists()


# ------------------------------------------------------------------ folders as people have them


@pytest.mark.parametrize("command", ["doctor", "train"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("other_splits", "--train-folder seg_train --test-folder seg_test"), ("variants", "variants")],
)
def test_splits_and_variants_are_no_classes(
    command: str, name: str, words: str, cases: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(cases / name)]) == 2
    message = capfd.readouterr().err
    assert words in message
    assert "--class-level 1" in message


def test_the_user_says_what_folders_are(cases: Path, tmp_path: Path) -> None:
    quick: dict[str, Any] = {"epochs": 1, "report": False, "progress": False}
    folders = {"train_folder": "seg_train", "test_folder": "seg_test"}
    run = train(cases / "other_splits", "resnet14", output=tmp_path / "run", **folders, **quick)
    assert run.model.description.class_names == ("forest", "sea", "street")
    measured = evaluate(tmp_path / "run", cases / "other_splits")
    assert measured.metrics.top1.total == 18
    run = train(cases / "variants", "resnet14", output=False, class_level=2, **quick)
    assert run.model.description.class_names == ("blight", "rust")


@pytest.mark.parametrize(("name", "count"), [("nas", 16), ("mixed", 8)])
def test_training_and_a_prediction_see_the_same_images(
    name: str,
    count: int,
    cases: Path,
    untrained: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    splits = open_data(cases / name, validation=0, test=0)
    assert splits.class_names == ("ant", "bee")
    assert len(splits.train) == count
    assert main(["doctor", str(cases / name)]) == 0
    shown = capfd.readouterr().out
    assert [line.split() for line in shown.splitlines() if line.startswith("total")] == [
        ["total", str(count)]
    ]
    assert main(["predict", str(untrained(("ant", "bee"))), str(cases / name), "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)) == count


@pytest.mark.parametrize("name", ["kaggle", "plural", "fastai", "onehot", "excel", "backslash"])
def test_each_kind_of_table_gives_the_same_images(name: str, cases: Path) -> None:
    images = read_source(cases / f"table/{name}.csv").images
    pairs = {
        (path, part.class_names[label])
        for part in images.values()
        for path, label in zip(part.names, part.labels, strict=True)
    }
    assert pairs == {(f"{word}/{i}.png", word) for word in ("ant", "bee") for i in range(6)}
    splits = open_data(cases / f"table/{name}.csv")
    assert splits.class_names == ("ant", "bee")
    if name == "fastai":
        assert len(splits.validation or ()) == 4


def test_two_stars_find_what_lies_deep(cases: Path) -> None:
    names = [Path(each.name).name for each in find_images([str(cases / "deep/**/*.png")])]
    assert names == ["0.png", "1.png", "2.png"]


# ------------------------------------------------------------------ hostile and damaged files


@pytest.mark.parametrize("name", ["np_object_pointer.pth", "dictbomb.pth"])
def test_pickles_that_hurt_are_refused_in_one_line(name: str, files: Path, tmp_path: Path) -> None:
    done = limited("inspect", files / name, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "should not happen" not in done.stderr


def test_keys_that_unfold_without_end_are_refused(files: Path, tmp_path: Path) -> None:
    done = limited("train", files / "cifar_tuplekey", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["sparse_rel", "sparse_huge", "bomb_ConstantOfShape"])
def test_onnx_files_of_strangers_never_reach_a_runtime(
    name: str, files: Path, tmp_path: Path, draw_noise: Callable[..., None]
) -> None:
    shutil.copy(files / f"{name}.onnx", tmp_path / "model.onnx")
    shutil.copy(files / "secret.bin", tmp_path)
    draw_noise(tmp_path / "image.png")
    code = (
        "import sys; from resnets.cli import main;"
        "code = main(['predict', 'model.onnx', 'image.png']);"
        "assert not {'onnxruntime', 'openvino'} & set(sys.modules);"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "onnxruntime" in done.stderr  # who trusts the file can run it there
    assert "AssertionError" not in done.stderr


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain", "bench"])
def test_weights_that_are_not_numbers_are_refused(
    command: str, files: Path, tmp_path: Path, draw_noise: Callable[..., None]
) -> None:
    draw_noise(tmp_path / "image.png")
    data = {"evaluate": ["digits"], "bench": []}.get(command, ["image.png"])
    done = resnets(command, files / "w_nan.safetensors", *data, cwd=tmp_path)
    assert done.returncode == 1
    assert "finite" in done.stderr


def test_inspect_says_that_weights_are_not_finite(files: Path, tmp_path: Path) -> None:
    done = resnets("inspect", files / "w_nan.safetensors", cwd=tmp_path)
    assert done.returncode == 0
    assert "finite" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1, 4])
def test_huge_images_are_answered_in_bounded_memory(
    copies: int, files: Path, tmp_path: Path
) -> None:
    for index in range(copies):
        shutil.copy(files / "big_rgba.png", tmp_path / f"{index}.png")
    status, output, memory = peak("predict", tmp_path, cwd=tmp_path)
    assert status == 0, output
    assert memory < 2 * GIB


def test_a_jpeg_is_read_with_and_without_the_extra(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("simplejpeg")
    with_it = decode(files / "needs_simplejpeg.jpg").astype(int)
    code = (
        "import sys; sys.modules['simplejpeg'] = None; import numpy; from pathlib import Path;"
        "from resnets.images import decode; numpy.save(sys.argv[2], decode(Path(sys.argv[1])))"
    )
    out = tmp_path / "pixels.npy"
    command = [sys.executable, "-c", code, str(files / "needs_simplejpeg.jpg"), str(out)]
    subprocess.run(command, check=True)
    assert np.abs(with_it - np.load(out)).max() <= 2


def test_labels_that_are_lists_are_refused_in_one_line(files: Path, tmp_path: Path) -> None:
    done = resnets("train", files / "labels_list.parquet", cwd=tmp_path)
    assert done.returncode == 1
    assert "label" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# ------------------------------------------------------------------ names


CONTROL = {chr(code) for code in range(32)} - {"\n"}


def test_names_are_printed_escaped_and_csv_is_safe(
    cases: Path, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    model = untrained(("plain", "=1+1", "esc\x1b[31mred"))
    shown = resnets("predict", model, cases / "names", cwd=tmp_path)
    assert shown.returncode == 0
    assert not CONTROL & set(shown.stdout + shown.stderr)
    table = resnets("predict", model, cases / "names", "--csv", cwd=tmp_path)
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert len(rows) == 9
    for row in rows:
        assert not any(value.startswith(("=", "+", "-", "@")) for value in row.values())
    doctor = resnets("doctor", cases / "names", cwd=tmp_path)
    assert not CONTROL & set(doctor.stdout + doctor.stderr)


def test_every_picture_is_explained_whatever_its_name(
    cases: Path, files: Path, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    model = untrained(("plain", "=1+1", "esc\x1b[31mred"))
    done = resnets("explain", model, cases / "names", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not CONTROL & set(done.stdout + done.stderr)
    assert len(list((tmp_path / "explained").rglob("*.png"))) >= 9
    image = cases / "names/plain/0.png"
    done = resnets("explain", files / "raqm_nl.safetensors", image, "--output", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_class_called_unknown_is_not_taken_for_unsure(
    cases: Path, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    model = untrained(("good", "unknown"))
    done = resnets("predict", model, cases / "unknown_class", "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert len(rows) == 24
    assert {row["prediction"] for row in rows} <= {"good", "unknown"}
    assert {row["status"] for row in rows} == {"not calibrated"}


# ------------------------------------------------------------------ 32-bit images


def test_32_bit_images_decode_alike_whatever_their_white(cases: Path) -> None:
    seen = {}
    for name in ("one", "above_one", "255", "above_255"):
        splits = open_data(cases / "float" / name, validation=0, test=0)
        seen[name] = np.stack([splits.train.image(i) for i in range(len(splits.train))]).astype(int)
    for name in ("above_one", "255", "above_255"):
        assert np.abs(seen[name] - seen["one"]).max() <= 1, name


# ------------------------------------------------------------------ devices, pipes and links


def test_a_table_with_a_pipe_and_a_link_to_zero_ends(tmp_path: Path, cases: Path) -> None:
    shutil.copytree(cases / "table", tmp_path / "table")
    os.mkfifo(tmp_path / "table/pipe.png")
    (tmp_path / "table/zero.png").symlink_to("/dev/zero")
    table = tmp_path / "table/odd.csv"
    table.write_text(
        "path,label\nant/0.png,ant\nbee/0.png,bee\npipe.png,ant\nzero.png,bee\n", encoding="utf-8"
    )
    done = limited("doctor", table, cwd=tmp_path, limit=8 * GIB)
    assert done.returncode in (0, 1)
    assert "pipe.png" in done.stdout + done.stderr
    assert "zero.png" in done.stdout + done.stderr


def test_an_endless_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    done = limited("doctor", tmp_path / "zero.csv", cwd=tmp_path, limit=8 * GIB)
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1


def test_output_to_a_link_replaces_its_target(
    cases: Path, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    model, image = untrained(("a", "b")), cases / "twice/a/0.png"
    (tmp_path / "target.parquet").write_bytes(b"PAR1 old")
    (tmp_path / "link.parquet").symlink_to("target.parquet")
    done = resnets("predict", model, image, "--parquet", "link.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "link.parquet").is_symlink()
    assert (tmp_path / "target.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_output_to_a_device_leaves_it_a_device(
    cases: Path, untrained: Callable[..., Path], tmp_path: Path
) -> None:
    model, image = untrained(("a", "b")), cases / "twice/a/0.png"
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o600 | 0o020000, Path("/dev/null").stat().st_rdev)
    except PermissionError:
        pytest.skip("this system lets not even root make devices")
    done = resnets("predict", model, image, "--parquet", null, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert null.is_char_device()
