"""Data sets of a hub on this machine; and without one, what the library's cache has and has not."""

import contextlib
import io
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from resnets.data.sources.opening import open_data
from resnets.errors import UsageError
from resnets.model_file import read_description
from tests.data.conftest import encode
from tests.hub_server import Fault, HubServer
from tests.processes import forked

pytest.importorskip("datasets")

PREPARE = """
import sys, datasets, numpy as np
from pathlib import Path
from datasets.packaged_modules.parquet.parquet import Parquet
from sklearn.datasets import load_digits

digits = load_digits()
names = [f"digit {n}" for n in range(10)]
features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
pixels = (digits.images * 15).astype(np.uint8)
files = {}
for name, chosen in (("train", slice(0, 200)), ("test", slice(200, 260)), ("extra", slice(0, 9))):
    content = {"image": list(pixels[chosen]), "label": digits.target[chosen]}
    files[name] = [f"{sys.argv[1]}/{name}.parquet"]
    datasets.Dataset.from_dict(content, features).to_parquet(files[name][0])
cache = datasets.config.HF_DATASETS_CACHE
Parquet(
    cache_dir=cache, dataset_name="digits_10", config_name="plain", hash="0" * 40, data_files=files
).download_and_prepare()
folder = Path(cache, "digits_10").rename(Path(cache, "someone___digits_10"))
next(folder.iterdir()).rename(folder / "plain")
"""

OPEN = """
import multiprocessing, sys
from resnets.data.sources.opening import open_data

if __name__ == "__main__":
    for source in sys.argv[1:]:
        try:
            splits = open_data(source)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
            continue
        print(len(splits.train), len(splits.validation), len(splits.test))
        print(splits.class_names[3], splits.train.names[0], *splits.warnings)
    if "splits" in globals():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            image = pool.apply(splits.train.image, (5, 1))
        print(image.shape, (image == splits.train.image(5, 1)).all())
"""


@pytest.fixture(scope="module")
def python(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., CompletedProcess[str]]:
    """Run a program that has a cache of its own and no network."""
    folder = tmp_path_factory.mktemp("hub")

    def run(program: str, *arguments: str | Path, **changes: str) -> CompletedProcess[str]:
        file = folder / "program.py"
        file.write_text(program, encoding="utf-8")
        environment: Mapping[str, str] = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "home"),
            "HF_DATASETS_CACHE": str(folder / "cache"),
            **changes,
        }
        return forked(*arguments, script=file, environment=environment)

    return run


