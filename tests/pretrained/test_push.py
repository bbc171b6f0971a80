"""Networks on the hub and back, by a server on this machine that speaks its protocol."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.cli import main
from resnets.data.membership import Generation, TrainedOn
from resnets.deployment.repository import _paths_told
from resnets.errors import MissingExtra
from resnets.evaluation.report.card import CardSubject, _source_name
from resnets.images import Preprocessing
from resnets.model_file import Description, read_description, save
from resnets.model_path import calibrated_beside, find_weights
from resnets.networks import build
from resnets.pretrained.files import hub_folder
from resnets.pretrained.upload import upload
from tests.hub_server import Fault, HubServer
from tests.pretrained.conftest import ID, know_address

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's call
]
NAMES = ("ant|bee", "<i>wasp</i>")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on photos in two classes with names that Markdown would obey, with its report."""
    photos, random = tmp_path_factory.mktemp("somebody") / "photos", np.random.default_rng(0)
    for number in range(len(NAMES)):
        (photos / str(number)).mkdir(parents=True)
        for index in range(20):
            pixels = random.integers(0, 120, (16, 16, 3), np.uint8) + 130 * number
            Image.fromarray(pixels.astype(np.uint8)).save(photos / str(number) / f"{index}.png")
    table = photos / "table.csv"
    rows = [
        f'{number}/{index}.png,"{name}"' for number, name in enumerate(NAMES) for index in range(20)
    ]
    table.write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    folder = tmp_path_factory.mktemp("run")
    changes = {"epochs": 2, "batch_size": 8, "image_size": 16, "progress": False}
    resnets.train(str(table), "resnet14", output=folder / "run", **changes)
    assert main(["export", str(folder / "run"), "--to", "onnx"]) == 0
    return folder / "run"


