import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.in_process import call, call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "frozen.py"


def test_a_round_begins_without_a_cache_and_keeps_first_the_weights_then_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_noise: Callable[..., None]
) -> None:
    """The training is replaced by the download alone, which shows that the hub has the weights."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for number in range(4):
        draw_noise(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", seed=number)
    caches: list[tuple[bool, bool]] = []

    def run(words: list[str], env: dict[str, str], **_: object) -> CompletedProcess[str]:
        assert words[2:6] == ["resnets", "train", str(tmp_path / "photos"), "--from"]
        own = Path(env["RESNETS_CACHE"])
        caches.append((own.exists(), (own / "features").exists()))
        with monkeypatch.context() as patch:
            for name in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "RESNETS_CACHE"):
                patch.setenv(name, env[name])
            done = call("fetch", words[6])
        (own / "features").mkdir(exist_ok=True)
        return done

    monkeypatch.setattr(subprocess, "run", run)
    file = tmp_path / "frozen.json"
    words = ("--network", "resnet10t", "--rounds", "1", "--json-file", file)
    done = call_script(SCRIPT, tmp_path / "photos", *words)
    assert done.returncode == 0, done.stderr
    assert caches == [(False, False), (True, False), (True, True)]
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["images"] == 4
    assert [run["way"] for run in written["runs"]] == [
        *("from nothing", "with weights in the cache", "with features there too")
    ]
    assert all(run["seconds"] >= 0 for run in written["runs"])
