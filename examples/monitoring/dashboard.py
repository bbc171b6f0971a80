"""Writes grafana.json beside it: a dashboard for `resnets serve`, to be imported into Grafana.

python examples/monitoring/dashboard.py
"""

import json
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT = 8, 7  # of a panel, in units of a 24th of the page's width
_RATE = "[$__rate_interval]"
_INSTANCE = 'instance=~"$instance"'

PANELS = (  # title, unit, queries by legend
    (
        "Requests by status",
        "reqps",
        {"{{status}}": f"sum by (status) (rate(resnets_requests_total{{{_INSTANCE}}}{_RATE}))"},
    ),
    (
        "Images by status",
        "cps",
        {"{{status}}": f"sum by (status) (rate(resnets_images_total{{{_INSTANCE}}}{_RATE}))"},
    ),
    (
        "Time of a request",
        "s",
        {
            name: f"histogram_quantile({share}, sum by (le) (rate(resnets_request_seconds_bucket"
            f'{{{_INSTANCE}, path="/predict"}}{_RATE})))'
            for name, share in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
        },
    ),
    (
        "Mean time of an image by phase",
        "s",
        {
            "{{phase}}": f"sum by (phase) (rate(resnets_phase_seconds_sum{{{_INSTANCE}}}{_RATE}))"
            f" / sum by (phase) (rate(resnets_phase_seconds_count{{{_INSTANCE}}}{_RATE}))"
        },
    ),
    (
        "Mean size of a batch",
        "short",
        {
            "{{model}}": f"sum by (model) (rate(resnets_batch_images_sum{{{_INSTANCE}}}{_RATE}))"
            f" / sum by (model) (rate(resnets_batch_images_count{{{_INSTANCE}}}{_RATE}))"
        },
    ),
    (
        "Images in the server, and how many may be",
        "short",
        {
            "in the server": f"sum(resnets_places_taken{{{_INSTANCE}}})",
            "wait for a batch": f"sum(resnets_waiting_images{{{_INSTANCE}}})",
            "limit": f'sum(resnets_limit{{{_INSTANCE}, name="queue"}})',
        },
    ),
    (
        "Share of predictions by status",
        "percentunit",
        {
            "{{status}}": "sum by (status) (rate(resnets_images_total"
            f'{{{_INSTANCE}, status!="unreadable"}}{_RATE})) / ignoring(status) group_left '
            f'sum(rate(resnets_images_total{{{_INSTANCE}, status!="unreadable"}}{_RATE}))'
        },
    ),
    (
        "Median confidence",
        "percentunit",
        {
            "{{model}}": "histogram_quantile(0.5, sum by (model, le) "
            f"(rate(resnets_confidence_bucket{{{_INSTANCE}}}{_RATE})))"
        },
    ),
    (
        "Drift of the embeddings",
        "short",
        {"{{model}}": f"max by (model) (resnets_drift{{{_INSTANCE}}})"},
    ),
    (
        "Images that cannot be read, by reason",
        "cps",
        {
            "{{kind}}": "sum by (kind) "
            f"(rate(resnets_unreadable_images_total{{{_INSTANCE}}}{_RATE}))"
        },
    ),
    (
        "Resident memory",
        "bytes",
        {"{{instance}}": f"sum by (instance) (resnets_resident_memory_bytes{{{_INSTANCE}}})"},
    ),
    (
        "Models",
        "short",
        {
            "{{model}} {{digest}} {{engine}} {{precision}}": "count by (model, digest, engine, "
            f"precision) (resnets_model{{{_INSTANCE}}})"
        },
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's JSON model has it."""
    return {
        "title": "resnets serve",
        "uid": "resnets-serve",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_DATA_SOURCE, _INSTANCES]},
        "panels": [_panel(place, *panel) for place, panel in enumerate(PANELS)],
    }


_DATA_SOURCE = {"name": "datasource", "type": "datasource", "query": "prometheus"}
_INSTANCES = {
    "name": "instance",
    "type": "query",
    "datasource": {"type": "prometheus", "uid": "${datasource}"},
    "query": "label_values(resnets_ready, instance)",
    "includeAll": True,
    "multi": True,
    "refresh": 2,
}


def _panel(place: int, title: str, unit: str, queries: dict[str, str]) -> dict[str, Any]:
    """A panel with lines, three in a row."""
    columns = 24 // _WIDTH
    x, y = place % columns * _WIDTH, place // columns * _HEIGHT
    return {
        "id": place + 1,
        "title": title,
        "type": "timeseries",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "expr": query, "legendFormat": legend}
            for n, (legend, query) in enumerate(queries.items())
        ],
    }


if __name__ == "__main__":
    text = json.dumps(dashboard(), indent=1)
    Path(__file__).with_name("grafana.json").write_text(text + "\n", encoding="utf-8")