@pytest.fixture
def hub(published: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The hub, with a token that may write."""
    know_address(published, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    return published


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image of noise, dark on one side, that a camera took lying on its side."""
    pixels = np.random.default_rng(1).integers(0, 255, (50, 60, 3), np.uint8)
    pixels[:, :20] //= 4
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"


def files(hub: HubServer, name: str = "ann/pets", branch: str = "main") -> dict[str, bytes]:
    repository = hub.repositories[f"models/{name}"]
    return dict(repository.commits[repository.refs[branch]])


@pytest.fixture
def pushed(hub: HubServer, run: Path) -> dict[str, bytes]:
    """The files of the run on the hub."""
    assert main(["push", str(run), "ann/pets"]) == 0
    return files(hub)


def test_what_was_pushed_predicts_bit_for_bit_as_before(
    hub: HubServer,
    pushed: dict[str, bytes],
    run: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert {"model.safetensors", "model.onnx", "report.html", "config.json", "README.md"} <= set(
        pushed
    )
    capsys.readouterr()
    words = [str(photo), "--json", "--engine", "torch"]
    assert main(["predict", str(run), *words]) == 0
    wanted = capsys.readouterr().out
    commit = hub.repositories["models/ann/pets"].refs["main"]
    for name in ("hf-hub:ann/pets", f"hf-hub:ann/pets@{commit}"):
        assert main(["predict", name, *words]) == 0
        assert capsys.readouterr().out == wanted
    own = run / "model.safetensors"
    assert pushed["model.safetensors"] == own.read_bytes()
    assert resnets.load("hf-hub:ann/pets").description == read_description(own)
    asked = len(hub.asked)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["predict", "hf-hub:ann/pets", *words]) == 0  # from the cache, without asking
    assert len(hub.asked) == asked


def test_what_is_made_of_a_network_on_the_hub_lies_here_and_not_in_its_cache(
    pushed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["convert", "hf-hub:ann/pets", "--to", "resnets"]) == 0
    assert calibrated_beside(find_weights("hf-hub:ann/pets")).parent == Path()
    assert [path.name for path in Path().iterdir()] == ["model-resnets.safetensors"]
    kept = {path.name for path in hub_folder().glob("models--ann--pets/snapshots/*/*")}
    assert kept <= pushed.keys()


def test_the_code_in_the_card_runs_and_agrees(
    pushed: dict[str, bytes],
    run: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.chdir(photo.parent)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(photo.parent / "cache"))
    blocks = re.findall(r"```python\n(.*?)```", pushed["README.md"].decode(), re.S)
    assert len(blocks) == 2
    capsys.readouterr()
    (wanted,) = resnets.predict(run, photo)
    for block in blocks:
        exec(compile(block, "card", "exec"), {})
        printed = capsys.readouterr().out
        assert str(wanted.prediction) in printed
        shown = float(re.findall(r"\d\.\d+", printed)[0])
        assert shown == pytest.approx(wanted.probability, abs=0.01)


def test_the_card_tells_what_the_model_file_knows(pushed: dict[str, bytes], run: Path) -> None:
    yaml = pytest.importorskip("yaml")
    card = pushed["README.md"].decode()
    about = read_description(run / "model.safetensors")
    facts = yaml.safe_load(card.split("---\n")[1])
    assert facts["library_name"] == "resnets"
    assert facts["pipeline_tag"] == "image-classification"
    top1 = about.metrics["test"]["top1"]
    (result,) = facts["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(top1["value"], abs=1e-4)
    assert f"{top1['count']}/{top1['total']}" in card
    escaped = {NAMES[0]: "ant\\|bee", NAMES[1]: "\\<i\\>wasp\\</i\\>"}
    rows = zip(about.metrics["test"]["classes"], about.class_names, strict=True)
    for (right, total), name in ((pair, escaped[name]) for pair, name in rows):
        assert re.search(rf"^\| {re.escape(name)} \|.* {right}/{total} \|$", card, re.M)
    counts = about.metrics["test"]["classes"]
    assert sum(right for right, _ in counts) == top1["count"]
    assert "Calibration error" in card
    assert "No network is protected" in card
    assert "somebody" not in card  # no folder of anybody's machine
    assert _source_name(r"C:\photos\cats") == "cats"


def test_the_card_names_the_ancestor_and_its_licence(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = {"id": ID, "licence": "apache-2.0", "commit": "c0ffee" * 6, "sha256": "ab" * 32}
    history = (
        Generation("photos", 20, unknown="not kept"),
        Generation("ImageNet-1k", unknown="no list", origin=origin),
    )
    network = build("resnet10t", num_classes=2)
    about = Description(
        network.architecture.to_dict(),
        ("cat", "dog"),
        Preprocessing(176, 176, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        trained_on=TrainedOn(history).to_dict(),
    )
    save(tmp_path / "child.safetensors", network, about)

    def lacking(file: Path, folder: Path) -> list[str]:
        raise MissingExtra("onnx is not installed")

    monkeypatch.setattr("resnets.deployment.repository._write_onnx", lacking)
    assert main(["push", str(tmp_path / "child.safetensors"), "ann/child", "--private"]) == 0
    assert hub.repositories["models/ann/child"].private
    contents = files(hub, "ann/child")
    assert not {"report.html", "model.onnx"} & set(contents)
    card = contents["README.md"].decode()
    words = (ID.replace("_", r"\_"), origin["commit"], f"base_model: {ID}", "license: apache-2.0")
    for word in (*words, "20 images of photos", "never calibrated"):
        assert word in card
    config = json.loads(contents["config.json"])
    assert config["architecture"] == "resnet10t"  # so that timm reads it, too
    assert config["label_names"] == ["cat", "dog"]


def test_branches_and_pull_requests(
    hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "hf-hub:ann/pets", "--revision", "v2", "--no-report"]) == 0
    assert "hf-hub:ann/pets@v2" in capsys.readouterr().out
    assert "model.safetensors" in files(hub, branch="v2")
    assert "report.html" not in files(hub, branch="v2")
    assert "model.safetensors" not in files(hub)
    assert resnets.load("hf-hub:ann/pets@v2").description.class_names == tuple(sorted(NAMES))
    assert main(["push", str(run), "ann/pets", "--create-pr"]) == 0
    assert "discussions/1" in capsys.readouterr().out
    assert "model.safetensors" not in files(hub)
    assert "model.safetensors" in files(hub, branch="refs/pr/1")


def test_what_a_later_push_does_not_have_is_deleted(
    hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add("ann/pets", {"report.html": b"of old", "model.onnx": b"of old", "note": b"mine"})

    def lacking(file: Path, folder: Path) -> list[str]:
        raise MissingExtra("onnx is not installed")

    monkeypatch.setattr("resnets.deployment.repository._write_onnx", lacking)
    assert main(["push", str(run), "ann/pets", "--no-report"]) == 0
    assert not {"report.html", "model.onnx"} & set(files(hub))
    assert files(hub)["note"] == b"mine"
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "paths of folders" in line)
    assert "model.safetensors" in line
    assert "report" not in line


def test_a_fault_of_the_code_is_not_called_one_of_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise TypeError("ours")

    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", wrong)
    with pytest.raises(TypeError, match="ours"):
        upload(tmp_path, "ann/pets", revision=None, pull_request=False)


def test_a_report_tells_where_its_run_lies(tmp_path: Path) -> None:
    network = build("resnet10t", num_classes=2)
    seen = Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    about = Description(network.architecture.to_dict(), ("cat", "dog"), seen)
    subject = CardSubject(about, "ann/pets", 1, onnx=True)
    commands = ("resnets train digits --recipe {}", "resnets report &#x27;{}&#x27; digits")
    for command in commands:
        for path, expected in (("run/config.toml", []), ("/home/ann/run", ["report.html"])):
            page = tmp_path / "report.html"
            page.write_text(f"<p>a / b</p><pre>{command.format(path)}</pre>", encoding="utf-8")
            lines = _paths_told(subject, page)
            assert [word for line in lines for word in line.split() if "." in word] == expected


REFUSALS = [
    ("hf_unknown", [], 2, "401"),
    ("hf_read", [], 2, "403"),
    ("", [], 2, "HF_TOKEN"),
    ("hf_test", ["--private"], 2, "public"),
    ("hf_test", ["--license", "wrong"], 2, "license"),
]


@pytest.mark.parametrize(("token", "flags", "code", "word"), REFUSALS)
def test_what_the_hub_refuses_is_told_in_a_line(
    hub: HubServer,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    token: str,
    flags: list[str],
    code: int,
    word: str,
) -> None:
    hub.add("ann/pets", {"note": b"public"})
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(["push", str(run), "ann/pets", *flags]) == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert word in line
    assert line.startswith("resnets push: ")
    assert "hf_" not in line
    assert set(files(hub)) == {"note"}


@pytest.mark.parametrize(
    ("token", "flags", "code", "word"),
    [*REFUSALS[:4], ("hf_unknown", ["--create-pr"], 2, "401")],
)
def test_who_may_not_write_learns_it_before_the_export(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    token: str,
    flags: list[str],
    code: int,
    word: str,
) -> None:
    hub.add("ann/pets", {"note": b"public"})
    monkeypatch.setenv("HF_TOKEN", token)
    network = build("resnet10t", num_classes=2)
    seen = Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    about = Description(network.architecture.to_dict(), ("cat", "dog"), seen)
    save(tmp_path / "pets.safetensors", network, about)
    monkeypatch.setattr("resnets.deployment.repository.write_repository", None)  # not called
    assert main(["push", str(tmp_path / "pets.safetensors"), "ann/pets", *flags]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line


@pytest.mark.parametrize("word", ["pets", "a/b/c", "../x", "ann/pets@v1"])
def test_a_repository_is_an_owner_and_a_name(hub: HubServer, run: Path, word: str) -> None:
    asked = len(hub.asked)
    assert main(["push", str(run), word]) == 2
    assert len(hub.asked) == asked


def test_without_a_hub_nothing_is_published_and_a_line_says_so(
    hub: HubServer,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.faults["/api/models/ann/pets/commit/main"] = Fault(500)
    assert main(["push", str(run), "ann/pets"]) == 1
    assert "500" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(run), "ann/pets"]) == 1
    assert "not reached" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["push", str(run), "ann/pets"]) == 2
