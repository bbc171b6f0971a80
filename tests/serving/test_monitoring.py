"""The dashboard and the alerts ask for metrics that the server has, by labels that they have."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import image_bytes

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
METRIC = re.compile(r"resnets_\w+")


def test_each_metric_that_is_asked_for_exists(serving: Callable[..., Any]) -> None:
    client = serving()
    client.post("/predict", content=image_bytes())
    client.post("/predict", content=b"%PDF")
    there = set(METRIC.findall(client.get("/metrics").text))
    asked = set(METRIC.findall((FOLDER / "alerts.yaml").read_text(encoding="utf-8")))
    panels = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))["panels"]
    for panel in panels:
        for target in panel["targets"]:
            asked |= set(METRIC.findall(target["expr"]))
    assert len(asked) > 10
    assert not asked - there


def test_the_dashboard_is_what_its_script_writes(tmp_path: Path) -> None:
    script = tmp_path / "dashboard.py"
    shutil.copy(FOLDER / "dashboard.py", script)
    subprocess.run([sys.executable, script], check=True)
    written = (tmp_path / "grafana.json").read_text(encoding="utf-8")
    assert written == (FOLDER / "grafana.json").read_text(encoding="utf-8")


def promtool(*words: object) -> None:
    """Run promtool, or skip."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool (of Prometheus) is not installed")
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_alerts() -> None:
    promtool("check", "rules", FOLDER / "alerts.yaml")


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    panels = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [
        {"record": f"panel:{n}", "expr": query.replace("$__rate_interval", "5m")}
        for n, query in enumerate(queries)
    ]
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", file)


def test_promtool_accepts_the_metrics(serving: Callable[..., Any]) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (of Prometheus) is not installed")
    client = serving()
    client.post("/predict", content=image_bytes())
    text = client.get("/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
