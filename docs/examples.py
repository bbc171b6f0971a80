"""Run the examples of README and docs and keep what they print, for results/figures.py.

    python docs/examples.py             all but those that measure speed
    python docs/examples.py bench       only some, by name; the commands they need run too
    python docs/examples.py notebooks   the notebooks, whose outputs are in them

What is kept is of one run on one machine: speeds, and the last digits of probabilities, are others
elsewhere. Photos, another project's checkpoint and CIFAR-10 are looked for in ../shared; examples
that need them are left as they are where it is missing.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image

from resnets.data.sources.opening import open_data
from resnets.runs.plan import Machines, Training, costs_of, plan

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
SHARED = ROOT.parent / "shared"
RESNETS = (sys.executable, "-m", "resnets")
DEMO = "resnets train digits --network resnet14 --output demo --overwrite"
AKAMASTER = "weights/akamaster_resnet20.th"
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
DEMO_LINES = ("resnet14", "epoch", "validation", "test", "Calibration", "saved", "wrote")
LEFT_OUT = re.compile(r"^epoch +(?!1/|12/|24/)\d+/24 .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A command whose output is shown.

    Attributes:
        command: as a reader types it.
        folder: where it runs; None: in the folder with the digits' runs.
        network: whether it needs the network of the example "train".
        shared: what it needs of the shared data.
        speed: whether its figures are speeds, which a busy machine spoils.
    """

    command: str
    folder: Path | None = None
    network: bool = False
    shared: str | None = None
    speed: bool = False


TABLE = {
    "train": Example(DEMO),
    "find-lr": Example("resnets find-lr digits --network resnet14"),
    "evaluate": Example("resnets evaluate demo digits", network=True),
    "predict": Example("resnets predict demo photos --top 2", network=True),
    "predict-photos": Example(
        "resnets predict n02389026_sorrel.JPEG n03796401_moving_van.JPEG "
        "n03095699_container_ship.JPEG n01582220_magpie.JPEG",
        folder=SHARED / "photos",
        shared="photos",
    ),
    "explain": Example("resnets explain demo photos", network=True),
    "compare": Example("resnets compare short demo digits --output differences", network=True),
    "doctor": Example("resnets doctor digits"),
    "calibrate": Example("resnets calibrate demo digits", network=True),
    "report": Example("resnets report demo digits", network=True),
    "export": Example("resnets export demo --to onnx --overwrite", network=True),
    "bench": Example(
        "resnets bench demo --batch-sizes 1 128 --threads 2", network=True, speed=True
    ),
    "show": Example("resnets show resnet20"),
    "list": Example("resnets list seresnet"),
    "published": Example("resnets list --pretrained --network resnet18"),
    "reproduce": Example("resnets reproduce he2015-table6 --dry-run"),
    "convert": Example(
        "resnets convert akamaster_resnet20.th --to resnets --class-names names.txt "
        "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225",
        shared=AKAMASTER,
    ),
    "plan": Example(
        "resnets plan --network resnet50 --images 1.28m --nodes 16 --gpus 8xh100 --price 2.5"
    ),
    "plan-64": Example(
        "resnets plan --network resnet50 --images 1.28m --nodes 8 --gpus 8xh100 --bandwidth 100"
    ),
    "launch": Example(
        "resnets launch photos --recipe imagenet --output run --on slurm --nodes 16 "
        "--time-limit 24h --print"
    ),
    "inspect": Example(f"resnets inspect ../shared/{AKAMASTER}", folder=ROOT, shared=AKAMASTER),
}


