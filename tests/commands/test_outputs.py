"""Every command finds out whether its outputs can be written before it does any work."""

import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from resnets import cli

MODEL, DATA = "MODEL", "digits"
FILES = (  # a command that writes a file, which stands last; its ending
    (("predict", MODEL, "IMAGE", "--parquet"), ".parquet"),
    (("merge", "parts", "--output"), ".parquet"),
    (("evaluate", MODEL, DATA, "--diagram"), ".svg"),
    (("report", MODEL, DATA, "--output"), ".html"),
    (("bench", MODEL, "--plot"), ".png"),
    (("find-lr", DATA, "--plot"), ".png"),
    (("export", MODEL, "--to", "onnx", "--overwrite", "--output"), ".onnx"),
    (("export", MODEL, "--to", "openvino", "--overwrite", "--output"), ".xml"),
    (("calibrate", MODEL, DATA, "--overwrite", "--output"), ".safetensors"),
    (("convert", MODEL, "--to", "torchvision", "--overwrite", "--output"), ".pth"),
    (("convert", MODEL, "--to", "resnets", "--overwrite", "--output"), ".safetensors"),
)
FOLDERS = (
    ("explain", MODEL, "IMAGE", "--output"),
    ("predict", MODEL, "IMAGE", "--sort"),
    ("predict", MODEL, "IMAGE", "--part", "1/2", "--output"),
    ("fetch", "timm/resnet18.a1_in1k", "--to"),
    ("compare", MODEL, MODEL, DATA, "--output"),
    ("export", MODEL, "--to", "triton", "--overwrite", "--output"),
    ("convert", MODEL, "--to", "huggingface", "--overwrite", "--output"),
    ("train", DATA, "--output"),
    ("shard", DATA, "--output"),
    ("reproduce", "he2015-table6", "--data", DATA, "--output"),
)


OUTPUTS = {"--output", "--parquet", "--diagram", "--plot", "--sort"}


def test_every_flag_that_names_an_output_is_among_them(capsys: pytest.CaptureFixture[str]) -> None:
    tested = {(words[0], words[-1]) for words in [*(words for words, _ in FILES), *FOLDERS]}
    flags = set()
    for command in cli.COMMANDS:
        assert cli.main([command, "--help-all"]) == 0
        names = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
        flags |= {(command, name) for name in names & OUTPUTS}
    written_elsewhere = {("launch", "--output")}  # by the machines of a cluster
    assert flags - written_elsewhere == tested - {("fetch", "--to")}