@pytest.mark.slow
def test_a_data_set_in_the_cache_is_opened_without_a_network_and_others_are_refused(
    python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    prepared = python(PREPARE, tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    name = "hub:someone/digits_10"
    process = python(OPEN, f"{name}@other", "hub:uoft-cs/cifar10", name, f"{name}@plain")
    other, absent, *lines = process.stdout.splitlines()
    assert other.startswith(f"UsageError: {name}@other: cannot be loaded: "), process.stderr
    assert absent.startswith(
        "ContentError: hub:uoft-cs/cifar10: the hub cannot be reached, and there is no copy in the "
        "cache ("
    )
    assert absent.endswith("or download its parquet files elsewhere and pass their folder")
    assert lines == [
        "180 20 60",
        f"digit 3 {name} train[1] splits ignored: 'extra'",
        "180 20 60",
        f"digit 3 {name}@plain train[1] splits ignored: 'extra'",
        "(8, 8, 1) True",
    ], process.stderr


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_asked_once(
    python: Callable[..., CompletedProcess[str]],
) -> None:
    """Its library alone would try again and again; here every connection is closed at once."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()
                    asked.append(1)

        threading.Thread(target=hang_up, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = python(
            OPEN, "hub:uoft-cs/cifar10", HF_HUB_OFFLINE="0", HF_ENDPOINT=address, no_proxy="*"
        )
        server.shutdown(socket.SHUT_RDWR)
    assert "the hub cannot be reached, and there is no copy in the cache" in process.stdout
    assert len(asked) == 1


@pytest.mark.parametrize("source", ["hub:", "hub:../here", "hub:a/b/c", "hub:@plain"])
def test_what_cannot_be_a_name_is_refused_before_any_request(source: str) -> None:
    with pytest.raises(UsageError, match=r"not a name .*hub:uoft"):
        open_data(source)


@pytest.mark.parametrize("source", ["hub:a/b@", "hub:a/b@plain@", "hub:a/b@@v1"])
def test_an_at_sign_with_nothing_after_it_is_refused_before_any_request(source: str) -> None:
    with pytest.raises(UsageError, match=r"hub:NAME@CONFIGURATION@REVISION"):
        open_data(source)


LOOK = """
import sys
from resnets.data.sources.opening import open_source

for source in sys.argv[1:]:
    try:
        data_source = open_source(source)
        counts = {name: len(images) for name, images in data_source.content.images.items()}
        print(data_source.source, *(f"{name} {count}" for name, count in counts.items()))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def parquet(count: int, first: int) -> bytes:
    """A file of the hub with images of two classes in turn."""
    images = [{"bytes": encode(first + number), "path": None} for number in range(count)]
    labels = ["ant" if number % 2 else "bee" for number in range(count)]
    file = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": labels}), file)
    return file.getvalue()


def commit(hub: HubServer, count: int, name: str = "own/ants") -> str:
    """Commit a data set with this number of training images, earlier ones included."""
    files = {"data/train.parquet": parquet(count, 0), "data/test.parquet": parquet(4, 1000)}
    return hub.add(name, files, kind="dataset")


@pytest.mark.slow
def test_a_revision_pins_the_images_and_the_commit_is_in_the_name(
    python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    with HubServer() as hub:
        environment = hub.environment(tmp_path)
        first, second = commit(hub, 10), commit(hub, 12)
        hub.repositories["datasets/own/ants"].refs["v1"] = first
        name = "hub:own/ants"
        words = ("", "@default", "@v1", f"@{first}", f"@default@{first}", "@default@v1", "@v9")
        sources = [name + word for word in (*words, "@default@v9")]
        *read, neither, no_revision = python(LOOK, *sources, **environment).stdout.splitlines()
        old, new = "train 10 test 4", "train 12 test 4"
        assert read == [
            f"{name}@{second} {new}",
            f"{name}@default@{second} {new}",
            f"{name}@{first} {old}",
            f"{name}@{first} {old}",
            f"{name}@default@{first} {old}",
            f"{name}@default@{first} {old}",
        ]
        assert neither.startswith("UsageError: hub:own/ants@v9: 'v9' is neither")
        assert "'default'" in neither
        assert no_revision.startswith("UsageError: ")
        assert "no revision 'v9'" in no_revision
    # the hub is gone, but not the copies in the cache
    sources = [f"{name}@{first}", f"{name}@{second}", f"{name}@{'0' * 40}", f"{name}@default@v1"]
    *read, absent, tag = python(LOOK, *sources, **environment).stdout.splitlines()
    assert read == [f"{name}@{first} {old}", f"{name}@{second} {new}"]
    assert f"no copy of {'0' * 40} in the cache" in absent
    assert "no copy of v1" in tag


@pytest.mark.slow
def test_each_fault_of_the_hub_is_one_line(
    python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    words = {
        "missing": "no such data set",
        "gated": "granted access",
        "down": "500 Internal Server Error",
        "cut": "100 bytes",
    }
    with HubServer() as hub:
        for name in ("gated", "down", "cut"):
            commit(hub, 10, f"own/{name}")
        hub.faults = {
            "/api/datasets/own/gated*": Fault(403),
            "/api/datasets/own/down*": Fault(500),
            "/store/*": Fault(cut=100),
        }
        sources = [f"hub:own/{name}" for name in words]
        lines = python(LOOK, *sources, **hub.environment(tmp_path)).stdout.splitlines()
    for source, expected, line in zip(sources, words.values(), lines, strict=True):
        assert f"Error: {source}: " in line
        assert expected in line


@pytest.mark.soak
def test_a_run_that_goes_on_reads_the_commit_that_it_began_with(
    python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    small = ["--network", "resnet14", "--epochs", "1", "--image-size", "8", "--no-report"]
    main = "import sys; from resnets.cli import main; sys.exit(main(sys.argv[1:]))"
    with HubServer() as hub:
        environment = hub.environment(tmp_path / "home")
        first = commit(hub, 20)
        begun = python(main, "train", "hub:own/ants", "--output", run, *small, **environment)
        assert begun.returncode == 0, begun.stderr
        commit(hub, 24)
        resumed = python(main, "train", "--resume", run, **environment)
        assert resumed.returncode == 0, resumed.stderr
    name = f"hub:own/ants@{first}"
    description = read_description(run / "model.safetensors")
    assert description.data["source"] == name
    assert sum(description.data["counts"]["train"].values()) == 18
    assert f'data = "{name}"' in (run / "config.toml").read_text(encoding="utf-8")


IN_A_FOLDER = """
import os, sys
os.chdir(sys.argv[1])
from resnets.data.sources.opening import read_source
for source in sys.argv[2:]:
    try:
        print("read", len(read_source(source).images))
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_folder_here_is_never_read_in_place_of_the_hub(
    python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    for place in ("owner/name/train/cat", "name/train/cat", "train/cat"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / place / "0.png")
    sources = ("hub:owner/name", "hub:name", "hub:imagefolder")
    lines = python(IN_A_FOLDER, tmp_path, *sources).stdout.splitlines()
    for source, line in zip(sources, lines, strict=True):
        assert line.split()[0] in ("ContentError", "UsageError")
        assert source in line
    assert "file format" in lines[2]
