"""Networks of the hub, by a server on this machine that speaks its protocol."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

import resnets
from resnets.cli import main
from resnets.data.membership import TrainedOn
from resnets.errors import UsageError
from resnets.model_file import read_description
from resnets.pretrained import hub
from resnets.pretrained.names import _synsets, class_names
from resnets.pretrained.reference import read_reference
from resnets.runs.starting_point import read_starting_point, recipe_for_start
from resnets.training.recipe import Recipe
from tests.hub_server import Fault, HubServer
from tests.pretrained.conftest import ID, files_for, filled, know_address
from tests.spread import spread


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_an_id_is_downloaded_once_and_predicts_with_the_names_of_imagenet(
    published: HubServer,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["predict", ID, str(photo), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["prediction"] in resnets.load(ID).description.class_names
    assert row["status"] == "not calibrated"
    asked = len(published.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["predict", "--model", ID, str(photo), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [row]
    assert main(["predict", "resnet10t", str(photo), "--json"]) == 0
    by_name = capsys.readouterr()
    assert json.loads(by_name.out) == [row]
    assert f"resnet10t: its recommended weights are used, {ID}" in by_name.err
    assert len(published.asked) == asked


def test_the_weights_are_the_publisher_s_and_the_header_says_where_they_are_from(
    published: HubServer, weights: dict[str, torch.Tensor]
) -> None:
    model = resnets.load(ID)
    loaded = model.network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    seen = model.description.preprocessing
    assert (seen.size, seen.resize, seen.interpolation) == (224, 235, "bicubic")
    assert model.description.class_names[0] == "tench, Tinca tinca"
    origin = model.description.origin
    assert (origin["id"], origin["licence"]) == (ID, "apache-2.0")
    assert origin["commit"] == published.repositories[f"models/{ID}"].refs["main"]
    assert len(origin["sha256"]) == 64


def test_all_files_are_of_one_commit(published: HubServer) -> None:
    """The branch may move on between two downloads."""
    resnets.load(ID)
    commit = published.repositories[f"models/{ID}"].refs["main"]
    asked = [
        path.split("/resolve/")[1].split("/")
        for _, path in published.asked
        if ID in path and "/resolve/" in path
    ]
    revisions = {file: revision for revision, file in asked}
    assert revisions["config.json"] == commit
    assert sum(revision == "main" for revision in revisions.values()) == 1


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HOME": "home", "HF_HUB_CACHE": "cache"}, "cache"),
        ({"HF_HOME": "home"}, "home/hub"),
    ],
)
def test_files_lie_where_the_libraries_of_the_hub_look_for_them(
    variables: dict[str, str],
    folder: str,
    published: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    resnets.load(ID)
    assert list((tmp_path / folder).glob("models--*/snapshots/*/model.safetensors"))


def test_a_revision_is_the_one_that_is_named(
    published: HubServer, weights: dict[str, torch.Tensor], safetensors_file: bytes
) -> None:
    first = published.repositories[f"models/{ID}"].refs["main"]
    published.add(ID, published.repositories[f"models/{ID}"].commits[first] | {"note": b""})
    newest = published.repositories[f"models/{ID}"].refs["main"]
    assert resnets.load(f"{ID}@{first}").description.origin["commit"] == first
    assert resnets.load(ID).description.origin["commit"] == newest


FAULTS = [
    ("*/config.json", Fault(401), 2, "HF_TOKEN"),
    ("*/config.json", Fault(403), 2, "agree to its terms"),
    ("/api/*", Fault(403), 2, "agree to its terms"),
    ("/api/*", Fault(500), 1, "500"),
    ("/store/*", Fault(cut=1000), 1, "broke off"),
    ("/store/*", Fault(content=b"wrong"), 1, "damaged"),
]


@pytest.mark.parametrize(("path", "fault", "code", "word"), FAULTS)
def test_what_goes_wrong_is_told_in_a_line(
    published: HubServer,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    fault: Fault,
    code: int,
    word: str,
) -> None:
    published.faults[path] = fault
    assert main(["predict", ID, str(photo)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert ID in printed.err
    assert word in printed.err


def test_a_network_or_revision_that_is_not_there_is_wrong_usage(
    published: HubServer, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        ("timm/resnet10t.none", "no such network"),
        ("timm/resnet10t.c3_in1", f"nearest: {ID}"),
    ]
    for name, word in (*cases, (f"{ID}@none", "no revision")):
        assert main(["predict", name, str(photo)]) == 2
        assert word in capsys.readouterr().err
    for name in ("hf-hub:owner", "hf-hub:a/b/c", "timm/../x", "torchvision/resnet18.NONE"):
        asked = len(published.asked)
        assert main(["predict", name, str(photo)]) == 2
        assert name in capsys.readouterr().err
        assert len(published.asked) == asked


def test_python_fetches_what_the_other_functions_then_take_offline(
    published: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = resnets.fetch(ID)
    folder = resnets.fetch(ID, to=tmp_path / "to-carry")
    with pytest.raises(UsageError, match="`overwrite"):
        resnets.fetch(ID, to=folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resnets.load(ID).description == resnets.load(file).description
    assert resnets.load(folder).description == resnets.load(file).description
    with pytest.raises(UsageError, match="nearest"):
        resnets.fetch("resnet10tt")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("resnet180", "resnet18"), ("ann/nc", "hf-hub:ann/nc"), ("rsnet10t", "resnet10t")],
)
def test_a_word_that_is_no_id_is_told_what_it_may_be_meant_for(
    name: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", name]) == 2
    assert meant in re.split(r"[ ,\n]+", capsys.readouterr().err.partition("; ")[2])


@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnet14_cifar10"])
def test_what_comes_with_the_package_needs_no_fetching(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", name]) == 0
    assert "nothing to fetch" in capsys.readouterr().out
    assert main(["fetch", name, "--to", str(tmp_path / "taken")]) == 0
    assert "nothing to fetch" not in capsys.readouterr().out  # a file is written
    assert resnets.load(tmp_path / "taken").description.class_names[0] == "airplane"


def test_a_repository_without_weights_is_told_by_their_names(
    published: HubServer, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.add("owner/renamed", {"config.json": b"{}", "net.safetensors": b""})
    assert main(["predict", "hf-hub:owner/renamed", str(photo)]) == 2
    assert "model.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("offline", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", ""])
def test_without_a_network_a_line_names_the_files_and_where_they_go(
    published: HubServer,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    offline: str,
) -> None:
    if offline:
        monkeypatch.setenv(offline, "1")
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["predict", ID, str(photo)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    for word in ("config.json", "model.safetensors", "folder", f"resnets fetch {ID}"):
        assert word in line
    assert "nearest" not in line
    assert "--from none" not in line  # only `train` has that
    assert main(["predict", f"{ID}x", str(photo)]) == 1
    assert f"nearest: {ID}" in capsys.readouterr().err  # first, and then what to do offline
    assert main(["train", "digits", "--from", ID]) == 1
    assert "--from none" in capsys.readouterr().err
    assert not published.asked


def test_a_hub_that_does_not_answer_is_asked_once_and_not_waited_for(
    published: HubServer,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(hub, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        end = threading.Timer(8, silent.close)  # or it would be waited for without end
        end.start()
        assert main(["predict", ID, str(photo)]) == 1
        end.cancel()
        assert silent.fileno() >= 0, "it was closed, not given up"
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert "is not reached" in capsys.readouterr().err


def test_fetch_repairs_a_damaged_copy(
    published: HubServer, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.faults["/store/*"] = Fault(content=b"wrong")
    assert main(["predict", ID, str(photo)]) == 1
    assert not list(hub.hub_folder().glob("models--*/blobs/*")), "what came was kept"
    published.faults.clear()
    resnets.load(ID)
    (link,) = hub.hub_folder().glob("models--*/snapshots/*/model.safetensors")
    content = bytearray(link.read_bytes())
    content[-100] ^= 1
    link.resolve().write_bytes(content)
    assert main(["predict", ID, str(photo)]) == 1
    assert f"resnets fetch {ID}" in capsys.readouterr().err
    assert main(["fetch", ID]) == 0
    assert main(["predict", ID, str(photo)]) == 0


def test_a_download_that_broke_off_is_continued_by_the_next_command(
    published: HubServer, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of files of more than 10 MiB: the hub's library writes so much at once."""
    published.faults["/store/*"] = Fault(cut=(10 << 20) + 1000, times=1)
    published.faults["/store/*/*"] = Fault(500)
    assert main(["fetch", ID]) == 1
    assert "500" in capsys.readouterr().err
    (part,) = hub.hub_folder().glob("models--*/blobs/*.incomplete")
    size = part.stat().st_size
    assert size >= 10 << 20
    published.faults.clear()
    published.ranges.clear()
    assert main(["predict", ID, str(photo)]) == 0
    assert published.ranges == [f"bytes={size}-"] * 2  # one to the hub, which names the store
    assert not part.exists()