@pytest.fixture
def run(
    tmp_path: Path,
    untrained: Callable[..., Path],
    draw_noise: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., int]:
    """Runs a command in an empty folder, with a model and an image that are elsewhere."""
    model = untrained(tuple("0123456789"))
    image = model.parent / "image.png"
    draw_noise(image)
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return lambda *words: cli.main(
        [{"MODEL": str(model), "IMAGE": str(image)}.get(word, word) for word in words]
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("words", "ending"), FILES, ids=lambda word: str(word)[:40])
def test_a_file_that_cannot_be_written_is_refused_at_once(
    run: Callable[..., int], words: tuple[str, ...], ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path.cwd()
    Path("folder" + ending).mkdir()
    Path("link" + ending).symlink_to("folder" + ending)
    Path("file").touch()
    before = names_in(here)
    reasons = {  # in the same words for every command
        "nofolder/x": "there is no folder nofolder; make it first",
        "file/x": "cannot be written (Not a directory)",
        "folder": "is a folder; name a file to write",
        "link": "is a folder; name a file to write",
        "/proc/x": "cannot be written (",
    }
    for place, reason in reasons.items():
        assert run(*words, place + ending) == 2, place
        message = capsys.readouterr().err
        assert message.startswith(f"resnets {words[0]}: {place}."), message
        assert reason in message
        assert message.count("\n") == 1
    assert names_in(here) == before


@pytest.mark.parametrize("words", FOLDERS, ids=lambda words: " ".join(words)[:40])
def test_a_folder_that_cannot_be_made_is_refused_at_once(
    run: Callable[..., int], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    reasons = {
        "file": "is not a folder; name another one",
        "file/x": "cannot be written (Not a directory)",
        "link": "there is no folder link; make it first",
        "/proc/x": "cannot be written (",
    }
    for place, reason in reasons.items():
        assert run(*words, place) == 2, place
        message = capsys.readouterr().err
        assert message.startswith(f"resnets {words[0]}: {place}"), message
        assert reason in message
        assert message.count("\n") == 1
    assert names_in(Path.cwd()) == ["file", "link"]


INPUTS = (  # a command with an input that is not there
    ("predict", "none.safetensors", "IMAGE"),
    ("predict", MODEL, "none"),
    ("predict", MODEL, "none/*.png"),
    ("merge", "none", "--output", "x.parquet"),
    ("evaluate", "none", DATA),
    ("evaluate", MODEL, "none"),
    ("evaluate", MODEL, DATA, "--other", "none"),
    ("report", "none", DATA),
    ("report", MODEL, "none"),
    ("calibrate", "none", DATA),
    ("calibrate", MODEL, "none"),
    ("explain", "none", "IMAGE"),
    ("explain", MODEL, "none"),
    ("compare", "none", MODEL, DATA),
    ("compare", MODEL, "none", DATA),
    ("compare", MODEL, MODEL, "none"),
    ("export", "none", "--to", "onnx"),
    ("export", MODEL, "--to", "onnx", "--data", "none", "--output", "x.onnx"),
    ("convert", "none", "--to", "timm"),
    ("convert", MODEL, "--to", "timm", "--output", "x.pth", "--class-names", "none"),
    ("inspect", "none"),
    ("show", "none"),
    ("bench", "none"),
    ("train", "none"),
    ("train", DATA, "--from", "none.pth"),
    ("train", DATA, "--other", "none"),
    ("train", DATA, "--recipe", "none.toml"),
    ("train", "--resume", "none"),
    ("find-lr", "none"),
    ("find-lr", DATA, "--from", "none.pth"),
    ("find-lr", DATA, "--recipe", "none.toml"),
    ("doctor", "none"),
    ("shard", "none", "--output", "shards"),
    ("reproduce", "he2015-table6", "--data", "none"),
)


@pytest.mark.parametrize("words", INPUTS, ids=" ".join)
def test_an_input_that_is_not_there_is_wrong_usage_told_in_a_line(
    run: Callable[..., int], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"resnets {words[0]}: ")
    assert "none" in message
    assert message.count("\n") == 1
    assert names_in(Path.cwd()) == []


def test_a_run_is_refused_where_its_folder_cannot_be_made(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs").touch()
    assert run("train", DATA) == 2
    assert "runs" in capsys.readouterr().err


def test_predictions_go_to_a_pipe_a_device_and_a_link(
    run: Callable[..., int], tmp_path: Path
) -> None:
    os.mkfifo("pipe")
    contents: list[bytes] = []
    reader = threading.Thread(target=lambda: contents.append(Path("pipe").read_bytes()))
    reader.start()
    assert run("predict", "MODEL", "IMAGE", "--parquet", "pipe") == 0
    reader.join(timeout=300)
    (tmp_path / "received").write_bytes(contents[0])
    assert pq.read_table(tmp_path / "received").num_rows == 1
    Path("link").symlink_to("target")
    assert run("predict", "MODEL", "IMAGE", "--parquet", "link") == 0
    assert Path("link").is_symlink()
    assert pq.read_table("target").num_rows == 1
    if os.geteuid() == 0:
        os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert run("predict", "MODEL", "IMAGE", "--parquet", "null") == 0
        assert stat.S_ISCHR(Path("null").stat().st_mode)


def test_a_full_disk_is_one_line_and_exit_code_1(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    assert run("predict", "MODEL", "IMAGE", "--parquet", "/dev/full") == 1
    assert "/dev/full: No space left" in capsys.readouterr().err
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_standard_input_that_does_not_end_is_an_unreadable_image(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero here")
    monkeypatch.setattr("resnets.commands.image_words.MAX_BYTES", 3_000_000)
    with Path("/dev/zero").open(encoding="utf-8") as endless:
        monkeypatch.setattr("sys.stdin", endless)
        assert run("predict", "MODEL", "-") == 1
    assert "more than 3,000,000 bytes" in capsys.readouterr().out


def labelled_images(folder: Path, draw_noise: Callable[..., None]) -> Path:
    """Three images in each of two classes."""
    for name in ("0", "1"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            draw_noise(folder / name / f"{number}.png", seed=number + 10 * int(name))
    return folder


def refused(run: Callable[..., int], words: tuple[str, ...], output: Path) -> bool:
    """Whether a command refuses an output and leaves it as it is."""
    before = output.read_bytes()
    return run(*words, str(output)) == 2 and output.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [words for words, _ in FILES if "calibrate" not in words],  # changes it in place if one says so
    ids=lambda words: str(words)[:40],
)
def test_no_output_replaces_the_model_by_whatever_name(
    run: Callable[..., int],
    untrained: Callable[..., Path],
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "find-lr" in words:
        words = ("find-lr", DATA, "--from", MODEL, "--plot")
    model = untrained(tuple("0123456789"))
    ending = dict(FILES).get(words, ".png")
    words = tuple(str(model) if word == MODEL else word for word in words)
    Path("soft" + ending).symlink_to(model)
    Path("hard" + ending).hardlink_to(model)
    for place in (model, Path("soft" + ending), Path("hard" + ending)):
        assert refused(run, words, place)
        assert str(place) in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".png", ".parquet"])
def test_predictions_never_replace_an_image_that_is_predicted(
    run: Callable[..., int], draw_noise: Callable[..., None], ending: str
) -> None:
    data = labelled_images(Path("data"), draw_noise)
    image = data / "0/1.png"
    Path("link" + ending).symlink_to(image)
    for words in (("MODEL", str(image)), ("MODEL", str(data)), (str(data / "*/*.png"),)):
        for place in (image, Path("link" + ending)):
            assert refused(run, ("predict", *words, "--parquet"), place)


def test_an_empty_file_that_is_an_input_is_no_output(run: Callable[..., int]) -> None:
    Path("empty.png").touch()  # of no kind, so that only the look at the inputs finds it
    assert refused(run, ("predict", MODEL, "empty.png", "--parquet"), Path("empty.png"))
    assert run("predict", MODEL, "IMAGE", "--parquet", "empty.png") == 0


def test_a_picture_or_page_never_replaces_a_file_of_the_data(
    run: Callable[..., int], draw_noise: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    data = labelled_images(Path("data"), draw_noise)
    image = data / "1/2.png"
    Path("table.csv").write_text("path,label\ndata/0/0.png,a\ndata/1/2.png,b\n", encoding="utf-8")
    Path("page.html").symlink_to(image)
    Path("picture.png").hardlink_to(image)
    for source in (str(data), "table.csv"):
        for place in (image, Path("picture.png")):
            assert refused(run, ("find-lr", source, "--plot"), place)
            assert "input" in capsys.readouterr().err
        for place in (image, Path("page.html"), Path("table.csv")):
            assert refused(run, ("report", MODEL, source, "--output"), place)


@pytest.mark.parametrize(
    ("words", "ending"),
    [FILES[0], FILES[2], FILES[3], FILES[4]],
    ids=["predict", "report", "bench", "find-lr"],
)
def test_a_file_of_another_kind_is_not_replaced(
    run: Callable[..., int], words: tuple[str, ...], ending: str
) -> None:
    other = Path("notes.txt" if ending in (".html", ".parquet") else "notes.png")
    other.write_text("dear diary", encoding="utf-8")
    Path("link" + ending).symlink_to(other)
    for place in (other, Path("link" + ending)):
        assert refused(run, words, place)


def test_a_file_of_the_same_kind_is_replaced(run: Callable[..., int]) -> None:
    for _ in range(2):
        assert run("predict", MODEL, "IMAGE", "--parquet", "found") == 0
    Path("page.htm").write_text("old", encoding="utf-8")
    assert run("report", MODEL, DATA, "--compared", "0", "--output", "page.htm") == 0
    assert Path("page.htm").read_text(encoding="utf-8") != "old"


def test_a_folder_for_another_project_never_takes_the_place_of_the_model(
    run: Callable[..., int], untrained: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    model = folder / "model.safetensors"
    model.write_bytes(untrained(tuple("0123456789")).read_bytes())
    before = model.read_bytes()
    for to in ("huggingface", "timm", "triton"):
        command = "export" if to == "triton" else "convert"
        words = (command, str(model), "--to", to, "--overwrite", "--output", str(folder))
        assert run(*words) == 2
        assert model.read_bytes() == before