def run(command: str, folder: Path) -> str:
    """What a command prints, then its messages."""
    words = shlex.split(command)
    done = subprocess.run(
        [*RESNETS, *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    printed = (done.stdout + done.stderr).replace(f"{ROOT}/", "")
    if done.returncode and "photos" not in words:  # one of these photos cannot be read
        raise SystemExit(f"{command}\n{printed}")
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def prepare(folder: Path) -> None:
    """Four of the digits' test images, a broken one, and another project's checkpoint."""
    photos, test = folder / "photos", open_data("digits").test
    assert test is not None
    photos.mkdir()
    for number in range(4):
        name = f"{number}_is_{test.labels[number]}.png"
        Image.fromarray(np.asarray(test.image(number))).save(photos / name)
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(photos / "broken.jpg")
    (photos / "broken.jpg").write_bytes((photos / "broken.jpg").read_bytes()[:300])
    (folder / "names.txt").write_text("\n".join(CIFAR10.split()), encoding="utf-8")
    if (SHARED / AKAMASTER).is_file():
        shutil.copy(SHARED / AKAMASTER, folder)


def keep(name: str, folder: Path) -> None:
    """Run an example and keep what it prints."""
    example = TABLE[name]
    where = folder if example.folder is None else example.folder
    if example.shared is not None and not (SHARED / example.shared).exists():
        print(f"{name}: left as it is, {SHARED / example.shared} is missing")
        return
    printed = run(example.command, where)
    prompt = "$ "
    if name == "train":
        printed, prompt = LEFT_OUT.sub("", printed), ".venv/bin/"
        short = "".join(x for x in printed.splitlines(True) if x.startswith(DEMO_LINES))
        (EXAMPLES / "demo.txt").write_text(f"$ make demo\n{short}", encoding="utf-8")
    (EXAMPLES / f"{name}.txt").write_text(f"{prompt}{example.command}\n{printed}", encoding="utf-8")
    print(f"{name}: kept")


def keep_foreign(folder: Path) -> None:
    """Measure another project's network on CIFAR-10's test images."""
    weights, data = SHARED / AKAMASTER, SHARED / "data" / "cifar10"
    if not weights.is_file() or not data.is_dir():
        print("foreign: left as it is, ../shared is missing")
        return
    model, names = folder / "akamaster.safetensors", folder / "names.txt"
    names.write_text("\n".join(open_data(str(data)).class_names), encoding="utf-8")
    convert = f"resnets convert {weights} --to resnets --output {model} --class-names {names}"
    run(f"{convert} --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225", folder)
    evaluation = json.loads(run(f"resnets evaluate {model} {data} --split test --json", folder))
    kept = {"what": "akamaster_resnet20.th on CIFAR-10", "top1": evaluation["top1"]}
    (EXAMPLES / "foreign.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    print("foreign: kept")


def keep_notebooks(folder: Path) -> None:
    """Execute the notebooks and keep what their cells show."""
    os.environ["PYTHONPATH"] = str(ROOT)
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, resources=where, record_timing=False).execute()
        notebook.metadata.language_info = {"name": "python"}  # not the version of this machine
        nbformat.write(notebook, path)
        print(f"{path.stem}: kept")


def keep_push(folder: Path) -> None:
    """Publish the digits' network on a hub on this machine, which stands for the hub."""
    sys.path.append(str(ROOT))
    from tests.hub_server import HubServer

    command = "resnets push demo ann/digits"
    with HubServer() as hub:
        os.environ |= {**hub.environment(folder / "hub"), "HF_TOKEN": "hf_test"}
        printed = run(command, folder).replace(hub.address, "https://huggingface.co")
    (EXAMPLES / "push.txt").write_text(f"$ {command}\n{printed}", encoding="utf-8")
    print("push: kept")


@contextmanager
def started(command: str) -> Iterator[tuple[str, str]]:
    """The address of a server, and what its command printed until it took requests."""
    words = shlex.split(command)
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    with subprocess.Popen(
        [*RESNETS, *words[1:], "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        printed, address = "", None
        while address is None and (line := process.stderr.readline()):
            printed += line
            address = re.search(r"http://\S+:\d+", line)
        if address is None:
            raise SystemExit(f"{command}\n{printed}")
        try:
            yield address[0], printed
        finally:
            process.kill()


def keep_serve(_folder: Path) -> None:
    """Ask a server about a photo, and the address that `resnets demo` prints."""
    photo, command = SHARED / "photos" / "n01582220_magpie.JPEG", "resnets serve resnet20_cifar10"
    if not photo.is_file():
        print(f"serve: left as it is, {photo} is missing")
        return
    with started(command) as (address, printed):
        request = urllib.request.Request(f"{address}/predict?top=2", photo.read_bytes())
        with urllib.request.urlopen(request) as response:
            answer = json.dumps(json.load(response), indent=2)
    url = "http://127.0.0.1:8000/predict?top=2"
    asked = f"$ curl --silent --data-binary @magpie.jpg '{url}' | python3 -m json.tool"
    printed = printed.replace(address, "http://127.0.0.1:8000")
    text = f"$ {command} &\n{printed}{asked}\n{answer}\n"
    (EXAMPLES / "serve.txt").write_text(text, encoding="utf-8")
    with started("resnets demo") as (_, printed):
        (EXAMPLES / "demo-page.txt").write_text(f"$ resnets demo\n{printed}", encoding="utf-8")
    print("serve: kept")


def keep_merge(folder: Path) -> None:
    """Predict two parts of the photos, and join them before and after the second is there."""
    lines = []
    for command in (
        "resnets predict photos --part 1/2 --output parts",
        "resnets merge parts --output predictions.parquet",
        "resnets predict photos --part 2/2 --output parts",
        "resnets predict photos --part 2/2 --output parts",
        "resnets merge parts --output predictions.parquet",
    ):
        done = subprocess.run(
            [*RESNETS, *shlex.split(command)[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,  # a part is missing at first, and a photo cannot be read
        )
        lines.append(f"$ {command}\n{done.stdout}{done.stderr}")
    (EXAMPLES / "merge.txt").write_text("".join(lines), encoding="utf-8")
    print("merge: kept")


def keep_shard(folder: Path) -> None:
    """Write the digits as shards, and again."""
    command = "resnets shard digits --output shards"
    lines = [f"$ {command}\n{run(command, folder)}" for _ in range(2)]
    (EXAMPLES / "shard.txt").write_text("".join(lines), encoding="utf-8")
    print("shard: kept")


MLPERF = (  # H100s, epochs, images of a step, minutes: MLPerf Training 3.0, see docs/how-to/plan.md
    (8, 35, 3264, 13.466),
    (64, 35, 3200, 2.664),
    (512, 50, 20_480, 0.509),
)


def keep_mlperf(_folder: Path) -> None:
    """What `resnets plan` says of three of MLPerf's results."""
    costs = costs_of("resnet50", 224)
    lines = ["H100s  epochs  images of a step  MLPerf     plan       plan / MLPerf\n"]
    for gpus, epochs, batch_size, minutes in MLPERF:
        machines = Machines(gpus // 8, 8, "h100")
        estimate = 60 * plan(costs, machines, Training(1_281_167, epochs, batch_size)).hours
        cells = f"{gpus:5}  {epochs:6}  {batch_size:16,}  {minutes:6.2f} min  {estimate:6.2f} min"
        lines.append(f"{cells}  {estimate / minutes:8.2f}\n")
    (EXAMPLES / "plan-mlperf.txt").write_text("".join(lines), encoding="utf-8")
    print("plan-mlperf: kept")


OTHERS = {
    "plan-mlperf": keep_mlperf,
    "merge": keep_merge,
    "shard": keep_shard,
    "serve": keep_serve,
    "push": keep_push,
    "foreign": keep_foreign,
    "notebooks": keep_notebooks,
}


def main(names: list[str]) -> None:
    """Run the examples of these names, or all but those of speed."""
    chosen = names or [*(name for name in TABLE if not TABLE[name].speed), *OTHERS]
    unknown = set(chosen) - {*TABLE, *OTHERS}
    if unknown:
        raise SystemExit(
            f"no example {', '.join(unknown)}; there are {', '.join([*TABLE, *OTHERS])}"
        )
    EXAMPLES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        if "train" in chosen:
            keep("train", place)
        elif "push" in chosen or any(TABLE[name].network for name in chosen if name in TABLE):
            run(DEMO, place)
        if "compare" in chosen:
            run("resnets train digits --network resnet14 --epochs 12 --output short", place)
        for name in TABLE:
            if name in chosen and name != "train":
                keep(name, place)
            if name == "calibrate":  # the others show the run as it was trained
                (place / "demo" / "model-calibrated.safetensors").unlink(missing_ok=True)
        for name, keep_other in OTHERS.items():
            if name in chosen:
                keep_other(place)


if __name__ == "__main__":
    main(sys.argv[1:])