def test_a_part_that_is_longer_than_the_file_is_begun_anew(published: HubServer) -> None:
    resnets.load(ID)
    (link,) = hub.hub_folder().glob("models--*/snapshots/*/model.safetensors")
    blob, content = link.resolve(), link.read_bytes()
    link.unlink()
    part = blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    part.write_bytes(content + content[:1000])
    assert hub.hub_files(read_reference(ID), again=True).weights.read_bytes() == content


def test_what_is_left_of_another_file_is_no_part_of_this_one(
    published: HubServer, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resnets.load(ID)
    (link,) = hub.hub_folder().glob("models--*/snapshots/*/model.safetensors")
    blob = link.resolve()
    link.unlink()
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    with blob.with_name(f"{blob.name}.incomplete").open("r+b") as file:
        file.write(b"other")
    own = blob.parents[4] / "own"
    assert own.is_dir()
    shutil.rmtree(own)
    assert main(["predict", ID, str(photo)]) == 1
    assert "damaged" in capsys.readouterr().err
    assert main(["predict", ID, str(photo)]) == 0


@pytest.mark.parametrize("damage", ["flipped", "cut off"])
def test_fetch_repairs_a_damaged_model_file_made_of_the_copy(
    damage: str,
    published: HubServer,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fetch", ID]) == 0
    place = Path(capsys.readouterr().out.splitlines()[0])
    content = bytearray(place.read_bytes())
    content[-100] ^= 1
    place.write_bytes(content[: -1000 if damage == "cut off" else None])
    published.asked.clear()
    found_at_once = damage == "cut off"  # by the header, and then it is made anew
    assert main(["predict", ID, str(photo)]) == (0 if found_at_once else 1)
    assert (f"resnets fetch {ID}" in capsys.readouterr().err) == (not found_at_once)
    assert main(["fetch", ID, "--to", str(tmp_path / "carried")]) == 0
    for model in (ID, tmp_path / "carried"):
        assert main(["predict", str(model), str(photo)]) == 0
    assert not [path for path in published.asked if "/store/" in str(path)], "downloaded again"


def test_without_a_network_fetch_takes_the_copy_of_the_cache(
    published: HubServer,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fetch", ID]) == 0
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    capsys.readouterr()
    assert main(["fetch", ID]) == 0
    assert "is not reached" in capsys.readouterr().err
    assert main(["fetch", ID, "--to", str(tmp_path / "carried")]) == 0
    assert main(["predict", str(tmp_path / "carried"), str(photo)]) == 0


def test_weights_for_non_commercial_use_need_consent_once(
    published: HubServer, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, licence = "timm/resnet18.fb_swsl_ig1b_ft_in1k", "cc-by-nc-4.0"
    published.add(name, files_for("resnet18", save(filled("resnet18")), licence))
    assert main(["predict", name, str(photo)]) == 2
    assert "--accept-licence" in capsys.readouterr().err
    assert not published.asked
    assert main(["fetch", name, "--accept-license"]) == 0
    assert licence in capsys.readouterr().out
    assert main(["predict", name, str(photo)]) == 0


def test_a_fetched_folder_is_a_model_without_a_network(
    published: HubServer,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken = tmp_path / "taken along"
    assert main(["fetch", "resnet10t", "--to", str(taken)]) == 0
    assert ID in capsys.readouterr().out
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    assert main(["inspect", str(taken), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["origin"]["id"] == ID
    assert main(["fetch", ID, "--to", str(taken)]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_with_config_json_is_a_model(
    published: HubServer,
    weights: dict[str, torch.Tensor],
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    folder = tmp_path / "from elsewhere"
    folder.mkdir()
    for file, content in files_for("resnet10t", save(weights)).items():
        (folder / file).write_bytes(content)
    if name.endswith("bin"):
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / name)
    assert main(["predict", ID, str(photo), "--json"]) == 0
    wanted = capsys.readouterr().out
    asked = len(published.asked)
    assert main(["predict", str(folder), str(photo), "--json"]) == 0
    assert capsys.readouterr().out == wanted
    assert len(published.asked) == asked
    start = read_starting_point(folder, 2)
    assert start.preprocessing == resnets.load(ID).description.preprocessing
    assert recipe_for_start(Recipe(), start, "").training_size == 176
    assert read_starting_point(folder / name, 2).preprocessing == start.preprocessing


def test_a_network_in_the_cache_is_used_without_a_request_whoever_its_owner_is(
    published: HubServer, safetensors_file: bytes
) -> None:
    published.add("owner/net", files_for("resnet10t", safetensors_file))
    model = resnets.load("hf-hub:owner/net")
    asked = len(published.asked)
    assert resnets.load("hf-hub:owner/net").description == model.description
    assert len(published.asked) == asked


def test_a_model_file_on_the_hub_is_taken_as_it_is(
    published: HubServer, untrained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = untrained(("cat", "dog"))
    published.add("owner/pets", {"model.safetensors": file.read_bytes()})
    assert resnets.load("hf-hub:owner/pets").description == read_description(file)


def test_folders_may_be_called_by_synset_ids_and_by_one_name_of_a_class(
    published: HubServer,
    tmp_path: Path,
    draw_noise: Callable[..., None],
    untrained: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Half the images are in the folder of the class that the network predicts for them."""
    draw_noise(tmp_path / "noise.png")
    assert main(["predict", ID, str(tmp_path / "noise.png"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    right = _synsets(1000)[class_names(1000).index(row["prediction"])]
    other = next(name for name in ("ant", "bee") if name not in row["prediction"].split(", "))
    for seed, synset in enumerate((right, other)):
        draw_noise(tmp_path / "data" / synset / f"{synset}.png", seed=seed)
    assert main(["evaluate", ID, str(tmp_path / "data"), "--split", "all", "--json"]) == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert (evaluation["top1"]["count"], evaluation["top1"]["total"]) == (1, 2)
    own = str(untrained((other, right)))  # knows the folders' names only
    for networks in ((ID, own), (own, ID)):
        words = ["compare", *networks, str(tmp_path / "data"), "--split", "all", "--json"]
        assert main([*words, "--latency", "0"]) == 0
        comparison = json.loads(capsys.readouterr().out)
        place = networks.index(ID)
        assert comparison[("accuracy_a", "accuracy_b")[place]]["count"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    spread(
        [
            ("explain", ID, "photo.png", "--output", "made"),
            (
                "bench",
                ID,
                "--engines",
                "eager",
                "--batch-sizes",
                "1",
                "--threads",
                "1",
                "--limit",
                "1s",
            ),
        ],
        one_value=True,
    ),
)
def test_explain_and_bench_take_an_id(
    words: tuple[str, ...], published: HubServer, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    assert main(list(words)) == 0
    assert words[0] == "bench" or list(photo.parent.glob("made/*"))


@pytest.fixture
def two_kinds(tmp_path: Path, draw_noise: Callable[..., None]) -> Path:
    """Noise in folders that are called by the ids of two of ImageNet's classes."""
    for number in range(16):
        draw_noise(tmp_path / "data" / _synsets(1000)[number % 2] / f"{number}.png", seed=number)
    return tmp_path / "data"


@pytest.mark.soak
def test_an_exported_id_predicts_as_the_id_does(
    published: HubServer, two_kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    graph, predictions = str(tmp_path / "graph.onnx"), []
    words = ["export", ID, "--to", "onnx", "--output", graph, "--data", str(two_kinds)]
    assert main(words) == 0
    for model in (ID, graph):
        capsys.readouterr()
        assert main(["predict", model, str(two_kinds), "--json"]) == 0
        predictions.append(json.loads(capsys.readouterr().out))
    for one, other in zip(*predictions, strict=True):
        assert one["prediction"] == other["prediction"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


@pytest.mark.slow
def test_a_calibrated_id_keeps_its_origin_and_its_weights(
    published: HubServer,
    weights: dict[str, torch.Tensor],
    two_kinds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = tmp_path / "own.safetensors"
    assert main(["calibrate", ID, str(two_kinds), "--output", str(own)]) == 0
    description = read_description(own)
    commit = published.repositories[f"models/{ID}"].refs["main"]
    assert (description.origin["id"], description.origin["commit"]) == (ID, commit)
    assert description.calibration["temperature"] > 1  # weights drawn at random are wrong and sure
    loaded = resnets.load(own).network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    capsys.readouterr()
    assert main(["predict", str(own), str(two_kinds), "--json"]) == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"unsure"}


@pytest.mark.soak
def test_the_report_of_an_id_names_it_and_its_licence(
    published: HubServer, two_kinds: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    assert main(["report", ID, str(two_kinds), "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    commit = published.repositories[f"models/{ID}"].refs["main"]
    assert ID in text
    assert commit in text
    assert "apache-2.0" in text


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's call
def test_an_id_is_pushed_with_its_origin_and_predicts_as_before(
    published: HubServer,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    know_address(published, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert main(["push", ID, "ann/copy"]) == 0
    repository = published.repositories["models/ann/copy"]
    card = repository.commits[repository.refs["main"]]["README.md"].decode()
    assert ID in card
    assert "license: apache-2.0" in card
    rows = []
    for model in (ID, "hf-hub:ann/copy"):
        capsys.readouterr()
        assert main(["predict", model, str(photo), "--json", "--engine", "torch"]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
@pytest.mark.parametrize("at_terminal", spread([True, False]))
def test_a_download_has_a_bar_at_a_terminal_alone(published: HubServer, at_terminal: bool) -> None:
    import pty
    import termios

    screen, inside = pty.openpty()
    termios.tcsetwinsize(inside, (24, 100))
    with os.fdopen(screen, "rb", buffering=0) as screen_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "resnets", "fetch", ID],
            stdout=subprocess.DEVNULL,
            stderr=inside if at_terminal else subprocess.PIPE,
            env=os.environ | {"HF_HUB_DISABLE_XET": "1", "TERM": "xterm"},
        )
        os.close(inside)
        shown = b""
        with contextlib.suppress(OSError):  # of a terminal that nobody writes to any more
            while part := screen_file.read(1000):
                shown += part
        errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert (b"model.safetensors: 100%" in shown) == at_terminal
    assert at_terminal or b"%" not in errors


def test_a_path_comes_before_an_id(
    published: HubServer,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ID).mkdir(parents=True)
    assert main(["inspect", ID]) == 2
    assert not published.asked


def test_what_starts_from_an_id_says_so_wherever_it_goes(
    published: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), np.uint8)
    labels = np.arange(24) % 2
    run = resnets.train(
        (pixels, labels),
        output=tmp_path / "run",
        start="resnet10t",
        epochs=1,
        batch_size=8,
        image_size=32,
        report=False,
        progress=False,
    )
    commit = published.repositories[f"models/{ID}"].refs["main"]
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))
    assert config["start"] == f"{ID}@{commit}"
    description = read_description(tmp_path / "run" / "model.safetensors")
    assert TrainedOn.from_dict(description.trained_on).origin["commit"] == commit
    assert not description.origin  # they are others by now
    assert run.description.preprocessing.mean == (0.485, 0.456, 0.406)
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert commit in capsys.readouterr().out
