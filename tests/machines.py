"""Machines that are lost and come back: each is a torchrun of its own, with its processes."""

import json
import os
from collections import defaultdict
from pathlib import Path

RECORDING = """
import json, os, sys, time
from pathlib import Path
from resnets.cli import main
from resnets.training.parallel import from_first
from resnets.training.trainer import Trainer

update, attempt = Trainer.update, []
dies = os.environ["DIES"].split(" at ")
first_attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

def recorded(self, batch, rate):
    if not attempt:
        attempt.append(from_first(time.time()))
    process = self.batches.process
    if first_attempt and dies == [str(process.rank), str(self.step)]:
        os.kill(os.getpid(), 9)
    update(self, batch, rate)
    line = {"attempt": attempt[0], "rank": process.rank, "processes": process.world_size}
    line |= {"pid": os.getpid(), "step": self.step, "images": batch.indices.tolist()}
    with (Path(os.environ["RECORDS"]) / f"{os.getpid()}.records").open("a") as file:
        file.write(json.dumps(line) + "\\n")
    pace = Path(os.environ["RECORDS"]) / "pace"  # may change meanwhile
    slowly = float(pace.read_text() if pace.exists() else os.environ["SLOWLY"])
    time.sleep(slowly * process.rank)

Trainer.update = recorded
sys.exit(main(sys.argv[1:]))
"""  # a training that writes which images each step of each process sees


def environment(folder: Path, dies: str = "", slowly: float = 0.0) -> dict[str, str]:
    """For `RECORDING`.

    Args:
        folder: where the records go.
        dies: such as "0 at 12": this process ends itself at this step, in the first attempt.
        slowly: seconds that each step of process 1 takes longer; of process 2 twice as many ...
            A file `pace` in the folder takes its place while it is there.
    """
    own = {"RECORDS": str(folder), "DIES": dies, "SLOWLY": str(slowly), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "PYTHONPATH": str(Path(__file__).parents[1])}


def records(folder: Path) -> list[dict]:
    """What the processes have written by now, without a line that is not finished."""
    lines = (
        line for file in folder.glob("*.records") for line in file.read_text().split("\n")[:-1]
    )
    return [json.loads(line) for line in lines]


def kept(folder: Path) -> dict[int, list[int]]:
    """The images of each step, by rank, in the last attempt that took it."""
    steps: dict[int, list[dict]] = defaultdict(list)
    for record in records(folder):
        steps[record["step"]].append(record)
    images = {}
    for step, attempts in steps.items():
        last = max(record["attempt"] for record in attempts)
        parts = sorted((r["rank"], r["images"]) for r in attempts if r["attempt"] == last)
        images[step] = [image for _, part in parts for image in part]
    return images
